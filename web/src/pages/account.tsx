import { useEffect, useState } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import type { PageProps } from '../app/router';
import { api, reason } from '../app/api';
import { part } from '../app/base';
import { addPasskey, browserHasPasskeys, PasskeyError } from '../app/passkey';
import { hasSession, isAdmin, logOut, me, whoami } from '../app/session';
import { Shell } from '../app/shell';
import { sections as adminSections } from '../admin/sections';
import { Badge, Button, Card, Input, Skeleton } from '../ui/basic';
import { confirm, prompt } from '../ui/dialog';
import { Icon } from '../ui/icon';
import { Menu } from '../ui/menu';
import { PasswordInput } from '../ui/password';
import { toast } from '../ui/toast';
import { text } from '../text/en';
import { device } from './device';
import { NameInput, OpenAdvice, Refusal, useAttempt, useSignIn } from './gate';

const t = text.account;

interface Passkey { id: string; name: string; created_at: string; last_used?: string; backed_up: boolean }
interface Session { id: string; device: string; address: string; opened_with: string; created_at: string; last_used?: string; current: boolean }

/** What concerns oneself: names, passkeys, password, sessions. */
export default function Account(_: PageProps) {
  const state = useSignIn();
  useEffect(() => { document.title = `${t.title} · ${text.app.name}`; }, []);
  const who = me.value!;
  const signIn = who.sign_in;
  const person = who.principal_type === 'user' && !!signIn;
  const toTokens = isAdmin.value && adminSections.some((g) => g.sections.some((s) => s.name === 'tokens'));
  const parts: [id: string, title: string][] = [
    ['you', t.you], ...(person && signIn.name ? [['passkeys', t.passkeys], ['password', t.password]] as [string, string][] : []), ...(hasSession.value ? [['sessions', t.sessions]] as [string, string][] : []),
    ...(toTokens ? [['tokens', t.tokens]] as [string, string][] : []),
  ];
  return (
    <Shell sideLabel={t.more} title={<h1>{t.title}</h1>} side={
      <nav class="nav" aria-label={t.more}>
        <ul>{parts.map(([id, title]) => <li key={id}><a href={`account#${id}`} onClick={(e) => { e.preventDefault(); show(id); }}>{title}</a></li>)}</ul>
        <ul><li><a href="./"><Icon name="chat" />{text.app.toChat}</a></li></ul>
      </nav>
    }>
      <div class="content account">
        {state?.open && <Section id="open" title={text.signIn.openTitle}><p>{text.signIn.openBody}</p><OpenAdvice /></Section>}
        {person && signIn.name && !signIn.has_password && signIn.passkeys === 0 && <p class="warning" role="status">{t.noWay}</p>}
        <You person={person} />
        {person && signIn.name && state && (
          <>
            <Passkeys possible={state.passkeys && browserHasPasskeys} />
            <Password least={state.password_min_length} />
          </>
        )}
        {hasSession.value && <Sessions />}
        {toTokens && <Section id="tokens" title={t.tokens}><p>{t.tokensWhy}</p><p><a href="admin/tokens">{t.toTokens}</a></p></Section>}
      </div>
    </Shell>
  );
}

function show(id: string) {
  const section = document.getElementById(id);
  section?.scrollIntoView({ behavior: 'smooth' });
  section?.focus({ preventScroll: true });
}

function Section({ id, title, actions, children }: { id: string; title: string; actions?: ComponentChildren; children: ComponentChildren }) {
  return <div id={id} tabIndex={-1} class="account-part"><Card title={title} actions={actions}>{children}</Card></div>;
}

