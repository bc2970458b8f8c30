// How the pages of the administration get what they show.

import { useEffect, useRef, useState } from 'preact/hooks';
import { api, reason } from '../app/api';
import { part, type Query } from '../app/base';
import { navigate, path, search } from '../app/router';
import { Button, Select } from '../ui/basic';
import { text } from '../text/en';

const t = text.inspect;

export interface Loaded<T> { data: T | undefined; error: string; reload: () => void }

/** What a request brings; asked for anew when one of the keys is another one, and every so many milliseconds. */
export function useLoad<T>(load: () => Promise<T>, keys: unknown[], every = 0): Loaded<T> {
  const [state, set] = useState<{ data?: T; error: string }>({ error: '' });
  const [round, again] = useState(0);
  useEffect(() => {
    let here = true;
    load().then((data) => here && set({ data, error: '' }), (err) => here && set((s) => ({ ...s, error: reason(err) })));
    return () => { here = false; };
  }, [...keys, round]);
  useEffect(() => {
    if (!every) return;
    const i = setInterval(() => { if (!document.hidden) again((n) => n + 1); }, every);
    return () => clearInterval(i);
  }, [every]);
  return { data: state.data, error: state.error, reload: () => again((n) => n + 1) };
}

interface Page { has_more: boolean; next_cursor?: string }

/** A list that comes in pages, with what asks for the next one. */
export function useList<R>(address: string, key: string, query: Query = {}): { rows: R[] | undefined; error: string; more: (() => void) | undefined; reload: () => void } {
  const [rows, setRows] = useState<R[]>();
  const [error, setError] = useState('');
  const [next, setNext] = useState<string>();
  const [round, again] = useState(0);
  const current = useRef(0);
  const read = async (cursor: string | undefined, before: R[]) => {
    const mine = ++current.current;
    try {
      const page = await api.get<Page & Record<string, R[]>>(address, { ...query, cursor });
      if (mine !== current.current) return;
      setRows([...before, ...(page[key] as R[])]);
      setNext(page.has_more ? page.next_cursor : undefined);
      setError('');
    } catch (err) {
      if (mine === current.current) setError(reason(err));
    }
  };
  useEffect(() => {
    setRows(undefined);
    setNext(undefined);
    if (address) void read(undefined, []);
    else { setRows([]); setError(''); }
    return () => { current.current++; };
  }, [address, JSON.stringify(query), round]);
  return { rows, error, more: next ? () => void read(next, rows ?? []) : undefined, reload: () => again((n) => n + 1) };
}

/** Why something is not shown, and what to do. */
export function Failed({ error, retry }: { error: string; retry: () => void }) {
  return error ? <div class="failed" role="alert"><p>{error}</p><Button icon="retry" onClick={retry}>{t.again}</Button></div> : null;
}

/** The button below a list that goes on. */
export function More({ more }: { more: (() => void) | undefined }) {
  return more ? <div class="row"><Button onClick={more}>{t.more}</Button><small>{t.moreHint}</small></div> : null;
}

/** A moment in the reader's time; the exact one is its title. */
export function When({ at }: { at?: string | null }) {
  if (!at || at.startsWith('0001')) return <span class="soft">–</span>;
  return <time dateTime={at} title={at} class="nowrap">{new Date(at).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })}</time>;
}

/** A value of the query of this page, which others can be given a link to. */
export function asked(name: string): string {
  return new URLSearchParams(search.value).get(name) ?? '';
}

/** Changes values of the query of this page. */
export function ask(values: Record<string, string>): void {
  const q = new URLSearchParams(search.peek());
  for (const [name, value] of Object.entries(values)) {
    if (value) q.set(name, value);
    else q.delete(name);
  }
  const s = q.toString();
  navigate(path.peek() + (s ? `?${s}` : ''), true);
}

interface Agent { id: string; name?: string }

/** Every agent that is connected or owned, by id. */
export async function allAgents(): Promise<Agent[]> {
  const [here, owned] = await Promise.all([api.get<Agent[]>('api/agents'), api.get<{ agents: Agent[] }>('api/admin/agents', { limit: 500 })]);
  return [...new Map([...owned.agents, ...here].map((a) => [a.id, a])).values()].sort((a, b) => (a.id < b.id ? -1 : 1));
}

/** Chooses an agent, or all. */
export function AgentFilter({ value, onChange, all = t.allAgents }: { value: string; onChange: (id: string) => void; all?: string }) {
  const { data } = useLoad(allAgents, []);
  const list = data ?? [];
  const options = value && !list.some((a) => a.id === value) ? [{ id: value }, ...list] : list;
  return <Select label={t.agent} value={value} options={[{ value: '', label: all }, ...options.map((a) => ({ value: a.id, label: a.id }))]} onChange={(e) => onChange(e.currentTarget.value)} />;
}

export function AgentLink({ id }: { id: string }) {
  return id ? <a href={`admin/agents/${part(id)}`} class="break">{id}</a> : <span class="soft">–</span>;
}

/** Gives the browser a file. */
export function download(name: string, type: string, content: string): void {
  const a = document.createElement('a');
  a.href = URL.createObjectURL(new Blob([content], { type }));
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 10_000);
}

/** A table as CSV. What a spreadsheet would take for a formula is text. */
export function csv(rows: (string | number)[][]): string {
  const cell = (v: string | number) => {
    const s = typeof v === 'string' && /^[=+\-@\t\r]/.test(v) ? `'${v}` : String(v);
    return /[",\r\n]/.test(s) ? `"${s.replace(/"/g, '""')}"` : s;
  };
  return rows.map((r) => r.map(cell).join(',') + '\r\n').join('');
}

/** JSON for people; anything else as it is. */
export function pretty(s: unknown): string {
  try { return JSON.stringify(typeof s === 'string' ? JSON.parse(s) : s, null, 2); } catch { return String(s); }
}
