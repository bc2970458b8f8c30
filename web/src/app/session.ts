// Who uses these pages.

import { batch, computed, signal } from '@preact/signals';
import { api, onReauthenticate, onUnauthenticated, request } from './api';
import { navigate, path, search } from './router';

export interface Me {
  principal_id: string;
  display_name?: string;
  principal_type?: string;
  roles?: string[];
  capabilities?: string[];
  credential: { kind: string; expires_at?: string };
  /** Of a session: how its person signs in. No name where it is a token that does. */
  sign_in?: { name: string; has_password: boolean; passkeys: number };
}

/** How people sign in at this gateway. */
export interface SignIn { open: boolean; needs_owner: boolean; passkeys: boolean; password_min_length: number }

/** Who we are; undefined until the gateway has said so. */
export const me = signal<Me | undefined>(undefined);

export const isAdmin = computed(() => !!me.value?.roles?.some((r) => r === 'admin' || r === 'owner'));
/** Whether there is something to log out of: an open gateway asks nobody who they are. */
export const hasSession = computed(() => me.value?.credential.kind === 'session');

/** Asks the gateway who we are; goes to the login page where it does not know. */
export async function whoami(): Promise<void> {
  me.value = await api.get<Me>('api/me');
}

export async function logIn(token: string): Promise<void> {
  await request('POST', 'api/session', { headers: { Authorization: `Bearer ${token}` }, quiet: true });
  await whoami();
}

export async function logInWithPassword(name: string, password: string): Promise<void> {
  await api.post('api/sign-in/password', { name, password }, { quiet: true });
  await whoami();
}

export async function logOut(): Promise<void> {
  await api.delete('api/session');
  location.assign(document.baseURI); // whatever this page knows is forgotten
}

onUnauthenticated.call = () => batch(() => {
  me.value = undefined;
  if (path.peek() !== '/login') navigate(`login?next=${encodeURIComponent(path.peek() + search.peek())}`, true);
});

let asked: Promise<boolean> | undefined;

onReauthenticate.call = () => asked ??= import('./reauthenticate').then((m) => m.reauthenticate()).finally(() => { asked = undefined; });
