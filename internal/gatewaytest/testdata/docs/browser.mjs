// What a browser has and node has not: a jar for cookies, and an EventSource that comes back.
let cookie = '';
const bare = globalThis.fetch;
globalThis.fetch = async (url, options = {}) => {
  const response = await bare(url, { ...options, headers: { ...options.headers, ...(cookie && { Cookie: cookie }) } });
  const set = response.headers.get('set-cookie');
  if (set) cookie = set.split(';')[0];
  return response;
};

globalThis.EventSource = class extends EventTarget {
  #closed = false;
  constructor(url) {
    super();
    this.#run(url);
  }
  close() {
    this.#closed = true;
    this.abort?.abort();
  }
  async #run(url) {
    let last;
    while (!this.#closed) {
      try {
        this.abort = new AbortController();
        const headers = { Accept: 'text/event-stream', ...(last && { 'Last-Event-ID': last }) };
        const response = await fetch(url, { headers, signal: this.abort.signal });
        if (response.status !== 200) throw Object.assign(new Error(`status ${response.status}`), { fatal: true });
        let rest = '';
        for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
          const blocks = (rest + chunk).split('\n\n');
          rest = blocks.pop();
          for (const block of blocks) {
            const e = { event: 'message' };
            for (const line of block.split('\n')) {
              const [, name, value] = line.match(/^(\w+): ?(.*)$/) ?? [];
              if (name) e[name] = value;
            }
            last = e.id ?? last;
            if (e.data) this.dispatchEvent(new MessageEvent(e.event, { data: e.data, lastEventId: last }));
          }
        }
      } catch (e) {
        if (e.fatal) throw e;
      }
      if (!this.#closed) await new Promise((next) => setTimeout(next, 100));
    }
  }
};
