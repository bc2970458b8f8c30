// Principals: who there is, what they may do, and with which keys they show who they are.

import { useState } from 'preact/hooks';
import { api } from '../app/api';
import { part } from '../app/base';
import { navigate } from '../app/router';
import { Badge, Button, Card, Checkbox, IconButton, Input, Select, Skeleton, TextArea } from '../ui/basic';
import { confirm, prompt } from '../ui/dialog';
import { Table } from '../ui/table';
import { text } from '../text/en';
import { act, Back, Facts, FormDialog, Id, live, Missing, principals, State, Trouble, useLoad, useNames, When, Who, Words, type Key, type Principal } from './kit';
import type { SectionProps } from './sections';

const t = text.manage, tp = t.principals;
const kinds = ['client', 'agent', 'pack', 'user'], roles = ['member', 'admin', 'owner'];

export default function Principals({ id }: SectionProps) { return id ? <One key={id} id={id} /> : <List />; }

function List() {
  const list = useLoad(principals, '', live * 2);
  const [kind, setKind] = useState(''), [status, setStatus] = useState('');
  const [making, make] = useState(false);
  const rows = list.data?.filter((p) => (!kind || p.type === kind) && (!status || p.status === status));
  return (
    <>
      <div class="row"><Button kind="primary" icon="plus" onClick={() => make(true)}>{tp.create}</Button></div>
      <Trouble of={list} />
      <Table caption={tp.title} rows={rows} rowKey={(p) => p.id} words={(p) => `${p.display_name} ${p.id} ${p.type} ${p.status} ${p.roles.join(' ')}`} empty={tp.empty} sortBy="created" descending tools={<>
        <Select label={tp.kind} hideLabel value={kind} onChange={(e) => setKind(e.currentTarget.value)} options={[{ value: '', label: tp.allKinds }, ...kinds.map((k) => ({ value: k, label: tp.kinds[k]! }))]} />
        <Select label={t.status} hideLabel value={status} onChange={(e) => setStatus(e.currentTarget.value)} options={[{ value: '', label: t.allStates }, ...['pending', 'approved', 'revoked'].map((s) => ({ value: s, label: t.states[s]! }))]} />
      </>} columns={[
        { id: 'name', title: t.name, cell: (p) => <a href={`admin/principals/${part(p.id)}`}>{p.display_name || p.id}</a>, sort: (p) => p.display_name.toLowerCase() },
        { id: 'kind', title: tp.kind, cell: (p) => tp.kinds[p.type] ?? p.type, sort: (p) => p.type },
        { id: 'status', title: t.status, cell: (p) => <State is={p.status} />, sort: (p) => p.status },
        { id: 'roles', title: tp.roles, cell: (p) => <Words of={p.roles} />, sort: (p) => p.roles.join() },
        { id: 'online', title: t.online, cell: (p) => p.online ? <Badge tone="good">{t.states.online}</Badge> : <When at={p.last_seen} />, sort: (p) => p.online ? '~' : p.last_seen ?? '' },
        { id: 'created', title: t.created, cell: (p) => <When at={p.created_at} />, sort: (p) => p.created_at },
        { id: 'do', title: '', cell: (p) => <span class="row row-end"><Standing of={p} then={list.reload} /></span> },
      ]} />
      {making && <Create onClose={() => make(false)} />}
    </>
  );
}

/** Approves or revokes. */
function Standing({ of: p, then }: { of: Principal; then: () => unknown }) {
  const name = p.display_name || p.id, at = `api/admin/principals/${part(p.id)}`;
  const approve = async () => {
    if (await confirm({ title: tp.approveTitle(name), body: tp.approveBody(tp.kinds[p.type] ?? p.type), action: tp.approve })) await act(() => api.post(`${at}/approve`), tp.approved(name), then);
  };
  const revoke = async () => {
    if (await confirm({ title: tp.revokeTitle(name), body: tp.revokeBody, action: tp.revoke, danger: true })) await act(() => api.post(`${at}/revoke`), tp.revoked(name), then);
  };
  return (
    <>
      {p.status !== 'approved' && <Button icon="check" aria-label={`${tp.approve} ${name}`} onClick={() => void approve()}>{tp.approve}</Button>}
      {p.status !== 'revoked' && <Button icon="lock" aria-label={`${tp.revoke} ${name}`} onClick={() => void revoke()}>{tp.revoke}</Button>}
    </>
  );
}

