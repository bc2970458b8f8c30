// The smallest components: what has no state of its own worth a file.

import type { ComponentChildren, JSX } from 'preact';
import { useId, useRef, useState } from 'preact/hooks';
import { Icon, type IconName } from './icon';
import { text } from '../text/en';

type Kind = 'plain' | 'primary' | 'danger' | 'ghost';

interface ButtonProps extends Omit<JSX.IntrinsicElements['button'], 'icon'> {
  kind?: Kind;
  icon?: IconName;
  /** Work is under way: the button takes no clicks and says so. */
  busy?: boolean;
}

export function Button({ kind = 'plain', icon, busy, children, class: cls, disabled, ...rest }: ButtonProps) {
  return (
    <button type="button" {...rest} class={`button ${kind} ${cls ?? ''}`} disabled={disabled || busy} aria-busy={busy}>
      {busy ? <span class="spinner" aria-hidden="true" /> : icon && <Icon name={icon} />}
      {children}
    </button>
  );
}

interface IconButtonProps extends Omit<JSX.IntrinsicElements['button'], 'icon' | 'label'> { icon: IconName; label: string; kind?: Kind; tip?: 'above' | 'below' | 'none' }

/** A button with an icon alone. Its label is its name and its tooltip. */
export function IconButton({ icon, label, kind = 'ghost', class: cls, tip, ...rest }: IconButtonProps) {
  return (
    <button type="button" {...rest} class={`button icon-button ${kind} ${cls ?? ''}`} aria-label={label} data-tip={tip === 'none' ? undefined : label} data-tip-side={tip}>
      <Icon name={icon} />
    </button>
  );
}

/** The attributes of a native element that a component passes on. */
type Native<E extends 'input' | 'select' | 'textarea'> = Omit<JSX.IntrinsicElements[E], 'label' | 'role'>;

interface FieldProps { label: string; hint?: ComponentChildren; error?: string; hideLabel?: boolean }

/** A label, a control, and what is wrong with it. */
function Field({ label, hint, error, hideLabel, id, children }: FieldProps & { id: string; children: ComponentChildren }) {
  return (
    <div class="field">
      <label for={id} class={hideLabel ? 'hidden' : ''}>{label}</label>
      {children}
      {hint && <small id={`${id}-hint`}>{hint}</small>}
      {error && <small id={`${id}-error`} class="field-error" role="alert">{error}</small>}
    </div>
  );
}

function described(id: string, p: FieldProps): string | undefined {
  return [p.hint && `${id}-hint`, p.error && `${id}-error`].filter(Boolean).join(' ') || undefined;
}

export function Input({ label, hint, error, hideLabel, ...rest }: FieldProps & Native<'input'>) {
  const made = useId();
  const id = (rest.id as string | undefined) ?? made;
  const f = { label, hint, error, hideLabel };
  return <Field {...f} id={id}><input {...(rest as object)} id={id} class="input" aria-invalid={!!error} aria-describedby={described(id, f)} /></Field>;
}

export function TextArea({ label, hint, error, hideLabel, ...rest }: FieldProps & Native<'textarea'>) {
  const made = useId();
  const id = (rest.id as string | undefined) ?? made;
  const f = { label, hint, error, hideLabel };
  return <Field {...f} id={id}><textarea {...rest} id={id} class="input" aria-invalid={!!error} aria-describedby={described(id, f)} /></Field>;
}

export function Select({ label, hint, error, hideLabel, options, ...rest }: FieldProps & Native<'select'> & { options: { value: string; label: string }[] }) {
  const made = useId();
  const id = (rest.id as string | undefined) ?? made;
  const f = { label, hint, error, hideLabel };
  return (
    <Field {...f} id={id}>
      <select {...(rest as object)} id={id} class="input" aria-invalid={!!error} aria-describedby={described(id, f)}>
        {options.map((o) => <option key={o.value} value={o.value} selected={o.value === rest.value}>{o.label}</option>)}
      </select>
    </Field>
  );
}

export function Checkbox({ label, hint, ...rest }: { label: string; hint?: string } & Native<'input'>) {
  return <label class="checkbox"><input {...(rest as object)} type="checkbox" /><span>{label}{hint && <small>{hint}</small>}</span></label>;
}

export type Tone = 'neutral' | 'good' | 'bad' | 'warn' | 'accent';

export function Badge({ tone = 'neutral', children }: { tone?: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

/** A box with a title; actions stand beside it. */
export function Card({ title, actions, children, class: cls, level = 2 }: { title?: ComponentChildren; actions?: ComponentChildren; children: ComponentChildren; class?: string; level?: 2 | 3 }) {
  const H = `h${level}` as 'h2';
  return (
    <section class={`card ${cls ?? ''}`}>
      {(title || actions) && <header class="card-head">{title && <H>{title}</H>}{actions && <div class="card-actions">{actions}</div>}</header>}
      {children}
    </section>
  );
}

export function Spinner({ label }: { label: string }) {
  return <span class="loading" role="status"><span class="spinner" aria-hidden="true" />{label}</span>;
}

/** Grey bars where text is about to be. */
export function Skeleton({ lines = 3 }: { lines?: number }) {
  return <div class="skeleton" role="status" aria-label={text.app.loading}>{Array.from({ length: lines }, (_, i) => <span key={i} />)}</div>;
}

/** What stands where a list has nothing: why, and what to do. */
export function Empty({ icon, title, children }: { icon?: IconName; title: string; children?: ComponentChildren }) {
  return <div class="empty">{icon && <Icon name={icon} />}<p class="empty-title">{title}</p>{children && <div class="empty-text">{children}</div>}</div>;
}

/** Something that is folded away until one asks for it; folds inside of folds make a tree. */
export function Fold({ summary, open, children, class: cls, lazy = true, onToggle }: { summary: ComponentChildren; open?: boolean; children: ComponentChildren; class?: string; lazy?: boolean; onToggle?: (open: boolean) => void }) {
  const [shown, show] = useState(!!open);
  return (
    <details class={`fold ${cls ?? ''}`} open={open} onToggle={(e) => { if (e.currentTarget.open) show(true); onToggle?.(e.currentTarget.open); }}>
      <summary><Icon name="chevron" class="fold-mark" />{summary}</summary>
      {(shown || !lazy) && <div class="fold-body">{children}</div>}
    </details>
  );
}

/** A button that puts text on the clipboard. */
export function Copy({ value, label = text.app.copy }: { value: () => string; label?: string }) {
  const [done, say] = useState(false);
  const timer = useRef(0);
  return (
    <IconButton icon={done ? 'check' : 'copy'} label={done ? text.app.copied : label} class="copy" onClick={async () => {
      await toClipboard(value());
      say(true);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => say(false), 2000) as unknown as number;
    }} />
  );
}

/** Puts text on the clipboard, also where the page is not in a secure context. */
export async function toClipboard(value: string): Promise<void> {
  if (navigator.clipboard) {
    try { await navigator.clipboard.writeText(value); return; } catch { /* not allowed: the old way */ }
  }
  const area = document.createElement('textarea');
  area.value = value;
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}
