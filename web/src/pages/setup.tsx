import { useEffect, useState } from 'preact/hooks';
import type { PageProps } from '../app/router';
import { api, ApiError } from '../app/api';
import { url } from '../app/base';
import { Button } from '../ui/basic';
import { text } from '../text/en';
import { FirstWay, Gate, OpenGate, Refusal, useAttempt, useNames, useSignIn, Waiting, type SignedIn } from './gate';

const t = text.join;

/** Opens a link that signs somebody in once: the first owner, or whoever was given a new start. The link is behind the #. */
export default function Setup(_: PageProps) {
  const state = useSignIn();
  const [link, setLink] = useState(location.hash.slice(1));
  const [who, setWho] = useState<SignedIn>();
  const [spent, setSpent] = useState(false);
  const names = useNames();
  const { error, busy, wait, attempt } = useAttempt();
  useEffect(() => {
    const changed = () => { if (location.hash) setLink(location.hash.slice(1)); };
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  if (!state) return <Waiting />;
  if (state.open) return <OpenGate />;
  if (who) return <FirstWay who={who} state={state} />;
  if (!link) return <Gate title={t.noLink} icon="warning" lead={t.noLinkBody}><a class="button full" href="login">{t.signInInstead}</a></Gate>;
  const open = async (e: Event) => {
    e.preventDefault();
    setSpent(false);
    await attempt('open', async () => {
      try {
        const me = await api.post<SignedIn>('api/sign-in/link', state.needs_owner ? { link, name: names.name, display_name: names.display } : { link }, { quiet: true });
        history.replaceState(null, '', url('account')); // the link is spent: whoever loads the page again finds the rest there
        setWho(me);
      } catch (err) {
        setSpent(err instanceof ApiError && err.status === 404);
        throw err;
      }
    });
  };
  return (
    <Gate title={state.needs_owner ? t.setupTitle : t.resetTitle} icon="shield" lead={state.needs_owner ? t.setupBody : t.resetBody}>
      {error && <Refusal>{error}{spent && ` ${state.needs_owner ? t.spentOwner : t.spent}`}</Refusal>}
      <form class="stack" onSubmit={(e) => void open(e)}>
        {state.needs_owner && names.fields}
        <Button kind="primary" type="submit" autofocus={!state.needs_owner} busy={!!busy} disabled={wait > 0}>{wait > 0 ? text.signIn.wait(wait) : t.goOn}</Button>
      </form>
      {spent && !state.needs_owner && <a class="button full" href="login">{t.signInInstead}</a>}
    </Gate>
  );
}
