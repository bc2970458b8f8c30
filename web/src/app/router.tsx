// Addresses and pages. A page is a module with a default export, loaded when it is needed first.

import { computed, signal } from '@preact/signals';
import type { ComponentType } from 'preact';
import { base } from './base';
import { text } from '../text/en';
import { lazy } from './lazy';

/** What a page is given: the parts of its path that vary. */
export interface PageProps { params: Record<string, string> }

type Loader = () => Promise<{ default: ComponentType<PageProps> }>;

interface Route { pattern: RegExp; names: string[]; page: ComponentType<PageProps> }

const routes: Route[] = [];

/** Adds a page. In the path, {name} stands for a part and {name...} for the rest. */
export function route(path: string, load: Loader): void {
  const names: string[] = [];
  const pattern = path.replace(/[.]/g, '\\.').replace(/\{(\w+)(\\\.\\\.\\\.)?\}/g, (_, name: string, rest?: string) => {
    names.push(name);
    return rest ? '(.*)' : '([^/]+)';
  });
  routes.push({ pattern: new RegExp(`^${pattern}/?$`), names, page: lazy(load) });
}

function here(): string {
  const p = location.pathname;
  return '/' + (p.startsWith(base.pathname) ? p.slice(base.pathname.length) : p.slice(1));
}

/** The path of the page that is shown, without what a proxy puts before it. */
export const path = signal(here());
/** The query of the address. */
export const search = signal(location.search);

/** The page that is shown. */
export const current = computed(() => {
  for (const r of routes) {
    const m = r.pattern.exec(path.value);
    if (m) return { page: r.page, params: Object.fromEntries(r.names.map((n, i) => [n, decodeURIComponent(m[i + 1] ?? '')])) };
  }
  return { page: NotFound, params: {} as Record<string, string> };
});

function NotFound() {
  return <main class="center"><h1>{text.errors.noPage}</h1><p><a href="./">{text.app.toChat}</a></p></main>;
}

/** Shows another page. With replace, the one that is shown is no step of its own on the way back. */
export function navigate(to: string, replace = false): void {
  const u = new URL(to.replace(/^\//, ''), base);
  if (u.href !== location.href) history[replace ? 'replaceState' : 'pushState'](null, '', u);
  arrived();
}

function arrived() {
  const before = path.peek();
  path.value = here();
  search.value = location.search;
  if (before !== path.peek()) document.title = text.app.name;
}

addEventListener('popstate', arrived);

// Links of these pages do not load them again.
addEventListener('click', (e) => {
  if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
  const a = (e.target as Element).closest?.('a');
  if (!a || a.target || a.hasAttribute('download') || a.origin !== base.origin || !a.pathname.startsWith(base.pathname)) return;
  const to = a.pathname.slice(base.pathname.length);
  if (/^(api|static|mcp|metrics|health)(\/|$)/.test(to)) return;
  e.preventDefault();
  navigate(to + a.search);
});
