// A message and what is answered to it.

import type { Signal } from '@preact/signals';
import { useEffect, useState } from 'preact/hooks';
import { api, reason } from '../app/api';
import { url } from '../app/base';
import { Badge, Button, Copy, Fold, IconButton, Input, Checkbox, type Tone } from '../ui/basic';
import { Icon } from '../ui/icon';
import { memo } from '../ui/memo';
import { toast } from '../ui/toast';
import { text } from '../text/en';
import { size } from './composer';
import type { FileInfo, Part, Turn } from './events';
import { Code, Markdown } from './markdown';
import { agentName } from './state';

const t = text.chat;

/** Parts of a long answer that are shown unless one asks for all. */
const mostParts = 60;

interface Props { turn: Signal<Turn>; agent: string; onRetry: (t: Turn) => void; onEdit: (t: Turn) => void }

export const TurnView = memo(function TurnView({ turn, agent, onRetry, onEdit }: Props) {
  const x = turn.value;
  const [all, setAll] = useState(false);
  const over = x.state !== 'open' && x.state !== 'queued';
  const answered = x.parts.some((p) => p.kind === 'text');
  const cut = all || x.parts.length <= mostParts ? 0 : x.parts.length - mostParts;
  const answer = () => x.parts.filter((p) => p.kind === 'text').map((p) => (p as { text: string }).text).join('\n\n') || x.response;
  return (
    <article class="turn" data-turn={x.id} aria-busy={!over}>
      <div class="mine">
        <div class="mine-head"><span class="who">{x.sender}</span><Time at={x.at} /></div>
        {x.content && <div class="mine-text">{x.content}</div>}
        {x.files.length > 0 && <div class="files">{x.files.map((f) => <FileView key={f.file_id} file={f} />)}</div>}
        <div class="mine-actions row-end">
          {x.content && <Copy value={() => x.content} label={t.copyMessage} />}
          {x.content && <IconButton icon="edit" label={t.edit} onClick={() => onEdit(x)} />}
        </div>
      </div>
      {x.state === 'queued'
        ? <p class="waits" role="status"><Icon name="clock" /><span>{t.waits(when(x.until))}</span><Button onClick={() => void stop(x)}>{t.cancelQueued}</Button></p>
        : (
          <div class="answer">
            <h2 class="who">{agentName(agent)}</h2>
            {cut > 0 && <Button kind="ghost" icon="down" onClick={() => setAll(true)}>{t.steps(cut)}</Button>}
            {x.parts.slice(cut).map((p, i, list) => <PartView key={p.key} part={p} turn={x} agent={agent} last={i === list.length - 1} />)}
            {over && !answered && x.state === 'done' && x.response && <Markdown source={x.response} />}
            {!over && <Working turn={x} />}
            {over && <End turn={x} onRetry={onRetry} answer={answer} />}
          </div>
        )}
    </article>
  );
});

/** Stops a turn, or takes back a message that waits. */
export async function stop(x: Turn): Promise<void> {
  try { await api.post(`api/turns/${x.id}/cancel`); } catch (err) { toast(reason(err), 'bad'); }
}

function Working({ turn: x }: { turn: Turn }) {
  const waits = x.parts.some((p) => (p.kind === 'tool' && p.approval && !p.approval.answer) || (p.kind === 'question' && !p.answer));
  const last = x.parts.at(-1);
  if (waits || (last?.kind === 'text')) return <span class="caret" aria-hidden="true" />;
  return <p class="working"><span class="pulse" aria-hidden="true"><i /><i /><i /></span>{t.working}</p>;
}

function End({ turn: x, onRetry, answer }: { turn: Turn; onRetry: (t: Turn) => void; answer: () => string }) {
  const u = x.usage;
  const details = [
    x.ended && t.took(span(Date.parse(x.ended) - Date.parse(x.at))),
    u && t.usage(u.input_tokens, u.output_tokens), u && u.cache_read_tokens > 0 && t.cached(u.cache_read_tokens), u?.cost !== undefined && t.cost(String(u.cost)),
  ].filter(Boolean).join(' · ');
  const never = x.state === 'error' && x.parts.length === 0 && x.recoverable;
  return (
    <>
      {x.state === 'error' && (
        <div class="problem" role="alert"><Icon name="warning" /><div><strong>{x.recoverable ? t.interrupted : t.failed}</strong><p>{x.cause}</p><small>{never ? t.expiredHint : x.recoverable ? t.interruptedHint : t.failedHint}</small></div>
          <Button icon="retry" onClick={() => onRetry(x)}>{t.retry}</Button></div>
      )}
      {x.state === 'canceled' && <p class="stopped"><Icon name="stop" />{x.cause ? t.stoppedBecause(x.cause) : t.stopped}<Button kind="ghost" icon="retry" onClick={() => onRetry(x)}>{t.retry}</Button></p>}
      <footer class="turn-foot">
        {answer() && <Copy value={answer} label={t.copyMessage} />}
        {x.state === 'done' && <IconButton icon="retry" label={t.retry} onClick={() => onRetry(x)} />}
        <small>{details}</small>
      </footer>
    </>
  );
}

