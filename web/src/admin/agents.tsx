// Agents: those that are connected, and the ids that are known from before.

import { useState } from 'preact/hooks';
import { api } from '../app/api';
import { part } from '../app/base';
import { navigate } from '../app/router';
import { choose } from '../chat/state';
import { Badge, Button, Card, IconButton, Input, Select, Skeleton, TextArea } from '../ui/basic';
import { confirm } from '../ui/dialog';
import { Table } from '../ui/table';
import { toast } from '../ui/toast';
import { text } from '../text/en';
import { act, done, all, Back, Facts, FormDialog, Id, live, Missing, principals, State, Trouble, useLoad, useNames, When, Who, Words, type Principal } from './kit';
import type { SectionProps } from './sections';

const t = text.manage, ta = t.agents;

interface Git { branch: string; commit: string; remote: string; dirty: boolean; ahead: number; behind: number }
interface Live { id: string; name: string; instance_id: string; principal_id: string; capabilities: string[]; workspaces: string[]; working_dir: string; backend: string; connected_at: string; last_seen: string; open_turns: number; git?: Git; hostname?: string; os?: string; features?: string[] }
interface Owned { id: string; principal_id: string; claimed_at: string; confirmed: boolean; connected: boolean }
interface Agent { id: string; owner: string; live?: Live; owned?: Owned; principal?: Principal }
export interface Turn { request_id: string; agent_id: string; thread_id: string; sender: string; state: string; started_at: string; first_event_at?: string }

/** Every agent id that is connected or has an owner. */
export async function agents(): Promise<Agent[]> {
  const [here, owned, known] = await Promise.all([api.get<Live[]>('api/agents'), all<Owned>('api/admin/agents', 'agents'), principals()]);
  const by = new Map<string, Agent>();
  for (const o of owned) by.set(o.id, { id: o.id, owner: o.principal_id, owned: o });
  for (const l of here) by.set(l.id, { ...by.get(l.id), id: l.id, owner: by.get(l.id)?.owner ?? l.principal_id, live: l });
  return [...by.values()].map((a) => ({ ...a, principal: known.find((p) => p.id === a.owner) }));
}

const nameOf = (a: Agent) => a.live?.name || a.id;

export default function Agents({ id }: SectionProps) { return id ? <One key={id} id={id} /> : <List />; }

function List() {
  const list = useLoad(agents, '', live);
  const pending = useLoad(async () => (await principals()).filter((p) => p.type === 'agent' && p.status === 'pending'), '', live * 2);
  const name = useNames();
  const approve = async (p: Principal) => {
    if (await confirm({ title: t.principals.approveTitle(p.display_name || p.id), body: t.principals.approveBody(t.principals.kinds.agent!), action: t.principals.approve })) await act(() => api.post(`api/admin/principals/${part(p.id)}/approve`), t.principals.approved(p.display_name || p.id), pending.reload);
  };
  return (
    <>
      <Trouble of={list} />
      {(pending.data?.length ?? 0) > 0 && (
        <Card title={ta.pending}><p>{ta.pendingWhy}</p>
          <Table caption={ta.pending} rows={pending.data} rowKey={(p) => p.id} empty="" columns={[
            { id: 'name', title: t.name, cell: (p) => <a href={`admin/principals/${part(p.id)}`}>{p.display_name || p.id}</a>, sort: (p) => p.display_name },
            { id: 'since', title: t.created, cell: (p) => <When at={p.created_at} />, sort: (p) => p.created_at },
            { id: 'do', title: '', cell: (p) => <Button kind="primary" icon="check" aria-label={`${t.principals.approve} ${p.display_name}`} onClick={() => void approve(p)}>{t.principals.approve}</Button> },
          ]} />
        </Card>
      )}
      <Table caption={ta.title} rows={list.data} rowKey={(a) => a.id} words={(a) => `${a.id} ${a.live?.name ?? ''} ${a.live?.backend ?? ''} ${a.live?.workspaces.join(' ') ?? ''} ${name(a.owner)}`} empty={ta.empty} sortBy="status" descending columns={[
        { id: 'name', title: t.name, cell: (a) => <a href={`admin/agents/${part(a.id)}`}>{nameOf(a)}</a>, sort: (a) => nameOf(a).toLowerCase() },
        { id: 'status', title: t.status, cell: (a) => <State is={a.live ? 'online' : 'offline'} />, sort: (a) => Number(!!a.live) },
        { id: 'owner', title: ta.owner, cell: (a) => <Who id={a.owner} name={name} />, sort: (a) => name(a.owner) },
        { id: 'backend', title: ta.backend, cell: (a) => a.live?.backend || '–', sort: (a) => a.live?.backend ?? '' },
        { id: 'spaces', title: ta.workspaces, cell: (a) => <Words of={a.live?.workspaces} />, sort: (a) => a.live?.workspaces.join() ?? '' },
        { id: 'turns', title: ta.turns, cell: (a) => a.live?.open_turns ?? 0, sort: (a) => a.live?.open_turns ?? 0, numeric: true },
        { id: 'seen', title: t.seen, cell: (a) => <When at={a.live?.last_seen ?? a.principal?.last_seen} />, sort: (a) => a.live?.last_seen ?? '' },
      ]} />
    </>
  );
}

