// The list of conversations.

import { useState } from 'preact/hooks';
import { api, reason } from '../app/api';
import { part, url } from '../app/base';
import { navigate, path } from '../app/router';
import { Button, Empty, Input, Skeleton } from '../ui/basic';
import { confirm, prompt } from '../ui/dialog';
import { Icon } from '../ui/icon';
import { Menu, type MenuItem } from '../ui/menu';
import { toast } from '../ui/toast';
import { text } from '../text/en';
import { agentName, archive, loadMoreThreads, loadThreads, moreThreads, online, threads, unread, type Thread } from './state';

const t = text.chat;
const day = 86_400_000;

/** The part of the list that a time belongs to. */
function group(at: string): string {
  const midnight = new Date().setHours(0, 0, 0, 0), d = Date.parse(at);
  return d >= midnight ? t.today : d >= midnight - day ? t.yesterday : d >= midnight - 7 * day ? t.week : d >= midnight - 30 * day ? t.month : t.older;
}

const mostTitle = 200;

/** What can be done with a thread. */
export function threadActions(th: Thread): MenuItem[] {
  const change = async (edit: object, done?: () => void) => {
    try {
      await api.patch(`api/threads/${part(th.id)}`, edit);
      await loadThreads();
      done?.();
    } catch (err) { toast(reason(err), 'bad'); }
  };
  return [
    { label: t.rename, icon: 'edit', run: async () => {
      const title = await prompt({ title: t.renameTitle, label: t.renameLabel, action: t.rename, value: th.title, maxLength: mostTitle });
      if (title) await change({ title });
    } },
    { label: th.archived ? t.unarchive : t.archive, icon: 'archive', run: () => change({ archived: !th.archived }, () => th.archived || toast(t.archivedToast, 'neutral', { label: t.undo, run: () => void change({ archived: false }) })) },
    { label: t.exportMarkdown, icon: 'download', run: () => location.assign(url(`api/threads/${part(th.id)}/export`, { format: 'markdown' })) },
    { label: t.exportJSON, icon: 'download', run: () => location.assign(url(`api/threads/${part(th.id)}/export`, { format: 'json' })) },
    { label: t.delete, icon: 'trash', danger: true, run: async () => {
      if (!await confirm({ title: t.deleteTitle, body: t.deleteBody(th.title), action: t.delete, danger: true })) return;
      try {
        await api.delete(`api/threads/${part(th.id)}`);
        if (path.peek() === `/t/${part(th.id)}`) navigate('');
        toast(t.deleted);
        await loadThreads();
      } catch (err) { toast(reason(err), 'bad'); }
    } },
  ];
}

export function ThreadList({ current }: { current?: string }) {
  const [query, setQuery] = useState('');
  const wanted = query.toLowerCase();
  const list = threads.value?.filter((x) => !wanted || x.title.toLowerCase().includes(wanted) || agentName(x.agent_id).toLowerCase().includes(wanted));
  const groups = new Map<string, Thread[]>();
  for (const x of list ?? []) groups.set(group(x.updated_at), [...(groups.get(group(x.updated_at)) ?? []), x]);
  return (
    <div class="threads">
      <div class="threads-head">
        <a class="button primary" href="./"><Icon name="plus" />{t.newThread}</a>
        <Input type="search" label={t.search} hideLabel placeholder={t.search} value={query} onInput={(e) => setQuery(e.currentTarget.value)} />
      </div>
      <nav class="threads-list" aria-label={t.threads}>
        {!list ? <Skeleton lines={6} /> : list.length === 0 ? <Empty title={wanted ? text.table.nothingFound : archive.value ? t.noArchived : t.noThreads}>{!wanted && !archive.value && t.noThreadsHint}</Empty>
          : [...groups].map(([name, rows]) => (
            <section key={name}>
              <h2>{name}</h2>
              <ul>{rows.map((x) => <Row key={x.id} thread={x} current={x.id === current} />)}</ul>
            </section>
          ))}
        {moreThreads.value && !wanted && <Button kind="ghost" onClick={() => void loadMoreThreads().catch((err) => toast(reason(err), 'bad'))}>{t.more}</Button>}
        <Button kind="ghost" icon="archive" class="archive-toggle" onClick={() => { archive.value = !archive.value; threads.value = undefined; moreThreads.value = ''; void loadThreads(); }}>{archive.value ? t.hideArchived : t.showArchived}</Button>
      </nav>
    </div>
  );
}

function Row({ thread: x, current }: { thread: Thread; current: boolean }) {
  const isNew = !current && unread(x);
  const title = x.title || t.untitled;
  return (
    <li class={`thread ${isNew ? 'unread' : ''}`}>
      <a href={`t/${part(x.id)}`} aria-current={current ? 'page' : undefined}>
        <span class="thread-title">{title}</span>
        <span class="thread-meta"><span class={`dot ${online.value.has(x.agent_id) ? 'on' : ''}`} />{agentName(x.agent_id)}{isNew && <span class="hidden">, {t.unread}</span>}</span>
      </a>
      <div class="row-end"><Menu compact icon="more" label={t.actions(title)} items={threadActions(x)} /></div>
    </li>
  );
}
