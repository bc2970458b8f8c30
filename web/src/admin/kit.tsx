// What the pages of the administration share: loading, acting, dialogs with fields, and small signs.

import type { ComponentChildren } from 'preact';
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { api, reason } from '../app/api';
import type { Query } from '../app/base';
import { Badge, Button, Copy, Empty, type Tone } from '../ui/basic';
import { Dialog } from '../ui/dialog';
import { toast } from '../ui/toast';
import { text } from '../text/en';

const t = text.manage;

/** How often a page that is seen is brought up to date, in milliseconds. */
export const live = 5000;
/** The most rows that a table asks for; beyond them it says that there are more. */
const mostRows = 5000, rowsAtOnce = 500;

export interface Loaded<T> { data: T | undefined; error: string; reload: () => Promise<void> }

/** Loads what a page shows, again when key changes and, with every, all so many milliseconds while it is seen. */
export function useLoad<T>(load: () => Promise<T>, key = '', every = 0): Loaded<T> {
  const [state, set] = useState<{ key: string; data?: T; error: string }>({ key, error: '' });
  const wanted = useRef(key), last = useRef(load), run = useRef(0);
  wanted.current = key;
  last.current = load;
  const reload = useCallback(async () => {
    const mine = ++run.current, of = wanted.current;
    try {
      const data = await last.current();
      if (mine === run.current) set({ key: of, data, error: '' });
    } catch (err) {
      if (mine === run.current) set((s) => ({ key: of, data: s.key === of ? s.data : undefined, error: reason(err) }));
    }
  }, []);
  useEffect(() => {
    void reload();
    if (!every) return () => { run.current++; };
    const timer = setInterval(() => { if (!document.hidden) void reload(); }, every);
    return () => { clearInterval(timer); run.current++; };
  }, [key, every]);
  return { data: state.key === key ? state.data : undefined, error: state.error, reload };
}

/** All rows of a list that comes in pages with cursors. */
export async function all<T>(path: string, name: string, query: Query = {}): Promise<T[]> {
  const rows: T[] = [];
  for (let cursor: string | undefined; rows.length < mostRows;) {
    const page = await api.get<Record<string, unknown>>(path, { ...query, limit: rowsAtOnce, cursor });
    rows.push(...page[name] as T[]);
    cursor = page.next_cursor as string | undefined;
    if (!page.has_more || !cursor) break;
  }
  return rows;
}

/** Does something, says that it was done or why not, and brings the page up to date. */
export async function act(what: () => Promise<unknown>, done: string, then?: () => unknown): Promise<boolean> {
  try {
    await what();
  } catch (err) {
    toast(reason(err), 'bad');
    return false;
  }
  await finished(done, then);
  return true;
}

/** Says that something was done, and brings the page up to date. */
async function finished(what: string, then?: () => unknown): Promise<void> {
  toast(what, 'good');
  await then?.();
}

export { finished as done };

/** What a page shows where it could not be loaded, or an explanation above it. */
export function Trouble({ of }: { of: Loaded<unknown> }) {
  if (!of.error) return null;
  return <div class="notice bad" role="alert"><span>{of.error}</span><Button icon="retry" onClick={() => void of.reload()}>{t.tryAgain}</Button></div>;
}

export function Notice({ tone = 'warn', children }: { tone?: 'warn' | 'bad' | 'good'; children: ComponentChildren }) {
  return <div class={`notice ${tone}`}><span>{children}</span></div>;
}

/** A time, as far away as it is; its whole date is the tooltip. */
export function When({ at, never = t.never }: { at?: string; never?: string }) {
  if (!at) return <span class="soft">{never}</span>;
  const d = new Date(at);
  return <time dateTime={at} title={d.toLocaleString('en')}>{ago(d)}</time>;
}

const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });

export function ago(d: Date): string {
  const s = (d.getTime() - Date.now()) / 1000;
  for (const [unit, n] of [['day', 86400], ['hour', 3600], ['minute', 60]] as const) {
    if (Math.abs(s) >= n) return Math.abs(s) > 60 * 86400 ? d.toLocaleDateString('en', { year: 'numeric', month: 'short', day: 'numeric' }) : relative.format(Math.round(s / n), unit);
  }
  return s > 0 ? t.inAMoment : t.justNow;
}

