// One thread as it is and as it goes on. The page keeps the number of the last event it has seen, and asks for
// what follows it: after a lost connection, a sleep or a restart of the gateway nothing is lost or doubled.

import { batch, signal, type Signal } from '@preact/signals';
import { api, ApiError, reachable, reason } from '../app/api';
import { part, url } from '../app/base';
import { whoami } from '../app/session';
import { apply, names, newTurn, type Event, type Turn } from './events';

interface Page { events: Event[]; next: number; has_more: boolean; head: number }
interface Turns { turns: { request_id: string; first_seq: number }[]; has_more: boolean; next_cursor?: string }

/** How often the page shows what has come, in milliseconds. */
const interval = 50;
/** How many turns are loaded at once, and how many events in one request. */
const pageOfTurns = 15, pageOfEvents = 1000;
/** After how long a page that nobody sees gives its connection up, in milliseconds: browsers allow six. */
const hiddenFor = 10_000;
/** The pause before a stream that broke is opened again, in milliseconds: at first, and at most. */
const firstPause = 500, mostPause = 10_000;

/** What a thread consists of. A turn's signal changes when something of it is to be shown anew. */
export class Feed {
  readonly turns = signal<Signal<Turn>[]>([]);
  readonly loading = signal(true);
  readonly more = signal(false); // there are earlier turns
  readonly connected = signal(true);
  readonly gone = signal(false); // the thread was deleted
  readonly removed = signal(false); // events of it were removed
  readonly failure = signal('');

  private byID = new Map<string, Signal<Turn>>();
  private dirty = new Set<string>();
  private timer = 0;
  private position = 0;
  private cursor?: string;
  private source?: EventSource;
  private closed = false;
  private retry = 0;
  private pause = firstPause;
  private hidden = 0;

  constructor(readonly agent: string, readonly thread: string) {
    document.addEventListener('visibilitychange', this.visible);
    addEventListener('online', this.wake);
    addEventListener('pageshow', this.wake);
  }

  close(): void {
    this.closed = true;
    this.source?.close();
    clearTimeout(this.timer);
    clearTimeout(this.retry);
    clearTimeout(this.hidden);
    document.removeEventListener('visibilitychange', this.visible);
    removeEventListener('online', this.wake);
    removeEventListener('pageshow', this.wake);
  }

  /** Loads the end of the thread and follows it. */
  async start(): Promise<void> {
    try {
      const list = await api.get<Turns>(`api/threads/${part(this.thread)}/turns`, { limit: pageOfTurns });
      this.note(list);
      this.position = Math.max(0, (list.turns.at(-1)?.first_seq ?? 1) - 1);
      for (let more = list.turns.length > 0; more && !this.closed;) {
        const page = await this.page(this.position);
        for (const e of page.events) this.take(e);
        this.position = page.next;
        more = page.has_more && page.events.length > 0;
      }
    } catch (err) {
      if (err instanceof ApiError && err.status === 404) {
        if (this.closed) return;
      } else {
        this.failure.value = reason(err);
        this.again(() => void this.start());
        return;
      }
    }
    if (this.closed) return;
    this.failure.value = '';
    this.show();
    this.loading.value = false;
    this.follow();
  }

  /** Loads turns before those that are shown. */
  async earlier(): Promise<void> {
    const list = await api.get<Turns>(`api/threads/${part(this.thread)}/turns`, { limit: pageOfTurns, cursor: this.cursor });
    const wanted = new Set(list.turns.map((t) => t.request_id));
    const before = Math.min(...this.turns.peek().map((t) => t.peek().seq));
    const found = new Map<string, Turn>();
    let after = Math.max(0, (list.turns.at(-1)?.first_seq ?? 1) - 1);
    for (let more = wanted.size > 0; more;) {
      const page = await this.page(after);
      for (const e of page.events) {
        if (!wanted.has(e.request_id) || this.byID.has(e.request_id)) continue;
        let t = found.get(e.request_id);
        if (!t) found.set(e.request_id, t = newTurn(e));
        apply(t, e);
      }
      after = page.next;
      // An older turn may go on behind the beginning of a newer one.
      more = page.has_more && page.events.length > 0 && (after < before || [...found.values()].some((t) => !t.ended && after <= this.position));
    }
    if (this.closed) return;
    batch(() => {
      const older = [...found.values()].map((t) => signal(t));
      for (const t of older) this.byID.set(t.peek().id, t);
      this.turns.value = [...older, ...this.turns.peek()];
      this.note(list);
    });
  }

  private note(list: Turns) {
    this.cursor = list.next_cursor;
    this.more.value = list.has_more;
  }

  private page(after: number): Promise<Page> {
    return api.get<Page>(`api/conversations/${part(this.agent)}/events`, { thread_id: this.thread, after, limit: pageOfEvents });
  }

  private follow() {
    this.source?.close();
    if (this.closed || this.source?.readyState === EventSource.OPEN) return;
    const source = this.source = new EventSource(url(`api/conversations/${part(this.agent)}/events`, { thread_id: this.thread, after: this.position || undefined }));
    let opened = false;
    source.onopen = () => { opened = this.connected.value = reachable.value = true; this.pause = firstPause; };
    // The browser would come back by itself after a broken connection, but not after an answer that is no stream.
    const broken = () => {
      if (this.source !== source) return;
      source.close();
      this.connected.value = false;
      this.again(() => this.follow());
      if (!opened) void whoami().catch(() => { /* only to learn whether we are still signed in */ });
    };
    for (const name of names) {
      source.addEventListener(name, (m) => {
        const data = (m as MessageEvent<string | undefined>).data;
        if (this.source !== source) return;
        if (data === undefined) return broken(); // the browser's own event "error"
        const e = JSON.parse(data) as Event;
        if (e.type !== 'thread_deleted' && e.seq <= this.position) return;
        if (e.seq) this.position = e.seq;
        this.take(e);
        this.timer ||= setTimeout(() => { this.timer = 0; this.show(); }, interval) as unknown as number;
      });
    }
  }

  private again(what: () => void) {
    clearTimeout(this.retry);
    if (this.closed) return;
    this.retry = setTimeout(what, this.pause) as unknown as number;
    this.pause = Math.min(mostPause, this.pause * 2);
  }

  private wake = () => {
    if (this.loading.peek() || this.closed) return;
    if (!this.source || this.source.readyState !== EventSource.OPEN) { this.pause = firstPause; clearTimeout(this.retry); this.follow(); }
  };

  private visible = () => {
    clearTimeout(this.hidden);
    if (document.hidden) this.hidden = setTimeout(() => { this.source?.close(); this.source = undefined; clearTimeout(this.retry); }, hiddenFor) as unknown as number;
    else this.wake();
  };

  private take(e: Event) {
    if (e.type === 'thread_deleted') { this.gone.value = true; this.close(); return; }
    if (e.type === 'removed') { this.removed.value = true; return; }
    let t = this.byID.get(e.request_id);
    if (!t) {
      if (e.type !== 'message') return; // the rest of a turn that began before what is loaded
      t = signal(newTurn(e));
      this.byID.set(e.request_id, t);
      this.fresh.push(t);
    }
    apply(t.peek(), e);
    this.dirty.add(e.request_id);
  }

  private fresh: Signal<Turn>[] = [];

  private show() {
    batch(() => {
      if (this.fresh.length) this.turns.value = [...this.turns.peek(), ...this.fresh];
      this.fresh = [];
      for (const id of this.dirty) {
        const t = this.byID.get(id)!;
        t.value = { ...t.peek() };
      }
      this.dirty.clear();
    });
  }
}
