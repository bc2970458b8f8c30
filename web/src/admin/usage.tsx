import type { ComponentChildren } from 'preact';
import { api } from '../app/api';
import { Button, Card, Empty, Input, Skeleton } from '../ui/basic';
import { Chart } from '../ui/chart';
import { Table } from '../ui/table';
import { AgentFilter, AgentLink, ask, asked, csv, download, Failed, useLoad } from './load';
import { part } from '../app/base';
import { text } from '../text/en';

const t = text.inspect.usage;

interface Total { total_input: number; total_output: number; total_cache_read: number; total_cache_write: number; total_thinking: number; total_tokens: number; request_count: number }
interface Group extends Total { key: string }
interface Sums extends Total { groups: Group[] }

const day = 86_400_000;
const iso = (at: number) => new Date(at).toISOString().slice(0, 10);
const counts = ['total_input', 'total_output', 'total_thinking', 'total_cache_read', 'total_cache_write', 'request_count'] as const;

/** Tokens, by day, agent and person. */
export default function Usage() {
  const today = Date.now(), agent = asked('agent'), since = asked('since') || iso(today - 29 * day), until = asked('until') || iso(today);
  const query = { agent_id: agent, since: `${since}T00:00:00Z`, until: iso(Date.parse(until) + day) + 'T00:00:00Z' };
  const { data, error, reload } = useLoad(async () => {
    const by = (group_by: string) => api.get<Sums>('api/stats/usage', { ...query, group_by });
    const [days, agents, people, names] = await Promise.all([by('day'), by('agent'), by('principal'), api.get<{ principals: { id: string; display_name: string }[] }>('api/admin/principals', { limit: 500 })]);
    return { days, agents: agents.groups, people: people.groups, names: new Map(names.principals.map((p) => [p.id, p.display_name])) };
  }, [agent, since, until]);
  const labels: string[] = [];
  for (let at = Date.parse(since); at <= Date.parse(until) && labels.length < 366; at += day) labels.push(iso(at));
  const of = new Map(data?.days.groups.map((g) => [g.key, g]));
  const save = (name: string, groups: Group[]) => download(`usage-${name}-${since}-${until}.csv`, 'text/csv', csv([[name, ...counts], ...groups.map((g) => [g.key, ...counts.map((c) => g[c])])]));
  const columns = (title: string, cell: (g: Group) => ComponentChildren) => [
    { id: 'key', title, sort: (g: Group) => g.key, cell },
    ...counts.map((c) => ({ id: c, title: t.counts[c], numeric: true, sort: (g: Group) => g[c], cell: (g: Group) => g[c].toLocaleString() })),
  ];
  return (
    <>
      <div class="filters">
        <Input type="date" label={t.since} value={since} max={until} onChange={(e) => ask({ since: e.currentTarget.value })} />
        <Input type="date" label={t.until} value={until} min={since} onChange={(e) => ask({ until: e.currentTarget.value })} />
        <AgentFilter value={agent} onChange={(a) => ask({ agent: a })} />
      </div>
      <Failed error={error} retry={reload} />
      {!data ? !error && <Skeleton lines={6} /> : data.days.request_count === 0 ? <Empty icon="chart" title={t.none}>{t.noneHint}</Empty> : (
        <>
          <dl class="figures">
            {counts.map((c) => <div key={c}><dt>{t.counts[c]}</dt><dd>{data.days[c].toLocaleString()}</dd></div>)}
          </dl>
          <Card title={t.byDay} actions={<Button icon="download" onClick={() => save('day', data.days.groups)}>{t.csv}</Button>}>
            <Chart title={t.byDay} kind="bar" labels={labels.map((l) => l.slice(5))} series={[
              { name: t.counts.total_input, values: labels.map((l) => of.get(l)?.total_input ?? 0) },
              { name: t.counts.total_output, values: labels.map((l) => of.get(l)?.total_output ?? 0) },
            ]} />
          </Card>
          <Card title={t.byAgent} actions={<Button icon="download" onClick={() => save('agent', data.agents)}>{t.csv}</Button>}>
            <Table caption={t.byAgent} rows={data.agents} rowKey={(g) => g.key} empty={t.none} words={(g) => g.key} sortBy="total_input" descending columns={columns(text.inspect.agent, (g) => <AgentLink id={g.key} />)} />
          </Card>
          <Card title={t.byPerson} actions={<Button icon="download" onClick={() => save('principal', data.people)}>{t.csv}</Button>}>
            <Table caption={t.byPerson} rows={data.people} rowKey={(g) => g.key} empty={t.none} words={(g) => `${g.key} ${data.names.get(g.key) ?? ''}`} sortBy="total_input" descending
              columns={columns(t.person, (g) => data.names.has(g.key) ? <a class="break" href={`admin/principals/${part(g.key)}`}>{data.names.get(g.key)}</a> : g.key)} />
          </Card>
        </>
      )}
    </>
  );
}
