// The chat: the list of conversations, and one of them or the beginning of a new one.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { api, ApiError, reason } from '../app/api';
import { part, url } from '../app/base';
import { navigate, search, type PageProps } from '../app/router';
import { Shell } from '../app/shell';
import { Badge, Button, Empty, IconButton, Skeleton } from '../ui/basic';
import { Menu } from '../ui/menu';
import { matches, provide } from '../ui/palette';
import { toast } from '../ui/toast';
import { text } from '../text/en';
import { addFiles, Composer, draftOf, send } from './composer';
import { Feed } from './feed';
import type { Turn } from './events';
import { agentName, agents, choose, chosen, loadThreads, online, pending, read, threads, watch, type Thread } from './state';
import { ThreadList, threadActions } from './threads';
import { stop, TurnView } from './turn';

const t = text.chat;

interface Hit { thread_id: string; request_id: string; title: string; agent_id: string; excerpt: { text: string; match?: boolean }[] }

/** What the palette finds in the chat. */
function commands() {
  return provide(async (query, signal) => {
    const own = [{ id: 'new', label: t.newThread, icon: 'plus' as const, run: () => navigate('') },
      ...(agents.peek() ?? []).map((a) => ({ id: `agent-${a.id}`, label: t.conversationWith(a.name || a.id), icon: 'bot' as const, run: () => { choose(a.id); navigate(''); } })),
      ...(threads.peek() ?? []).slice(0, query ? undefined : 6).map((x) => ({ id: `thread-${x.id}`, label: x.title || t.untitled, hint: agentName(x.agent_id), icon: 'chat' as const, run: () => navigate(`t/${part(x.id)}`) }))]
      .filter((c) => matches(c.label, query));
    if (query.trim().length < 2) return own;
    const found = await api.get<{ results: Hit[] }>('api/search', { q: query.trim(), limit: 10 }, { signal }).catch((err: unknown) => {
      if (signal.aborted) throw err;
      return { results: [] };
    });
    return [...own, ...found.results.map((h, i) => ({ id: `hit-${i}`, label: h.excerpt.map((e) => typeof e === 'string' ? e : e.text).join(''), hint: h.title, icon: 'search' as const, run: () => navigate(`t/${part(h.thread_id)}`) }))];
  });
}

export default function Chat({ params }: PageProps) {
  const id = params.thread;
  useEffect(watch, []);
  useEffect(commands, []);
  useEffect(() => {
    const wanted = new URLSearchParams(search.peek()).get('agent');
    if (wanted) choose(wanted);
    const key = (e: KeyboardEvent) => {
      if ((e.metaKey || e.ctrlKey) && e.shiftKey && e.key.toLowerCase() === 'o') { e.preventDefault(); navigate(''); }
    };
    addEventListener('keydown', key);
    return () => removeEventListener('keydown', key);
  }, []);
  const side = <ThreadList current={id} />;
  return id ? <ThreadPage key={id} id={id} side={side} /> : <NewPage side={side} />;
}

function Elsewhere({ current }: { current?: string }) {
  const others = [...pending.value].filter(([id]) => id !== current);
  if (!others.length) return null;
  return <Button kind="ghost" icon="question" onClick={() => navigate(`t/${part(others[0]![0])}`)}>{t.pendingElsewhere(others.reduce((n, [, k]) => n + k, 0))}</Button>;
}

