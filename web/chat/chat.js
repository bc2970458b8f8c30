// A plain chat: it shows the events of one conversation and sends messages. The browser keeps the
// position and resumes by itself when the connection is lost.

const $ = (id) => document.getElementById(id);
const log = $('log'), agent = $('agent'), text = $('text'), form = $('form'), state = $('state'), stop = $('stop');
let source, open = new Map(); // open turns: request id -> {el: what its text goes to, spoke: it has said something}
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

function grow(id, className, content) {
  const turn = open.get(id) ?? {};
  if (turn.el?.className !== className) turn.el = add(className);
  if (className === 'text') turn.spoke = true;
  open.set(id, turn);
  const pinned = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  turn.el.append(content);
  if (pinned) log.scrollTop = log.scrollHeight;
}

function file(e) {
  const a = document.createElement('a');
  a.href = `/api/files/${encodeURIComponent(e.file_id)}`;
  a.textContent = e.filename;
  note(e, 'tool', a);
}

// note adds a line of a turn; text that follows begins anew below it.
function note(e, className, content) {
  add(className, content);
  open.set(e.request_id, { spoke: open.get(e.request_id)?.spoke });
}

// approval asks whether a tool may run. The buttons go when it is answered or the turn is over.
function approval(e) {
  const buttons = document.createElement('span');
  buttons.dataset.turn = e.request_id;
  buttons.dataset.tool = e.id;
  for (const [label, approved] of [['Allow', true], ['Deny', false]]) {
    const b = document.createElement('button');
    b.textContent = label;
    b.addEventListener('click', async () => {
      const r = await fetch('/api/tools/approve', { method: 'POST', body: JSON.stringify({ agent_id: agent.value, tool_id: e.id, approved }) });
      if (!r.ok) buttons.replaceWith(` ${(await r.json()).error}`); // else the answer comes as an event
    });
    buttons.append(' ', b);
  }
  note(e, 'tool', `may ${e.name} run with ${e.input_json}?`);
  log.lastElementChild.append(buttons);
}

// question asks what the agent wants to know from people; the card goes when it is answered.
function question(e) {
  const card = document.createElement('form');
  card.className = 'question';
  card.dataset.question = e.question_id;
  card.dataset.turn = e.request_id; // goes with it
  const title = document.createElement('p');
  title.textContent = e.header ? `${e.header}: ${e.question}` : e.question;
  card.append(title);
  const answer = async (selected, custom_text) => {
    const r = await fetch('/api/questions/answer', { method: 'POST', body: JSON.stringify({ agent_id: agent.value, question_id: e.question_id, selected, custom_text }) });
    if (!r.ok) refusal.textContent = (await r.json()).error; // else the answer comes as an event
  };
  const boxes = [];
  for (const o of e.options) {
    const label = document.createElement(e.multi_select ? 'label' : 'button');
    if (e.multi_select) {
      const box = document.createElement('input');
      box.type = 'checkbox';
      box.value = o.label;
      boxes.push(box);
      label.append(box, ` ${o.label}`);
    } else {
      label.type = 'button';
      label.textContent = o.label;
      label.addEventListener('click', () => answer([o.label]));
    }
    if (o.description) label.title = o.description;
    card.append(label);
  }
  const own = document.createElement('input');
  own.placeholder = 'Your own words';
  own.setAttribute('aria-label', 'Your own words');
  const send = document.createElement('button');
  send.textContent = 'Answer';
  const refusal = document.createElement('p');
  refusal.className = 'bad';
  refusal.setAttribute('role', 'alert');
  card.append(own, send, refusal);
  card.addEventListener('submit', (ev) => {
    ev.preventDefault();
    answer(boxes.filter((b) => b.checked).map((b) => b.value), own.value);
  });
  note(e, 'tool');
  log.lastElementChild.append(card);
  log.scrollTop = log.scrollHeight;
}

const show = {
  message(e) { note(e, 'mine', e.content); thread = e.thread_id; },
  text(e) { grow(e.request_id, 'text', e.text); },
  thinking(e) { grow(e.request_id, 'thinking', e.text); },
  tool_use(e) { note(e, 'tool', `${e.name} ${e.input_json}`); },
  tool_result(e) { note(e, e.is_error ? 'tool bad' : 'tool', e.output); },
  tool_approval: approval,
  tool_decision(e) {
    if (e.name) note(e, 'tool', `${e.name} ${e.input_json}: ${e.approved ? 'allowed' : 'denied'} by ${e.by}`); // nobody was asked
    for (const b of log.querySelectorAll(`[data-turn="${CSS.escape(e.request_id)}"][data-tool="${CSS.escape(e.id)}"]`)) {
      b.replaceWith(` ${e.approved ? 'allowed' : 'denied'} by ${e.by}`);
    }
  },
  user_question: question,
  question_answered(e) {
    const words = [...e.selected, e.custom_text].filter(Boolean).join(', ');
    for (const card of log.querySelectorAll(`[data-question="${CSS.escape(e.question_id)}"]`)) {
      const said = document.createElement('p');
      said.textContent = e.reason ? 'nobody answered' : `${e.by}: ${words}`;
      card.replaceWith(card.firstElementChild, said);
    }
  },
  queued(e) { note(e, 'note', `waits for the agent until ${new Date(e.until).toLocaleString()}`); },
  delivered(e) { note(e, 'note', 'delivered'); },
  file,
  warning(e) { note(e, 'note bad', e.error); },
  usage(e) { note(e, 'note', `${e.input_tokens} tokens in, ${e.output_tokens} out`); },
  done(e) { if (!open.get(e.request_id)?.spoke && e.full_response) add('text', e.full_response); end(e); },
  error(e) { add('bad', e.error); end(e); },
  canceled(e) { add('note', `stopped: ${e.reason}`); end(e); },
};

function end(e) {
  open.delete(e.request_id);
  for (const b of log.querySelectorAll(`[data-turn="${CSS.escape(e.request_id)}"]`)) b.remove();
}

function follow(id) {
  source?.close();
  log.replaceChildren();
  open = new Map();
  thread = '';
  if (!id) return;
  source = new EventSource(`/api/conversations/${encodeURIComponent(id)}/events`);
  source.onopen = () => { state.textContent = ''; };
  source.onerror = (m) => { if (m.data === undefined) state.textContent = 'connecting …'; }; // not an event named error
  for (const [name, fn] of Object.entries(show)) {
    source.addEventListener(name, (m) => {
      if (m.data === undefined) return; // the browser's own error event
      fn(JSON.parse(m.data));
      stop.hidden = open.size === 0;
    });
  }
}

// A gateway that asks for credentials gets a token once and gives a session for it.
const login = $('login'), logout = $('logout');
async function who() {
  const r = await fetch('/api/me');
  login.hidden = r.status !== 401;
  form.hidden = log.hidden = agent.parentElement.hidden = !login.hidden;
  logout.hidden = !r.ok || (await r.json()).credential.kind !== 'session';
  if (login.hidden) agents();
  else source?.close();
}
login.addEventListener('submit', async (ev) => {
  ev.preventDefault();
  const r = await fetch('/api/session', { method: 'POST', headers: { Authorization: `Bearer ${$('token').value.trim()}` } });
  $('refusal').textContent = r.ok ? '' : (await r.json()).error;
  if (!r.ok) return;
  $('token').value = '';
  who();
});
logout.addEventListener('click', async () => {
  await fetch('/api/session', { method: 'DELETE' });
  location.reload();
});

async function agents() {
  const r = await fetch('/api/agents');
  if (r.status === 401) return who();
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
who();
setInterval(() => { if (login.hidden) agents(); }, 5000);
