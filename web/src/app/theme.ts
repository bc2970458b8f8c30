// Light, dark, or as the system says. Kept in this browser.

import { effect, signal } from '@preact/signals';

export type Theme = 'system' | 'light' | 'dark';

export const theme = signal<Theme>(read());

function read(): Theme {
  const t = get('theme');
  return t === 'light' || t === 'dark' ? t : 'system';
}

effect(() => {
  const t = theme.value;
  if (t === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = t;
  set('theme', t);
});

/** Reads what this browser keeps; "" where it keeps nothing or is not allowed to. */
export function get(name: string): string {
  try { return localStorage.getItem(`coven.${name}`) ?? ''; } catch { return ''; }
}

export function set(name: string, value: string): void {
  try {
    if (value) localStorage.setItem(`coven.${name}`, value);
    else localStorage.removeItem(`coven.${name}`);
  } catch { /* private windows keep nothing */ }
}
