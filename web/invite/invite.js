// Accepts the invite that is in the address, shows the token once and logs this browser in.

const $ = (id) => document.getElementById(id);
const form = $('login'), refusal = $('refusal');

form.addEventListener('submit', async (e) => {
  e.preventDefault();
  const button = form.querySelector('button');
  button.disabled = true;
  refusal.textContent = '';
  try {
    const invite = decodeURIComponent(location.pathname.split('/').pop());
    const r = await fetch('/api/invites/accept', { method: 'POST', body: JSON.stringify({ invite, display_name: $('name').value }) });
    const answer = await r.json();
    if (!r.ok) throw new Error(answer.error);
    history.replaceState(null, '', '/invite/accepted'); // the link is spent: no need to keep it
    $('who').textContent = answer.display_name;
    $('token').textContent = answer.token;
    $('until').textContent = new Date(answer.expires_at).toLocaleDateString();
    form.hidden = true;
    $('welcome').hidden = false;
    await fetch('/api/session', { method: 'POST', headers: { Authorization: `Bearer ${answer.token}` } });
  } catch (err) {
    refusal.textContent = err.message;
    button.disabled = false;
  }
});

$('copy').addEventListener('click', async () => {
  await navigator.clipboard.writeText($('token').textContent);
  $('copy').textContent = 'Copied';
});
