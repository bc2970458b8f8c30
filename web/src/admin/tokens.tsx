// API tokens: what programs show instead of a key.

import { useState } from 'preact/hooks';
import { api } from '../app/api';
import { part } from '../app/base';
import { Button, Card, Checkbox, Input, Select, Skeleton } from '../ui/basic';
import { confirm } from '../ui/dialog';
import { Table } from '../ui/table';
import { text } from '../text/en';
import { act, Back, Facts, FormDialog, Id, lives, Missing, Once, principals, State, Trouble, useLoad, useNames, When, Who, Words } from './kit';
import type { SectionProps } from './sections';

const t = text.manage, tt = t.tokens;
const scopes = ['read', 'send', 'connect', 'devices', 'admin'];

interface Token { id: string; principal_id: string; kind: string; name: string; scopes: string[]; revoked: boolean; created_at: string; created_by: string; expires_at: string; last_used?: string; revoked_at?: string; token?: string }

const state = (x: Token) => x.revoked ? 'revoked' : new Date(x.expires_at) < new Date() ? 'expired' : 'open';

export default function Tokens({ id }: SectionProps) {
  const list = useLoad(async () => (await api.get<{ tokens: Token[] }>('api/admin/tokens', { limit: 500 })).tokens.filter((x) => x.kind !== 'session'));
  const name = useNames();
  const [making, make] = useState(false);
  const [shown, show] = useState('');
  const revoke = async (x: Token) => {
    if (await confirm({ title: tt.revokeTitle(x.name || x.id), body: tt.revokeBody(name(x.principal_id)), action: tt.revoke, danger: true })) await act(() => api.delete(`api/admin/tokens/${part(x.id)}`), tt.revoked, list.reload);
  };
  const button = (x: Token) => state(x) === 'open' && <Button icon="lock" aria-label={`${tt.revoke} ${x.name || x.id}`} onClick={() => void revoke(x)}>{tt.revoke}</Button>;
  const one = list.data?.find((x) => x.id === id);
  if (id) {
    if (!one) return list.data || list.error ? <Missing to="tokens" of={list} /> : <Skeleton />;
    return (
      <>
        <Back to="tokens">{tt.title}</Back>
        <Card title={one.name || tt.unnamed} actions={button(one)}>
          <Facts rows={[
            [t.status, <State is={state(one)} />], [tt.of, <Who id={one.principal_id} name={name} />], [tt.kind, one.kind], [tt.scopes, <Words of={one.scopes} none={tt.allScopes} />], [t.id, <Id of={one.id} />],
            [t.created, <When at={one.created_at} />], [t.by, <Who id={one.created_by} name={name} />], [t.used, <When at={one.last_used} />], [t.expires, <When at={one.expires_at} />],
          ]} />
        </Card>
      </>
    );
  }
  return (
    <>
      <div class="row"><Button kind="primary" icon="plus" onClick={() => make(true)}>{tt.create}</Button></div>
      <Trouble of={list} />
      <Table caption={tt.title} rows={list.data} rowKey={(x) => x.id} words={(x) => `${x.name} ${x.id} ${name(x.principal_id)} ${x.scopes.join(' ')} ${state(x)}`} empty={tt.empty} sortBy="created" descending columns={[
        { id: 'name', title: t.name, cell: (x) => <a href={`admin/tokens/${part(x.id)}`}>{x.name || tt.unnamed}</a>, sort: (x) => x.name.toLowerCase() },
        { id: 'of', title: tt.of, cell: (x) => <Who id={x.principal_id} name={name} />, sort: (x) => name(x.principal_id) },
        { id: 'status', title: t.status, cell: (x) => <State is={state(x)} />, sort: state },
        { id: 'scopes', title: tt.scopes, cell: (x) => <Words of={x.scopes} none={tt.allScopes} />, sort: (x) => x.scopes.join() },
        { id: 'created', title: t.created, cell: (x) => <When at={x.created_at} />, sort: (x) => x.created_at },
        { id: 'used', title: t.used, cell: (x) => <When at={x.last_used} />, sort: (x) => x.last_used ?? '' },
        { id: 'expires', title: t.expires, cell: (x) => <When at={x.expires_at} />, sort: (x) => x.expires_at },
        { id: 'do', title: '', cell: button },
      ]} />
      {making && <Create onClose={() => make(false)} then={async (x) => { make(false); show(x.token!); await list.reload(); }} />}
      {shown && <Once title={tt.once} why={tt.onceWhy} value={shown} onClose={() => show('')} />}
    </>
  );
}

function Create({ onClose, then }: { onClose: () => void; then: (x: Token) => unknown }) {
  const who = useLoad(principals);
  const [of, setOf] = useState(''), [name, setName] = useState(''), [life, setLife] = useState(String(90 * 86400)), [only, setOnly] = useState<string[]>(['read', 'send']);
  const submit = async () => then(await api.post<Token>('api/admin/tokens', { kind: 'api', principal_id: of, name: name.trim(), scopes: only, ttl_seconds: Number(life) }));
  return (
    <FormDialog title={tt.create} action={t.create} onClose={onClose} onSubmit={submit}>
      <Select label={tt.of} required value={of} onChange={(e) => setOf(e.currentTarget.value)} options={[{ value: '', label: tt.choose }, ...(who.data ?? []).filter((p) => p.status === 'approved').map((p) => ({ value: p.id, label: `${p.display_name || p.id} (${t.principals.kinds[p.type] ?? p.type})` }))]} />
      <Input label={t.name} hint={tt.nameHint} value={name} maxLength={100} onInput={(e) => setName(e.currentTarget.value)} />
      <Select label={tt.life} value={life} onChange={(e) => setLife(e.currentTarget.value)} options={lives(1, 7, 30, 90, 365)} />
      <fieldset class="plain"><legend>{tt.scopes}</legend>
        {scopes.map((s) => <Checkbox key={s} label={s} hint={tt.scopeMeans[s]} checked={only.includes(s)} onChange={(e) => setOnly(e.currentTarget.checked ? [...only, s] : only.filter((x) => x !== s))} />)}
        {only.length === 0 && <small>{tt.noScope}</small>}
      </fieldset>
    </FormDialog>
  );
}