function You({ person }: { person: boolean }) {
  const who = me.value!;
  const [display, setDisplay] = useState(who.display_name ?? '');
  const [name, setName] = useState(who.sign_in?.name ?? '');
  const { error, busy, attempt } = useAttempt();
  const save = async () => {
    if (await attempt('save', async () => { await api.patch('api/me', { name: name.trim(), display_name: display.trim() }); await whoami(); })) {
      setName(me.peek()?.sign_in?.name ?? '');
      toast(t.saved, 'good');
    }
  };
  return (
    <Section id="you" title={t.you} actions={who.roles?.map((r) => <Badge key={r} tone="accent">{r}</Badge>)}>
      {person ? (
        <form class="stack" onSubmit={(e) => { e.preventDefault(); void save(); }}>
          {!who.sign_in?.name && <p>{t.nameFirst}</p>}
          {error && <Refusal>{error}</Refusal>}
          <div class="grid">
            <Input label={t.display} hint={t.displayHint} name="display_name" autocomplete="name" required maxLength={100} value={display} onInput={(e) => setDisplay(e.currentTarget.value)} />
            <NameInput value={name} onInput={setName} />
          </div>
          <div class="form-end"><Button type="submit" busy={!!busy} disabled={display.trim() === who.display_name && name.trim() === who.sign_in?.name}>{text.app.save}</Button></div>
        </form>
      ) : (
        <>
          <p>{who.display_name || who.principal_id}</p>
          {hasSession.value && <p class="advice">{t.onlyToken}</p>}
        </>
      )}
    </Section>
  );
}

/** A list that is loaded, and loaded again when something in it was changed. */
function useList<T>(load: () => Promise<T[]>) {
  const [list, set] = useState<T[]>();
  const [error, fail] = useState('');
  const reload = () => load().then((l) => { set(l); fail(''); }, (err) => fail(reason(err)));
  useEffect(() => void reload(), []);
  return { list, error, reload };
}

/** Does something, and says what came of it. */
async function tell(run: () => Promise<unknown>, done: string): Promise<void> {
  try {
    await run();
    toast(done, 'good');
  } catch (err) {
    toast(reason(err), err instanceof PasskeyError && err.gaveUp ? 'neutral' : 'bad');
  }
}

function Passkeys({ possible }: { possible: boolean }) {
  const { list, error, reload } = useList(async () => (await api.get<{ passkeys: Passkey[] }>('api/me/passkeys')).passkeys);
  const [busy, setBusy] = useState(false);
  const changed = async () => { await Promise.all([reload(), whoami()]); };
  const add = async () => {
    const name = await prompt({ title: t.addTitle, body: t.addBody, action: t.addAction, label: t.passkeyName, value: device(navigator.userAgent), maxLength: 100 });
    if (name === undefined) return;
    setBusy(true);
    await tell(async () => { await addPasskey(name.trim()); await changed(); }, t.added);
    setBusy(false);
  };
  const rename = async (k: Passkey) => {
    const name = await prompt({ title: t.renameTitle, action: t.rename, label: t.passkeyName, value: k.name, maxLength: 100 });
    if (name !== undefined) await tell(async () => { await api.patch(`api/me/passkeys/${part(k.id)}`, { name: name.trim() }); await reload(); }, t.saved);
  };
  const remove = async (k: Passkey) => {
    if (!await confirm({ title: t.removeTitle(k.name), body: t.removeBody, action: t.remove, danger: true })) return;
    await tell(async () => { await api.delete(`api/me/passkeys/${part(k.id)}`); await changed(); }, t.removed);
  };
  return (
    <Section id="passkeys" title={t.passkeys} actions={possible && <Button icon="plus" busy={busy} onClick={() => void add()}>{t.addPasskey}</Button>}>
      <p>{possible ? t.passkeysWhy : text.join.noPasskeys}</p>
      {error && <Refusal>{error}</Refusal>}
      {!list ? !error && <Skeleton lines={2} /> : list.length === 0 ? <p><small>{t.noPasskeys}</small></p> : (
        <ul class="entries">{list.map((k) => (
          <li key={k.id}>
            <Icon name="key" />
            <div class="entry">
              <span class="entry-head"><b>{k.name}</b><Badge>{k.backed_up ? t.synced : t.bound}</Badge></span>
              <small>{t.made(when(k.created_at))}, {k.last_used ? t.used(when(k.last_used)) : t.neverUsed}</small>
            </div>
            <Menu compact icon="more" label={t.passkeyActions(k.name)} items={[{ label: t.rename, icon: 'edit', run: () => void rename(k) }, { label: t.remove, icon: 'trash', danger: true, run: () => void remove(k) }]} />
          </li>
        ))}</ul>
      )}
    </Section>
  );
}

