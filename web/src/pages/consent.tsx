import { useEffect, useState } from 'preact/hooks';
import type { PageProps } from '../app/router';
import { api, reason } from '../app/api';
import { search } from '../app/router';
import { me } from '../app/session';
import { Button, Checkbox } from '../ui/basic';
import { text } from '../text/en';
import { Gate, Refusal, useAttempt, Waiting } from './gate';

const t = text.consent;

type Scope = 'tools' | 'agents' | 'resources';

interface Question { client_name: string; redirect_host: string; on_this_machine: boolean; scopes: Scope[] }

/** Asks whether a program may use the MCP server in one's name. What it asks for is in the address. */
export default function Consent(_: PageProps) {
  const [asked, setAsked] = useState<Question>();
  const [scopes, setScopes] = useState<Scope[]>([]);
  const [wrong, setWrong] = useState('');
  const { error, busy, attempt } = useAttempt();
  const query = Object.fromEntries(new URLSearchParams(search.value));
  useEffect(() => {
    api.get<Question>('api/oauth/consent', query).then((q) => { setAsked(q); setScopes(q.scopes); }, (err) => setWrong(reason(err)));
  }, []);
  if (wrong) return <Gate title={t.wrongTitle} icon="info" lead={t.wrongBody}><Refusal>{wrong}</Refusal><a class="button" href="./">{text.app.toChat}</a></Gate>;
  if (!asked) return <Waiting />;
  const decide = (allow: boolean) => attempt(allow ? 'allow' : 'deny', async () => {
    const { redirect_to } = await api.post<{ redirect_to: string }>('api/oauth/consent', { ...query, allow, ...(allow && { scopes }) });
    location.assign(redirect_to);
  });
  const toggle = (s: Scope, on: boolean) => setScopes(asked.scopes.filter((x) => (x === s ? on : scopes.includes(x))));
  return (
    <Gate title={t.title(asked.client_name)} icon="shield" lead={t.lead(me.value?.display_name ?? '')}>
      {error && <Refusal>{error}</Refusal>}
      <fieldset class="consent-scopes">
        <legend>{t.scopes}</legend>
        {asked.scopes.map((s) => <Checkbox key={s} label={t.scope[s]} hint={t.scopeHint[s]} checked={scopes.includes(s)} onChange={(e) => toggle(s, e.currentTarget.checked)} />)}
      </fieldset>
      <p>{asked.on_this_machine ? t.toProgram(asked.redirect_host) : t.toSite(asked.redirect_host)}</p>
      <p><small>{t.warning}</small></p>
      <Button kind="primary" class="full" busy={busy === 'allow'} disabled={!!busy || scopes.length === 0} onClick={() => void decide(true)}>{t.allow}</Button>
      <Button class="full" busy={busy === 'deny'} disabled={!!busy} autofocus onClick={() => void decide(false)}>{t.deny}</Button>
    </Gate>
  );
}
