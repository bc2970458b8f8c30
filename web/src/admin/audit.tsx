// The audit log: who has changed what, and whether the log is as it was written.

import { useState } from 'preact/hooks';
import { api } from '../app/api';
import { url } from '../app/base';
import { navigate, search } from '../app/router';
import { Badge, Button, Card, Input, Skeleton, Spinner } from '../ui/basic';
import { Table } from '../ui/table';
import { text } from '../text/en';
import { Back, Facts, Id, Missing, Notice, Trouble, useLoad, useNames, When, Who } from './kit';
import type { SectionProps } from './sections';

const t = text.manage, ta = t.audit;
const pageSize = 100;

interface Entry { seq: number; at: string; actor: string; action: string; target_type: string; target: string; detail: Record<string, unknown>; hash: string }
interface Page { records: Entry[]; has_more: boolean }
interface Verification { ok: boolean; records: number; head: string; signed: number; bad?: number; fault?: string }

export default function Audit({ id }: SectionProps) { return id ? <One id={id} /> : <List />; }

function List() {
  const q = new URLSearchParams(search.value);
  const filter = { action: q.get('action') ?? '', actor: q.get('actor') ?? '', target: q.get('target') ?? '' }, before = q.get('before') ?? '';
  const page = useLoad(() => api.get<Page>('api/admin/audit', { ...filter, before: before || undefined, limit: pageSize }), search.value);
  const name = useNames();
  const go = (change: Record<string, string>) => {
    const to = new URLSearchParams(Object.entries({ ...filter, before: '', ...change }).filter(([, v]) => v));
    navigate(`admin/audit${to.size ? '?' + to : ''}`);
  };
  const [f, set] = useState(filter);
  const put = (n: keyof typeof f) => (e: { currentTarget: { value: string } }) => set({ ...f, [n]: e.currentTarget.value });
  return (
    <>
      <Verify />
      <form class="table-tools" onSubmit={(e) => { e.preventDefault(); go(f); }}>
        <Input label={ta.action} value={f.action} placeholder="create_token" onInput={put('action')} />
        <Input label={ta.actor} value={f.actor} placeholder={ta.idOf} onInput={put('actor')} />
        <Input label={ta.target} value={f.target} placeholder={ta.idOf} onInput={put('target')} />
        <Button type="submit" icon="search">{ta.filter}</Button>
        {search.value && <Button onClick={() => { set({ action: '', actor: '', target: '' }); navigate('admin/audit'); }}>{ta.clear}</Button>}
      </form>
      <Trouble of={page} />
      <Table caption={ta.title} rows={page.data?.records} rowKey={(r) => String(r.seq)} pageSize={pageSize} words={(r) => `${r.action} ${name(r.actor)} ${r.target} ${name(r.target)} ${JSON.stringify(r.detail)}`} empty={ta.empty} sortBy="seq" descending columns={[
        { id: 'seq', title: ta.number, cell: (r) => <a href={`admin/audit/${r.seq}`}>{r.seq}</a>, sort: (r) => r.seq, numeric: true },
        { id: 'at', title: ta.when, cell: (r) => <When at={r.at} />, sort: (r) => r.at },
        { id: 'actor', title: ta.actor, cell: (r) => <Who id={r.actor} name={name} />, sort: (r) => name(r.actor) },
        { id: 'action', title: ta.action, cell: (r) => <Badge>{r.action}</Badge>, sort: (r) => r.action },
        { id: 'target', title: ta.target, cell: (r) => <><span class="soft">{r.target_type}</span> {r.target_type === 'principal' ? <Who id={r.target} name={name} /> : <Id of={r.target} copy={false} />}</>, sort: (r) => r.target },
      ]} />
      <nav class="pager" aria-label={ta.pages}>
        {before && <Button onClick={() => history.back()}>{ta.newer}</Button>}
        {page.data?.has_more && <Button onClick={() => go({ before: String(page.data!.records.at(-1)!.seq) })}>{ta.older}</Button>}
      </nav>
    </>
  );
}

function Verify() {
  const v = useLoad(() => api.get<Verification>('api/admin/audit/verify'));
  const d = v.data;
  return (
    <Card title={ta.verification} actions={<><Button icon="retry" onClick={() => void v.reload()}>{ta.verify}</Button><a class="button" href={url('api/admin/audit/export')} download="audit.jsonl">{ta.export}</a></>}>
      <Trouble of={v} />
      {!d ? !v.error && <Spinner label={ta.verifying} /> : d.ok ? <Notice tone="good">{ta.good(d.records, d.signed)}</Notice> : <Notice tone="bad">{ta.bad(d.bad ?? 0, d.fault ?? '')}</Notice>}
    </Card>
  );
}

function One({ id }: { id: string }) {
  const n = Number(id);
  const one = useLoad(async () => (await api.get<Page>('api/admin/audit', { before: n + 1, limit: 1 })).records.find((r) => r.seq === n), id);
  const [asked] = useState(Date.now());
  const name = useNames();
  const r = one.data;
  if (!r) return one.error || Date.now() - asked > 2000 ? <Missing to="audit" of={one} /> : <Skeleton lines={4} />;
  return (
    <>
      <Back to="audit">{ta.title}</Back>
      <Card title={`${r.seq}: ${r.action}`}>
        <Facts rows={[
          [ta.when, new Date(r.at).toLocaleString('en')], [ta.actor, <Who id={r.actor} name={name} />], [ta.target, <>{r.target_type} {r.target_type === 'principal' ? <Who id={r.target} name={name} /> : <Id of={r.target} />}</>], [ta.hash, <Id of={r.hash} />],
          [ta.more, <a href={`admin/audit?target=${encodeURIComponent(r.target)}`}>{ta.sameTarget}</a>],
        ]} />
        <pre class="detail">{JSON.stringify(r.detail, null, 2)}</pre>
      </Card>
    </>
  );
}
