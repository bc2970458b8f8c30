import type { ComponentChildren } from 'preact';
import { signal } from '@preact/signals';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { Button, IconButton, Input } from './basic';
import { text } from '../text/en';

interface Props { title: string; open: boolean; onClose: () => void; children: ComponentChildren; actions?: ComponentChildren; wide?: boolean }

/** A modal dialog. The browser keeps the focus inside and gives it back. */
export function Dialog({ title, open, onClose, children, actions, wide }: Props) {
  const el = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    if (open && !el.current!.open) el.current!.showModal();
    if (!open && el.current!.open) el.current!.close();
  }, [open]);
  return (
    <dialog ref={el} class={`dialog ${wide ? 'wide' : ''}`} aria-labelledby={id} onClose={onClose} onClick={(e) => { if (e.target === el.current) onClose(); }}>
      {open && (
        <div class="dialog-box">
          <header><h2 id={id}>{title}</h2><IconButton icon="close" label={text.app.close} tip="none" onClick={onClose} /></header>
          <div class="dialog-body">{children}</div>
          {actions && <footer>{actions}</footer>}
        </div>
      )}
    </dialog>
  );
}

interface Question { title: string; body?: string; action: string; danger?: boolean; input?: { label: string; value: string; maxLength?: number }; answer: (value: string | undefined) => void }

const asked = signal<Question | undefined>(undefined);

/** Asks whether something should be done. */
export function confirm(q: { title: string; body?: string; action: string; danger?: boolean }): Promise<boolean> {
  return new Promise((answer) => { asked.value = { ...q, answer: (v) => answer(v !== undefined) }; });
}

/** Asks for a line of text; undefined when the user thinks better of it. */
export function prompt(q: { title: string; body?: string; action: string; label: string; value?: string; maxLength?: number }): Promise<string | undefined> {
  return new Promise((answer) => { asked.value = { ...q, input: { label: q.label, value: q.value ?? '', maxLength: q.maxLength }, answer }; });
}

/** Where the dialogs of confirm and prompt appear; once in a page. */
export function Confirmations() {
  const q = asked.value;
  const [value, set] = useState('');
  useEffect(() => set(q?.input?.value ?? ''), [q]);
  const end = (v: string | undefined) => { asked.value = undefined; q?.answer(v); };
  return (
    <Dialog title={q?.title ?? ''} open={!!q} onClose={() => q && end(undefined)} actions={q && (
      <>
        <Button onClick={() => end(undefined)}>{text.app.cancel}</Button>
        <Button kind={q.danger ? 'danger' : 'primary'} disabled={q.input && !value.trim()} onClick={() => end(value)}>{q.action}</Button>
      </>
    )}>
      {q?.body && <p>{q.body}</p>}
      {q?.input && <form onSubmit={(e) => { e.preventDefault(); if (value.trim()) end(value); }}><Input label={q.input.label} value={value} maxLength={q.input.maxLength} autofocus onInput={(e) => set(e.currentTarget.value)} /></form>}
    </Dialog>
  );
}
