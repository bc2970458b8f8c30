import { useId, useRef } from 'preact/hooks';
import { Icon, type IconName } from './icon';

export interface MenuItem { label: string; icon?: IconName; danger?: boolean; disabled?: boolean; checked?: boolean; run: () => void }

interface Props {
  label: string;
  icon: IconName;
  items: MenuItem[];
  /** Only the icon is shown; the label is its name. */
  compact?: boolean;
  side?: 'top' | 'bottom';
}

/** A button with a menu, as the ARIA practices have it: arrows, Home, End, first letters, Escape. */
export function Menu({ label, icon, items, compact, side = 'bottom' }: Props) {
  const id = useId();
  const button = useRef<HTMLButtonElement>(null);
  const list = useRef<HTMLDivElement>(null);

  const place = () => {
    const b = button.current!.getBoundingClientRect(), l = list.current!;
    const { width, height } = l.getBoundingClientRect();
    const below = b.bottom + 4, above = b.top - height - 4;
    const top = side === 'top' ? (above > 0 ? above : below) : below + height < innerHeight ? below : Math.max(4, above);
    l.style.top = `${top}px`;
    l.style.left = `${Math.max(4, Math.min(compact ? b.right - width : b.left, innerWidth - width - 4))}px`;
  };
  const entries = () => [...list.current!.querySelectorAll<HTMLButtonElement>('[role^=menuitem]:not(:disabled)')];
  const open = (last = false) => {
    list.current!.showPopover();
    place();
    entries().at(last ? -1 : 0)?.focus();
  };
  const close = () => { list.current!.hidePopover(); button.current!.focus(); };
  const key = (e: KeyboardEvent) => {
    const all = entries(), at = all.indexOf(document.activeElement as HTMLButtonElement);
    let to: HTMLButtonElement | undefined;
    switch (e.key) {
      case 'ArrowDown': to = all[(at + 1) % all.length]; break;
      case 'ArrowUp': to = all[(at - 1 + all.length) % all.length]; break;
      case 'Home': to = all[0]; break;
      case 'End': to = all.at(-1); break;
      case 'Tab': list.current!.hidePopover(); return;
      case 'Escape': e.preventDefault(); e.stopPropagation(); close(); return;
      default:
        if (e.key.length === 1) to = [...all.slice(at + 1), ...all].find((x) => x.textContent!.trim().toLowerCase().startsWith(e.key.toLowerCase()));
    }
    if (to) { e.preventDefault(); to.focus(); }
  };
  return (
    <>
      <button ref={button} type="button" class={`button ghost ${compact ? 'icon-button' : ''}`} aria-haspopup="menu" aria-controls={id} aria-label={compact ? label : undefined}
        data-tip={compact ? label : undefined} popovertarget={id}
        onClick={(e) => { e.preventDefault(); e.stopPropagation(); if (list.current!.matches(':popover-open')) close(); else open(); }}
        onKeyDown={(e) => { if (e.key === 'ArrowDown' || e.key === 'ArrowUp') { e.preventDefault(); open(e.key === 'ArrowUp'); } }}>
        <Icon name={icon} />{!compact && <span class="clip">{label}</span>}
      </button>
      <div ref={list} id={id} class="menu" role="menu" aria-label={label} popover="auto" onKeyDown={key}>
        {items.map((i) => (
          <button key={i.label} type="button" role={i.checked === undefined ? 'menuitem' : 'menuitemradio'} aria-checked={i.checked} tabIndex={-1} class={i.danger ? 'danger' : ''} disabled={i.disabled}
            onClick={(e) => { e.stopPropagation(); close(); i.run(); }}>
            {i.icon && <Icon name={i.icon} />}{i.label}
          </button>
        ))}
      </div>
    </>
  );
}
