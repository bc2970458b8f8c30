import { useEffect, useState } from 'preact/hooks';
import { api } from '../app/api';
import { part, url } from '../app/base';
import { Badge, Button, Card, Checkbox, Copy, Empty, Fold, Input, Select } from '../ui/basic';
import { Table } from '../ui/table';
import { AgentFilter, AgentLink, ask, asked, Failed, More, useList, useLoad, When } from './load';
import type { SectionProps } from './sections';
import { text } from '../text/en';

const t = text.inspect.threads;

interface Thread { id: string; agent_id: string; frontend: string; title: string; created_at: string; updated_at: string; turns: number; archived: boolean }
interface Hit { agent_id: string; thread_id: string; title: string; seq: number; time: string; who: string; sender: string; excerpt: { text: string; match: boolean }[] }

/** All threads, and a search in what was said; with an id, the events of one thread. */
export default function Threads({ id }: SectionProps) {
  return id ? <One key={id} id={id} /> : <All />;
}

function All() {
  const q = asked('q'), agent = asked('agent'), archived = asked('archived') === 'yes';
  const [words, setWords] = useState(q);
  return (
    <>
      <form class="filters" role="search" onSubmit={(e) => { e.preventDefault(); ask({ q: words.trim() }); }}>
        <Input type="search" label={t.search} placeholder={t.searchHint} value={words} maxLength={200} onInput={(e) => { setWords(e.currentTarget.value); if (!e.currentTarget.value) ask({ q: '' }); }} />
        <Button type="submit" icon="search">{t.find}</Button>
        <AgentFilter value={agent} onChange={(a) => ask({ agent: a })} />
        {!q && <Checkbox label={t.archivedOnly} checked={archived} onChange={(e) => ask({ archived: e.currentTarget.checked ? 'yes' : '' })} />}
      </form>
      {q ? <Hits q={q} agent={agent} /> : <List agent={agent} archived={archived} />}
    </>
  );
}

function List({ agent, archived }: { agent: string; archived: boolean }) {
  const { rows, error, more, reload } = useList<Thread>('api/threads', 'threads', { agent_id: agent, archived, limit: 200 });
  return (
    <>
      <Failed error={error} retry={reload} />
      <Table caption={t.title} rows={rows} rowKey={(x) => x.id} empty={archived ? t.noneArchived : t.none} words={(x) => `${x.title} ${x.id} ${x.agent_id} ${x.frontend}`} sortBy="updated" descending
        columns={[
          { id: 'title', title: t.thread, sort: (x) => x.title, cell: (x) => <><a href={`admin/threads/${part(x.id)}`} class="break">{x.title || text.chat.untitled}</a><small class="block break">{x.id}</small></> },
          { id: 'agent', title: text.inspect.agent, sort: (x) => x.agent_id, cell: (x) => <AgentLink id={x.agent_id} /> },
          { id: 'frontend', title: t.frontend, sort: (x) => x.frontend, cell: (x) => x.frontend || '–' },
          { id: 'turns', title: t.turns, numeric: true, sort: (x) => x.turns, cell: (x) => x.turns },
          { id: 'updated', title: t.updated, sort: (x) => x.updated_at, cell: (x) => <When at={x.updated_at} /> },
        ]} />
      <More more={more} />
    </>
  );
}

function Hits({ q, agent }: { q: string; agent: string }) {
  const { rows, error, more, reload } = useList<Hit>('api/search', 'results', { q, agent_id: agent, limit: 100 });
  return (
    <>
      <Failed error={error} retry={reload} />
      <Table caption={t.results} rows={rows} rowKey={(x) => `${x.agent_id} ${x.seq}`} empty={t.noHits} sortBy="time" descending
        columns={[
          { id: 'what', title: t.said, cell: (x) => <a href={`admin/threads/${part(x.thread_id)}?event=${x.seq}`} class="break">{x.excerpt.map((e, i) => e.match ? <mark key={i}>{e.text}</mark> : e.text)}</a> },
          { id: 'who', title: t.who, sort: (x) => x.who, cell: (x) => <>{t.whos[x.who] ?? x.who}<small class="block">{x.sender}</small></> },
          { id: 'agent', title: text.inspect.agent, sort: (x) => x.agent_id, cell: (x) => <AgentLink id={x.agent_id} /> },
          { id: 'title', title: t.thread, sort: (x) => x.title, cell: (x) => x.title || text.chat.untitled },
          { id: 'time', title: t.time, sort: (x) => x.time, cell: (x) => <When at={x.time} /> },
        ]} />
      <More more={more} />
    </>
  );
}

interface Event { seq: number; type: string; time: string; request_id: string; [more: string]: unknown }

