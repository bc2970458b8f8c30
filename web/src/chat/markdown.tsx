// Markdown of people and agents, whom nobody trusts. This is the only place that makes markup out of text: marked
// without raw HTML, then DOMPurify with the few elements that Markdown has, as nodes and never as a string.

import DOMPurify from 'dompurify';
import { Marked, type Token, type Tokens } from 'marked';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { Copy } from '../ui/basic';
import { memo } from '../ui/memo';
import { text } from '../text/en';

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (s: string) => s.replace(/[&<>"']/g, (c) => escapes[c]!);

const md = new Marked({
  gfm: true,
  renderer: {
    html: ({ text: raw }) => escape(raw),
    // A picture would tell somebody else's server who reads this.
    image: ({ href, text: alt }) => `<a href="${escape(href)}">${escape(alt || href)}</a>`,
  },
});

const allowed = {
  ALLOWED_TAGS: ['p', 'br', 'hr', 'strong', 'em', 'del', 'code', 'pre', 'blockquote', 'ul', 'ol', 'li', 'a', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'input'],
  ALLOWED_ATTR: ['href', 'title', 'align', 'start', 'type', 'checked', 'disabled'],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true as const,
};

/** The nodes of a piece of Markdown. */
function nodes(source: string): DocumentFragment {
  const f = DOMPurify.sanitize(md.parse(source, { async: false }), allowed);
  for (const a of f.querySelectorAll('a')) {
    a.target = '_blank';
    a.rel = 'noopener noreferrer nofollow';
  }
  for (const b of f.querySelectorAll('input')) {
    if (b.type !== 'checkbox') b.remove();
    b.disabled = true;
    b.setAttribute('aria-label', b.checked ? '☑' : '☐');
  }
  for (const t of f.querySelectorAll('table')) {
    const box = document.createElement('div');
    box.className = 'table-scroll';
    box.tabIndex = 0;
    box.setAttribute('role', 'group');
    box.setAttribute('aria-label', text.chat.table);
    t.replaceWith(box);
    box.append(t);
  }
  // A heading of an answer is below those of the page.
  for (const h of f.querySelectorAll('h1, h2, h3, h4, h5, h6')) {
    const n = document.createElement('h3');
    n.className = `level-${h.tagName[1]}`;
    n.append(...h.childNodes);
    h.replaceWith(n);
  }
  return f;
}

interface Block { key: number; raw: string; code?: { language: string; text: string; closed: boolean } }

/** Splits Markdown into blocks. A block that is followed by another does not change any more. */
function blocks(source: string): Block[] {
  let at = 0;
  const out: Block[] = [];
  for (const t of md.lexer(source) as Token[]) {
    if (t.type !== 'space' && t.type !== 'def') {
      const code = t.type === 'code' ? { language: ((t as Tokens.Code).lang ?? '').split(/\s/)[0]!, text: (t as Tokens.Code).text, closed: /\n\s*(```+|~~~+)\s*$/.test(t.raw) || !/^\s*(```|~~~)/.test(t.raw) } : undefined;
      out.push({ key: at, raw: t.raw, code });
    }
    at += t.raw.length;
  }
  return out;
}

/** What has been split of a text that grows: all blocks but the last one stay. */
interface Kept { done: Block[]; from: number; source: string }

/** Text that may still grow, shown in blocks: only the last one is rendered again. */
export function Markdown({ source, growing }: { source: string; growing?: boolean }) {
  const kept = useRef<Kept>({ done: [], from: 0, source: '' });
  const k = kept.current;
  if (!source.startsWith(k.source)) { k.done = []; k.from = 0; }
  k.source = source;
  const tail = blocks(source.slice(k.from));
  const list = [...k.done, ...tail.map((b) => ({ ...b, key: b.key + k.from }))];
  if (growing && tail.length > 2) { // the one before the last may still be joined with it
    k.done = list.slice(0, -2);
    k.from = list.at(-2)!.key;
  }
  return <div class="markdown">{list.map((b, i) => b.code
    ? <Code key={b.key} language={b.code.language} code={b.code.text} settled={b.code.closed && (!growing || i < list.length - 1)} />
    : <Piece key={b.key} raw={b.raw} />)}</div>;
}

const Piece = memo(function Piece({ raw }: { raw: string }) {
  const el = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => { el.current!.replaceChildren(nodes(raw)); }, [raw]);
  return <div ref={el} class="piece" />;
});

/** The longest code that is highlighted, in characters. */
const mostHighlighted = 60_000;

/** A block of code. Its colours come when it is complete, from a part that is loaded then. */
export const Code = memo(function Code({ language, code, settled }: { language: string; code: string; settled: boolean }) {
  const el = useRef<HTMLElement>(null);
  useLayoutEffect(() => {
    const target = el.current!;
    target.textContent = code;
    if (!settled || !language || code.length > mostHighlighted) return;
    let stale = false;
    void import('./highlight').then(({ highlight }) => {
      const f = highlight(code, language);
      if (f && !stale) target.replaceChildren(f);
    }, () => { /* without colours it says the same */ });
    return () => { stale = true; };
  }, [code, language, settled]);
  return (
    <div class="code">
      <div class="code-head"><span>{language || text.chat.code}</span><Copy value={() => code} label={text.chat.copyCode} /></div>
      <pre tabIndex={0}><code ref={el} /></pre>
    </div>
  );
});
