import type { ComponentChildren } from 'preact';
import { navigate } from '../app/router';
import { part } from '../app/base';
import { Badge, Empty, Select, type Tone } from '../ui/basic';
import { Table, type Column } from '../ui/table';
import { Tabs } from '../ui/tabs';
import { AgentFilter, AgentLink, ask, asked, Failed, More, useList, When } from './load';
import type { SectionProps } from './sections';
import { text } from '../text/en';

const t = text.inspect.records;

interface Row { id: string; agent_id: string; created_at: string; updated_at: string; key: string; value: string; message: string; tags: string[]; description: string; status: string; priority: string; notes: string; due_date: string | null; from_agent_id: string; subject: string; content: string; read_at: string | null; thread_id: string }

const made: Column<Row> = { id: 'at', title: t.at, sort: (x) => x.created_at, cell: (x) => <When at={x.created_at} /> };
const tones: Record<string, Tone> = { completed: 'good', in_progress: 'accent', high: 'bad', medium: 'warn' };
const long = (s: string): ComponentChildren => <span class="pre break">{s}</span>;

const columns: Record<string, Column<Row>[]> = {
  log: [made, { id: 'what', title: t.entry, cell: (x) => long(x.message) }, { id: 'tags', title: t.tags, cell: (x) => <span class="badges">{x.tags.map((g) => <Badge key={g}>{g}</Badge>)}</span> }],
  todos: [
    { id: 'what', title: t.todo, sort: (x) => x.description, cell: (x) => <>{long(x.description)}{x.notes && <small class="block pre break">{x.notes}</small>}</> },
    { id: 'status', title: t.status, sort: (x) => x.status, cell: (x) => <Badge tone={tones[x.status]}>{t.statuses[x.status] ?? x.status}</Badge> },
    { id: 'priority', title: t.priority, sort: (x) => ['high', 'medium', 'low'].indexOf(x.priority), cell: (x) => <Badge tone={tones[x.priority]}>{x.priority}</Badge> },
    { id: 'due', title: t.due, sort: (x) => x.due_date ?? '~', cell: (x) => <When at={x.due_date} /> }, made,
  ],
  mail: [made, { id: 'from', title: t.from, sort: (x) => x.from_agent_id, cell: (x) => <AgentLink id={x.from_agent_id} /> },
    { id: 'what', title: t.mailed, sort: (x) => x.subject, cell: (x) => <><strong class="block break">{x.subject}</strong>{long(x.content)}</> }, { id: 'read', title: t.read, sort: (x) => x.read_at ?? '', cell: (x) => x.read_at ? <When at={x.read_at} /> : <Badge tone="accent">{t.unread}</Badge> }],
  notes: [{ id: 'key', title: t.key, sort: (x) => x.key, cell: (x) => <code class="break">{x.key}</code> }, { id: 'what', title: t.value, cell: (x) => long(x.value) },
    { id: 'updated', title: t.updated, sort: (x) => x.updated_at, cell: (x) => <When at={x.updated_at} /> }],
  board: [made, { id: 'who', title: text.inspect.agent, sort: (x) => x.agent_id, cell: (x) => <AgentLink id={x.agent_id} /> },
    { id: 'what', title: t.post, sort: (x) => x.subject, cell: (x) => <><a class="block break" href={`admin/records/board/${part(x.id)}`}>{x.subject}</a>{long(x.content)}</> }],
};

const lists = ['log', 'todos', 'mail', 'notes', 'board'];

/** What agents have stored with the gateway's own tools: admin/records/{list}, or admin/records/board/{thread}. */
export default function Records({ id }: SectionProps) {
  const [name = '', thread = ''] = id.split('/');
  const list = lists.includes(name) ? name : 'log', agent = asked('agent');
  if (thread) return <Posts id={thread} />;
  return (
    <>
      <p class="soft">{t.hint}</p>
      <Tabs label={t.title} chosen={list} onChoose={(to) => navigate(`admin/records/${to}${agent ? `?agent=${part(agent)}` : ''}`)} tabs={lists.map((l) => ({
        id: l, label: t.lists[l] ?? l, content: () => (
          <div class="stack">
            {l !== 'board' && <div class="filters"><AgentFilter value={agent} onChange={(a) => ask({ agent: a })} all={t.choose} /></div>}
            {l === 'board' || agent ? <List key={l + agent} list={l} agent={agent} /> : <Empty icon="bot" title={t.choose}>{t.chooseHint}</Empty>}
          </div>
        ),
      }))} />
    </>
  );
}

function List({ list, agent }: { list: string; agent: string }) {
  const { rows, error, more, reload } = useList<Row>(list === 'board' ? 'api/board' : `api/agents/${part(agent)}/${list}`, list === 'board' ? 'threads' : list, { limit: 200 });
  const status = asked('status');
  return (
    <>
      <Failed error={error} retry={reload} />
      <Table caption={t.lists[list] ?? list} columns={columns[list]!} rows={rows?.filter((x) => list !== 'todos' || !status || x.status === status)} rowKey={(x) => x.id ?? x.key} empty={t.none}
        words={(x) => JSON.stringify(Object.values(x))} sortBy={list === 'notes' ? 'key' : 'at'} descending={list !== 'notes'}
        tools={list === 'todos' && <Select label={t.status} value={status} options={['', 'pending', 'in_progress', 'completed'].map((s) => ({ value: s, label: s ? t.statuses[s]! : t.any }))} onChange={(e) => ask({ status: e.currentTarget.value })} />} />
      <More more={more} />
    </>
  );
}

function Posts({ id }: { id: string }) {
  const { rows, error, more, reload } = useList<Row>(`api/board/${part(id)}`, 'posts', { limit: 200 });
  return (
    <>
      <p><a href="admin/records/board">{t.backToBoard}</a></p>
      <Failed error={error} retry={reload} />
      {rows?.map((x) => <article key={x.id} class="card">{x.subject && <h2 class="break">{x.subject}</h2>}<p class="pre break">{x.content}</p><p><small><AgentLink id={x.agent_id} /> · <When at={x.created_at} /></small></p></article>)}
      <More more={more} />
    </>
  );
}
