// The one page of the gateway. It shows the part that belongs to the address; see docs/WEB.md.

import { render } from 'preact';
import { effect } from '@preact/signals';
import { current, path, route } from './app/router';
import { me, whoami } from './app/session';
import { ApiError, reachable, reason } from './app/api';
import './app/theme';
import { Toasts, toast } from './ui/toast';
import { Palette } from './ui/palette';
import { Confirmations } from './ui/dialog';
import { Spinner } from './ui/basic';
import { text } from './text/en';

route('/', () => import('./chat/chat'));
route('/t/{thread}', () => import('./chat/chat'));
route('/login', () => import('./pages/login'));
route('/setup', () => import('./pages/setup'));
route('/account', () => import('./pages/account'));
route('/oauth/consent', () => import('./pages/consent'));
route('/invite/{token}', () => import('./pages/invite'));
route('/admin/{page...}', () => import('./admin/admin'));
route('/admin', () => import('./admin/admin'));
route('/dev/components', () => import('./pages/components'));

/** Pages for people whom the gateway does not know yet. */
const open = /^\/(login|setup|invite\/.*)\/?$/;

function App() {
  const { page: Page, params } = current.value;
  if (!me.value && !open.test(path.value)) {
    return <div class="center"><Spinner label={reachable.value ? text.app.loading : text.errors.unreachable} /></div>;
  }
  return <Page params={params} />;
}

render(<><App /><Toasts /><Palette /><Confirmations /></>, document.getElementById('app')!);

/** How long to wait before a gateway that is away is asked again, in milliseconds. */
const retryPause = 2000;

let starting = false;

/** Asks who we are until the gateway has said it, or that it does not know. */
async function start(): Promise<void> {
  if (starting) return;
  starting = true;
  while (!open.test(path.peek()) && !me.peek()) {
    try {
      await whoami();
    } catch (err) {
      if (err instanceof ApiError && err.status === 401) break;
      if (!(err instanceof ApiError && err.status === 0)) toast(reason(err), 'bad');
      await new Promise((again) => setTimeout(again, retryPause));
    }
  }
  starting = false;
}

effect(() => { if (!me.value && !open.test(path.value)) void start(); });
