// The events of a conversation as the API sends them, and the turns that are made of them.

export interface FileInfo { file_id: string; filename: string; mime_type: string; size: number; url: string }
export interface Option { label: string; description?: string }
export interface Usage { input_tokens: number; output_tokens: number; cache_read_tokens: number; cache_write_tokens: number; thinking_tokens: number; cost?: string | number }

interface Base { type: string; seq: number; first_seq?: number; request_id: string; thread_id: string; time: string }

export type Event = Base & (
  | { type: 'message'; sender: string; content: string; attachments: FileInfo[] }
  | { type: 'text' | 'thinking'; text: string }
  | { type: 'tool_use'; id: string; name: string; input_json: string }
  | { type: 'tool_state'; id: string; state: string; detail: string }
  | { type: 'tool_result'; id: string; output: string; is_error: boolean }
  | { type: 'tool_approval'; id: string; name: string; input_json: string; expires_at?: string }
  | { type: 'tool_decision'; id: string; approved: boolean; approve_all: boolean; by: string; name?: string; input_json?: string }
  | ({ type: 'usage' } & Usage)
  | ({ type: 'file' } & FileInfo)
  | { type: 'session_init'; session_id: string }
  | { type: 'session_orphaned'; reason: string }
  | { type: 'warning'; error: string }
  | { type: 'user_question'; question_id: string; question: string; header: string; options: Option[]; multi_select: boolean; timeout_seconds: number }
  | { type: 'question_answered'; question_id: string; selected: string[]; custom_text: string; by: string; reason: string }
  | { type: 'queued'; until: string }
  | { type: 'delivered' }
  | { type: 'done'; full_response: string }
  | { type: 'error'; error: string; recoverable: boolean }
  | { type: 'canceled'; reason: string }
  | { type: 'removed' }
  | { type: 'thread_deleted' }
);

/** The names of all events, for an EventSource. */
export const names = ['message', 'text', 'thinking', 'tool_use', 'tool_state', 'tool_result', 'tool_approval', 'tool_decision', 'usage', 'file', 'session_init',
  'session_orphaned', 'warning', 'user_question', 'question_answered', 'queued', 'delivered', 'done', 'error', 'canceled', 'removed', 'thread_deleted'] as const;

/** A part of an answer, in the order in which it came. */
export type Part =
  | { kind: 'text' | 'thinking'; key: number; text: string; at: string; until: string }
  | { kind: 'tool'; key: number; id: string; name: string; input: string; state: string; detail: string; output?: string; isError: boolean; began: string; ended?: string;
      approval?: { expires?: string; answer?: { approved: boolean; by: string } } }
  | { kind: 'question'; key: number; id: string; question: string; header: string; options: Option[]; multi: boolean; expires: string; answer?: { words: string; by: string; reason: string } }
  | { kind: 'file'; key: number; file: FileInfo }
  | { kind: 'note'; key: number; tone: 'soft' | 'bad'; what: 'warning' | 'session' | 'sessionLost'; text: string };

/** A message and what is answered to it. */
export interface Turn {
  id: string;
  seq: number;
  sender: string;
  content: string;
  files: FileInfo[];
  at: string;
  state: 'queued' | 'open' | 'done' | 'error' | 'canceled';
  cause: string;
  recoverable: boolean;
  until?: string; // how long a queued message waits
  ended?: string;
  response: string; // what the agent says its answer was
  parts: Part[];
  usage?: Usage;
}

function lastOf<K extends Part['kind']>(t: Turn, kind: K, id: string): Extract<Part, { kind: K }> | undefined {
  return t.parts.findLast((p) => p.kind === kind && 'id' in p && p.id === id) as Extract<Part, { kind: K }> | undefined;
}

function toolOf(t: Turn, e: Event & { id: string }): Extract<Part, { kind: 'tool' }> {
  let p = lastOf(t, 'tool', e.id);
  if (!p) {
    p = { kind: 'tool', key: e.seq, id: e.id, name: '', input: '', state: '', detail: '', isError: false, began: e.time };
    t.parts.push(p);
  }
  return p;
}

