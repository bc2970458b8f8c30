import { useState } from 'preact/hooks';
import { api, reason } from '../app/api';
import { part } from '../app/base';
import { Badge, Button, Card, Checkbox, Empty, Fold, Input, Select, Skeleton, TextArea } from '../ui/basic';
import { Table } from '../ui/table';
import { AgentFilter, AgentLink, Failed, pretty, useLoad, When } from './load';
import type { SectionProps } from './sections';
import { text } from '../text/en';

const t = text.inspect.tools;

interface Schema { type?: string | string[]; properties?: Record<string, Schema>; required?: string[]; enum?: unknown[]; description?: string; default?: unknown; minimum?: number; maximum?: number; maxLength?: number }
interface Tool {
  name: string; description: string; input_schema: Schema; required_capabilities: string[]; required_roles: string[]; timeout_seconds: number; calls_per_minute: number;
  pack_id: string; kind: string; agent_id: string; enabled: boolean; needs_approval: boolean; available: boolean;
}
interface Pack { id: string; version: string; kind: string; principal_id: string; agent_id: string; connected_at: string; tools: string[]; rejected: { tool: string; reason: string }[] }

/** All tools and the packs that bring them; with a name, one tool and a form to try it. */
export default function Tools({ id }: SectionProps) {
  const tools = useLoad(() => api.get<{ tools: Tool[] }>('api/tools'), []);
  const packs = useLoad(() => api.get<{ packs: Pack[] }>('api/packs'), []);
  const failed = <Failed error={tools.error || packs.error} retry={() => { tools.reload(); packs.reload(); }} />;
  if (id) {
    const tool = tools.data?.tools.find((x) => x.name === id);
    return (
      <>
        {failed}
        <p><a href="admin/tools">{t.back}</a></p>
        {tool ? <One tool={tool} /> : tools.data ? <Empty icon="tool" title={t.gone}>{t.goneHint}</Empty> : <Skeleton />}
      </>
    );
  }
  const refused = (packs.data?.packs ?? []).flatMap((p) => p.rejected.map((r) => ({ ...r, pack: p.id })));
  return (
    <>
      {failed}
      <section class="stack"><h2>{t.title}</h2>
        <Table caption={t.title} rows={tools.data?.tools} rowKey={(x) => x.name} empty={t.none} sortBy="name" words={(x) => `${x.name} ${x.description} ${x.pack_id} ${x.agent_id}`}
          columns={[
            { id: 'name', title: t.name, sort: (x) => x.name, cell: (x) => <><a href={`admin/tools/${part(x.name)}`}><code class="break">{x.name}</code></a><small class="two-lines">{x.description}</small></> },
            { id: 'pack', title: t.pack, sort: (x) => x.pack_id, cell: (x) => <>{x.pack_id}<small class="block">{t.kinds[x.kind] ?? x.kind}{x.agent_id && ` · ${x.agent_id}`}</small></> },
            { id: 'policy', title: t.policy, cell: (x) => <Policy tool={x} /> },
            { id: 'timeout', title: t.timeout, numeric: true, sort: (x) => x.timeout_seconds, cell: (x) => `${x.timeout_seconds} s` },
          ]} />
      </section>
      {refused.length > 0 && (
        <section class="stack"><h2>{t.refused}</h2><p class="soft">{t.refusedHint}</p>
          <Table caption={t.refused} rows={refused} rowKey={(x) => x.pack + x.tool} empty="" columns={[
            { id: 'tool', title: t.name, sort: (x) => x.tool, cell: (x) => <code class="break">{x.tool}</code> },
            { id: 'pack', title: t.pack, sort: (x) => x.pack, cell: (x) => x.pack },
            { id: 'why', title: t.why, cell: (x) => x.reason },
          ]} />
        </section>
      )}
      <section class="stack"><h2>{t.packs}</h2>
        <Table caption={t.packs} rows={packs.data?.packs} rowKey={(x) => x.id} empty={t.noPacks} sortBy="id" words={(x) => `${x.id} ${x.tools.join(' ')}`}
          columns={[
            { id: 'id', title: t.pack, sort: (x) => x.id, cell: (x) => <>{x.id}<small class="block">{x.version}</small></> },
            { id: 'kind', title: t.kind, sort: (x) => x.kind, cell: (x) => t.kinds[x.kind] ?? x.kind },
            { id: 'who', title: t.who, cell: (x) => x.agent_id ? <AgentLink id={x.agent_id} /> : x.principal_id ? <a href={`admin/principals/${part(x.principal_id)}`} class="break">{x.principal_id}</a> : t.own },
            { id: 'since', title: t.since, sort: (x) => x.connected_at, cell: (x) => <When at={x.connected_at} /> },
            { id: 'tools', title: t.title, numeric: true, sort: (x) => x.tools.length, cell: (x) => x.tools.length },
          ]} />
      </section>
    </>
  );
}

/** What stands between a tool and its callers. */
function Policy({ tool: x }: { tool: Tool }) {
  return (
    <span class="badges">
      {!x.enabled && <Badge tone="bad">{t.disabled}</Badge>}
      {x.needs_approval && <Badge tone="warn">{t.approval}</Badge>}
      {x.required_capabilities.map((c) => <Badge key={c}>{c}</Badge>)}
      {x.required_roles.length > 0 && <Badge>{x.required_roles.join(' / ')}</Badge>}
      {x.calls_per_minute > 0 && <Badge>{t.perMinute(x.calls_per_minute)}</Badge>}
      {x.enabled && !x.needs_approval && x.required_capabilities.length + x.required_roles.length === 0 && <span class="soft">{t.anybody}</span>}
    </span>
  );
}

