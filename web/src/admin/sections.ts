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

const t = text.admin;

export const sections: { title: string; sections: Section[] }[] = [
  { title: t.groups.now, sections: [] },
  { title: t.groups.who, sections: [] },
  { title: t.groups.tools, sections: [] },
  { title: t.groups.record, sections: [] },
  { title: t.groups.gateway, sections: [] },
];
