import { useEffect, useState } from 'preact/hooks';
import type { PageProps } from '../app/router';
import { browserHasPasskeys, offerPasskeys, signInWithPasskey } from '../app/passkey';
import { logIn, logInWithPassword } from '../app/session';
import { Button, Fold, Input } from '../ui/basic';
import { PasswordInput } from '../ui/password';
import { text } from '../text/en';
import { enter, Gate, OpenGate, Refusal, useAttempt, useSignIn, Waiting } from './gate';

const t = text.signIn;

/** Signs in: with a passkey, a password, or a token. */
export default function Login(_: PageProps) {
  const state = useSignIn();
  const [name, setName] = useState('');
  const [password, setPassword] = useState('');
  const [token, setToken] = useState('');
  const [asked, setAsked] = useState(0); // how often the button for passkeys was pressed
  const { error, busy, wait, attempt, fail } = useAttempt();
  const passkeys = !!state?.passkeys && browserHasPasskeys;
  const [asking, ask] = useState(false);

  // Passkeys are among the names that the browser offers to fill in, but for while the button asks for one.
  useEffect(() => {
    if (!passkeys || asking) return;
    const end = new AbortController();
    void offerPasskeys(end.signal, () => void attempt('passkey', enter), fail);
    return () => end.abort();
  }, [passkeys, asking, asked]);

  if (!state) return <Waiting />;
  if (state.open) return <OpenGate />;
  const stopped = !!busy || wait > 0;
  const withPasskey = async () => {
    ask(true); // ends what is offered: a browser asks for one passkey at a time
    await attempt('passkey', async () => { await signInWithPasskey(); await enter(); });
    ask(false);
    setAsked(asked + 1);
  };
  const label = (s: string) => wait > 0 ? t.wait(wait) : s;
  return (
    <Gate title={t.title}>
      {state.needs_owner && <div class="advice"><p><b>{t.noOwnerTitle}</b></p><p>{t.noOwner}</p></div>}
      {error && <Refusal>{error}</Refusal>}
      {passkeys && <><Button kind="primary" icon="key" busy={busy === 'passkey'} disabled={stopped} onClick={() => void withPasskey()}>{t.passkey}</Button><div class="or">{t.or}</div></>}
      <form class="stack" onSubmit={(e) => { e.preventDefault(); void attempt('password', async () => { await logInWithPassword(name, password); await enter(); }); }}>
        <Input label={t.name} name="username" autocomplete="username webauthn" autocapitalize="off" autocorrect="off" spellcheck={false} required autofocus value={name} onInput={(e) => setName(e.currentTarget.value)} />
        <PasswordInput label={t.password} name="password" autocomplete="current-password webauthn" required value={password} onInput={(e) => setPassword(e.currentTarget.value)} />
        <Button kind={passkeys ? 'plain' : 'primary'} class="full" type="submit" busy={busy === 'password'} disabled={stopped}>{label(t.action)}</Button>
      </form>
      <Fold summary={t.others} lazy={false}>
        <form class="stack" onSubmit={(e) => { e.preventDefault(); void attempt('token', async () => { await logIn(token.trim()); await enter(); }); }}>
          <PasswordInput label={t.token} hint={t.tokenHint} name="token" autocomplete="off" required value={token} onInput={(e) => setToken(e.currentTarget.value)} />
          <Button type="submit" class="full" busy={busy === 'token'} disabled={stopped}>{label(t.tokenAction)}</Button>
          <small>{t.lost}</small>
        </form>
      </Fold>
    </Gate>
  );
}
