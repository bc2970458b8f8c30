import { useRef, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import { Input } from './basic';
import { text } from '../text/en';

type Props = { label: string; hint?: string; error?: string } & Omit<JSX.IntrinsicElements['input'], 'label' | 'role' | 'type'>;

/** A field for a password, which can be looked at. */
export function PasswordInput(props: Props) {
  const [shown, show] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  return (
    <div ref={box} class="password">
      <Input {...(props as object)} label={props.label} type={shown ? 'text' : 'password'} spellcheck={false} autocapitalize="off" autocorrect="off" />
      <button type="button" class="password-show" aria-pressed={shown} onClick={() => { show(!shown); box.current?.querySelector('input')?.focus(); }}>{text.signIn.show}</button>
    </div>
  );
}
