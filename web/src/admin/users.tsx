// Users: the people who sign in, and the invites for those who are to come.

import { useState } from 'preact/hooks';
import { api } from '../app/api';
import { part } from '../app/base';
import { navigate } from '../app/router';
import { Badge, Button, Card, Input, Select, Skeleton } from '../ui/basic';
import { confirm, prompt } from '../ui/dialog';
import { Table } from '../ui/table';
import { text } from '../text/en';
import { act, all, Back, Facts, FormDialog, Id, lives, Missing, Once, State, Trouble, useLoad, useNames, When, Who, Words } from './kit';
import type { SectionProps } from './sections';

const t = text.manage, tu = t.users;
const roles = ['member', 'admin', 'owner'];

interface User { id: string; name: string; display_name: string; roles: string[]; disabled: boolean; online: boolean; has_password: boolean; passkeys: number; created_at: string; created_by: string; last_seen?: string; sessions?: Session[]; passkey_list?: { id: string; name: string; created_at: string; last_used?: string }[] }
interface Session { id: string; device: string; address: string; opened_with: string; created_at: string; expires_at: string; last_used?: string; current: boolean }
interface Invite { id: string; role: string; note: string; status: string; created_at: string; created_by: string; expires_at: string; used_by?: string; url?: string }

export default function Users({ id }: SectionProps) { return id ? <One key={id} id={id} /> : <List />; }

const signsIn = (u: User) => [u.has_password && tu.password, u.passkeys > 0 && tu.passkeys(u.passkeys)].filter(Boolean).join(', ') || tu.noWay;

function List() {
  const users = useLoad(() => all<User>('api/admin/users', 'users'));
  const invites = useLoad(async () => (await api.get<{ invites: Invite[] }>('api/admin/invites')).invites);
  const name = useNames();
  const [making, make] = useState(false);
  const [link, show] = useState('');
  const revoke = async (i: Invite) => {
    if (await confirm({ title: tu.revokeInvite, body: tu.revokeInviteBody, action: tu.revoke, danger: true })) await act(() => api.delete(`api/admin/invites/${part(i.id)}`), tu.revoked, invites.reload);
  };
  return (
    <>
      <div class="row"><Button kind="primary" icon="plus" onClick={() => make(true)}>{tu.invite}</Button></div>
      <Trouble of={users} />
      <Table caption={tu.title} rows={users.data} rowKey={(u) => u.id} words={(u) => `${u.name} ${u.display_name} ${u.id} ${u.roles.join(' ')}`} empty={tu.empty} sortBy="name" columns={[
        { id: 'name', title: t.name, cell: (u) => <a href={`admin/users/${part(u.id)}`}>{u.display_name || u.name || u.id}</a>, sort: (u) => (u.display_name || u.name).toLowerCase() },
        { id: 'login', title: tu.signInName, cell: (u) => u.name || '–', sort: (u) => u.name },
        { id: 'roles', title: t.principals.roles, cell: (u) => <Words of={u.roles} />, sort: (u) => u.roles.join() },
        { id: 'way', title: tu.way, cell: signsIn, sort: signsIn },
        { id: 'status', title: t.status, cell: (u) => <State is={u.disabled ? 'disabled' : u.online ? 'online' : 'offline'} />, sort: (u) => Number(u.disabled) },
        { id: 'seen', title: t.seen, cell: (u) => <When at={u.last_seen} />, sort: (u) => u.last_seen ?? '' },
      ]} />
      <Card title={tu.invites}>
        <Trouble of={invites} />
        <Table caption={tu.invites} rows={invites.data} rowKey={(i) => i.id} words={(i) => `${i.note} ${i.role} ${i.status}`} empty={tu.noInvites} sortBy="created" descending columns={[
          { id: 'note', title: tu.note, cell: (i) => i.note || '–', sort: (i) => i.note },
          { id: 'role', title: t.principals.role, cell: (i) => <Badge>{i.role}</Badge>, sort: (i) => i.role },
          { id: 'status', title: t.status, cell: (i) => <State is={i.status} />, sort: (i) => i.status },
          { id: 'created', title: t.created, cell: (i) => <When at={i.created_at} />, sort: (i) => i.created_at },
          { id: 'by', title: t.by, cell: (i) => <Who id={i.created_by} name={name} /> },
          { id: 'expires', title: t.expires, cell: (i) => <When at={i.expires_at} />, sort: (i) => i.expires_at },
          { id: 'used', title: tu.usedBy, cell: (i) => <Who id={i.used_by ?? ''} name={name} /> },
          { id: 'do', title: '', cell: (i) => i.status === 'open' && <Button icon="lock" aria-label={`${tu.revoke} ${i.note || i.id}`} onClick={() => void revoke(i)}>{tu.revoke}</Button> },
        ]} />
      </Card>
      {making && <Invite onClose={() => make(false)} then={async (i) => { make(false); show(i.url!); await invites.reload(); }} />}
      {link && <Once title={tu.inviteLink} why={tu.inviteWhy} value={link} onClose={() => show('')} />}
    </>
  );
}

function Invite({ onClose, then }: { onClose: () => void; then: (i: Invite) => unknown }) {
  const [role, setRole] = useState('member'), [note, setNote] = useState(''), [life, setLife] = useState('86400');
  return (
    <FormDialog title={tu.invite} action={tu.invite} onClose={onClose} onSubmit={async () => then(await api.post<Invite>('api/admin/invites', { role, note: note.trim(), ttl_seconds: Number(life) }))}>
      <Input label={tu.note} hint={tu.noteHint} value={note} maxLength={200} onInput={(e) => setNote(e.currentTarget.value)} />
      <Select label={t.principals.role} hint={t.principals.roleMeans[role]} value={role} onChange={(e) => setRole(e.currentTarget.value)} options={roles.map((r) => ({ value: r, label: r }))} />
      <Select label={t.tokens.life} value={life} onChange={(e) => setLife(e.currentTarget.value)} options={lives(1 / 24, 1, 7)} />
    </FormDialog>
  );
}

