// Secrets of agents. A value is in the page only while somebody who has asked for it looks at it.

import { useEffect, useState } from 'preact/hooks';
import { api } from '../app/api';
import { part } from '../app/base';
import { navigate } from '../app/router';
import { Badge, Button, Card, Input, Skeleton } from '../ui/basic';
import { PasswordInput } from '../ui/password';
import { confirm } from '../ui/dialog';
import { Table } from '../ui/table';
import { text } from '../text/en';
import { act, done, Back, Facts, FormDialog, Id, Missing, Once, Trouble, useLoad, useNames, When, Who } from './kit';
import type { SectionProps } from './sections';

const t = text.manage, ts = t.secrets;
/** How long a value that was revealed stays on the screen, in milliseconds. */
const shownFor = 60_000;

interface Secret { id: string; name: string; agent_id: string; created_at: string; created_by: string; updated_at: string; updated_by: string }

export default function Secrets({ id }: SectionProps) {
  const list = useLoad(async () => (await api.get<{ secrets: Secret[] }>('api/admin/secrets')).secrets);
  const name = useNames();
  const [edited, edit] = useState<Partial<Secret>>();
  const [shown, show] = useState<string>();
  useEffect(() => {
    if (shown === undefined) return;
    const timer = setTimeout(() => show(undefined), shownFor);
    return () => clearTimeout(timer);
  }, [shown]);
  const reveal = async (x: Secret) => {
    if (!await confirm({ title: ts.revealTitle(x.name), body: ts.revealBody, action: ts.reveal })) return;
    await act(async () => show((await api.get<{ value: string }>(`api/admin/secrets/${part(x.id)}/value`)).value), ts.revealed);
  };
  const remove = async (x: Secret) => {
    if (await confirm({ title: ts.deleteTitle(x.name), body: ts.deleteBody, action: t.delete, danger: true }) && await act(() => api.delete(`api/admin/secrets/${part(x.id)}`), t.deleted, list.reload) && id) navigate('admin/secrets');
  };
  const rotate = async () => {
    if (!await confirm({ title: ts.rotateTitle, body: ts.rotateBody, action: ts.rotate })) return;
    await act(() => api.post('api/admin/secrets/rotate'), ts.rotated, list.reload);
  };
  const buttons = (x: Secret) => (
    <span class="row"><Button icon="key" aria-label={`${ts.reveal} ${x.name}`} onClick={() => void reveal(x)}>{ts.reveal}</Button><Button icon="edit" aria-label={`${ts.replace} ${x.name}`} onClick={() => edit(x)}>{ts.replace}</Button><Button icon="trash" aria-label={`${t.delete} ${x.name}`} onClick={() => void remove(x)}>{t.delete}</Button></span>
  );
  const dialogs = (
    <>
      {edited && <Put of={edited} onClose={() => edit(undefined)} then={list.reload} />}
      {shown !== undefined && <Once title={ts.value} why={ts.valueWhy} value={shown} onClose={() => show(undefined)} />}
    </>
  );
  const one = list.data?.find((x) => x.id === id);
  if (id) {
    if (!one) return list.data || list.error ? <Missing to="secrets" of={list} /> : <Skeleton />;
    return (
      <>
        <Back to="secrets">{ts.title}</Back>
        <Card title={one.name} actions={buttons(one)}>
          <Facts rows={[[ts.agent, one.agent_id ? <a href={`admin/agents/${part(one.agent_id)}`}>{one.agent_id}</a> : ts.allAgents], [t.id, <Id of={one.id} />], [t.created, <When at={one.created_at} />], [t.by, <Who id={one.created_by} name={name} />], [ts.changed, <When at={one.updated_at} />], [ts.changedBy, <Who id={one.updated_by} name={name} />]]} />
        </Card>
        {dialogs}
      </>
    );
  }
  return (
    <>
      <div class="row"><Button kind="primary" icon="plus" onClick={() => edit({})}>{ts.create}</Button><Button icon="retry" onClick={() => void rotate()}>{ts.rotate}</Button></div>
      <Trouble of={list} />
      <Table caption={ts.title} rows={list.data} rowKey={(x) => x.id} words={(x) => `${x.name} ${x.agent_id}`} empty={ts.empty} sortBy="name" columns={[
        { id: 'name', title: t.name, cell: (x) => <a href={`admin/secrets/${part(x.id)}`}>{x.name}</a>, sort: (x) => x.name.toLowerCase() },
        { id: 'agent', title: ts.agent, cell: (x) => x.agent_id || <Badge>{ts.allAgents}</Badge>, sort: (x) => x.agent_id },
        { id: 'changed', title: ts.changed, cell: (x) => <When at={x.updated_at} />, sort: (x) => x.updated_at },
        { id: 'by', title: ts.changedBy, cell: (x) => <Who id={x.updated_by} name={name} /> },
        { id: 'do', title: '', cell: buttons },
      ]} />
      {dialogs}
    </>
  );
}

function Put({ of: x, onClose, then }: { of: Partial<Secret>; onClose: () => void; then: () => unknown }) {
  const agents = useLoad(() => api.get<{ id: string; name: string }[]>('api/agents'));
  const [name, setName] = useState(x.name ?? ''), [agent, setAgent] = useState(x.agent_id ?? ''), [value, setValue] = useState('');
  const submit = async () => {
    await api.put('api/admin/secrets', { name: name.trim(), agent_id: agent.trim(), value });
    onClose();
    await done(t.saved, then);
  };
  return (
    <FormDialog title={x.id ? ts.replaceTitle(name) : ts.create} action={x.id ? ts.replace : t.create} onClose={onClose} onSubmit={submit}>
      <Input label={t.name} hint={ts.nameHint} required readOnly={!!x.id} value={name} autocomplete="off" spellcheck={false} onInput={(e) => setName(e.currentTarget.value)} />
      <Input label={ts.agent} hint={ts.agentHint} readOnly={!!x.id} {...{ list: 'secret-agents' }} value={agent} autocomplete="off" onInput={(e) => setAgent(e.currentTarget.value)} />
      <datalist id="secret-agents">{(agents.data ?? []).map((a) => <option key={a.id} value={a.id}>{a.name}</option>)}</datalist>
      <PasswordInput label={ts.value} required value={value} autocomplete="off" onInput={(e) => setValue(e.currentTarget.value)} />
    </FormDialog>
  );
}