function One({ id }: { id: string }) {
  const list = useLoad(agents, id, live);
  const turns = useLoad(async () => (await api.get<{ turns: Turn[] }>('api/turns', { agent_id: id, limit: 100 })).turns, id, live);
  const name = useNames();
  const [open, show] = useState<'inject' | 'transfer' | undefined>();
  const a = list.data?.find((x) => x.id === id);
  if (!a) return list.data || list.error ? <Missing to="agents" of={list} /> : <Skeleton lines={6} />;
  const l = a.live, g = l?.git, called = nameOf(a);
  const close = () => show(undefined);
  const cancel = async (x: Turn) => {
    if (await confirm({ title: ta.cancelTitle, body: ta.cancelBody(x.sender), action: ta.cancel, danger: true })) await act(() => api.post(`api/turns/${part(x.request_id)}/cancel`, { reason: ta.cancelReason }), ta.cancelled, turns.reload);
  };
  const release = async () => {
    if (await confirm({ title: ta.releaseTitle(id), body: ta.releaseBody, action: ta.release, danger: true })) await act(() => api.delete(`api/admin/agents/${part(id)}/ownership`), ta.released, list.reload);
  };
  const revoke = async () => {
    if (await confirm({ title: t.principals.revokeTitle(name(a.owner)), body: t.principals.revokeBody, action: t.principals.revoke, danger: true })) await act(() => api.post(`api/admin/principals/${part(a.owner)}/revoke`), t.principals.revoked(name(a.owner)), list.reload);
  };
  return (
    <>
      <Back to="agents">{ta.title}</Back>
      <Trouble of={list} />
      <Card title={called} actions={<>
        <Button kind="primary" icon="chat" onClick={() => { choose(id); navigate(''); }}>{ta.chat}</Button>
        {l && <Button icon="info" onClick={() => show('inject')}>{ta.inject}</Button>}
        <Button icon="user" onClick={() => show('transfer')}>{ta.transfer}</Button>
        {a.owned && <Button icon="link" onClick={() => void release()}>{ta.release}</Button>}
        {a.principal?.status === 'approved' && <Button icon="lock" onClick={() => void revoke()}>{t.principals.revoke}</Button>}
      </>}>
        <Facts rows={[
          [t.status, <State is={l ? 'online' : 'offline'} />], [t.id, <Id of={a.id} />], [ta.owner, <Who id={a.owner} name={name} />], [ta.claim, a.owned ? <><When at={a.owned.claimed_at} />{!a.owned.confirmed && <> <Badge tone="warn">{ta.unconfirmed}</Badge></>}</> : '–'],
          [ta.backend, l?.backend || '–'], [ta.directory, l?.working_dir || '–'], [ta.machine, [l?.hostname, l?.os].filter(Boolean).join(', ') || '–'], [ta.git, g ? ta.gitState(g) : '–'], [ta.remote, g?.remote || '–'],
          [ta.workspaces, <Words of={l?.workspaces} />], [ta.inForce, <Words of={l?.capabilities} />], [ta.granted, <Words of={a.principal?.capabilities} />], [ta.features, <Words of={l?.features} />],
          [ta.instance, l ? <Id of={l.instance_id} /> : '–'], [ta.since, <When at={l?.connected_at} />], [t.seen, <When at={l?.last_seen ?? a.principal?.last_seen} />],
        ]} />
      </Card>
      <Card title={ta.turnsNow}>
        <Trouble of={turns} />
        <Table caption={ta.turnsNow} rows={turns.data} rowKey={(x) => x.request_id} empty={ta.noTurns} columns={[
          { id: 'thread', title: ta.conversation, cell: (x) => <a href={`t/${part(x.thread_id)}`}>{ta.openConversation}</a> },
          { id: 'sender', title: ta.sender, cell: (x) => x.sender, sort: (x) => x.sender },
          { id: 'state', title: t.status, cell: (x) => <State is={x.state === 'open' ? 'running' : x.state} />, sort: (x) => x.state },
          { id: 'since', title: ta.begun, cell: (x) => <When at={x.started_at} />, sort: (x) => x.started_at },
          { id: 'do', title: '', cell: (x) => <Button icon="stop" aria-label={`${ta.cancel} ${x.sender}`} onClick={() => void cancel(x)}>{ta.cancel}</Button> },
        ]} />
      </Card>
      <Policy id={id} />
      {open === 'inject' && <Inject id={id} name={called} onClose={close} />}
      {open === 'transfer' && <Transfer id={id} owner={a.owner} onClose={close} then={list.reload} />}
    </>
  );
}