function One({ id }: { id: string }) {
  const at = `api/admin/principals/${part(id)}`;
  const one = useLoad(() => api.get<Principal>(at), id, live * 2);
  const name = useNames();
  const [adding, add] = useState(false);
  const p = one.data;
  if (!p) return <>{one.error ? <Missing to="principals" of={one} /> : <Skeleton lines={6} />}</>;
  const called = p.display_name || p.id;
  const rename = async () => {
    const to = await prompt({ title: tp.renameTitle, label: t.name, action: t.rename, value: p.display_name, maxLength: 100 });
    if (to !== undefined) await act(() => api.patch(at, { display_name: to.trim() }), t.saved, one.reload);
  };
  const remove = async () => {
    if (await confirm({ title: tp.deleteTitle(called), body: tp.deleteBody, action: t.delete, danger: true }) && await act(() => api.delete(at), t.deleted)) navigate('admin/principals');
  };
  const role = async (r: string, on: boolean) => {
    const ok = await confirm({ title: on ? tp.grantTitle(r, called) : tp.takeTitle(r, called), body: tp.roleMeans[r], action: on ? tp.grant : tp.take, danger: !on });
    if (ok) await act(() => on ? api.put(`${at}/roles/${r}`) : api.delete(`${at}/roles/${r}`), t.saved);
    await one.reload();
  };
  const capability = async () => {
    const c = await prompt({ title: tp.addCapability, body: tp.capabilityHint, label: tp.capability, action: tp.grant, maxLength: 64 });
    if (c) await act(() => api.put(`${at}/capabilities/${part(c.trim())}`), t.saved, one.reload);
  };
  const noCapability = async (c: string) => {
    if (await confirm({ title: tp.takeCapability(c, called), body: tp.takeCapabilityBody, action: tp.take, danger: true })) await act(() => api.delete(`${at}/capabilities/${part(c)}`), t.saved, one.reload);
  };
  const noKey = async (k: Key) => {
    if (await confirm({ title: tp.removeKeyTitle, body: tp.removeKeyBody(k.fingerprint), action: t.remove, danger: true })) await act(() => api.delete(`${at}/keys/${part(k.fingerprint)}`), t.deleted, one.reload);
  };
  return (
    <>
      <Back to="principals">{tp.title}</Back>
      <Trouble of={one} />
      <Card title={called} actions={<><Button icon="edit" onClick={() => void rename()}>{t.rename}</Button><Standing of={p} then={one.reload} /><Button icon="trash" onClick={() => void remove()}>{t.delete}</Button></>}>
        <Facts rows={[
          [tp.kind, tp.kinds[p.type] ?? p.type], [t.status, <State is={p.status} />], [t.online, p.online ? <Badge tone="good">{t.states.online}</Badge> : <When at={p.last_seen} />], [t.id, <Id of={p.id} />],
          [t.created, <When at={p.created_at} />], [t.by, <Who id={p.created_by} name={name} />],
          [tp.agents, p.agents?.length ? <span class="row">{p.agents.map((a) => <a key={a} href={`admin/agents/${part(a)}`}>{a}</a>)}</span> : '–'],
        ]} />
      </Card>
      <div class="grid">
        <Card title={tp.roles}>
          <p class="soft">{tp.rolesWhy}</p>
          {roles.map((r) => <Checkbox key={`${r}${p.roles.includes(r)}`} label={r} hint={tp.roleMeans[r]} checked={p.roles.includes(r)} onClick={(e) => { e.preventDefault(); void role(r, !p.roles.includes(r)); }} />)}
        </Card>
        <Card title={tp.capabilities} actions={<Button icon="plus" onClick={() => void capability()}>{tp.addCapability}</Button>}>
          <p class="soft">{tp.capabilitiesWhy}</p>
          {p.capabilities.length === 0 ? <p>{tp.noCapabilities}</p> : <ul class="plain-list">{p.capabilities.map((c) => <li key={c} class="row"><Badge>{c}</Badge><IconButton icon="close" label={`${tp.take} ${c}`} onClick={() => void noCapability(c)} /></li>)}</ul>}
        </Card>
      </div>
      <Card title={tp.keys} actions={<Button icon="plus" onClick={() => add(true)}>{tp.addKey}</Button>}>
        <Table caption={tp.keys} rows={p.keys ?? []} rowKey={(k) => k.fingerprint} empty={tp.noKeys} columns={[
          { id: 'fp', title: tp.fingerprint, cell: (k) => <Id of={k.fingerprint} />, sort: (k) => k.fingerprint },
          { id: 'comment', title: tp.comment, cell: (k) => k.comment || '–', sort: (k) => k.comment },
          { id: 'added', title: t.added, cell: (k) => <When at={k.added_at} />, sort: (k) => k.added_at },
          { id: 'used', title: t.used, cell: (k) => <When at={k.last_used} />, sort: (k) => k.last_used ?? '' },
          { id: 'do', title: '', cell: (k) => <IconButton icon="trash" label={`${t.remove} ${k.fingerprint}`} onClick={() => void noKey(k)} /> },
        ]} />
      </Card>
      {adding && <AddKey at={at} onClose={() => add(false)} then={one.reload} />}
    </>
  );
}

