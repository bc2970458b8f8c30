import { useState } from 'preact/hooks';
import type { PageProps } from '../app/router';
import { api, ApiError } from '../app/api';
import { url } from '../app/base';
import { Button } from '../ui/basic';
import { text } from '../text/en';
import { FirstWay, Gate, OpenGate, Refusal, useAttempt, useNames, useSignIn, Waiting } from './gate';

const t = text.join;

/** Accepts an invite: whoever opens it becomes a person with a name, and chooses a way to sign in. */
export default function Invite({ params }: PageProps) {
  const state = useSignIn();
  const [who, setWho] = useState<{ display_name: string; name: string }>();
  const [spent, setSpent] = useState(false);
  const names = useNames();
  const { error, busy, wait, attempt } = useAttempt();
  if (!state) return <Waiting />;
  if (state.open) return <OpenGate />;
  if (who) return <FirstWay who={who} state={state} />;
  const accept = async (e: Event) => {
    e.preventDefault();
    setSpent(false);
    await attempt('accept', async () => {
      try {
        const made = await api.post<{ display_name: string }>('api/invites/accept', { invite: params.token, display_name: names.display, name: names.name }, { quiet: true });
        history.replaceState(null, '', url('account')); // the link is spent: whoever loads the page again finds the rest there
        setWho({ display_name: made.display_name, name: names.name.toLowerCase() });
      } catch (err) {
        setSpent(err instanceof ApiError && (err.status === 404 || err.code === 'conflict'));
        throw err;
      }
    });
  };
  return (
    <Gate title={t.inviteTitle} icon="mail" lead={t.inviteBody}>
      {error && <Refusal>{error}{spent && ` ${t.spent}`}</Refusal>}
      <form class="stack" onSubmit={(e) => void accept(e)}>
        {names.fields}
        <Button kind="primary" type="submit" busy={!!busy} disabled={wait > 0}>{wait > 0 ? text.signIn.wait(wait) : t.goOn}</Button>
      </form>
      {spent && <a class="button full" href="login">{t.signInInstead}</a>}
    </Gate>
  );
}