/** Adds an event to its turn. Each event comes once and in order. */
export function apply(t: Turn, e: Event): void {
  switch (e.type) {
    case 'message': Object.assign(t, { seq: e.seq, sender: e.sender, content: e.content, files: e.attachments, at: e.time }); break;
    case 'text': case 'thinking': {
      const p = t.parts.at(-1);
      if (p && p.kind === e.type) { p.text += e.text; p.until = e.time; } else t.parts.push({ kind: e.type, key: e.first_seq ?? e.seq, text: e.text, at: e.time, until: e.time });
      break;
    }
    case 'tool_use': { const p = toolOf(t, e); p.name = e.name; p.input = e.input_json; break; }
    case 'tool_state': {
      const p = toolOf(t, e);
      p.state = e.state;
      p.detail = e.detail;
      if (/^(completed|failed|denied|timeout|cancell?ed)$/.test(e.state)) p.ended ??= e.time;
      break;
    }
    case 'tool_result': { const p = toolOf(t, e); p.output = e.output; p.isError = e.is_error; p.ended ??= e.time; break; }
    case 'tool_approval': { const p = toolOf(t, e); p.name = e.name; p.input = e.input_json; p.approval = { expires: e.expires_at }; break; }
    case 'tool_decision': {
      const p = toolOf(t, e);
      if (e.name) { p.name = e.name; p.input = e.input_json ?? ''; }
      p.approval = { ...p.approval, answer: { approved: e.approved, by: e.by } };
      break;
    }
    case 'user_question':
      t.parts.push({ kind: 'question', key: e.seq, id: e.question_id, question: e.question, header: e.header, options: e.options, multi: e.multi_select, expires: new Date(Date.parse(e.time) + e.timeout_seconds * 1000).toISOString() });
      break;
    case 'question_answered': {
      const p = lastOf(t, 'question', e.question_id);
      if (p) p.answer = { words: [...e.selected, e.custom_text].filter(Boolean).join(', '), by: e.by, reason: e.reason };
      break;
    }
    case 'usage': {
      const u = t.usage ?? { input_tokens: 0, output_tokens: 0, cache_read_tokens: 0, cache_write_tokens: 0, thinking_tokens: 0 };
      t.usage = {
        input_tokens: u.input_tokens + e.input_tokens, output_tokens: u.output_tokens + e.output_tokens, cache_read_tokens: u.cache_read_tokens + e.cache_read_tokens,
        cache_write_tokens: u.cache_write_tokens + e.cache_write_tokens, thinking_tokens: u.thinking_tokens + e.thinking_tokens, cost: e.cost ?? u.cost,
      };
      break;
    }
    case 'file': t.parts.push({ kind: 'file', key: e.seq, file: e }); break;
    case 'warning': t.parts.push({ kind: 'note', key: e.seq, tone: 'bad', what: 'warning', text: e.error }); break;
    case 'session_orphaned': t.parts.push({ kind: 'note', key: e.seq, tone: 'soft', what: 'sessionLost', text: e.reason }); break;
    case 'session_init': break; // of no interest to who reads
    case 'queued': t.state = 'queued'; t.until = e.until; break;
    case 'delivered': t.state = 'open'; break;
    case 'done': t.state = 'done'; t.response = e.full_response; t.ended = e.time; break;
    case 'error': t.state = 'error'; t.cause = e.error; t.recoverable = e.recoverable; t.ended = e.time; break;
    case 'canceled': t.state = 'canceled'; t.cause = e.reason; t.ended = e.time; break;
    case 'removed': case 'thread_deleted': break; // no events of a turn
  }
}

export function newTurn(e: Event): Turn {
  return { id: e.request_id, seq: e.seq, sender: '', content: '', files: [], at: e.time, state: 'open', cause: '', recoverable: false, response: '', parts: [] };
}
