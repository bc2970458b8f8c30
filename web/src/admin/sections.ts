// What the administration consists of: a line for each page.

import type { ComponentType } from 'preact';
import { text } from '../text/en';

/** What a page of the administration is given: what follows its name in the address, "" for nothing. */
export interface SectionProps { id: string }

export interface Section {
  /** admin/{name} is its address; "" is the first page. */
  name: string;
  title: string;
  load: () => Promise<{ default: ComponentType<SectionProps> }>;
}

const t = text.admin, m = text.manage.titles, i = text.inspect;

export const sections: { title: string; sections: Section[] }[] = [
  { title: t.groups.now, sections: [
    { name: '', title: m.dashboard, load: () => import('./dashboard') },
    { name: 'agents', title: m.agents, load: () => import('./agents') },
    { name: 'waiting', title: i.waiting.title, load: () => import('./waiting') },
    { name: 'bindings', title: m.bindings, load: () => import('./bindings') },
  ] },
  { title: t.groups.who, sections: [
    { name: 'users', title: m.users, load: () => import('./users') },
    { name: 'principals', title: m.principals, load: () => import('./principals') },
    { name: 'tokens', title: m.tokens, load: () => import('./tokens') },
    { name: 'devices', title: m.devices, load: () => import('./devices') },
    { name: 'secrets', title: m.secrets, load: () => import('./secrets') },
    { name: 'audit', title: m.audit, load: () => import('./audit') },
  ] },
  { title: t.groups.tools, sections: [
    { name: 'tools', title: i.tools.page, load: () => import('./tools') },
  ] },
  { title: t.groups.record, sections: [
    { name: 'threads', title: i.threads.title, load: () => import('./threads') },
    { name: 'records', title: i.records.title, load: () => import('./records') },
    { name: 'usage', title: i.usage.title, load: () => import('./usage') },
  ] },
  { title: t.groups.gateway, sections: [
    { name: 'health', title: i.gateway.health, load: () => import('./health') },
    { name: 'settings', title: i.gateway.settings, load: () => import('./settings') },
  ] },
];
