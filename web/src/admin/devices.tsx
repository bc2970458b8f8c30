// Devices that want to be linked: whoever approves one lends it a name.

import { useState } from 'preact/hooks';
import { api } from '../app/api';
import { part } from '../app/base';
import { Badge, Button, Card, Checkbox, Empty, Skeleton } from '../ui/basic';
import { confirm } from '../ui/dialog';
import { Table } from '../ui/table';
import { text } from '../text/en';
import { act, done, Back, Facts, FormDialog, Id, live, Missing, Notice, State, Trouble, useLoad, useNames, When, Who, type Principal } from './kit';
import type { SectionProps } from './sections';

const t = text.manage, td = t.devices;

interface Link { code: string; fingerprint: string; device_name: string; proved: boolean; address: string; status: string; created_at: string; expires_at: string; principal_id?: string; known?: Principal; warning?: string }

export default function Devices({ id }: SectionProps) {
  const list = useLoad(async () => (await api.get<{ codes: Link[] }>('api/admin/link')).codes, '', live);
  const name = useNames();
  const [asked, ask] = useState<Link>();
  const deny = async (l: Link) => {
    if (await confirm({ title: td.denyTitle(l.device_name), body: td.denyBody, action: td.deny, danger: true })) await act(() => api.post(`api/admin/link/${part(l.code)}/deny`), td.denied, list.reload);
  };
  const buttons = (l: Link) => l.status === 'pending' && (
    <span class="row"><Button kind="primary" icon="check" aria-label={`${td.approve} ${l.device_name}`} onClick={() => ask(l)}>{td.approve}</Button><Button aria-label={`${td.deny} ${l.device_name}`} onClick={() => void deny(l)}>{td.deny}</Button></span>
  );
  const dialog = asked && <Approve of={asked} onClose={() => ask(undefined)} then={list.reload} />;
  const one = list.data?.find((l) => l.code === id);
  if (id) {
    if (!one) return list.data || list.error ? <Missing to="devices" of={list} /> : <Skeleton />;
    return (
      <>
        <Back to="devices">{td.title}</Back>
        {one.warning && <Notice>{one.warning}</Notice>}
        <Card title={one.device_name} actions={buttons(one)}>
          <Facts rows={[
            [td.code, <code>{one.code}</code>], [t.status, <State is={one.status} />], [td.fingerprint, <Id of={one.fingerprint} />], [td.proved, one.proved ? <Badge tone="good">{td.provedYes}</Badge> : <Badge tone="warn">{td.provedNo}</Badge>],
            [td.from, one.address || '–'], [t.created, <When at={one.created_at} />], [t.expires, <When at={one.expires_at} />], [td.becomes, <Who id={one.principal_id ?? one.known?.id ?? ''} name={name} />],
          ]} />
        </Card>
        {dialog}
      </>
    );
  }
  const waiting = list.data?.filter((l) => l.status === 'pending').length;
  return (
    <>
      <Trouble of={list} />
      {waiting === 0 && <Card><Empty icon="link" title={td.nobody}>{td.nobodyHint}</Empty></Card>}
      {list.data?.length !== 0 && <Table caption={td.title} rows={list.data} rowKey={(l) => l.code} words={(l) => `${l.code} ${l.device_name} ${l.fingerprint} ${l.status} ${l.address}`} empty={td.nobody} sortBy="created" descending columns={[
        { id: 'device', title: td.device, cell: (l) => <a href={`admin/devices/${part(l.code)}`}>{l.device_name}</a>, sort: (l) => l.device_name.toLowerCase() },
        { id: 'code', title: td.code, cell: (l) => <code>{l.code}</code>, sort: (l) => l.code },
        { id: 'status', title: t.status, cell: (l) => <State is={l.status} />, sort: (l) => l.status },
        { id: 'fp', title: td.fingerprint, cell: (l) => <><Id of={l.fingerprint} />{l.known && <div><Badge tone="warn">{td.known(l.known.display_name || l.known.id)}</Badge></div>}</> },
        { id: 'from', title: td.from, cell: (l) => l.address || '–', sort: (l) => l.address },
        { id: 'created', title: t.created, cell: (l) => <When at={l.created_at} />, sort: (l) => l.created_at },
        { id: 'do', title: '', cell: buttons },
      ]} />}
      {dialog}
    </>
  );
}

function Approve({ of: l, onClose, then }: { of: Link; onClose: () => void; then: () => unknown }) {
  const [sure, set] = useState(false);
  const submit = async () => {
    await api.post(`api/admin/link/${part(l.code)}/approve`, { known: sure });
    onClose();
    await done(td.approved(l.device_name), then);
  };
  return (
    <FormDialog title={td.approveTitle(l.device_name)} action={td.approve} danger={!!l.known} onClose={onClose} onSubmit={submit}>
      <p>{td.approveBody}</p>
      <Facts rows={[[td.code, <code>{l.code}</code>], [td.fingerprint, <code>{l.fingerprint}</code>], [td.from, l.address || '–']]} />
      {!l.proved && <Notice>{td.unproved}</Notice>}
      {l.known && <><Notice tone="bad">{l.warning}</Notice><Checkbox label={td.sure(l.known.display_name || l.known.id)} required checked={sure} onChange={(e) => set(e.currentTarget.checked)} /></>}
    </FormDialog>
  );
}