function PartView({ part: p, turn, agent, last }: { part: Part; turn: Turn; agent: string; last: boolean }) {
  const open = turn.state === 'open';
  switch (p.kind) {
    case 'text': return <Markdown source={p.text} growing={open && last} />;
    case 'thinking': return (
      <Fold class="thinking" summary={<span class="thinking-head"><Icon name="think" />{open && last ? t.thinking : t.thought}<small>{span(Date.parse(p.until) - Date.parse(p.at))}</small></span>}>
        <Markdown source={p.text} growing={open && last} />
      </Fold>
    );
    case 'tool': return <Tool part={p} open={open} agent={agent} />;
    case 'question': return <Question part={p} open={open} agent={agent} />;
    case 'file': return <div class="files"><FileView file={p.file} /></div>;
    case 'note': return <p class={`note ${p.tone}`}><Icon name={p.tone === 'bad' ? 'warning' : 'info'} />{t[p.what]}{p.text && `: ${p.text}`}</p>;
  }
}

const tones: Record<string, Tone> = { completed: 'good', failed: 'bad', denied: 'bad', timeout: 'bad', awaiting_approval: 'warn', running: 'accent', pending: 'neutral' };

function Tool({ part: p, open, agent }: { part: Extract<Part, { kind: 'tool' }>; open: boolean; agent: string }) {
  const asked = p.approval && !p.approval.answer && open && !p.ended;
  const state = p.state || (p.output !== undefined ? (p.isError ? 'failed' : 'completed') : open ? 'running' : 'unknown');
  return (
    <div class={`tool ${asked ? 'wanted' : ''}`} data-tool={p.id}>
      <Fold summary={(
        <span class="tool-head"><Icon name="tool" /><code class="clip">{p.name || p.id}</code>
          <Badge tone={p.isError ? 'bad' : tones[state] ?? 'neutral'}>{t.toolStates[state] ?? state}</Badge>
          {p.detail && <small class="clip">{p.detail}</small>}
          {p.ended && <small class="tool-time">{span(Date.parse(p.ended) - Date.parse(p.began))}</small>}
        </span>
      )}>
        <p class="tool-label">{t.toolInput}</p>
        <Long value={pretty(p.input)} language="json" />
        <p class="tool-label">{p.isError ? t.toolError : t.toolResult}</p>
        {p.output === undefined ? <p class="soft">{t.noResult}</p> : <Long value={pretty(p.output)} language={looksJSON(p.output) ? 'json' : ''} />}
      </Fold>
      {asked && <Approval part={p} agent={agent} />}
      {p.approval?.answer && <p class="verdict"><Icon name={p.approval.answer.approved ? 'check' : 'close'} />{p.approval.answer.approved ? t.allowedBy(p.approval.answer.by) : t.deniedBy(p.approval.answer.by)}</p>}
      {p.approval && !p.approval.answer && !asked && <p class="verdict"><Icon name="clock" />{t.approvalGone}</p>}
    </div>
  );
}

function Approval({ part: p, agent }: { part: Extract<Part, { kind: 'tool' }>; agent: string }) {
  const [busy, setBusy] = useState('');
  const answer = async (which: string, approved: boolean, all = false) => {
    setBusy(which);
    try {
      await api.post('api/tools/approve', { agent_id: agent, tool_id: p.id, approved, approve_all: all });
    } catch (err) {
      toast(reason(err), 'bad');
      setBusy('');
    } // else the answer comes as an event, here and everywhere
  };
  return (
    <div class="ask" role="group" aria-label={t.approvalTitle(p.name)}>
      <p class="ask-title"><Icon name="shield" />{t.approvalTitle(p.name)}<Left until={p.approval?.expires} /></p>
      <Long value={pretty(p.input)} language="json" />
      <div class="row">
        <Button kind="primary" icon="check" busy={busy === 'yes'} disabled={!!busy} onClick={() => void answer('yes', true)}>{t.allow}</Button>
        <Button busy={busy === 'all'} disabled={!!busy} onClick={() => void answer('all', true, true)}>{t.allowAll}</Button>
        <Button icon="close" busy={busy === 'no'} disabled={!!busy} onClick={() => void answer('no', false)}>{t.deny}</Button>
      </div>
    </div>
  );
}

