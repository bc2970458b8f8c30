// Bindings: which channel of a chat program speaks with which agent.

import { useState } from 'preact/hooks';
import { api } from '../app/api';
import { part } from '../app/base';
import { Button, Card, Input, Select, Skeleton } from '../ui/basic';
import { confirm } from '../ui/dialog';
import { Table } from '../ui/table';
import { text } from '../text/en';
import { act, done, Back, Facts, FormDialog, Id, live, Missing, State, Trouble, useLoad, useNames, When, Who } from './kit';
import type { SectionProps } from './sections';

const t = text.manage, tb = t.bindings;
const deliveries = ['fail', 'queue', 'interrupt'];

interface Binding { binding_id: string; frontend: string; channel_id: string; agent_id: string; agent_name: string; online: boolean; working_dir: string; delivery: string; created_at: string; created_by: string }

export default function Bindings({ id }: SectionProps) {
  const list = useLoad(async () => (await api.get<{ bindings: Binding[] }>('api/bindings')).bindings, '', live * 2);
  const name = useNames();
  const [edited, edit] = useState<Partial<Binding>>();
  const remove = async (b: Binding) => {
    if (await confirm({ title: tb.deleteTitle(b.channel_id), body: tb.deleteBody(b.agent_name), action: t.delete, danger: true })) await act(() => api.delete('api/bindings', { frontend: b.frontend, channel_id: b.channel_id }), t.deleted, list.reload);
  };
  const buttons = (b: Binding) => <span class="row"><Button icon="edit" aria-label={`${tb.rebind} ${b.channel_id}`} onClick={() => edit(b)}>{tb.rebind}</Button><Button icon="trash" aria-label={`${t.delete} ${b.channel_id}`} onClick={() => void remove(b)}>{t.delete}</Button></span>;
  const dialog = edited && <Bind of={edited} onClose={() => edit(undefined)} then={list.reload} />;
  const one = list.data?.find((b) => b.binding_id === id);
  if (id) {
    if (!one) return list.data || list.error ? <Missing to="bindings" of={list} /> : <Skeleton />;
    return (
      <>
        <Back to="bindings">{tb.title}</Back>
        <Card title={`${one.frontend}: ${one.channel_id}`} actions={buttons(one)}>
          <Facts rows={[
            [tb.agent, <a href={`admin/agents/${part(one.agent_id)}`}>{one.agent_name}</a>], [t.status, <State is={one.online ? 'online' : 'offline'} />], [tb.directory, one.working_dir || tb.anyDirectory], [tb.delivery, tb.deliveries[one.delivery] ?? one.delivery],
            [t.id, <Id of={one.binding_id} />], [t.created, <When at={one.created_at} />], [t.by, <Who id={one.created_by} name={name} />],
          ]} />
        </Card>
        {dialog}
      </>
    );
  }
  return (
    <>
      <div class="row"><Button kind="primary" icon="plus" onClick={() => edit({})}>{tb.create}</Button></div>
      <Trouble of={list} />
      <Table caption={tb.title} rows={list.data} rowKey={(b) => b.binding_id} words={(b) => `${b.frontend} ${b.channel_id} ${b.agent_id} ${b.agent_name} ${b.working_dir}`} empty={tb.empty} sortBy="channel" columns={[
        { id: 'frontend', title: tb.frontend, cell: (b) => b.frontend, sort: (b) => b.frontend },
        { id: 'channel', title: tb.channel, cell: (b) => <a href={`admin/bindings/${part(b.binding_id)}`}>{b.channel_id}</a>, sort: (b) => b.channel_id },
        { id: 'agent', title: tb.agent, cell: (b) => <a href={`admin/agents/${part(b.agent_id)}`}>{b.agent_name}</a>, sort: (b) => b.agent_name },
        { id: 'status', title: t.status, cell: (b) => <State is={b.online ? 'online' : 'offline'} />, sort: (b) => Number(b.online) },
        { id: 'delivery', title: tb.delivery, cell: (b) => tb.deliveries[b.delivery] ?? b.delivery, sort: (b) => b.delivery },
        { id: 'created', title: t.created, cell: (b) => <When at={b.created_at} />, sort: (b) => b.created_at },
        { id: 'do', title: '', cell: buttons },
      ]} />
      {dialog}
    </>
  );
}

function Bind({ of: b, onClose, then }: { of: Partial<Binding>; onClose: () => void; then: () => unknown }) {
  const agents = useLoad(() => api.get<{ id: string; name: string }[]>('api/agents'));
  const [f, set] = useState({ frontend: b.frontend ?? '', channel_id: b.channel_id ?? '', agent_id: b.agent_id ?? '', working_dir: b.working_dir ?? '', delivery: b.delivery ?? 'fail' });
  const put = (name: keyof typeof f) => (e: { currentTarget: { value: string } }) => set({ ...f, [name]: e.currentTarget.value });
  const fixed = !!b.binding_id;
  const submit = async () => {
    await api.post('api/bindings', f);
    onClose();
    await done(tb.bound(f.channel_id, f.agent_id), then);
  };
  return (
    <FormDialog title={fixed ? tb.rebindTitle(f.channel_id) : tb.create} action={fixed ? tb.rebind : t.create} onClose={onClose} onSubmit={submit}>
      {fixed && <p>{tb.rebindBody}</p>}
      <Input label={tb.frontend} hint={tb.frontendHint} required readOnly={fixed} value={f.frontend} onInput={put('frontend')} />
      <Input label={tb.channel} required readOnly={fixed} value={f.channel_id} onInput={put('channel_id')} />
      <Input label={tb.agent} hint={tb.agentHint} required {...{ list: 'binding-agents' }} value={f.agent_id} onInput={put('agent_id')} />
      <datalist id="binding-agents">{(agents.data ?? []).map((a) => <option key={a.id} value={a.id}>{a.name}</option>)}</datalist>
      <Input label={tb.directory} hint={tb.directoryHint} value={f.working_dir} onInput={put('working_dir')} />
      <Select label={tb.delivery} value={f.delivery} onChange={put('delivery')} options={deliveries.map((d) => ({ value: d, label: tb.deliveries[d]! }))} />
    </FormDialog>
  );
}
