// Colours for code. Loaded when there is some.

import hljs from 'highlight.js/lib/core';
import bash from 'highlight.js/lib/languages/bash';
import css from 'highlight.js/lib/languages/css';
import diff from 'highlight.js/lib/languages/diff';
import go from 'highlight.js/lib/languages/go';
import ini from 'highlight.js/lib/languages/ini';
import javascript from 'highlight.js/lib/languages/javascript';
import json from 'highlight.js/lib/languages/json';
import markdown from 'highlight.js/lib/languages/markdown';
import python from 'highlight.js/lib/languages/python';
import rust from 'highlight.js/lib/languages/rust';
import sql from 'highlight.js/lib/languages/sql';
import typescript from 'highlight.js/lib/languages/typescript';
import xml from 'highlight.js/lib/languages/xml';
import yaml from 'highlight.js/lib/languages/yaml';

for (const [name, definition] of Object.entries({ bash, css, diff, go, ini, javascript, json, markdown, python, rust, sql, typescript, xml, yaml })) hljs.registerLanguage(name, definition);

interface Node { scope?: string; children: (Node | string)[] }

/** The nodes of highlighted code; undefined for a language that is not known. No markup is made on the way. */
export function highlight(code: string, language: string): DocumentFragment | undefined {
  if (!hljs.getLanguage(language)) return undefined;
  const to = document.createDocumentFragment();
  const add = (parent: ParentNode & globalThis.Node, n: Node | string) => {
    if (typeof n === 'string') { parent.append(n); return; }
    const el = document.createElement('span');
    if (n.scope) el.className = `hl-${n.scope.split('.')[0]!.replace(/[^a-z-]/g, '')}`;
    for (const c of n.children) add(el, c);
    parent.append(el);
  };
  for (const c of hljs.highlight(code, { language, ignoreIllegals: true })._emitter.rootNode.children) add(to, c);
  return to;
}
