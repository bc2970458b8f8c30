// Who uses these pages.

import { computed, signal } from '@preact/signals';
import { api, onUnauthenticated, request } from './api';
import { navigate, path } from './router';

export interface Me {
  principal_id: string;
  display_name?: string;
  principal_type?: string;
  roles?: string[];
  capabilities?: string[];
  credential: { kind: string; expires_at?: string };
}

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

export async function logOut(): Promise<void> {
  await api.delete('api/session');
  location.assign(document.baseURI); // whatever this page knows is forgotten
}

onUnauthenticated.call = () => {
  me.value = undefined;
  if (path.peek() !== '/login') navigate(`login?next=${encodeURIComponent(path.peek())}`, true);
};
