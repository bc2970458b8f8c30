// What the pages before the sign-in have in common.

import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { api, ApiError, reason } from '../app/api';
import { addPasskey, browserHasPasskeys, PasskeyError } from '../app/passkey';
import { navigate, search } from '../app/router';
import { whoami, type SignIn } from '../app/session';
import { Button, Card, Input, Spinner } from '../ui/basic';
import { Icon, type IconName } from '../ui/icon';
import { PasswordInput } from '../ui/password';
import { text } from '../text/en';
import { device } from './device';

const t = text.join;

/** A page with one box in its middle. The focus is on what has autofocus, or else on the title, which is read then. */
export function Gate({ title, lead, icon = 'key', children }: { title: string; lead?: ComponentChildren; icon?: IconName; children?: ComponentChildren }) {
  const box = useRef<HTMLElement>(null);
  useEffect(() => {
    document.title = `${title} · ${text.app.name}`;
    const first = matchMedia('(pointer: coarse)').matches ? null : box.current!.querySelector<HTMLElement>('[autofocus]'); // no keyboard of a phone over what is to be read
    (first ?? box.current!.querySelector<HTMLElement>('h1'))!.focus();
  }, [title]);
  return (
    <main ref={box} class="center">
      <Card class="login">
        <header class="login-head"><Icon name={icon} /><h1 tabIndex={-1}>{title}</h1>{lead && <p>{lead}</p>}</header>
        {children}
      </Card>
    </main>
  );
}

/** How often a gateway that is away is asked again, in milliseconds. */
const retryPause = 2000;

/** How people sign in here; undefined until the gateway has said so. */
export function useSignIn(): SignIn | undefined {
  const [state, set] = useState<SignIn>();
  useEffect(() => {
    let timer = 0, gone = false;
    const ask = () => api.get<SignIn>('api/sign-in').then((s) => { if (!gone) set(s); }, () => { if (!gone) timer = setTimeout(ask, retryPause) as unknown as number; });
    void ask();
    return () => { gone = true; clearTimeout(timer); };
  }, []);
  return state;
}

/** While the gateway has not said yet how people sign in. */
export function Waiting() {
  return <main class="center"><Spinner label={text.app.loading} /></main>;
}

/** What a gateway that asks nobody who they are says instead. */
export function OpenGate() {
  return <Gate title={text.signIn.openTitle} icon="info" lead={text.signIn.openBody}><OpenAdvice /><a class="button primary" href="./">{text.app.toChat}</a></Gate>;
}

export function OpenAdvice() {
  return <div class="advice"><p>{text.signIn.openChange}</p><pre>coven-gateway init{'\n'}coven-gateway bootstrap --link</pre><p>{text.signIn.openThen}</p></div>;
}

/** Why something was refused, said at once. */
export function Refusal({ children }: { children: ComponentChildren }) {
  return <p class="refusal" role="alert">{children}</p>;
}

/** What the gateway says, as a sentence. */
function sentence(s: string): string {
  return s.charAt(0).toUpperCase() + s.slice(1) + (/[.!?…]$/.test(s) ? '' : '.');
}

/** Something that the gateway may refuse: runs it, keeps why it was, and how many seconds to wait before the next attempt. */
export function useAttempt() {
  const [error, setError] = useState('');
  const [busy, setBusy] = useState('');
  const [wait, setWait] = useState(0);
  useEffect(() => {
    if (wait === 0) return;
    const timer = setTimeout(() => { setWait(wait - 1); if (wait === 1) setError(''); }, 1000);
    return () => clearTimeout(timer);
  }, [wait]);
  const fail = (err: unknown) => {
    if (err instanceof ApiError && err.retryAfter > 0) {
      setWait(err.retryAfter);
      setError(text.signIn.tooOften(err.retryAfter));
    } else {
      setError(sentence(reason(err)));
    }
  };
  /** Runs it; what names what is busy meanwhile. Says whether it was done. */
  const attempt = async (what: string, run: () => Promise<unknown>): Promise<boolean> => {
    setBusy(what);
    setError('');
    try {
      await run();
      return true;
    } catch (err) {
      fail(err);
      return false;
    } finally {
      setBusy('');
    }
  };
  return { error, busy, wait, attempt, fail };
}

