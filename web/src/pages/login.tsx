import { useState } from 'preact/hooks';
import type { PageProps } from '../app/router';
import { navigate, search } from '../app/router';
import { logIn } from '../app/session';
import { reason } from '../app/api';
import { Button, Card, Input } from '../ui/basic';
import { text } from '../text/en';

/** Asks for a token and gives this browser a session. */
export default function Login(_: PageProps) {
  const [token, setToken] = useState('');
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const submit = async (e: Event) => {
    e.preventDefault();
    setBusy(true);
    try {
      await logIn(token.trim());
      const next = new URLSearchParams(search.peek()).get('next') ?? '/';
      navigate(/^\/(?![/\\])/.test(next) ? next.slice(1) : '', true); // only pages of ours
    } catch (err) {
      setError(reason(err));
      setBusy(false);
    }
  };
  return (
    <main class="center">
      <Card class="login">
        <h1>{text.login.title}</h1>
        <form class="stack" onSubmit={submit}>
          <Input label={text.login.token} type="password" name="token" autocomplete="current-password" required autofocus value={token} hint={text.login.hint} error={error} onInput={(e) => setToken(e.currentTarget.value)} />
          <Button kind="primary" type="submit" busy={busy}>{text.login.action}</Button>
        </form>
      </Card>
    </main>
  );
}
