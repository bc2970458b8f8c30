import type { ComponentChildren } from 'preact';
import { useId, useRef, useState } from 'preact/hooks';

export interface Tab { id: string; label: string; content: () => ComponentChildren }

/** Tabs; the arrows choose, and only the one that is chosen is rendered. */
export function Tabs({ label, tabs, chosen, onChoose }: { label: string; tabs: Tab[]; chosen?: string; onChoose?: (id: string) => void }) {
  const id = useId();
  const [own, set] = useState(tabs[0]?.id);
  const at = chosen ?? own;
  const bar = useRef<HTMLDivElement>(null);
  const choose = (t: Tab) => { set(t.id); onChoose?.(t.id); };
  const key = (e: KeyboardEvent) => {
    const i = tabs.findIndex((t) => t.id === at);
    const to = { ArrowRight: (i + 1) % tabs.length, ArrowLeft: (i - 1 + tabs.length) % tabs.length, Home: 0, End: tabs.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    choose(tabs[to]!);
    (bar.current!.children[to] as HTMLElement).focus();
  };
  return (
    <div class="tabs">
      <div ref={bar} class="tab-bar" role="tablist" aria-label={label} onKeyDown={key}>
        {tabs.map((t) => (
          <button key={t.id} type="button" role="tab" id={`${id}-${t.id}`} aria-controls={`${id}-panel`} aria-selected={t.id === at} tabIndex={t.id === at ? 0 : -1} onClick={() => choose(t)}>{t.label}</button>
        ))}
      </div>
      <div class="tab-panel" role="tabpanel" id={`${id}-panel`} aria-labelledby={`${id}-${at}`} tabIndex={0}>{tabs.find((t) => t.id === at)?.content()}</div>
    </div>
  );
}
