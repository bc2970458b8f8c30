// A plain chat: it shows the events of one conversation and sends messages. The browser keeps the
// position and resumes by itself when the connection is lost.

const $ = (id) => document.getElementById(id);
const log = $('log'), agent = $('agent'), text = $('text'), form = $('form'), state = $('state'), stop = $('stop');
let source, open = new Map(); // open turns: request id -> the element its text goes to
let thread = '';

function add(className, content) {
  const pinned = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  const el = document.createElement('div');
  el.className = className;
  if (content) el.append(content);
  log.append(el);
  if (pinned) log.scrollTop = log.scrollHeight;
  return el;
}

function grow(turn, className, content) {
  let el = open.get(turn);
  if (!el || el.className !== className) open.set(turn, el = add(className));
  const pinned = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  el.append(content);
  if (pinned) log.scrollTop = log.scrollHeight;
}

function file(e) {
  const a = document.createElement('a');
  a.href = `/api/files/${encodeURIComponent(e.file_id)}`;
  a.textContent = e.filename;
  add('tool', a);
}

const show = {
  message(e) { add('mine', e.content); open.set(e.request_id, null); thread = e.thread_id; },
  text(e) { grow(e.request_id, 'text', e.text); },
  thinking(e) { grow(e.request_id, 'thinking', e.text); },
  tool_use(e) { add('tool', `${e.name} ${e.input_json}`); open.set(e.request_id, null); },
  tool_result(e) { add(e.is_error ? 'tool bad' : 'tool', e.output); },
  tool_approval(e) { add('tool', `asks to run ${e.name} ${e.input_json}`); },
  file,
  warning(e) { add('note bad', e.error); open.set(e.request_id, null); },
  usage(e) { add('note', `${e.input_tokens} tokens in, ${e.output_tokens} out`); open.set(e.request_id, null); },
  done(e) { if (!open.get(e.request_id) && e.full_response) add('text', e.full_response); end(e); },
  error(e) { add('bad', e.error); end(e); },
  canceled(e) { add('note', `stopped: ${e.reason}`); end(e); },
};

function end(e) { open.delete(e.request_id); }

function follow(id) {
  source?.close();
  log.replaceChildren();
  open = new Map();
  thread = '';
  if (!id) return;
  source = new EventSource(`/api/conversations/${encodeURIComponent(id)}/events`);
  source.onopen = () => { state.textContent = ''; };
  source.onerror = () => { state.textContent = 'connecting …'; };
  for (const [name, fn] of Object.entries(show)) {
    source.addEventListener(name, (m) => {
      if (m.data === undefined) return; // the browser's own error event
      fn(JSON.parse(m.data));
      stop.hidden = open.size === 0;
    });
  }
}

async function agents() {
  const r = await fetch('/api/agents');
  const list = r.ok ? await r.json() : [];
  const chosen = agent.value;
  agent.replaceChildren(...list.map((a) => new Option(a.name, a.id, false, a.id === chosen)));
  if (!list.length) state.textContent = 'no agent is connected';
  if (agent.value !== chosen) follow(agent.value);
}

form.addEventListener('submit', async (ev) => {
  ev.preventDefault();
  const content = text.value.trim();
  if (!content || !agent.value) return;
  text.value = '';
  const body = { agent_id: agent.value, sender: 'web', content, idempotency_key: crypto.randomUUID() };
  if (thread) body.thread_id = thread;
  try {
    const r = await fetch('/api/send', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
    if (!r.ok) throw new Error((await r.json()).error);
    r.body.cancel(); // the answer comes with the events; the turn does not depend on this request
  } catch (err) {
    add('bad', err.message);
    text.value ||= content;
  }
});

text.addEventListener('keydown', (ev) => {
  if (ev.key === 'Enter' && !ev.shiftKey && !ev.isComposing) {
    ev.preventDefault();
    form.requestSubmit();
  }
});
stop.addEventListener('click', () => {
  for (const id of open.keys()) fetch(`/api/turns/${id}/cancel`, { method: 'POST' });
});
agent.addEventListener('change', () => follow(agent.value));
agents();
setInterval(agents, 5000);