interface Rule { tool: string; action: string }

function Policy({ id }: { id: string }) {
  const at = `api/admin/agents/${part(id)}/approval-policy`;
  const p = useLoad(async () => (await api.get<{ rules: Rule[] }>(at)).rules, id);
  const [edited, set] = useState<Rule[]>();
  const rules = edited ?? p.data ?? [];
  const change = (i: number, r: Partial<Rule>) => set(rules.map((x, n) => n === i ? { ...x, ...r } : x));
  const save = () => act(() => api.put(at, { rules }), t.saved, async () => { await p.reload(); set(undefined); });
  return (
    <Card title={ta.policy} actions={<Button icon="plus" onClick={() => set([...rules, { tool: '', action: 'ask' }])}>{ta.addRule}</Button>}>
      <p class="soft">{ta.policyWhy}</p>
      <Trouble of={p} />
      {p.data && rules.length === 0 && <p>{ta.noRules}</p>}
      <form class="stack" onSubmit={(e) => { e.preventDefault(); void save(); }}>
        {rules.map((r, i) => (
          <div class="rule" key={i}>
            <Input label={ta.tool(i + 1)} required placeholder="*" value={r.tool} onInput={(e) => change(i, { tool: e.currentTarget.value })} />
            <Select label={ta.actionOf(i + 1)} value={r.action} onChange={(e) => change(i, { action: e.currentTarget.value })} options={['ask', 'allow', 'deny'].map((x) => ({ value: x, label: ta.actions[x]! }))} />
            <IconButton icon="trash" label={ta.removeRule(i + 1)} onClick={() => set(rules.filter((_, n) => n !== i))} />
          </div>
        ))}
        {edited && <div class="row"><Button kind="primary" type="submit">{text.app.save}</Button><Button onClick={() => set(undefined)}>{text.app.cancel}</Button></div>}
      </form>
    </Card>
  );
}

function Inject({ id, name, onClose }: { id: string; name: string; onClose: () => void }) {
  const [content, setContent] = useState(''), [priority, setPriority] = useState('normal');
  const submit = async () => {
    const a = await api.post<{ outcome: string; reason?: string }>(`api/agents/${part(id)}/inject`, { content, priority, source: 'administrator' });
    onClose();
    toast(ta.injected(a.outcome, a.reason), a.outcome === 'accepted' ? 'good' : 'neutral');
  };
  return (
    <FormDialog title={ta.injectTitle(name)} action={ta.inject} onClose={onClose} onSubmit={submit}>
      <p>{ta.injectWhy}</p>
      <TextArea label={ta.content} required value={content} onInput={(e) => setContent(e.currentTarget.value)} />
      <Select label={ta.priority} value={priority} onChange={(e) => setPriority(e.currentTarget.value)} options={['immediate', 'normal', 'deferred'].map((x) => ({ value: x, label: ta.priorities[x]! }))} />
    </FormDialog>
  );
}

function Transfer({ id, owner, onClose, then }: { id: string; owner: string; onClose: () => void; then: () => unknown }) {
  const who = useLoad(principals);
  const [to, set] = useState('');
  const submit = async () => {
    await api.post(`api/admin/agents/${part(id)}/transfer`, { principal_id: to });
    onClose();
    await done(ta.transferred, then);
  };
  return (
    <FormDialog title={ta.transferTitle(id)} action={ta.transfer} danger onClose={onClose} onSubmit={submit}>
      <p>{ta.transferBody}</p>
      <Select label={ta.newOwner} required value={to} onChange={(e) => set(e.currentTarget.value)} options={[{ value: '', label: t.tokens.choose }, ...(who.data ?? []).filter((p) => p.id !== owner && p.status === 'approved').map((p) => ({ value: p.id, label: `${p.display_name || p.id} (${t.principals.kinds[p.type] ?? p.type})` }))]} />
    </FormDialog>
  );
}