/** A public key, or the fingerprint of one. */
function keyFields(s: string): { pubkey?: string; pubkey_fp?: string } {
  const key = s.trim();
  return key === '' ? {} : /\s/.test(key) ? { pubkey: key } : { pubkey_fp: key };
}

function AddKey({ at, onClose, then }: { at: string; onClose: () => void; then: () => unknown }) {
  const [key, set] = useState('');
  return (
    <FormDialog title={tp.addKey} action={tp.addKey} onClose={onClose} onSubmit={async () => { await api.post(`${at}/keys`, keyFields(key)); onClose(); await then(); }}>
      <TextArea label={tp.key} hint={tp.keyHint} required value={key} spellcheck={false} onInput={(e) => set(e.currentTarget.value)} />
    </FormDialog>
  );
}

function Create({ onClose }: { onClose: () => void }) {
  const [kind, setKind] = useState('client'), [name, setName] = useState(''), [key, setKey] = useState(''), [role, setRole] = useState('');
  const submit = async () => {
    const p = await api.post<Principal>('api/admin/principals', { type: kind, display_name: name.trim(), ...keyFields(key), roles: role ? [role] : [] });
    onClose();
    navigate(`admin/principals/${part(p.id)}`);
  };
  return (
    <FormDialog title={tp.create} action={t.create} onClose={onClose} onSubmit={submit}>
      <Select label={tp.kind} value={kind} onChange={(e) => setKind(e.currentTarget.value)} options={['client', 'agent', 'pack'].map((k) => ({ value: k, label: tp.kinds[k]! }))} hint={tp.usersHint} />
      <Input label={t.name} required value={name} onInput={(e) => setName(e.currentTarget.value)} />
      <Select label={tp.role} value={role} onChange={(e) => setRole(e.currentTarget.value)} options={[{ value: '', label: tp.noRole }, ...roles.map((r) => ({ value: r, label: r }))]} />
      <TextArea label={tp.keyOptional} hint={tp.keyHint} value={key} spellcheck={false} onInput={(e) => setKey(e.currentTarget.value)} />
    </FormDialog>
  );
}