/** An id: what fits of it, all of it in the tooltip and on the clipboard. */
export function Id({ of, copy = true }: { of: string; copy?: boolean }) {
  if (!of) return <span class="soft">–</span>;
  return <span class="id"><code title={of}>{of}</code>{copy && <Copy value={() => of} label={t.copyId} />}</span>;
}

const tones: Record<string, Tone> = {
  approved: 'good', online: 'good', open: 'good', pending: 'warn', revoked: 'bad', denied: 'bad', disabled: 'bad', expired: 'neutral', used: 'neutral', offline: 'neutral', queued: 'warn',
};

export function State({ is }: { is: string }) { return <Badge tone={tones[is] ?? 'neutral'}>{t.states[is] ?? is}</Badge>; }

export function Words({ of, none = '–' }: { of?: string[]; none?: string }) {
  return of?.length ? <span class="words">{of.map((w) => <Badge key={w}>{w}</Badge>)}</span> : <span class="soft">{none}</span>;
}

/** Names and values below each other. */
export function Facts({ rows }: { rows: [string, ComponentChildren][] }) {
  return <dl class="facts">{rows.map(([k, v]) => <div key={k}><dt>{k}</dt><dd>{v}</dd></div>)}</dl>;
}

/** The way from a detail back to its list. */
export function Back({ to, children }: { to: string; children: ComponentChildren }) {
  return <p class="back"><a href={`admin/${to}`}>← {children}</a></p>;
}

export function Missing({ to, of }: { to: string; of: Loaded<unknown> }) {
  return <Empty icon="question" title={of.error || t.notFound}><a href={`admin/${to}`}>{t.toList}</a></Empty>;
}

/** A dialog with fields. It stays, and says why, when the gateway does not agree. */
export function FormDialog({ title, action, danger, wide, onClose, onSubmit, children }: { title: string; action: string; danger?: boolean; wide?: boolean; onClose: () => void; onSubmit: () => Promise<unknown>; children: ComponentChildren }) {
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const submit = async (e: Event) => {
    e.preventDefault();
    setBusy(true);
    setError('');
    try {
      await onSubmit();
    } catch (err) {
      setError(reason(err));
    }
    setBusy(false);
  };
  return (
    <Dialog title={title} open onClose={onClose} wide={wide}>
      <form class="stack" onSubmit={(e) => void submit(e)}>
        {children}
        {error && <p class="field-error" role="alert">{error}</p>}
        <div class="form-end"><Button onClick={onClose}>{text.app.cancel}</Button><Button kind={danger ? 'danger' : 'primary'} type="submit" busy={busy}>{action}</Button></div>
      </form>
    </Dialog>
  );
}

/** Something that is shown once and never again. */
export function Once({ title, why, value, onClose }: { title: string; why: string; value: string; onClose: () => void }) {
  return (
    <Dialog title={title} open onClose={onClose} actions={<Button kind="primary" onClick={onClose}>{t.haveIt}</Button>}>
      <p>{why}</p>
      <div class="once"><code>{value}</code><Copy value={() => value} /></div>
    </Dialog>
  );
}

/** The lives that tokens and invites are offered with, in seconds. */
export function lives(...days: number[]): { value: string; label: string }[] {
  return days.map((d) => ({ value: String(d * 86400), label: d < 1 ? t.hours(d * 24) : t.days(d) }));
}

export interface Principal {
  id: string; type: string; display_name: string; status: string; online: boolean; roles: string[]; capabilities: string[];
  created_at: string; created_by: string; last_seen?: string; keys?: Key[]; agents?: string[];
}
export interface Key { fingerprint: string; comment: string; added_at: string; added_by: string; last_used?: string }

export const principals = () => all<Principal>('api/admin/principals', 'principals');

/** Principals by id, for the names of those that other lists mention. */
export function useNames(): (id: string) => string {
  const { data } = useLoad(principals, 'names');
  const names = new Map((data ?? []).map((p) => [p.id, p.display_name || p.id]));
  return (id) => names.get(id) ?? id;
}

/** A principal by its name, with the way to it. */
export function Who({ id, name }: { id: string; name: (id: string) => string }) {
  return id ? <a href={`admin/principals/${encodeURIComponent(id)}`} title={id}>{name(id)}</a> : <span class="soft">–</span>;
}