/** Goes in: to where the address says, if that is a page of ours. */
export async function enter(): Promise<void> {
  await whoami();
  const next = new URLSearchParams(search.peek()).get('next') ?? '/';
  navigate(/^\/(?![/\\])/.test(next) ? next.slice(1) : '', true);
}

/** The fields for the names of somebody new. */
export function useNames(first = '') {
  const [display, setDisplay] = useState(first);
  const [name, setName] = useState<string>();
  const shown = name ?? suggest(display);
  const fields = (
    <>
      <Input label={t.display} hint={t.displayHint} name="display_name" autocomplete="name" required maxLength={100} autofocus value={display} onInput={(e) => setDisplay(e.currentTarget.value)} />
      <NameInput value={shown} onInput={setName} />
    </>
  );
  return { display: display.trim(), name: shown.trim(), fields };
}

export function NameInput({ value, onInput, hint = t.nameHint }: { value: string; onInput: (s: string) => void; hint?: string }) {
  return <Input label={t.name} hint={hint} name="username" autocomplete="username" autocapitalize="off" autocorrect="off" spellcheck={false} required minLength={2} maxLength={32} value={value} onInput={(e) => onInput(e.currentTarget.value)} />;
}

/** A name to sign in with, from one for people. */
function suggest(display: string): string {
  return display.normalize('NFKD').toLowerCase().replace(/[^a-z0-9]+/g, '.').replace(/^[^a-z]+|\.+$/g, '').slice(0, 32);
}

/** What the gateway says of whoever has signed in. */
export interface SignedIn { display_name: string; name: string; has_password: boolean; passkeys: number }

/** Has somebody who is in, but could not come back, choose a way to sign in. */
export function FirstWay({ who, state }: { who: Pick<SignedIn, 'display_name' | 'name'>; state: SignIn }) {
  const { error, busy, attempt } = useAttempt();
  const [name, setName] = useState(who.name);
  const [password, setPassword] = useState('');
  const passkeys = state.passkeys && browserHasPasskeys;
  const choose = (what: string, run: () => Promise<unknown>) => attempt(what, async () => {
    if (!who.name && name) await api.patch('api/me', { name });
    try {
      await run();
    } catch (err) {
      throw err instanceof PasskeyError && err.gaveUp ? new Error(text.account.gaveUp) : err;
    }
    await enter();
  });
  return (
    <Gate title={t.wayTitle(who.display_name)} icon="shield" lead={t.wayBody}>
      {error && <Refusal>{error}</Refusal>}
      {!who.name && <NameInput value={name} onInput={setName} />}
      {passkeys ? (
        <>
          <div class="stack"><Button kind="primary" icon="key" busy={busy === 'passkey'} disabled={!!busy} autofocus onClick={() => void choose('passkey', () => addPasskey(device(navigator.userAgent)))}>{t.passkey}</Button><small>{t.passkeyHint}</small></div>
          <div class="or">{t.or}</div>
        </>
      ) : <small>{t.noPasskeys}</small>}
      <form class="stack" onSubmit={(e) => { e.preventDefault(); void choose('password', () => api.put('api/me/password', { password })); }}>
        <input class="hidden" type="text" name="username" autocomplete="username" value={name} readOnly tabIndex={-1} aria-hidden="true" />
        <PasswordInput label={text.account.newPassword} hint={text.account.passwordHint(state.password_min_length)} name="password" autocomplete="new-password" required minLength={state.password_min_length} autofocus={!passkeys} value={password} onInput={(e) => setPassword(e.currentTarget.value)} />
        <Button kind={passkeys ? 'plain' : 'primary'} class="full" type="submit" busy={busy === 'password'} disabled={!!busy}>{t.setPassword}</Button>
      </form>
      <Button kind="ghost" disabled={!!busy} onClick={() => void attempt('later', enter)}>{t.later}</Button>
    </Gate>
  );
}
