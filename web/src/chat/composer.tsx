// Where a message is written.

import { signal, type Signal } from '@preact/signals';
import { useEffect, useRef, useState } from 'preact/hooks';
import { request, reason, ApiError } from '../app/api';
import { get, set } from '../app/theme';
import { me } from '../app/session';
import { IconButton } from '../ui/basic';
import { Icon } from '../ui/icon';
import { toast } from '../ui/toast';
import { text } from '../text/en';
import { agentName, online } from './state';

const t = text.chat;

/** What a message is about to be: its text and files, kept while one looks elsewhere. */
export interface Draft { text: Signal<string>; files: Signal<File[]>; editing: Signal<boolean> }

const drafts = new Map<string, Draft>();

/** The draft of a thread, or with the id "" that of a new one. */
export function draftOf(thread: string): Draft {
  let d = drafts.get(thread);
  if (!d) {
    d = { text: signal(get(`draft.${thread}`)), files: signal([]), editing: signal(false) };
    d.text.subscribe((v) => set(`draft.${thread}`, v));
    drafts.set(thread, d);
  }
  return d;
}

/** The sum of the files of a message, in bytes; a gateway takes 16 MiB unless it is told otherwise. */
const mostBytes = 16 << 20;

export function addFiles(d: Draft, list: Iterable<File>): void {
  const files = [...d.files.peek()];
  for (const f of list) {
    if (files.reduce((n, x) => n + x.size, f.size) > mostBytes) { toast(t.tooLarge(f.name, size(mostBytes)), 'bad'); continue; }
    files.push(f);
  }
  d.files.value = files;
}

export function size(bytes: number): string {
  return bytes < 1024 ? `${bytes} B` : bytes < 1 << 20 ? `${(bytes / 1024).toFixed(0)} KB` : `${(bytes / (1 << 20)).toFixed(1)} MB`;
}

export interface Sending { agent: string; thread?: string; content: string; files: File[] }

/** Sends a message and returns its thread, as soon as the gateway has stored it. */
export async function send(m: Sending): Promise<string> {
  const fields: Record<string, string> = { agent_id: m.agent, sender: me.peek()?.display_name || me.peek()?.principal_id || 'web', content: m.content, delivery: 'queue', idempotency_key: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` };
  if (m.thread) fields.thread_id = m.thread;
  let body: unknown = fields;
  if (m.files.length) {
    const form = new FormData();
    for (const [k, v] of Object.entries(fields)) form.set(k, v);
    for (const f of m.files) form.append('attachments', f, f.name);
    body = form;
  }
  const attempt = async () => {
    const done = new AbortController();
    const r = await request('POST', 'api/send', { body, headers: { Accept: 'text/event-stream' }, signal: done.signal });
    const reader = r.body!.pipeThrough(new TextDecoderStream()).getReader();
    for (let seen = ''; ;) {
      const { value, done: over } = await reader.read();
      seen += value ?? '';
      const m = /data: (\{.*\})\n\n/.exec(seen);
      if (m) {
        void reader.cancel().catch(() => {}); // the answer comes with the events; the turn belongs to no request
        return (JSON.parse(m[1]!) as { thread_id: string }).thread_id;
      }
      if (over) throw new ApiError(0, text.errors.unreachable);
    }
  };
  try {
    return await attempt();
  } catch (err) {
    if (!(err instanceof ApiError && err.status === 0)) throw err;
    await new Promise((r) => setTimeout(r, 1500));
    return attempt(); // with the same key: if it did arrive, it is not sent twice
  }
}

interface Props { agent: string; thread?: string; busy: boolean; onSent: (thread: string) => void; onStop: () => void }

export function Composer({ agent, thread, busy, onSent, onStop }: Props) {
  const d = draftOf(thread ?? '');
  const area = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  const [sending, setSending] = useState(false);
  const fit = () => {
    const a = area.current!;
    a.style.height = 'auto';
    a.style.height = `${Math.min(a.scrollHeight + 2, innerHeight * 0.4)}px`;
  };
  useEffect(fit, [d.text.value]);
  useEffect(() => { if (matchMedia('(hover: hover)').matches) area.current?.focus(); }, [thread, agent]);
  const submit = async () => {
    const content = d.text.peek().trim(), files = d.files.peek();
    if (sending || !agent || (!content && !files.length)) return;
    setSending(true);
    try {
      const id = await send({ agent, thread, content, files });
      d.text.value = '';
      d.files.value = [];
      d.editing.value = false;
      onSent(id);
    } catch (err) {
      toast(`${t.notSent}: ${reason(err)}`, 'bad');
    } finally {
      setSending(false);
      area.current?.focus();
    }
  };
  const empty = !d.text.value.trim() && !d.files.value.length;
  return (
    <form class="composer" onSubmit={(e) => { e.preventDefault(); void submit(); }}>
      {d.editing.value && <p class="composer-note"><Icon name="edit" />{t.editing}<IconButton icon="close" label={text.app.cancel} tip="none" onClick={() => { d.editing.value = false; d.text.value = ''; }} /></p>}
      {agent && !online.value.has(agent) && <p class="composer-note"><Icon name="clock" />{t.queueNote}</p>}
      {d.files.value.length > 0 && (
        <ul class="chips">{d.files.value.map((f) => <li key={f.name + f.size}><Icon name="file" /><span class="clip">{f.name}</span><small>{size(f.size)}</small><IconButton icon="close" tip="none" label={t.removeFile(f.name)} onClick={() => { d.files.value = d.files.peek().filter((x) => x !== f); }} /></li>)}</ul>
      )}
      <div class="composer-box">
        <IconButton icon="clip" label={t.attach} tip="above" onClick={() => picker.current!.click()} />
        <input ref={picker} type="file" multiple hidden aria-label={t.attach} onChange={(e) => { addFiles(d, e.currentTarget.files ?? []); e.currentTarget.value = ''; }} />
        <textarea ref={area} rows={1} aria-label={t.message} placeholder={agent ? t.placeholder(agentName(agent)) : t.chooseAgent} value={d.text.value} enterkeyhint="send"
          onInput={(e) => { d.text.value = e.currentTarget.value; }}
          onKeyDown={(e) => { if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); void submit(); } }}
          onPaste={(e) => { const files = [...(e.clipboardData?.files ?? [])]; if (files.length) { e.preventDefault(); addFiles(d, files); } }} />
        {busy && empty
          ? <IconButton icon="stop" kind="primary" label={t.stop} tip="above" class="round" onClick={onStop} />
          : <IconButton icon="send" kind="primary" type="submit" label={t.send} tip="above" class="round" disabled={empty || !agent || sending} aria-busy={sending} />}
      </div>
    </form>
  );
}