function NewPage({ side }: { side: preact.ComponentChildren }) {
  const list = agents.value;
  const agent = list?.some((a) => a.id === chosen.value) ? chosen.value : list?.[0]?.id ?? '';
  useEffect(() => { document.title = `${t.newThread} · ${text.app.name}`; }, []);
  return (
    <Shell side={side} sideLabel={t.threads} title={<h1>{t.newThread}</h1>} actions={<Elsewhere />}>
      <Drop thread="">
        <div class="chat new">
          <div class="begin">
            {!list ? <Skeleton lines={2} /> : list.length === 0 ? <Empty icon="bot" title={t.noAgents}>{t.noAgentsHint}</Empty> : (
              <>
                <h2>{t.startWith(agentName(agent))}</h2>
                <div class="agents" role="radiogroup" aria-label={t.chooseAgent}>
                  {list.map((a) => (
                    <label key={a.id} class="agent"><input type="radio" name="agent" value={a.id} checked={a.id === agent} onChange={() => choose(a.id)} />
                      <span class={`dot ${a.connected ? 'on' : ''}`} /><span class="agent-name"><strong>{a.name || a.id}</strong><small>{a.connected ? t.online : t.offline}{a.working_dir && ` · ${a.working_dir}`}</small></span></label>
                  ))}
                </div>
                <p class="soft">{t.startHint}</p>
              </>
            )}
          </div>
          <Composer agent={agent} busy={false} onSent={(id) => { navigate(`t/${part(id)}`); void loadThreads(); }} onStop={() => {}} />
        </div>
      </Drop>
    </Shell>
  );
}

function ThreadPage({ id, side }: { id: string; side: preact.ComponentChildren }) {
  const [thread, setThread] = useState<Thread | undefined>(threads.peek()?.find((x) => x.id === id));
  const [missing, setMissing] = useState(false);
  const listed = threads.value?.find((x) => x.id === id);
  const shown = listed ?? thread;
  useEffect(() => {
    if (thread) return;
    let on = true;
    const load = async () => {
      try {
        const x = await api.get<Thread>(`api/threads/${part(id)}`);
        if (on) setThread(x);
      } catch (err) {
        if (!on) return;
        if (err instanceof ApiError && err.status === 404) setMissing(true);
        else setTimeout(load, 2000);
      }
    };
    void load();
    return () => { on = false; };
  }, []);
  useEffect(() => { document.title = `${shown?.title || t.title} · ${text.app.name}`; }, [shown?.title]);
  useEffect(() => { if (listed && !document.hidden) read(listed); }, [listed?.updated_at]);
  const title = <h1>{shown?.title || t.untitled}</h1>;
  if (missing) {
    return <Shell side={side} sideLabel={t.threads} title={<h1>{t.title}</h1>}><Empty icon="chat" title={t.noThread}>{t.noThreadHint}<p><a href="./">{t.newThread}</a></p></Empty></Shell>;
  }
  return (
    <Shell side={side} sideLabel={t.threads} title={title} actions={shown && (
      <><Elsewhere current={id} /><Presence agent={shown.agent_id} /><Menu compact icon="more" label={t.actions(shown.title || t.untitled)} items={threadActions(shown)} /></>
    )}>
      {shown ? <Conversation key={id} id={id} agent={shown.agent_id} /> : <div class="chat"><div class="log-inner"><Skeleton lines={6} /></div></div>}
    </Shell>
  );
}

function Presence({ agent }: { agent: string }) {
  const on = online.value.has(agent);
  return <Badge tone={on ? 'good' : 'neutral'}><span class={`dot ${on ? 'on' : ''}`} /><span class="clip presence-name">{agentName(agent)}</span> {on ? t.online : t.offline}</Badge>;
}

/** How near the end counts as being there, in pixels. */
const nearEnd = 80;