function Password({ least }: { least: number }) {
  const how = me.value!.sign_in!;
  const [password, setPassword] = useState('');
  const { error, busy, wait, attempt } = useAttempt();
  const set = async () => {
    if (!await attempt('set', () => api.put('api/me/password', { password }))) return; // who has not shown a moment ago who it is, is asked
    setPassword('');
    toast(t.passwordSet, 'good');
    changedSessions.forEach((f) => f());
    await whoami().catch(() => { /* what the page says of it is a little behind */ });
  };
  return (
    <Section id="password" title={t.password}>
      <p>{how.has_password ? t.hasPassword : t.noPassword}</p>
      <form class="stack" onSubmit={(e) => { e.preventDefault(); void set(); }}>
        <input class="hidden" type="text" name="username" autocomplete="username" value={how.name} readOnly tabIndex={-1} aria-hidden="true" />
        <PasswordInput label={t.newPassword} hint={t.passwordHint(least)} name="password" autocomplete="new-password" required minLength={least} value={password} error={error} onInput={(e) => setPassword(e.currentTarget.value)} />
        <div class="form-end"><Button type="submit" busy={!!busy} disabled={wait > 0}>{how.has_password ? t.changePassword : t.setPassword}</Button></div>
      </form>
    </Section>
  );
}

/** Called when the sessions have changed by something else than their list. */
const changedSessions = new Set<() => void>();

function Sessions() {
  const { list, error, reload } = useList(async () => (await api.get<{ sessions: Session[] }>('api/me/sessions')).sessions);
  useEffect(() => {
    changedSessions.add(reload);
    return () => { changedSessions.delete(reload); };
  }, []);
  const endOthers = async () => {
    if (await confirm({ title: t.endOthersTitle, body: t.endOthersBody, action: t.endOthers, danger: true })) await tell(async () => { await api.delete('api/me/sessions'); await reload(); }, t.ended);
  };
  const sorted = list && [...list].sort((a, b) => Number(b.current) - Number(a.current));
  return (
    <Section id="sessions" title={t.sessions} actions={<Button icon="exit" onClick={() => void logOut()}>{text.app.logOut}</Button>}>
      <p>{t.sessionsWhy}</p>
      {error && <Refusal>{error}</Refusal>}
      {!sorted ? !error && <Skeleton lines={2} /> : (
        <ul class="entries">{sorted.map((s) => (
          <li key={s.id}>
            <div class="entry">
              <span class="entry-head"><b title={s.device}>{device(s.device)}</b>{s.current && <Badge tone="good">{t.thisOne}</Badge>}</span>
              <small>{t.from(s.address)}, {t.since(t.opened[s.opened_with] ?? s.opened_with, when(s.created_at))}{s.last_used && `, ${t.seen(when(s.last_used))}`}</small>
            </div>
            {!s.current && <Button aria-label={t.endOne(device(s.device))} onClick={() => void tell(async () => { await api.delete(`api/me/sessions/${part(s.id)}`); await reload(); }, t.ended)}>{t.end}</Button>}
          </li>
        ))}</ul>
      )}
      {list && list.length > 1 && <div class="form-end"><Button onClick={() => void endOthers()}>{t.endOthers}</Button></div>}
    </Section>
  );
}

/** A time, for people: of today without the day. */
function when(at: string): string {
  const d = new Date(at);
  return d.toDateString() === new Date().toDateString() ? d.toLocaleTimeString(undefined, { timeStyle: 'short' }) : d.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}
