import { signal } from '@preact/signals';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { Icon, type IconName } from './icon';
import { isAdmin } from '../app/session';
import { navigate } from '../app/router';
import { text } from '../text/en';

export interface Command { id: string; label: string; hint?: string; icon?: IconName; run: () => void }

/** A source of commands for what the user has typed. It may take its time. */
export type Source = (query: string, signal: AbortSignal) => Command[] | Promise<Command[]>;

const sources = new Set<Source>();
const shown = signal(false);

/** Adds commands while a page is shown; the function that is returned removes them. */
export function provide(source: Source): () => void {
  sources.add(source);
  return () => { sources.delete(source); };
}

export function openPalette(): void { shown.value = true; }

addEventListener('keydown', (e) => {
  if ((e.metaKey || e.ctrlKey) && !e.altKey && !e.shiftKey && e.key.toLowerCase() === 'k') {
    e.preventDefault();
    shown.value = !shown.value;
  }
});

provide((query) => ([
  { id: 'go-chat', label: text.app.toChat, icon: 'chat', run: () => navigate('') },
  ...(isAdmin.value ? [{ id: 'go-admin', label: text.app.toAdmin, icon: 'settings', run: () => navigate('admin/') }] : []),
  { id: 'go-docs', label: text.app.toDocs, icon: 'info', run: () => location.assign(new URL('api/docs', document.baseURI)) },
] as Command[]).filter((c) => matches(c.label, query)));

/** Whether all words of a query are in a label. */
export function matches(label: string, query: string): boolean {
  const l = label.toLowerCase();
  return query.toLowerCase().split(/\s+/).every((w) => l.includes(w));
}

/** How long the palette waits for the next key before it asks, in milliseconds. */
const typingPause = 120;

/** The list of everything one can do or go to; once in a page. */
export function Palette() {
  const el = useRef<HTMLDialogElement>(null);
  const id = useId();
  const [query, setQuery] = useState('');
  const [found, setFound] = useState<Command[]>([]);
  const [at, setAt] = useState(0);
  const open = shown.value;
  useEffect(() => {
    if (open && !el.current!.open) { setQuery(''); el.current!.showModal(); }
    if (!open && el.current!.open) el.current!.close();
  }, [open]);
  useEffect(() => {
    if (!open) return;
    const ask = new AbortController();
    const results: Command[][] = [];
    const timer = setTimeout(() => {
      [...sources].forEach(async (s, i) => {
        try {
          results[i] = await s(query, ask.signal);
        } catch { return; } // another query has come, or the gateway is away
        if (!ask.signal.aborted) { setFound(results.filter(Boolean).flat()); }
      });
    }, query ? typingPause : 0);
    setAt(0);
    return () => { clearTimeout(timer); ask.abort(); };
  }, [open, query]);
  const run = (c?: Command) => { if (c) { shown.value = false; c.run(); } };
  const key = (e: KeyboardEvent) => {
    if (e.key === 'ArrowDown') setAt((at + 1) % Math.max(1, found.length));
    else if (e.key === 'ArrowUp') setAt((at - 1 + found.length) % Math.max(1, found.length));
    else if (e.key === 'Enter' && !e.isComposing) run(found[at]);
    else return;
    e.preventDefault();
  };
  useEffect(() => { el.current?.querySelector('[aria-selected=true]')?.scrollIntoView({ block: 'nearest' }); }, [at]);
  return (
    <dialog ref={el} class="palette" aria-label={text.palette.title} onClose={() => { shown.value = false; }} onClick={(e) => { if (e.target === el.current) shown.value = false; }}>
      {open && (
        <div class="palette-box">
          <div class="palette-input"><Icon name="search" />
            <input role="combobox" aria-expanded="true" aria-controls={`${id}-list`} aria-label={text.palette.placeholder} aria-activedescendant={found.length ? `${id}-${at}` : undefined} autocomplete="off" autofocus
              placeholder={text.palette.placeholder} value={query} onInput={(e) => setQuery(e.currentTarget.value)} onKeyDown={key} />
          </div>
          <div id={`${id}-list`} role="listbox" aria-label={text.palette.title} class="palette-list" tabIndex={-1}>
            {found.map((c, i) => (
              <div key={c.id} id={`${id}-${i}`} role="option" aria-selected={i === at} onMouseMove={() => setAt(i)} onClick={() => run(c)}>
                <Icon name={c.icon ?? 'chevron'} /><span class="palette-label">{c.label}</span>{c.hint && <span class="palette-hint">{c.hint}</span>}
              </div>
            ))}
          </div>
          {found.length === 0 && <p class="palette-none">{text.palette.nothing}</p>}
        </div>
      )}
    </dialog>
  );
}
