// Asks whoever sits here to show again who it is. Pages need not know: api.ts asks when the gateway does, and
// sends the request again.

import { render } from 'preact';
import { useState } from 'preact/hooks';
import { api, reason } from './api';
import { browserHasPasskeys, PasskeyError, provePasskey } from './passkey';
import { logIn, logOut, me, whoami } from './session';
import { Button } from '../ui/basic';
import { Dialog } from '../ui/dialog';
import { PasswordInput } from '../ui/password';
import { text } from '../text/en';

/** Shows the dialog, and says whether the gateway knows again who sits here. */
export async function reauthenticate(): Promise<boolean> {
  await whoami(); // what one may show may have changed since the page was loaded
  const place = document.body.appendChild(document.createElement('div'));
  const before = document.activeElement as HTMLElement | null;
  const ok = await new Promise<boolean>((end) => render(<Reauthenticate end={end} />, place));
  render(null, place);
  place.remove();
  before?.focus?.();
  return ok;
}

function Reauthenticate({ end }: { end: (ok: boolean) => void }) {
  const how = me.value?.sign_in;
  const withToken = !how?.name; // the session was opened with one
  const [word, setWord] = useState('');
  const [error, setError] = useState('');
  const [busy, setBusy] = useState('');
  const attempt = async (what: string, show: () => Promise<void>) => {
    setBusy(what);
    setError('');
    try {
      await show();
      end(true);
    } catch (err) {
      if (!(err instanceof PasskeyError && err.gaveUp)) setError(reason(err));
      setBusy('');
      if (!me.peek()) end(false); // the session is over; the login page comes
    }
  };
  const passkey = !!how?.passkeys && browserHasPasskeys;
  const nothing = !withToken && !passkey && !how?.has_password;
  return (
    <Dialog title={text.signIn.againTitle} open onClose={() => end(false)}>
      <p>{nothing ? text.signIn.againNothing : text.signIn.againWhy}</p>
      {nothing && <Button kind="primary" onClick={() => void logOut()}>{text.app.logOut}</Button>}
      {passkey && <Button kind="primary" icon="key" busy={busy === 'passkey'} disabled={!!busy} autofocus onClick={() => void attempt('passkey', provePasskey)}>{text.signIn.usePasskey}</Button>}
      {(how?.has_password || withToken) && (
        <form class="stack" onSubmit={(e) => { e.preventDefault(); void attempt('word', () => withToken ? logIn(word.trim()) : api.post('api/session/reauthenticate', { password: word })); }}>
          {!withToken && <input class="hidden" type="text" name="username" autocomplete="username" value={how?.name} readOnly tabIndex={-1} aria-hidden="true" />}
          <PasswordInput label={withToken ? text.signIn.token : text.signIn.password} name="password" autocomplete="current-password" required autofocus={!passkey} value={word} error={error} onInput={(e) => setWord(e.currentTarget.value)} />
          <div class="form-end"><Button onClick={() => end(false)}>{text.app.cancel}</Button><Button kind={passkey ? 'plain' : 'primary'} type="submit" busy={busy === 'word'} disabled={!!busy}>{text.signIn.againAction}</Button></div>
        </form>
      )}
      {error && !how?.has_password && !withToken && <p class="field-error" role="alert">{error}</p>}
    </Dialog>
  );
}
