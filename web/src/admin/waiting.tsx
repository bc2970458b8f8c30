import { useState } from 'preact/hooks';
import { api, reason } from '../app/api';
import { part } from '../app/base';
import { Badge, Button, Card, Checkbox, Empty, Input, Skeleton } from '../ui/basic';
import { confirm } from '../ui/dialog';
import { toast } from '../ui/toast';
import { Table } from '../ui/table';
import { AgentLink, Failed, pretty, useLoad, When } from './load';
import { text } from '../text/en';

const t = text.inspect.waiting;

interface Approval { agent_id: string; request_id: string; thread_id: string; tool_id: string; tool_name: string; input_json: string; input_sha256: string; asked_at: string; expires_at?: string }
interface Question { question_id: string; agent_id: string; thread_id: string; question: string; header: string; options: { label: string; description?: string }[]; multi_select: boolean; expires_at: string }
interface Turn { request_id: string; agent_id: string; thread_id: string; sender: string; state: string; started_at: string; waiting_until?: string }

/** How often the page looks, in milliseconds. */
const every = 3000;

/** What waits for people, and the turns that are not over. */
export default function Waiting() {
  const approvals = useLoad(() => api.get<{ approvals: Approval[] }>('api/approvals'), [], every);
  const questions = useLoad(() => api.get<{ questions: Question[] }>('api/questions'), [], every);
  const turns = useLoad(() => api.get<{ turns: Turn[]; has_more: boolean }>('api/turns', { limit: 500 }), [], every);
  const reload = () => { approvals.reload(); questions.reload(); turns.reload(); };
  const cancel = async (x: Turn) => {
    if (!await confirm({ title: t.cancelTitle, body: t.cancelBody(x.agent_id), action: t.cancel, danger: true })) return;
    try {
      await api.post(`api/turns/${part(x.request_id)}/cancel`, { reason: t.reason });
      toast(t.cancelled, 'good');
    } catch (err) { toast(reason(err), 'bad'); }
    reload();
  };
  const asks = approvals.data?.approvals ?? [], puts = questions.data?.questions ?? [];
  return (
    <>
      <Failed error={approvals.error || questions.error || turns.error} retry={reload} />
      <section class="stack" aria-label={t.answers}>
        <h2>{t.answers}</h2>
        {!approvals.data || !questions.data ? <Skeleton /> : asks.length + puts.length === 0 && <Empty icon="check" title={t.none}>{t.noneHint}</Empty>}
        {asks.map((a) => <ToolApproval key={a.agent_id + a.tool_id} of={a} done={reload} />)}
        {puts.map((q) => <ToQuestion key={q.question_id} of={q} done={reload} />)}
      </section>
      <section class="stack" aria-label={t.turns}>
        <h2>{t.turns}</h2>
        <Table caption={t.turns} rows={turns.data?.turns} rowKey={(x) => x.request_id} empty={t.noTurns} words={(x) => `${x.agent_id} ${x.sender} ${x.thread_id} ${x.state}`} sortBy="since"
          columns={[
            { id: 'state', title: t.state, sort: (x) => x.state, cell: (x) => <Badge tone={x.state === 'queued' ? 'warn' : 'accent'}>{t.states[x.state] ?? x.state}</Badge> },
            { id: 'agent', title: text.inspect.agent, sort: (x) => x.agent_id, cell: (x) => <AgentLink id={x.agent_id} /> },
            { id: 'sender', title: t.sender, sort: (x) => x.sender, cell: (x) => x.sender },
            { id: 'since', title: t.since, sort: (x) => x.started_at, cell: (x) => <When at={x.started_at} /> },
            { id: 'until', title: t.until, sort: (x) => x.waiting_until ?? '', cell: (x) => <When at={x.waiting_until} /> },
            { id: 'thread', title: t.thread, cell: (x) => <a href={`admin/threads/${part(x.thread_id)}`}>{t.show}</a> },
            { id: 'do', title: '', cell: (x) => <Button icon="stop" onClick={() => void cancel(x)}>{t.cancel}</Button> },
          ]} />
      </section>
    </>
  );
}

function ToolApproval({ of: a, done }: { of: Approval; done: () => void }) {
  const [busy, set] = useState('');
  const answer = async (which: string, approved: boolean, approve_all: boolean) => {
    set(which);
    try {
      await api.post('api/tools/approve', { agent_id: a.agent_id, tool_id: a.tool_id, approved, approve_all, input_sha256: a.input_sha256 });
      toast(approved ? t.allowed : t.denied, 'good');
    } catch (err) { toast(reason(err), 'bad'); }
    set('');
    done();
  };
  return (
    <Card level={3} title={text.chat.approvalTitle(a.tool_name)} actions={<a href={`admin/threads/${part(a.thread_id)}`}>{t.inThread}</a>}>
      <p><small>{text.inspect.agent} <AgentLink id={a.agent_id} /> · <When at={a.asked_at} />{a.expires_at && <> · {t.endsAt} <When at={a.expires_at} /></>}</small></p>
      <pre class="raw" tabIndex={0} aria-label={text.chat.toolInput}>{pretty(a.input_json)}</pre>
      <div class="row">
        <Button kind="primary" icon="check" busy={busy === 'yes'} disabled={!!busy} onClick={() => void answer('yes', true, false)}>{text.chat.allow}</Button>
        <Button busy={busy === 'all'} disabled={!!busy} onClick={() => void answer('all', true, true)}>{text.chat.allowAll}</Button>
        <Button icon="close" busy={busy === 'no'} disabled={!!busy} onClick={() => void answer('no', false, false)}>{text.chat.deny}</Button>
      </div>
    </Card>
  );
}

function ToQuestion({ of: q, done }: { of: Question; done: () => void }) {
  const [picked, pick] = useState<string[]>([]);
  const [own, setOwn] = useState('');
  const [error, fail] = useState('');
  const answer = async (selected: string[]) => {
    try {
      await api.post('api/questions/answer', { agent_id: q.agent_id, question_id: q.question_id, selected, custom_text: own.trim() });
      toast(t.answered, 'good');
      done();
    } catch (err) { fail(reason(err)); }
  };
  return (
    <Card level={3} title={q.question} actions={<a href={`admin/threads/${part(q.thread_id)}`}>{t.inThread}</a>}>
      <p><small>{q.header && `${q.header} · `}{text.inspect.agent} <AgentLink id={q.agent_id} /> · {t.endsAt} <When at={q.expires_at} /></small></p>
      <form class="stack" onSubmit={(e) => { e.preventDefault(); void answer(picked); }}>
        {q.multi_select
          ? <div role="group" aria-label={text.chat.choose}>{q.options.map((o) => <Checkbox key={o.label} label={o.label} hint={o.description} checked={picked.includes(o.label)} onChange={(e) => pick(e.currentTarget.checked ? [...picked, o.label] : picked.filter((l) => l !== o.label))} />)}</div>
          : <div class="row">{q.options.map((o) => <Button key={o.label} onClick={() => void answer([o.label])}>{o.label}</Button>)}</div>}
        <div class="filters"><Input label={text.chat.questionOwn} value={own} error={error} onInput={(e) => setOwn(e.currentTarget.value)} />
          <Button type="submit" disabled={!picked.length && !own.trim()}>{text.chat.answer}</Button></div>
      </form>
    </Card>
  );
}
