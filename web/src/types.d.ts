// What the vendored packages say about themselves, where they say it in a form that is not used here.

declare module 'highlight.js/lib/core' {
  interface Node { scope?: string; children: (Node | string)[] }
  interface Result { _emitter: { rootNode: Node } }
  const hljs: {
    registerLanguage(name: string, definition: unknown): void;
    registerAliases(names: string[], options: { languageName: string }): void;
    getLanguage(name: string): unknown;
    highlight(code: string, options: { language: string; ignoreIllegals: boolean }): Result;
  };
  export default hljs;
}

declare module 'highlight.js/lib/languages/*' {
  const definition: unknown;
  export default definition;
}
