import type { ComponentChildren } from 'preact';
import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { IconButton } from '../ui/basic';
import { Menu } from '../ui/menu';
import { hasSession, isAdmin, logOut, me } from './session';
import { navigate, path } from './router';
import { theme, type Theme } from './theme';
import { reachable } from './api';
import { openPalette } from '../ui/palette';
import { text } from '../text/en';

/** Whether the side bar is shown on a narrow screen. */
export const drawer = signal(false);

interface Props {
  /** What is beside the page: a list, a navigation. */
  side: ComponentChildren;
  /** The name of the side bar for screen readers. */
  sideLabel: string;
  /** What stands in the bar above the page. */
  title: ComponentChildren;
  /** Buttons at the end of the bar. */
  actions?: ComponentChildren;
  children: ComponentChildren;
}

/** The frame of every page but the login: a side bar, which is a drawer on a phone, a bar, and the page. */
export function Shell({ side, sideLabel, title, actions, children }: Props) {
  const aside = useRef<HTMLElement>(null);
  useEffect(() => { drawer.value = false; }, [path.value]);
  useEffect(() => {
    if (!drawer.value) return;
    const key = (e: KeyboardEvent) => { if (e.key === 'Escape') drawer.value = false; };
    addEventListener('keydown', key);
    aside.current?.querySelector<HTMLElement>('a, button, input')?.focus();
    return () => removeEventListener('keydown', key);
  }, [drawer.value]);
  return (
    <div class={`shell ${drawer.value ? 'drawer-open' : ''}`}>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById('main')?.focus(); }}>{text.app.skip}</a>
      <aside ref={aside} class="side" aria-label={sideLabel}>{side}<SideFoot /></aside>
      <div class="scrim" onClick={() => { drawer.value = false; }} />
      <div class="page">
        <header class="bar">
          <IconButton icon="menu" label={text.app.openSide} class="drawer-button" aria-expanded={drawer.value} onClick={() => { drawer.value = !drawer.value; }} />
          <div class="bar-title">{title}</div>
          <div class="bar-actions">{actions}<IconButton icon="command" label={text.palette.open} onClick={openPalette} /></div>
        </header>
        {!reachable.value && <p class="offline" role="status">{text.errors.unreachable}</p>}
        <main id="main" tabIndex={-1}>{children}</main>
      </div>
    </div>
  );
}

function SideFoot() {
  const themes: Theme[] = ['system', 'light', 'dark'];
  const inAdmin = path.value.startsWith('/admin');
  return (
    <div class="side-foot">
      <Menu label={me.value?.display_name || me.value?.principal_id || text.app.account} icon="user" side="top" items={[
        ...(inAdmin ? [{ label: text.app.toChat, icon: 'chat' as const, run: () => navigate('') }] : []),
        ...(isAdmin.value && !inAdmin ? [{ label: text.app.toAdmin, icon: 'settings' as const, run: () => navigate('admin/') }] : []),
        { label: text.app.account, icon: 'key', run: () => navigate('account') },
        ...themes.map((t) => ({ label: text.app.themes[t], icon: theme.value === t ? 'check' as const : 'blank' as const, checked: theme.value === t, run: () => { theme.value = t; } })),
        ...(hasSession.value ? [{ label: text.app.logOut, icon: 'exit' as const, run: () => void logOut() }] : []),
      ]} />
    </div>
  );
}
