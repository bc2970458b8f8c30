// Passkeys: what the gateway sends and takes is JSON, what the browser takes and gives has bytes. Both are
// translated here, since what password managers put in the place of the browser's own does not always do it.

import { api, ApiError } from './api';
import { text } from '../text/en';

interface Descriptor { type: 'public-key'; id: string; transports?: AuthenticatorTransport[] }
interface CreationJSON { publicKey: Omit<PublicKeyCredentialCreationOptions, 'challenge' | 'user' | 'excludeCredentials'> & { challenge: string; user: { id: string; name: string; displayName: string }; excludeCredentials?: Descriptor[] } }
interface RequestJSON { publicKey: Omit<PublicKeyCredentialRequestOptions, 'challenge' | 'allowCredentials'> & { challenge: string; allowCredentials?: Descriptor[] } }

/** Whether this browser has passkeys at this address: not without TLS, but for localhost. */
export const browserHasPasskeys = typeof PublicKeyCredential !== 'undefined' && !!navigator.credentials;

function bytes(s: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(s.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
}

function word(b: ArrayBuffer | null | undefined): string | undefined {
  return b ? btoa(String.fromCharCode(...new Uint8Array(b))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '') : undefined;
}

const descriptors = (ds?: Descriptor[]) => ds?.map((d) => ({ ...d, id: bytes(d.id) }));

function answer(c: PublicKeyCredential, response: object): object {
  return { id: c.id, rawId: word(c.rawId), type: c.type, authenticatorAttachment: c.authenticatorAttachment ?? undefined, clientExtensionResults: c.getClientExtensionResults?.() ?? {}, response };
}

/** A passkey that could not be used: why, for people. `gaveUp` is set where somebody has thought better of it. */
export class PasskeyError extends Error {
  constructor(message: string, readonly gaveUp = false) {
    super(message);
    this.name = 'PasskeyError';
  }
}

/** What a browser says in a word, in a sentence. */
function explain(err: unknown, rpId: string): Error {
  switch (err instanceof DOMException ? err.name : '') {
    case 'NotAllowedError': case 'AbortError': return new PasskeyError(text.signIn.passkeyGaveUp, true);
    case 'InvalidStateError': return new PasskeyError(text.signIn.passkeyKnown);
    case 'SecurityError': return new PasskeyError(text.signIn.passkeyElsewhere(`${location.protocol}//${rpId}${location.port && ':' + location.port}`));
    case 'NotSupportedError': case 'ConstraintError': return new PasskeyError(text.signIn.passkeyUnsupported);
  }
  return err instanceof Error ? err : new Error(String(err));
}

/** Makes a passkey for whoever is signed in. */
export async function addPasskey(name: string): Promise<void> {
  const { publicKey: o } = await api.post<CreationJSON>('api/me/passkey-options');
  let c: PublicKeyCredential;
  try {
    c = await navigator.credentials.create({ publicKey: { ...o, challenge: bytes(o.challenge), user: { ...o.user, id: bytes(o.user.id) }, excludeCredentials: descriptors(o.excludeCredentials) } }) as PublicKeyCredential;
  } catch (err) {
    throw explain(err, o.rp.id ?? location.hostname);
  }
  const r = c.response as AuthenticatorAttestationResponse;
  await api.post('api/me/passkeys', {
    name, passkey: answer(c, { clientDataJSON: word(r.clientDataJSON), attestationObject: word(r.attestationObject), transports: r.getTransports?.() ?? [] }),
  });
}

/** Shows a passkey to the gateway, and returns what to send it. With a signal the browser asks only where names are filled in, until it is aborted. */
async function showPasskey(signal?: AbortSignal): Promise<object> {
  const { publicKey: o } = await api.post<RequestJSON>('api/sign-in/passkey-options', undefined, { signal, quiet: true });
  let c: PublicKeyCredential;
  try {
    c = await navigator.credentials.get({
      publicKey: { ...o, challenge: bytes(o.challenge), allowCredentials: descriptors(o.allowCredentials) }, signal, mediation: signal ? 'conditional' : undefined,
    }) as PublicKeyCredential;
  } catch (err) {
    throw explain(err, o.rpId ?? location.hostname);
  }
  const r = c.response as AuthenticatorAssertionResponse;
  return answer(c, { clientDataJSON: word(r.clientDataJSON), authenticatorData: word(r.authenticatorData), signature: word(r.signature), userHandle: word(r.userHandle) });
}

/** Signs in with a passkey; with a signal, with the one that is chosen where names are filled in. */
export async function signInWithPasskey(signal?: AbortSignal): Promise<void> {
  await api.post('api/sign-in/passkey', { passkey: await showPasskey(signal) }, { quiet: true });
}

/** Shows with a passkey again who sits here. */
export async function provePasskey(): Promise<void> {
  await api.post('api/session/reauthenticate', { passkey: await showPasskey() });
}

/** How long a challenge is good, less what an answer takes, in milliseconds. */
const challengeLife = 4 * 60_000;

/** Offers passkeys where names are filled in, for as long as signal says. Calls done when one has signed in, and failed when one that was chosen did not. */
export async function offerPasskeys(signal: AbortSignal, done: () => void, failed: (err: unknown) => void): Promise<void> {
  if (!browserHasPasskeys || !await PublicKeyCredential.isConditionalMediationAvailable?.()) return;
  while (!signal.aborted) {
    const round = AbortSignal.any([signal, AbortSignal.timeout(challengeLife)]);
    try {
      await signInWithPasskey(round);
      return signal.aborted ? undefined : done();
    } catch (err) {
      if (round.aborted) continue; // another challenge, or the end
      if (!(err instanceof ApiError) || err.status === 0 || err.status === 429) return; // there is still the button
      failed(err);
    }
  }
}