/** How many events are asked for at once. */
const pageSize = 200;

function One({ id }: { id: string }) {
  const thread = useLoad(() => api.get<Thread>(`api/threads/${part(id)}`), [id]);
  const wanted = Number(asked('event')) || 0, type = asked('type'), turn = asked('turn');
  const [from, setFrom] = useState(Math.max(0, wanted - pageSize / 2));
  const [span, setSpan] = useState(1);
  const agent = thread.data?.agent_id ?? '';
  const events = useLoad(async () => {
    if (!agent) return undefined;
    const all: Event[] = [];
    let after = from, more = true;
    for (let i = 0; i < span && more; i++) {
      const page = await api.get<{ events: Event[]; next: number; has_more: boolean }>(`api/conversations/${part(agent)}/events`, { thread_id: id, after, limit: pageSize });
      all.push(...page.events);
      after = page.next;
      more = page.has_more;
    }
    return { all, more };
  }, [agent, from, span]);
  const shown = (events.data?.all ?? []).filter((e) => (!type || e.type === type) && (!turn || e.request_id === turn));
  const types = [...new Set((events.data?.all ?? []).map((e) => e.type))].sort();
  useEffect(() => {
    if (events.data && wanted) document.getElementById(`event-${wanted}`)?.scrollIntoView({ block: 'center' });
  }, [events.data, wanted]);
  const x = thread.data;
  return (
    <>
      <p><a href="admin/threads">{t.back}</a></p>
      <Failed error={thread.error || events.error} retry={() => { thread.reload(); events.reload(); }} />
      {x && (
        <Card title={<span class="break">{x.title || text.chat.untitled}</span>} actions={<><a class="button" href={`t/${part(x.id)}`}>{t.inChat}</a><a class="button" download href={url(`api/threads/${part(x.id)}/export`)}>{t.exportJSON}</a></>}>
          <p class="row"><AgentLink id={x.agent_id} />{x.frontend && <Badge>{x.frontend}</Badge>}{x.archived && <Badge>{t.archived}</Badge>}<small class="break">{x.id}</small></p>
          <p><small>{t.turnsOf(x.turns)} · {t.created} <When at={x.created_at} /> · {t.updated} <When at={x.updated_at} /></small></p>
        </Card>
      )}
      {x && (
        <div class="filters">
          <Select label={t.type} value={type} options={[{ value: '', label: t.allTypes }, ...types.map((v) => ({ value: v, label: v }))]} onChange={(e) => ask({ type: e.currentTarget.value })} />
          <Input label={t.turn} value={turn} placeholder={t.allTurns} onInput={(e) => ask({ turn: e.currentTarget.value.trim() })} />
          {from > 0 && <Button onClick={() => { setFrom(0); setSpan(1); }}>{t.fromStart}</Button>}
        </div>
      )}
      {events.data && (shown.length === 0 ? <Empty icon="list" title={t.noEvents}>{t.noEventsHint}</Empty> : (
        <ol class="events" aria-label={t.events}>
          {shown.map((e) => (
            <li key={e.seq} id={`event-${e.seq}`} class={e.seq === wanted ? 'wanted' : ''} aria-current={e.seq === wanted ? 'true' : undefined}>
              <div class="event-head"><a href={`admin/threads/${part(id)}?event=${e.seq}`} aria-label={t.linkTo(e.seq)}>{e.seq}</a><code>{e.type}</code><When at={e.time} />
                <button type="button" class="link" onClick={() => ask({ turn: turn ? '' : e.request_id })}>{turn ? t.allTurns : t.onlyTurn}</button></div>
              {summary(e) && <p class="pre break">{summary(e)}</p>}
              <Fold summary={t.raw}><div class="raw-box"><pre class="raw" tabIndex={0} aria-label={t.rawOf(e.seq)}>{JSON.stringify(e, null, 2)}</pre><Copy value={() => JSON.stringify(e)} /></div></Fold>
            </li>
          ))}
        </ol>
      ))}
      <More more={events.data?.more ? () => setSpan(span + 1) : undefined} />
    </>
  );
}

/** How much of an event is shown before one looks at it raw, in characters. */
const summaryLength = 600;

/** What an event says, in short. */
function summary(e: Event): string {
  const said = e.content ?? e.text ?? e.error ?? e.output ?? e.question ?? e.input_json ?? e.full_response ?? e.reason ?? e.filename ?? e.detail ?? e.state;
  const s = [e.name, said].filter((x) => typeof x === 'string' && x).join(' ');
  return s.length > summaryLength ? `${s.slice(0, summaryLength)}…` : s;
}
