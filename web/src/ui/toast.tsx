import { signal } from '@preact/signals';
import { Button, IconButton } from './basic';
import { text } from '../text/en';

interface Toast { id: number; message: string; tone: 'good' | 'bad' | 'neutral'; action?: { label: string; run: () => void } }

const toasts = signal<Toast[]>([]);
let last = 0;

/** How long a message is shown, in milliseconds. One that says what went wrong stays until it is closed. */
const shownFor = 5000;

/** Tells the user something that needs no answer. */
export function toast(message: string, tone: Toast['tone'] = 'neutral', action?: Toast['action']): void {
  const id = ++last;
  toasts.value = [...toasts.value.filter((t) => t.message !== message), { id, message, tone, action }].slice(-4);
  if (tone !== 'bad') setTimeout(() => dismiss(id), shownFor);
}

function dismiss(id: number) { toasts.value = toasts.value.filter((t) => t.id !== id); }

/** Where messages appear; once in a page. */
export function Toasts() {
  return (
    <div class="toasts" role="region" aria-label={text.app.messages}>
      <div role="status" aria-live="polite">
        {toasts.value.map((t) => (
          <div key={t.id} class={`toast ${t.tone}`}>
            <span>{t.message}</span>
            {t.action && <Button onClick={() => { dismiss(t.id); t.action!.run(); }}>{t.action.label}</Button>}
            <IconButton icon="close" label={text.app.close} tip="none" onClick={() => dismiss(t.id)} />
          </div>
        ))}
      </div>
    </div>
  );
}
