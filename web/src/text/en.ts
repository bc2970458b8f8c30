// Every word that the pages say, in English. A translation is another file with the same keys.

const plural = (n: number, one: string, many: string) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

export const text = {
  app: {
    name: 'coven', toChat: 'Go to the chat', toAdmin: 'Administration', toDocs: 'API documentation', account: 'Your account', logOut: 'Log out',
    loading: 'Loading…', reload: 'Load the page again', close: 'Close', cancel: 'Cancel', save: 'Save', copy: 'Copy', copied: 'Copied', messages: 'Messages',
    skip: 'Skip to the content', openSide: 'Show or hide the side bar',
    themes: { system: 'Colours of the system', light: 'Light', dark: 'Dark' },
  },
  errors: {
    unreachable: 'The gateway cannot be reached. Trying again…',
    noPage: 'There is no such page', pageFailed: 'This part of the page could not be loaded. The gateway may have been updated or be away.',
  },
  table: {
    search: 'Search', nothingFound: 'Nothing matches', actions: 'Actions', pages: 'Pages', previous: 'Previous', next: 'Next',
    range: (a: number, b: number, n: number) => `${a}–${b} of ${n.toLocaleString('en')}`,
  },
  palette: { open: 'Commands and search (Ctrl or ⌘ K)', title: 'Commands and search', placeholder: 'Do or find something', nothing: 'Nothing found' },
  chart: { table: 'The same as a table', when: 'When' },
  login: {
    title: 'Log in', token: 'Your token', action: 'Log in',
    hint: 'It is in the file “token” beside the gateway’s configuration, or an administrator makes one with “coven-admin tokens create”.',
  },
  admin: {
    groups: { now: 'Now', who: 'Who may do what', tools: 'Tools', record: 'The record', gateway: 'The gateway' },
  },
  pages: { soon: 'There is nothing here yet.' },
  chat: {
    noThread: 'There is no such conversation', noThreadHint: 'It was deleted, or it belongs to somebody else.', answered: 'The answer is complete', waiting: 'waits for you', took: (s: string) => `took ${s}`, failedSend: 'That did not work',
    title: 'Chat', newThread: 'New conversation', search: 'Search', threads: 'Conversations', archived: 'Archive', showArchived: 'Show the archive', hideArchived: 'Back from the archive',
    today: 'Today', yesterday: 'Yesterday', week: 'The last seven days', month: 'The last thirty days', older: 'Older',
    noThreads: 'No conversations yet', noThreadsHint: 'Write to an agent to begin one.', noArchived: 'The archive is empty', more: 'Show more', untitled: 'Untitled', unread: 'unread',
    rename: 'Rename', renameTitle: 'Rename the conversation', renameLabel: 'Title', archive: 'Archive', unarchive: 'Take out of the archive', delete: 'Delete',
    deleteTitle: 'Delete this conversation?', deleteBody: (title: string) => `“${title}” goes with everything in it, for everybody. This cannot be undone.`,
    exportMarkdown: 'Export as Markdown', exportJSON: 'Export as JSON', actions: (title: string) => `What to do with ${title}`, archivedToast: 'Archived', undo: 'Undo', deleted: 'Deleted',
    wasDeleted: 'This conversation was deleted.', removedPart: 'Older messages were removed, as this gateway is set up to do.',
    agent: 'Agent', online: 'online', offline: 'offline', noAgents: 'No agent is connected', noAgentsHint: 'Start one, and it appears here by itself. With “coven-gateway demo” there is one to try.',
    chooseAgent: 'Choose an agent', startWith: (agent: string) => `What should ${agent} do?`, startHint: 'Enter sends, Shift+Enter begins a new line. Drop or paste files to send them.',
    placeholder: (agent: string) => `Message ${agent}`, message: 'Message', send: 'Send', attach: 'Add files', removeFile: (name: string) => `Remove ${name}`, drop: 'Drop files to send them',
    tooLarge: (name: string, limit: string) => `“${name}” is too large; at most ${limit} can be sent at once.`,
    stop: 'Stop', stopping: 'Stopping…', stopped: 'Stopped', stoppedBecause: (why: string) => `Stopped: ${why}`, retry: 'Try again', edit: 'Edit and send again', editing: 'You are changing a message that was sent; it is sent again as a new one.', copyMessage: 'Copy the message',
    waits: (until: string) => `Waits for the agent, until ${until}`, cancelQueued: 'Do not send', delivered: 'Delivered', queueNote: 'The agent is away. The message will be delivered when it comes back.',
    failed: 'The agent could not finish', interrupted: 'The answer was interrupted', expired: 'The agent did not come back in time',
    failedHint: 'Try again, or tell the agent what to do differently.', interruptedHint: 'The agent or the gateway went away. What was said is kept; you can try again.', expiredHint: 'The agent never got this message; you can send it again.',
    notSent: 'Not sent', thinking: 'Thinking', thought: 'Thoughts', working: 'Working…', loadEarlier: 'Show earlier messages', loadingEarlier: 'Loading earlier messages…', jumpDown: 'Go to the end', newBelow: 'There is more below',
    steps: (n: number) => `Show ${plural(n, 'earlier step', 'earlier steps')}`, connecting: 'Connecting again…', streamLost: 'The connection was lost; it will be there again in a moment.',
    toolStates: { pending: 'about to run', awaiting_approval: 'waits for your approval', running: 'running', completed: 'done', failed: 'failed', denied: 'denied', timeout: 'timed out', canceled: 'stopped', cancelled: 'stopped', unknown: 'unknown' } as Record<string, string>,
    toolInput: 'Input', toolResult: 'Result', toolError: 'Error', noResult: 'No result', showAll: 'Show all',
    approvalTitle: (tool: string) => `May ${tool} run?`, allow: 'Allow', allowAll: 'Allow all of this turn', deny: 'Deny', allowedBy: (who: string) => `Allowed by ${who}`, deniedBy: (who: string) => `Denied by ${who}`, approvalGone: 'Nobody answered in time',
    expiresIn: (s: string) => `${s} left`, questionOwn: 'Your own words', answer: 'Answer', answeredBy: (who: string, what: string) => `${who}: ${what}`, unanswered: 'Nobody answered', choose: 'Choose one or more', questionHeader: 'A question for you', table: 'Table',
    usage: (i: number, o: number) => `${i.toLocaleString('en')} tokens in, ${o.toLocaleString('en')} out`, cost: (c: string) => `cost ${c}`, cached: (n: number) => `${n.toLocaleString('en')} from the cache`,
    you: 'You', file: 'File', download: (name: string) => `Download ${name}`, fileGone: 'not kept any more', warning: 'Problem', session: 'A session has begun', sessionLost: 'The session was lost',
    found: 'Found', results: 'Results', inThread: 'Go to', code: 'Code', copyCode: 'Copy the code', conversationWith: (agent: string) => `Conversation with ${agent}`, pendingElsewhere: (n: number) => `${plural(n, 'answer is', 'answers are')} wanted from you`,
  },
};