function One({ id }: { id: string }) {
  const at = `api/admin/users/${part(id)}`;
  const one = useLoad(() => api.get<User>(at), id);
  const name = useNames();
  const [link, show] = useState('');
  const u = one.data;
  if (!u) return one.error ? <Missing to="users" of={one} /> : <Skeleton lines={6} />;
  const called = u.display_name || u.name || u.id;
  const rename = async () => {
    const to = await prompt({ title: t.principals.renameTitle, label: t.name, action: t.rename, value: u.display_name, maxLength: 100 });
    if (to !== undefined) await act(() => api.patch(at, { display_name: to.trim() }), t.saved, one.reload);
  };
  const role = async (to: string) => {
    if (await confirm({ title: tu.roleTitle(called, to), body: t.principals.roleMeans[to], action: tu.changeRole })) await act(() => api.patch(at, { role: to }), t.saved);
    await one.reload();
  };
  const disable = async () => {
    if (await confirm({ title: u.disabled ? tu.enableTitle(called) : tu.disableTitle(called), body: u.disabled ? tu.enableBody : tu.disableBody, action: u.disabled ? tu.enable : tu.disable, danger: !u.disabled })) await act(() => api.patch(at, { disabled: !u.disabled }), t.saved, one.reload);
  };
  const reset = async () => {
    if (!await confirm({ title: tu.resetTitle(called), body: tu.resetBody, action: tu.reset, danger: true })) return;
    await act(async () => show((await api.post<{ url: string }>(`${at}/reset`)).url), tu.resetDone, one.reload);
  };
  const remove = async () => {
    if (await confirm({ title: tu.deleteTitle(called), body: tu.deleteBody, action: t.delete, danger: true }) && await act(() => api.delete(at), t.deleted)) navigate('admin/users');
  };
  const end = async (s?: Session) => {
    if (await confirm({ title: s ? tu.endOne : tu.endAll(called), body: tu.endBody, action: tu.end, danger: true })) await act(() => api.delete(s ? `${at}/sessions/${part(s.id)}` : `${at}/sessions`), t.saved, one.reload);
  };
  return (
    <>
      <Back to="users">{tu.title}</Back>
      <Trouble of={one} />
      <Card title={called} actions={<><Button icon="edit" onClick={() => void rename()}>{t.rename}</Button><Button icon="link" onClick={() => void reset()}>{tu.reset}</Button><Button icon="lock" onClick={() => void disable()}>{u.disabled ? tu.enable : tu.disable}</Button><Button icon="trash" onClick={() => void remove()}>{t.delete}</Button></>}>
        <Facts rows={[
          [tu.signInName, u.name || '–'], [tu.way, signsIn(u)], [t.status, <State is={u.disabled ? 'disabled' : u.online ? 'online' : 'offline'} />], [t.seen, <When at={u.last_seen} />], [t.created, <When at={u.created_at} />], [t.by, <Who id={u.created_by} name={name} />], [t.id, <Id of={u.id} />],
          [tu.asPrincipal, <a href={`admin/principals/${part(u.id)}`}>{tu.toPrincipal}</a>],
        ]} />
        <div class="row"><Select key={u.roles.join()} label={t.principals.role} value={roles.findLast((r) => u.roles.includes(r)) ?? ''} onChange={(e) => void role(e.currentTarget.value)} options={[...(u.roles.length ? [] : [{ value: '', label: t.principals.noRole }]), ...roles.map((r) => ({ value: r, label: r }))]} /></div>
      </Card>
      <Card title={tu.sessions} actions={(u.sessions?.length ?? 0) > 0 && <Button icon="exit" onClick={() => void end()}>{tu.endEvery}</Button>}>
        <Table caption={tu.sessions} rows={u.sessions ?? []} rowKey={(s) => s.id} empty={tu.noSessions} columns={[
          { id: 'device', title: t.devices.device, cell: (s) => <>{s.device || '–'} {s.current && <Badge tone="accent">{tu.thisOne}</Badge>}</>, sort: (s) => s.device },
          { id: 'from', title: t.devices.from, cell: (s) => s.address || '–', sort: (s) => s.address },
          { id: 'since', title: t.created, cell: (s) => <When at={s.created_at} />, sort: (s) => s.created_at },
          { id: 'used', title: t.used, cell: (s) => <When at={s.last_used} />, sort: (s) => s.last_used ?? '' },
          { id: 'do', title: '', cell: (s) => <Button icon="exit" aria-label={`${tu.end} ${s.device}`} onClick={() => void end(s)}>{tu.end}</Button> },
        ]} />
      </Card>
      <Card title={tu.passkeyTitle}>
        <Table caption={tu.passkeyTitle} rows={u.passkey_list ?? []} rowKey={(k) => k.id} empty={tu.noPasskeys} columns={[
          { id: 'name', title: t.name, cell: (k) => k.name, sort: (k) => k.name },
          { id: 'added', title: t.added, cell: (k) => <When at={k.created_at} />, sort: (k) => k.created_at },
          { id: 'used', title: t.used, cell: (k) => <When at={k.last_used} />, sort: (k) => k.last_used ?? '' },
        ]} />
      </Card>
      {link && <Once title={tu.resetLink} why={tu.resetWhy} value={link} onClose={() => show('')} />}
    </>
  );
}
