import { api, request } from '../app/api';
import { Badge, Button, Card, Checkbox, Empty, Skeleton } from '../ui/basic';
import { Table } from '../ui/table';
import { ask, asked, Failed, useLoad, When } from './load';
import type { SectionProps } from './sections';
import { text } from '../text/en';

const t = text.inspect.gateway;

export interface Setting { key: string; value: string; origin: string; default: boolean; secret: boolean }
export interface State { version: string; started_at: string; ready: boolean; reason?: string; agents: number; settings: Setting[] }

/** How often the page looks, in milliseconds. */
const every = 10_000;

const value = (s: State, key: string) => s.settings.find((x) => x.key === key)?.value.replace(/^"|"$/g, '') ?? '';

/** How the gateway is. */
export function Health() {
  const { data, error, reload } = useLoad(async () => {
    const state = await api.get<State>('api/admin/gateway');
    const on = value(state, 'metrics.enabled') === 'true';
    return { state, figures: on ? read(await (await request('GET', value(state, 'metrics.path'))).text()) : undefined };
  }, [], every);
  if (!data) return error ? <Failed error={error} retry={reload} /> : <Skeleton lines={6} />;
  const { state, figures: m } = data;
  return (
    <>
      <Failed error={error} retry={reload} />
      <Card title={t.state} actions={<Button icon="retry" onClick={reload}>{text.inspect.refresh}</Button>}>
        <p class="row"><Badge tone={state.ready ? 'good' : 'bad'}>{state.ready ? t.ready : t.notReady}</Badge>{state.reason}</p>
        <dl class="figures">
          <div><dt>{t.version}</dt><dd>{state.version || '–'}</dd></div>
          <div><dt>{t.started}</dt><dd><When at={state.started_at} /></dd></div>
          <div><dt>{t.uptime}</dt><dd>{span(Date.now() - Date.parse(state.started_at))}</dd></div>
          <div><dt>{t.agents}</dt><dd>{state.agents}</dd></div>
          {m && shown.map(([name, title, format]) => m.has(name) && <div key={name}><dt>{title}</dt><dd>{format(m.get(name)!)}</dd></div>)}
        </dl>
        {!m && <p class="soft">{t.noMetrics}</p>}
      </Card>
      <Card title={t.disk}>
        {m && [...m].some(([n]) => n.startsWith('coven_disk_free_bytes{'))
          ? <dl class="figures">{[...m].filter(([n]) => n.startsWith('coven_disk_free_bytes{')).map(([n, v]) => <div key={n}><dt>{t.freeFor(/kept="([^"]*)"/.exec(n)?.[1] ?? '')}</dt><dd>{bytes(v)}</dd></div>)}</dl>
          : <p class="soft">{t.noDisk}</p>}
        <p><small>{t.minFree(value(state, 'database.min_free'))}</small></p>
      </Card>
      <Card title={t.help}>
        <ul class="hints">{t.hints.map(([command, what]) => <li key={command}><code>{command}</code> {what}</li>)}</ul>
        {m && <p><a href={value(state, 'metrics.path').replace(/^\//, '')} target="_blank" rel="noreferrer">{t.allMetrics}</a></p>}
      </Card>
    </>
  );
}

/** What is configured, and where that comes from. */
export function Settings({ id }: SectionProps) {
  const { data, error, reload } = useLoad(() => api.get<State>('api/admin/gateway'), []);
  const set = asked('set') === 'yes';
  const rows = data?.settings.filter((s) => (!set || !s.default) && (!id || s.key === id || s.key.startsWith(`${id}.`)));
  const heads = [...new Set((data?.settings ?? []).map((s) => s.key).filter((k) => k.includes('.')).map((k) => k.split('.')[0]!))];
  return (
    <>
      <p class="soft">{t.settingsHint}</p>
      <Failed error={error} retry={reload} />
      <nav class="row" aria-label={t.sections}>{['', ...heads].map((h) => <a key={h} class="chip" href={h ? `admin/settings/${h}` : 'admin/settings'} aria-current={h === id ? 'true' : undefined}>{h || t.all}</a>)}</nav>
      {data && rows?.length === 0 && !set ? <Empty icon="settings" title={t.noSection} /> : (
        <Table caption={t.settings} rows={rows} rowKey={(s) => s.key} empty={t.nothingSet} words={(s) => `${s.key} ${s.value} ${s.origin}`} pageSize={200}
          tools={<Checkbox label={t.onlySet} checked={set} onChange={(e) => ask({ set: e.currentTarget.checked ? 'yes' : '' })} />}
          columns={[
            { id: 'key', title: t.key, sort: (s) => s.key, cell: (s) => <code class="break">{s.key}</code> },
            { id: 'value', title: t.value, cell: (s) => s.secret && s.value !== '""' && s.value !== '[]' ? <Badge>{t.secret}</Badge> : <code class="break">{s.value === '""' ? '–' : s.value}</code> },
            { id: 'origin', title: t.origin, sort: (s) => s.origin, cell: (s) => s.default ? <span class="soft">{s.origin}</span> : <span class="break">{s.origin}</span> },
          ]} />
      )}
    </>
  );
}

const number = (n: number) => n.toLocaleString();
const bytes = (n: number) => { const i = Math.min(4, Math.floor(Math.log2(Math.max(1, n)) / 10)); return `${(n / 1024 ** i).toFixed(i ? 1 : 0)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][i]}`; };
const span = (ms: number) => { const m = Math.floor(ms / 60_000); return m < 60 ? t.minutes(m) : m < 2880 ? t.hours(Math.floor(m / 60), m % 60) : t.days(Math.floor(m / 1440)); };

const shown: [string, string, (n: number) => string][] = [
  ['process_resident_memory_bytes', t.memory, bytes], ['process_open_fds', t.descriptors, number], ['go_goroutines', t.goroutines, number], ['coven_http_requests_total', t.requests, number],
];

/** The values of metrics in the text format of Prometheus, by name and labels, and their sums by name. */
function read(metrics: string): Map<string, number> {
  const all = new Map<string, number>();
  for (const line of metrics.split('\n')) {
    const m = /^([a-zA-Z_:]+)(\{.*\})? (\S+)$/.exec(line);
    if (!m) continue;
    const v = Number(m[3]);
    if (m[2]) all.set(m[1]! + m[2], v);
    all.set(m[1]!, (all.get(m[1]!) ?? 0) + v);
  }
  return all;
}
