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

const t = text.admin, i = text.inspect;

export const sections: { title: string; sections: Section[] }[] = [
  { title: t.groups.now, sections: [
    { name: 'waiting', title: i.waiting.title, load: () => import('./waiting') },
  ] },
  { title: t.groups.who, sections: [] },
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
