// The client of the gateway's JSON API. Nothing else in these pages calls fetch.

import { signal } from '@preact/signals';
import { url, type Query } from './base';
import { text } from '../text/en';

/** A refusal of the gateway, or a gateway that cannot be reached (status 0). */
export class ApiError extends Error {
  constructor(readonly status: number, message: string, readonly code = '', readonly retryAfter = 0) {
    super(message);
    this.name = 'ApiError';
  }
}

/** Whether the last request reached the gateway. */
export const reachable = signal(true);

/** Called when the gateway does not know who we are (any more). Set by session.ts. */
export const onUnauthenticated: { call?: () => void } = {};

/** Called when the gateway wants to see again who sits here, and says whether it has. Set by session.ts. */
export const onReauthenticate: { call?: () => Promise<boolean> } = {};

/** The code of a refusal until whoever sits here has shown again who it is. */
const stale = 'reauthentication_required';

interface Options {
  query?: Query;
  body?: unknown; // a FormData is sent as it is, anything else as JSON
  headers?: Record<string, string>;
  signal?: AbortSignal;
  quiet?: boolean; // do not go to the login page on 401
  again?: boolean; // whoever sits here has shown a moment ago who it is: do not ask for it
}

/** Sends a request and returns the response of a gateway that has agreed. */
export async function request(method: string, path: string, o: Options = {}): Promise<Response> {
  const form = o.body instanceof FormData;
  const headers: Record<string, string> = { Accept: 'application/json', ...o.headers };
  if (o.body !== undefined && !form) headers['Content-Type'] = 'application/json';
  let r: Response;
  try {
    r = await fetch(url(path, o.query), {
      method, headers, signal: o.signal, credentials: 'same-origin',
      body: form ? (o.body as FormData) : o.body === undefined ? undefined : JSON.stringify(o.body),
    });
  } catch (err) {
    if ((err as Error).name === 'AbortError') throw err;
    reachable.value = false;
    throw new ApiError(0, text.errors.unreachable);
  }
  reachable.value = true;
  if (r.ok) return r;
  let message = `${r.status} ${r.statusText}`, code = '';
  try {
    const said = await r.json();
    message = said.error ?? message;
    code = said.code ?? '';
  } catch { /* not from the gateway, but from something in front of it */ }
  if (r.status === 401 && !o.quiet) onUnauthenticated.call?.();
  if (code === stale && !o.again && await onReauthenticate.call?.()) return request(method, path, { ...o, again: true });
  throw new ApiError(r.status, message, code, Number(r.headers.get('Retry-After') ?? 0));
}

async function json<T>(method: string, path: string, o?: Options): Promise<T> {
  const r = await request(method, path, o);
  return (r.status === 204 ? undefined : await r.json()) as T;
}

export const api = {
  get: <T>(path: string, query?: Query, o?: Options) => json<T>('GET', path, { ...o, query }),
  post: <T>(path: string, body?: unknown, o?: Options) => json<T>('POST', path, { ...o, body }),
  put: <T>(path: string, body?: unknown, o?: Options) => json<T>('PUT', path, { ...o, body }),
  patch: <T>(path: string, body?: unknown, o?: Options) => json<T>('PATCH', path, { ...o, body }),
  delete: <T>(path: string, query?: Query) => json<T>('DELETE', path, { query }),
};

/** What went wrong, for people. */
export function reason(err: unknown): string {
  return err instanceof Error ? err.message : String(err);
}
