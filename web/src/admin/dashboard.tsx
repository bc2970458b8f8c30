// The first page of the administration: what happens now, and what has happened lately.

import { useState } from 'preact/hooks';
import { api } from '../app/api';
import { part } from '../app/base';
import { Card, Select, Skeleton } from '../ui/basic';
import { Chart } from '../ui/chart';
import { Table } from '../ui/table';
import { text } from '../text/en';
import { type Turn } from './agents';
import { live, Notice, principals, State, Trouble, useLoad, When } from './kit';

const t = text.manage, td = t.dashboard;

interface Bucket { at: string; turns: number; failed: number; cancelled: number; first_event_ms_mean: number; first_event_ms_max: number; input_tokens: number; output_tokens: number; thinking_tokens: number }
interface Stats { bucket_seconds: number; buckets: Bucket[] }
interface Agent { id: string; name: string; connected: boolean; open_turns: number }

export default function Dashboard() {
  const [hours, set] = useState('24');
  const stats = useLoad(() => api.get<Stats>('api/admin/stats', { hours: Number(hours) }), hours, live);
  const now = useLoad(async () => {
    const [agents, turns, links, known] = await Promise.all([api.get<Agent[]>('api/agents'), api.get<{ turns: Turn[]; has_more: boolean }>('api/turns', { limit: 100 }), api.get<{ codes: { status: string }[] }>('api/admin/link'), principals()]);
    return { agents, turns, devices: links.codes.filter((l) => l.status === 'pending').length, pending: known.filter((p) => p.status === 'pending').length };
  }, '', live);
  const d = now.data, b = stats.data?.buckets ?? [], seconds = stats.data?.bucket_seconds ?? 60;
  const sum = (f: (x: Bucket) => number) => b.reduce((n, x) => n + f(x), 0);
  const turns = sum((x) => x.turns), failed = sum((x) => x.failed), answered = b.filter((x) => x.first_event_ms_max > 0);
  const mean = answered.length ? answered.reduce((n, x) => n + x.first_event_ms_mean, 0) / answered.length : 0;
  const labels = b.map((x) => new Date(x.at).toLocaleString('en', Number(hours) > 24 ? { month: 'short', day: 'numeric', hour: '2-digit' } : { hour: '2-digit', minute: '2-digit', hour12: false }));
  return (
    <>
      <Trouble of={now} />
      {d && d.devices > 0 && <Notice><a href="admin/devices">{td.devices(d.devices)}</a></Notice>}
      {d && d.pending > 0 && <Notice><a href="admin/principals">{td.pending(d.pending)}</a></Notice>}
      <div class="row"><Select label={td.span} hideLabel value={hours} onChange={(e) => set(e.currentTarget.value)} options={['1', '6', '24', '168'].map((h) => ({ value: h, label: td.spans[h]! }))} /></div>
      <div class="figures">
        <Figure title={td.agents} value={d && d.agents.filter((a) => a.connected).length} />
        <Figure title={td.running} value={d && `${d.turns.turns.length}${d.turns.has_more ? '+' : ''}`} />
        <Figure title={td.turns} value={stats.data && turns.toLocaleString('en')} />
        <Figure title={td.failed} value={stats.data && (turns ? `${failed.toLocaleString('en')} (${(failed / turns * 100).toFixed(1)} %)` : '0')} />
        <Figure title={td.firstEvent} value={stats.data && (answered.length ? ms(mean) : "–")} />
        <Figure title={td.tokens} value={stats.data && short(sum((x) => x.input_tokens + x.output_tokens + x.thinking_tokens))} />
      </div>
      <Trouble of={stats} />
      {!stats.data ? !stats.error && <Skeleton lines={6} /> : (
        <div class="charts">
          <Card title={td.perMinute}><Chart title={td.perMinute} kind="line" labels={labels} series={[{ name: td.turns, values: b.map((x) => x.turns * 60 / seconds) }]} format={(n) => n.toLocaleString('en', { maximumFractionDigits: 2 })} /></Card>
          <Card title={td.latency}><Chart title={td.latency} kind="line" labels={labels} series={[{ name: td.mean, values: b.map((x) => x.first_event_ms_mean) }, { name: td.longest, values: b.map((x) => x.first_event_ms_max) }]} format={ms} /></Card>
          <Card title={td.endings}><Chart title={td.endings} kind="bar" labels={labels} series={[{ name: td.failed, values: b.map((x) => x.failed) }, { name: td.cancelled, values: b.map((x) => x.cancelled) }]} /></Card>
          <Card title={td.tokens}><Chart title={td.tokens} kind="bar" labels={labels} series={[{ name: td.tokensIn, values: b.map((x) => x.input_tokens) }, { name: td.tokensOut, values: b.map((x) => x.output_tokens) }, { name: td.tokensThinking, values: b.map((x) => x.thinking_tokens) }]} format={short} /></Card>
        </div>
      )}
      <Card title={td.turnsNow}>
        <Table caption={td.turnsNow} rows={d?.turns.turns} rowKey={(x) => x.request_id} empty={t.agents.noTurns} pageSize={10} columns={[
          { id: 'agent', title: t.bindings.agent, cell: (x) => <a href={`admin/agents/${part(x.agent_id)}`}>{x.agent_id}</a>, sort: (x) => x.agent_id },
          { id: 'sender', title: t.agents.sender, cell: (x) => x.sender, sort: (x) => x.sender },
          { id: 'state', title: t.status, cell: (x) => <State is={x.state === 'open' ? 'running' : x.state} />, sort: (x) => x.state },
          { id: 'since', title: t.agents.begun, cell: (x) => <When at={x.started_at} />, sort: (x) => x.started_at },
          { id: 'thread', title: t.agents.conversation, cell: (x) => <a href={`t/${part(x.thread_id)}`}>{t.agents.openConversation}</a> },
        ]} />
      </Card>
    </>
  );
}

function Figure({ title, value }: { title: string; value: string | number | undefined }) {
  return <div class="figure"><span>{title}</span><strong>{value ?? '…'}</strong></div>;
}

function ms(n: number): string { return n >= 1000 ? `${(n / 1000).toFixed(1)} s` : `${Math.round(n)} ms`; }

function short(n: number): string { return n.toLocaleString('en', { notation: 'compact', maximumFractionDigits: 1 }); }