function Conversation({ id, agent }: { id: string; agent: string }) {
  const feed = useMemo(() => new Feed(agent, id), []);
  const log = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const pinned = useRef(true);
  const [away, setAway] = useState(false);
  const [loadingEarlier, setLoadingEarlier] = useState(false);
  useEffect(() => {
    void feed.start();
    return () => feed.close();
  }, []);
  useEffect(() => { // whatever grows, who is at the end stays there
    const grown = new ResizeObserver(() => { if (pinned.current && log.current) log.current.scrollTop = log.current.scrollHeight; });
    grown.observe(inner.current!);
    grown.observe(log.current!);
    return () => grown.disconnect();
  }, []);
  useLayoutEffect(() => { if (pinned.current && log.current) log.current.scrollTop = log.current.scrollHeight; }, [feed.turns.value]);
  const turns = feed.turns.value;
  const open = turns.filter((x) => x.value.state === 'open');
  const toEnd = () => { pinned.current = true; log.current!.scrollTo({ top: log.current!.scrollHeight }); };
  const earlier = async () => {
    if (loadingEarlier) return;
    setLoadingEarlier(true);
    const el = log.current!, height = el.scrollHeight, top = el.scrollTop;
    pinned.current = false;
    try {
      await feed.earlier();
      requestAnimationFrame(() => { el.scrollTop = top + el.scrollHeight - height; });
    } catch (err) { toast(reason(err), 'bad'); }
    setLoadingEarlier(false);
  };
  const retry = async (x: Turn) => {
    try {
      const files = await Promise.all(x.files.map(async (f) => new File([await (await fetch(url(f.url))).blob()], f.filename, { type: f.mime_type })));
      await send({ agent, thread: id, content: x.content, files });
      toEnd();
    } catch (err) { toast(`${t.notSent}: ${reason(err)}`, 'bad'); }
  };
  const act = useMemo(() => ({
    retry: (x: Turn) => void retry(x),
    edit: (x: Turn) => { const d = draftOf(id); d.text.value = x.content; d.editing.value = true; document.querySelector<HTMLTextAreaElement>('.composer textarea')?.focus(); },
  }), []);
  if (feed.gone.value) return <Empty icon="trash" title={t.wasDeleted}><a href="./">{t.newThread}</a></Empty>;
  return (
    <Drop thread={id}>
      <div class="chat">
        {!feed.connected.value && <p class="offline" role="status">{t.streamLost}</p>}
        <div ref={log} class="log" role="log" aria-live="off" aria-label={t.title} tabIndex={0} onScroll={(e) => {
          const el = e.currentTarget, left = el.scrollHeight - el.scrollTop - el.clientHeight;
          pinned.current = left < nearEnd;
          if (away !== left > 400) setAway(left > 400);
          if (el.scrollTop < 200 && feed.more.peek() && !feed.loading.peek()) void earlier();
        }}>
          <div ref={inner} class="log-inner">
            {feed.removed.value && <p class="soft center-text">{t.removedPart}</p>}
            {feed.more.value && <Button kind="ghost" class="earlier" busy={loadingEarlier} onClick={() => void earlier()}>{loadingEarlier ? t.loadingEarlier : t.loadEarlier}</Button>}
            {feed.failure.value && <p class="note bad" role="alert">{feed.failure.value}</p>}
            {feed.loading.value ? <Skeleton lines={8} /> : turns.map((x) => <TurnView key={x.peek().id} turn={x} agent={agent} onRetry={act.retry} onEdit={act.edit} />)}
          </div>
        </div>
        {away && <IconButton icon="down" kind="plain" label={t.jumpDown} tip="above" class="jump round" onClick={toEnd} />}
        <Composer agent={agent} thread={id} busy={open.length > 0} onSent={() => { toEnd(); void loadThreads(); }} onStop={() => open.forEach((x) => void stop(x.peek()))} />
        <p class="hidden" role="status">{open.length ? t.working : turns.length && turns.at(-1)!.value.ended ? t.answered : ''}</p>
      </div>
    </Drop>
  );
}

/** Takes files that are dropped anywhere on the page. */
function Drop({ thread, children }: { thread: string; children: preact.ComponentChildren }) {
  const [over, setOver] = useState(false);
  const files = (e: DragEvent) => e.dataTransfer?.types.includes('Files');
  return (
    <div class="drop" onDragOver={(e) => { if (files(e)) { e.preventDefault(); setOver(true); } }} onDragLeave={(e) => { if (!e.currentTarget.contains(e.relatedTarget as Node | null)) setOver(false); }}
      onDrop={(e) => { if (files(e)) { e.preventDefault(); setOver(false); addFiles(draftOf(thread), e.dataTransfer!.files); } }}>
      {children}
      {over && <div class="drop-over">{t.drop}</div>}
    </div>
  );
}
