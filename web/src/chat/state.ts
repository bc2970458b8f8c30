// What the chat knows beside the thread that is shown: agents, threads, who is there.

import { computed, signal } from '@preact/signals';
import { api } from '../app/api';
import { get, set } from '../app/theme';

export interface Agent { id: string; name: string; connected: boolean; working_dir: string; backend: string; open_turns: number }
export interface Thread { id: string; agent_id: string; title: string; frontend: string; created_at: string; updated_at: string; turns: number; archived: boolean }
interface Threads { threads: Thread[]; has_more: boolean; next_cursor?: string }

/** How often the lists are looked at while somebody sees the page, in milliseconds. */
const interval = 4000;
/** Threads of one page of the list. */
const pageSize = 50;

export const agents = signal<Agent[] | undefined>(undefined);
export const threads = signal<Thread[] | undefined>(undefined);
export const moreThreads = signal('');
export const archive = signal(false);
/** The agent a new conversation is begun with. */
export const chosen = signal(get('agent'));

export const online = computed(() => new Set((agents.value ?? []).filter((a) => a.connected).map((a) => a.id)));

/** What a person calls an agent. */
export function agentName(id: string): string { return agents.value?.find((a) => a.id === id)?.name || id; }

export function choose(id: string): void { chosen.value = id; set('agent', id); }

// How far this browser has read, by thread: the time of its last change that was on the screen.
const seen: Record<string, string> = (() => { try { return JSON.parse(get('seen') || '{}') as Record<string, string>; } catch { return {}; } })();
const seenChanged = signal(0);
/** How many threads a browser remembers to have read. */
const mostSeen = 500;

/** Notes that a thread was read as it is now. */
export function read(t: Thread): void {
  if ((seen[t.id] ?? '') >= t.updated_at) return;
  seen[t.id] = t.updated_at;
  for (const id of Object.keys(seen).sort((a, b) => (seen[a]! < seen[b]! ? -1 : 1)).slice(0, -mostSeen)) delete seen[id];
  set('seen', JSON.stringify(seen));
  seenChanged.value++;
}

/** Whether something has happened in a thread since it was read here. */
export function unread(t: Thread): boolean {
  return seenChanged.value >= 0 && seen[t.id] !== undefined && seen[t.id]! < t.updated_at;
}

export async function loadThreads(): Promise<void> {
  const wanted = archive.peek();
  const list = await api.get<Threads>('api/threads', { limit: pageSize, archived: wanted });
  if (wanted !== archive.peek()) return;
  const old = threads.peek() ?? [];
  const fresh = new Set(list.threads.map((t) => t.id));
  const last = list.threads.at(-1);
  // Pages that were asked for before stay, as long as they are behind this one.
  const rest = last && list.has_more && old.length > pageSize ? old.filter((t) => !fresh.has(t.id)) : [];
  threads.value = [...list.threads, ...rest];
  if (rest.length === 0) moreThreads.value = list.has_more ? list.next_cursor ?? '' : '';
}

export async function loadMoreThreads(): Promise<void> {
  const list = await api.get<Threads>('api/threads', { limit: pageSize, archived: archive.peek(), cursor: moreThreads.peek() });
  const have = new Set((threads.peek() ?? []).map((t) => t.id));
  threads.value = [...(threads.peek() ?? []), ...list.threads.filter((t) => !have.has(t.id))];
  moreThreads.value = list.has_more ? list.next_cursor ?? '' : '';
}

interface Pending { thread_id: string; agent_id: string }

/** Where somebody waits for an answer of ours, by thread. */
export const pending = signal<Map<string, number>>(new Map());

async function loadPending(): Promise<void> {
  const [a, q] = await Promise.all([api.get<{ approvals: Pending[] }>('api/approvals'), api.get<{ questions: Pending[] }>('api/questions')]);
  const found = new Map<string, number>();
  for (const x of [...a.approvals, ...q.questions]) found.set(x.thread_id, (found.get(x.thread_id) ?? 0) + 1);
  if (JSON.stringify([...found]) !== JSON.stringify([...pending.peek()])) pending.value = found;
}

export async function loadAgents(): Promise<void> {
  agents.value = await api.get<Agent[]>('api/agents');
}

let timer = 0;

/** Looks at the lists now, and then again and again until the function that is returned is called. */
export function watch(): () => void {
  const tick = async () => {
    clearTimeout(timer);
    if (!document.hidden) {
      try { await Promise.all([loadAgents(), loadThreads(), loadPending()]); } catch { /* the frame says that the gateway is away */ }
    }
    if (on) timer = setTimeout(tick, interval) as unknown as number;
  };
  let on = true;
  const visible = () => { if (!document.hidden) void tick(); };
  document.addEventListener('visibilitychange', visible);
  void tick();
  return () => { on = false; clearTimeout(timer); document.removeEventListener('visibilitychange', visible); };
}