function Question({ part: p, open, agent }: { part: Extract<Part, { kind: 'question' }>; open: boolean; agent: string }) {
  const [picked, pick] = useState<string[]>([]);
  const [own, setOwn] = useState('');
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState('');
  const answer = async (selected: string[], custom_text: string) => {
    setBusy(true);
    setError('');
    try {
      await api.post('api/questions/answer', { agent_id: agent, question_id: p.id, selected, custom_text });
    } catch (err) {
      setError(reason(err));
      setBusy(false);
    }
  };
  if (p.answer || !open) {
    return (
      <div class="asked" data-question={p.id}><p><Icon name="question" />{p.header && <strong>{p.header}</strong>} {p.question}</p>
        <p class="verdict">{p.answer && !p.answer.reason ? <><Icon name="check" />{t.answeredBy(p.answer.by, p.answer.words)}</> : <><Icon name="clock" />{t.unanswered}</>}</p></div>
    );
  }
  return (
    <form class="ask" data-question={p.id} aria-label={p.question} onSubmit={(e) => { e.preventDefault(); if (picked.length || own.trim()) void answer(picked, own.trim()); }}>
      <p class="ask-title"><Icon name="question" />{p.header || t.questionHeader}<Left until={p.expires} /></p>
      <p>{p.question}</p>
      {p.multi
        ? <div class="stack-s" role="group" aria-label={t.choose}>{p.options.map((o) => <Checkbox key={o.label} label={o.label} hint={o.description} checked={picked.includes(o.label)} onChange={(e) => pick(e.currentTarget.checked ? [...picked, o.label] : picked.filter((l) => l !== o.label))} />)}</div>
        : <div class="options">{p.options.map((o) => <Button key={o.label} disabled={busy} onClick={() => void answer([o.label], '')}><span class="option">{o.label}{o.description && <small>{o.description}</small>}</span></Button>)}</div>}
      <div class="row own"><Input label={t.questionOwn} hideLabel placeholder={t.questionOwn} value={own} error={error} onInput={(e) => setOwn(e.currentTarget.value)} />
        <Button kind={p.multi ? 'primary' : 'plain'} type="submit" busy={busy} disabled={!picked.length && !own.trim()}>{t.answer}</Button></div>
    </form>
  );
}

/** How much time there is left. */
function Left({ until }: { until?: string }) {
  const [now, tick] = useState(Date.now());
  useEffect(() => { const i = setInterval(() => tick(Date.now()), 1000); return () => clearInterval(i); }, []);
  if (!until) return null;
  const left = Math.max(0, Date.parse(until) - now);
  return <small class="left">{t.expiresIn(left < 60_000 ? `${Math.ceil(left / 1000)} s` : `${Math.ceil(left / 60_000)} min`)}</small>;
}

/** Pictures that are shown in place, as an image and nothing else: a script in an SVG does not run there. */
const pictures = /^image\/(png|jpeg|gif|webp|avif|svg\+xml)$/;

function FileView({ file: f }: { file: FileInfo }) {
  const [broken, setBroken] = useState(false);
  const href = url(f.url);
  return (
    <a class="file" href={href} download={f.filename} title={t.download(f.filename)}>
      {pictures.test(f.mime_type) && !broken && <img src={href} alt="" loading="lazy" onError={() => setBroken(true)} />}
      <span class="file-line"><Icon name="file" /><span class="clip">{f.filename}</span><small>{size(f.size)}</small><Icon name="download" /></span>
    </a>
  );
}

/** Characters of a tool's input or result that are shown unless one asks for all. */
const mostShown = 4000;

function Long({ value, language }: { value: string; language: string }) {
  const [all, setAll] = useState(false);
  const cut = !all && value.length > mostShown;
  return <><Code language={cut ? '' : language} code={cut ? value.slice(0, mostShown) + '…' : value} settled />{cut && <Button kind="ghost" onClick={() => setAll(true)}>{t.showAll} ({size(value.length)})</Button>}</>;
}

function looksJSON(s: string): boolean { return /^\s*[[{]/.test(s); }

function pretty(s: string): string {
  if (!looksJSON(s)) return s;
  try { return JSON.stringify(JSON.parse(s), null, 2); } catch { return s; }
}

export function span(ms: number): string {
  return ms < 1000 ? `${Math.max(0, Math.round(ms))} ms` : ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

function when(at?: string): string { return at ? new Date(at).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' }) : ''; }

function Time({ at }: { at: string }) {
  const d = new Date(at), today = d.toDateString() === new Date().toDateString();
  return <time dateTime={at} title={d.toLocaleString()}>{today ? d.toLocaleTimeString(undefined, { timeStyle: 'short' }) : d.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })}</time>;
}