const typeOf = (s: Schema) => (Array.isArray(s.type) ? s.type.find((x) => x !== 'null') : s.type) ?? (s.enum ? 'string' : 'object');

interface Outcome { output?: unknown; error?: string; took: number }

function One({ tool: x }: { tool: Tool }) {
  const properties = Object.entries(x.input_schema.properties ?? {});
  const required = x.input_schema.required ?? [];
  const [values, setValues] = useState<Record<string, string | boolean>>(() => Object.fromEntries(properties.filter(([, s]) => s.default !== undefined)
    .map(([n, s]) => [n, typeOf(s) === 'boolean' ? !!s.default : typeof s.default === 'string' ? s.default : JSON.stringify(s.default)])));
  const [all, setAll] = useState('{}');
  const [agent, setAgent] = useState('');
  const [wrong, setWrong] = useState<Record<string, string>>({});
  const [busy, setBusy] = useState(false);
  const [outcome, setOutcome] = useState<Outcome>();
  const plain = properties.length === 0;
  const call = async () => {
    const input: Record<string, unknown> = {}, bad: Record<string, string> = {};
    if (plain) {
      try { Object.assign(input, JSON.parse(all || '{}')); } catch { bad[''] = t.badJSON; }
    }
    for (const [name, s] of properties) {
      const v = values[name], type = typeOf(s);
      if (type === 'boolean') { if (v !== undefined) input[name] = v; continue; }
      if (v === undefined || v === '') { if (required.includes(name)) bad[name] = t.required; continue; }
      if (s.enum) input[name] = s.enum.find((e) => String(e) === v);
      else if (type === 'string') input[name] = v;
      else if (type === 'number' || type === 'integer') {
        const n = Number(v);
        if (Number.isNaN(n) || (type === 'integer' && !Number.isInteger(n))) bad[name] = t.badNumber;
        else input[name] = n;
      } else {
        try { input[name] = JSON.parse(v as string); } catch { bad[name] = t.badJSON; }
      }
    }
    setWrong(bad);
    if (Object.keys(bad).length) return;
    setBusy(true);
    const began = performance.now();
    const end = (o: Omit<Outcome, 'took'>) => { setOutcome({ ...o, took: performance.now() - began }); setBusy(false); };
    try {
      end({ output: (await api.post<{ output: unknown }>(`api/tools/${part(x.name)}/call`, { agent_id: agent || undefined, input })).output });
    } catch (err) { end({ error: reason(err) }); }
  };
  const set = (name: string, v: string | boolean) => setValues({ ...values, [name]: v });
  return (
    <>
      <Card title={<code class="break">{x.name}</code>}>
        <p class="pre">{x.description}</p>
        <Policy tool={x} />
        <p><small>{t.pack}: {x.pack_id} · {t.kinds[x.kind] ?? x.kind} · {t.timeout}: {x.timeout_seconds} s{x.agent_id && <> · {text.inspect.agent} <AgentLink id={x.agent_id} /></>}</small></p>
        <Fold summary={t.schema}><pre class="raw" tabIndex={0} aria-label={t.schema}>{pretty(x.input_schema)}</pre></Fold>
      </Card>
      <Card title={t.tryIt}>
        <p class="soft">{t.tryHint}</p>
        {!x.available && <p class="warn-text">{t.unavailable}</p>}
        <form class="stack" noValidate onSubmit={(e) => { e.preventDefault(); void call(); }}>
          <AgentFilter value={agent} onChange={setAgent} all={t.asYourself} />
          {plain && <TextArea label={t.input} value={all} error={wrong['']} onInput={(e) => setAll(e.currentTarget.value)} />}
          {properties.map(([name, s]) => {
            const label = required.includes(name) ? `${name} *` : name, type = typeOf(s), value = values[name];
            if (type === 'boolean') return <Checkbox key={name} label={label} hint={s.description} checked={value === true} onChange={(e) => set(name, e.currentTarget.checked)} />;
            const field = { label, error: wrong[name], value: (value as string) ?? '' };
            if (s.enum) return <Select key={name} {...field} hint={s.description} options={[{ value: '', label: '–' }, ...s.enum.map((e) => ({ value: String(e), label: String(e) }))]} onChange={(e) => set(name, e.currentTarget.value)} />;
            if (type === 'number' || type === 'integer') return <Input key={name} {...field} hint={s.description} inputMode="decimal" onInput={(e) => set(name, e.currentTarget.value)} />;
            if (type === 'string') return <TextArea key={name} {...field} rows={1} hint={s.description} maxLength={s.maxLength} onInput={(e) => set(name, e.currentTarget.value)} />;
            return <TextArea key={name} {...field} hint={[s.description, t.asJSON(type)].filter(Boolean).join(' ')} onInput={(e) => set(name, e.currentTarget.value)} />;
          })}
          <div class="row"><Button kind="primary" type="submit" icon="tool" busy={busy} disabled={!x.enabled}>{t.call}</Button></div>
        </form>
        <div role="status" class="stack">
          {outcome && <p class="row"><Badge tone={outcome.error ? 'bad' : 'good'}>{outcome.error ? t.failed : t.worked}</Badge><small>{t.took(outcome.took)}</small></p>}
          {outcome && <pre class={`raw ${outcome.error ? 'bad' : ''}`} tabIndex={0} aria-label={t.output}>{outcome.error ?? (typeof outcome.output === 'string' ? outcome.output : pretty(outcome.output))}</pre>}
        </div>
      </Card>
    </>
  );
}
