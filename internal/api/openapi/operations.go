package openapi

import (
	"fmt"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
)

// A group is what a section of the documentation is about.
type group struct {
	name       string
	text       string
	operations []operation
}

// An operation is one route. What every route of its kind answers is not written here: see
// [operation.refusals].
type operation struct {
	route   string // as in [auth.Routes]
	id      string
	summary string
	text    string
	query   []parameter
	header  []parameter
	body    body
	answers []answer
	errors  []int // that the route has besides those of its kind
	plain   []int // errors that are plain text
	rpc     []int // errors that may be messages of MCP
	oauth   []int // errors that may be refusals of OAuth
}

// A parameter is in the query or in a header. Its name ends in "!" where it must be there.
type parameter struct {
	name string
	of   object
	text string
}

// A body is what is sent.
type body struct {
	json     string // schema
	form     string // schema of the same as multipart/form-data; "" for none
	optional bool
	words    string // schema of application/x-www-form-urlencoded, instead
}

// An answer is what comes back. Answers with the same status are forms of one answer, which the
// header Accept chooses.
type answer struct {
	status int
	text   string
	media  string
	schema object
	events object // of a stream: what is in it, by name
}

const (
	inJSON   = "application/json"
	inStream = "text/event-stream"
	inText   = "text/plain"
)

// sends answers with an object of a schema.
func sends(status int, schema string) answer {
	return answer{status: status, media: inJSON, schema: ref(schema)}
}

// stream answers with events for as long as there are any.
func stream(text string, events object) answer {
	return answer{status: 200, text: text, media: inStream, schema: str, events: events}
}

// raw answers with a document of another kind.
func raw(media, text string) answer {
	return answer{status: 200, text: text, media: media, schema: str}
}

func empty(text string) answer { return answer{status: 204, text: text} }

// done answers a change that has nothing to show.
var done = []answer{empty("Done.")}

// one is the answer of a route that has one.
func one(status int, schema string) []answer { return []answer{sends(status, schema)} }

// Parameters that several routes have.
var (
	ofAgent   = parameter{"agent_id", str, "only of this agent"}
	ofThread  = parameter{"thread_id", str, "only of this thread"}
	turnPage  = parameter{"cursor", str, "the `next_cursor` of the page before"}
	after     = parameter{"after", number, "the number of the last event that is known; 0 for the beginning"}
	lastEvent = parameter{"Last-Event-ID", number, "the same as `after`, as browsers send it"}
	key       = parameter{"Idempotency-Key", upTo(conversation.MaxIdempotencyKey), "a message is sent once for each key, however often the request comes"}
)

// ofOwner says who sees what an agent has stored.
const ofOwner = "For the owner of the agent and administrators."

// stored are the parameters of lists of what agents have stored.
var stored = []parameter{pageOf(50, 500), turnPage}

// pageOf is the size of a page.
func pageOf(standard, most int) parameter {
	return parameter{"limit", number.with("minimum", 1).with("default", standard), fmt.Sprintf("how many; at most %d", most)}
}

// inPaths say what the parts of a path are, by the part before them and the name.
var inPaths = map[string]string{
	"agents/{id}":               "agent id; where the agent must be connected also the instance id of its connection",
	"conversations/{agent}":     "agent id",
	"turns/{id}":                "the turn, `request_id`",
	"tools/{name}":              "the tool",
	"board/{id}":                "the thread of the board",
	"threads/{id}":              "the thread",
	"files/{id}":                "the file, `file_id`",
	"status/{code}":             "the code",
	"link/{code}":               "the code",
	"principals/{id}":           "the principal",
	"roles/{role}":              "owner, admin, member or leader",
	"capabilities/{capability}": "lower-case letters, digits, `_`, `-` and `:`",
	"keys/{fingerprint}":        "of the key",
	"tokens/{id}":               "the token",
	"mcp/{token}":               "a token; that of a connected agent, which its Welcome has, or any other",
	"secrets/{id}":              "the secret",
	"servers/{name}":            "the MCP server",
	"invites/{id}":              "the invite",
	"passkeys/{id}":             "the passkey",
	"sessions/{id}":             "the session",
	"users/{id}":                "the principal that the person is",
	"sessions/{session}":        "the session",
	"grants/{id}":               "the grant",
}

// The routes of the MCP server.
var (
	session     = parameter{"Mcp-Session-Id", str, "the session, where there is one"}
	mcpVersion  = parameter{"Mcp-Protocol-Version", str, "the revision of the protocol"}
	mcpMessages = object{{"message", ref("MCPMessage")}}
)

func mcpPost(path, id string) operation {
	return operation{
		route: "POST " + path, id: id, summary: "Send a message of MCP",
		text: "`initialize` opens a session for clients that accept `text/event-stream` and speak a revision that has sessions. Answers come in a stream where there is a session, else as JSON. " +
			"Closing the connection cancels the call. Batches are refused.",
		header: []parameter{session, mcpVersion}, body: body{json: "MCPMessage"},
		answers: []answer{
			stream("The answer, and what belongs to it.", mcpMessages), sends(200, "MCPMessage"),
			{status: 202, text: "A notification was taken."},
		},
		errors: []int{404}, rpc: []int{400, 404},
	}
}

func mcpListen(path, id string) operation {
	return operation{
		route: "GET " + path, id: id, summary: "Hear of changes in a session of MCP", header: []parameter{session},
		text:    "Tells that tools have come or gone, until the session or the token ends.",
		answers: []answer{stream("Notifications.", mcpMessages)}, errors: []int{404, 405, 409},
	}
}

func mcpEnd(path, id string) operation {
	return operation{
		route: "DELETE " + path, id: id, summary: "End a session of MCP", header: []parameter{session}, answers: done, errors: []int{404},
	}
}

// authorization is what a client asks with (RFC 6749, 7636 and 8707).
var authorization = []parameter{
	{"client_id!", str, ""},
	{"redirect_uri!", str, "one of those that were registered; the port of a loopback address may be another"},
	{"response_type!", oneOf("code"), ""},
	{"code_challenge!", str, ""},
	{"code_challenge_method!", oneOf("S256"), ""},
	{"scope", str, "some of `tools`, `agents` and `resources`; all without"},
	{"state", upTo(auth.MaxState), ""},
	{"resource", str, "the MCP server"},
}

// groups are the whole API in the order in which it is shown.
var groups = []group{
	{"Messages", "Send a message and see what the agent answers. The turn belongs to no connection: hanging up ends nothing, and what was said is in the log.", []operation{
		{
			route: "POST /api/send", id: "send", summary: "Send a message",
			text: "Answers with the turn while it comes: `started` first, `done`, `error` or `canceled` last. With `Accept: application/json` it waits for the end and answers in one piece. " +
				"With an idempotency key the request can be repeated: it answers with the same turn, from its beginning or after `Last-Event-ID`.",
			header: []parameter{key, lastEvent}, body: body{json: "SendRequest", form: "SendForm"},
			answers: []answer{
				stream("The turn while it comes.", sendEvents()), sends(200, "TurnAnswer"),
				{status: 202, text: "The message waits for its agent, and the caller did not ask for a stream.", media: inJSON, schema: ref("Turn")},
				empty("The turn has ended, and `Last-Event-ID` is its last event."),
			},
			errors: []int{404, 409, 410, 503},
		},
		{
			route: "POST /api/agents/{id}/send", id: "sendToAgent", summary: "Send a message in a thread of its own",
			header: []parameter{key, lastEvent}, body: body{json: "SendToAgent"},
			answers: []answer{
				stream("The turn while it comes.", sendEvents()), sends(200, "TurnAnswer"),
				empty("The turn has ended, and `Last-Event-ID` is its last event."),
			},
			errors: []int{404, 409, 410, 503},
		},
		{
			route: "GET /api/approvals", id: "listApprovals", summary: "List what agents ask and the caller may answer",
			query: []parameter{ofAgent}, answers: one(200, "Approvals"),
		},
		{
			route: "POST /api/tools/approve", id: "approveTool", summary: "Answer an agent that asks whether it may run a tool",
			text: "The first answer counts.",
			body: body{json: "ApproveRequest"}, answers: one(200, "ApproveAnswer"), errors: []int{404, 409},
		},
	}},
	{"Conversations", "Everything an agent and its users say is one log of events, numbered 1, 2, 3 … Whoever knows the number of its last event asks for what follows.", []operation{
		{
			route: "GET /api/conversations/{agent}/events", id: "followConversation", summary: "Follow a conversation",
			text:  "With `Accept: text/event-stream` what follows a number, then what comes, without a seam; otherwise a page. Of others' turns one sees those with agents that one owns; administrators see all.",
			query: []parameter{after, ofThread, pageOf(100, 1000)}, header: []parameter{lastEvent},
			answers: []answer{sends(200, "EventPage"), stream("The conversation, until the client leaves.", allEvents())},
			errors:  []int{410},
		},
		{
			route: "GET /api/turns", id: "listTurns", summary: "List the turns that are not over",
			text:    "Those that an agent works on, and those whose message waits for its agent; the oldest first.",
			query:   []parameter{ofAgent, {"state", oneOf(conversation.Open, conversation.Queued), "only these"}, pageOf(100, 500)},
			answers: one(200, "Turns"),
		},
		{
			route: "GET /api/turns/{id}", id: "getTurn", summary: "Look at a turn",
			answers: one(200, "Turn"), errors: []int{404},
		},
		{
			route: "GET /api/turns/{id}/events", id: "followTurn", summary: "Follow a turn",
			text:  "Like a conversation; the stream ends behind the last event of the turn.",
			query: []parameter{after, pageOf(100, 1000)}, header: []parameter{lastEvent},
			answers: []answer{sends(200, "EventPage"), stream("The turn, until it has ended.", allEvents()), empty("The turn has ended, and the position is behind its end.")},
			errors:  []int{400, 404, 410},
		},
		{
			route: "POST /api/turns/{id}/cancel", id: "cancelTurn", summary: "Stop a turn",
			text: "An agent that understands it gets `agents.cancel_grace_period` to acknowledge; for others the turn ends at once.",
			body: body{json: "CancelRequest", optional: true}, answers: one(202, "Turn"), errors: []int{404, 409},
		},
		{
			route: "GET /api/questions", id: "listQuestions", summary: "List the questions that agents have put to people",
			text:  "Those that you may answer, the oldest first.",
			query: []parameter{ofAgent}, answers: one(200, "Questions"),
		},
		{
			route: "POST /api/questions/answer", id: "answerQuestion", summary: "Answer a question",
			text: "The first answer that fits counts; one that does not leaves the question open.",
			body: body{json: "QuestionAnswer"}, answers: one(200, "Success"), errors: []int{404},
		},
		{
			route: "GET /api/search", id: "search", summary: "Search for what was said",
			query:   []parameter{{"q!", upTo(conversation.MaxSearch), "what was said has all these words; the last one may be the beginning of one"}, ofAgent, ofThread, pageOf(20, 100), turnPage},
			answers: one(200, "SearchPage"),
		},
	}},
	{"Threads", "A thread is a strand inside a conversation: one chat, one channel, one room.", []operation{
		{
			route: "GET /api/threads", id: "listThreads", summary: "List threads, the most recently active first",
			query:   []parameter{ofAgent, {"archived", boolean, "those that are archived instead"}, pageOf(50, 500), turnPage},
			answers: one(200, "Threads"),
		},
		{
			route: "GET /api/threads/{id}", id: "getThread", summary: "Look at a thread",
			answers: one(200, "Thread"), errors: []int{404},
		},
		{
			route: "PATCH /api/threads/{id}", id: "editThread", summary: "Rename a thread or archive it",
			body: body{json: "ThreadEdit"}, answers: one(200, "Thread"), errors: []int{404},
		},
		{
			route: "DELETE /api/threads/{id}", id: "deleteThread", summary: "Remove a thread with everything that was said in it",
			text:    "Administrators may, and you where all of its turns are yours. It is refused while a turn of it is open. What was spent is still counted.",
			answers: done, errors: []int{403, 404, 409},
		},
		{
			route: "GET /api/threads/{id}/messages", id: "listThreadMessages", summary: "List what was said last in a thread",
			query: []parameter{pageOf(50, 1000)}, answers: one(200, "ThreadMessages"), errors: []int{404},
		},
		{
			route: "GET /api/threads/{id}/export", id: "exportThread", summary: "Export all of a thread",
			query:   []parameter{{"format", oneOf("json", "markdown").with("default", "json"), "markdown is for people"}},
			answers: []answer{sends(200, "ThreadExport"), raw("text/markdown", "")}, errors: []int{404},
		},
		{
			route: "GET /api/threads/{id}/turns", id: "listThreadTurns", summary: "List the turns of a thread, the newest first",
			text:  "A page that shows the end of a long thread reads its events from behind `first_seq` - 1 of the last turn of the list.",
			query: []parameter{pageOf(20, 500), turnPage}, answers: one(200, "ThreadTurns"), errors: []int{404},
		},
		{
			route: "GET /api/threads/{id}/usage", id: "listThreadUsage", summary: "List the tokens that a thread has spent",
			query: []parameter{pageOf(500, 1000), {"after", number, "the `next` of the page before"}}, answers: one(200, "ThreadUsage"), errors: []int{404},
		},
		{
			route: "GET /api/threads/{id}/files", id: "listThreadFiles", summary: "List the files of a thread",
			answers: one(200, "ThreadFiles"), errors: []int{404},
		},
		{
			route: "GET /api/files/{id}", id: "getFile", summary: "Download a file",
			text:   "Ranges are served, and the ETag is good for If-None-Match.",
			header: []parameter{{"Range", str, "only these bytes"}, {"If-None-Match", str, "the ETag of a copy"}},
			answers: []answer{
				{status: 200, text: "The content, with its own media type.", media: "*/*", schema: object{}},
				{status: 206, text: "The bytes that were asked for.", media: "*/*", schema: object{}},
				{status: 304, text: "The copy is good."},
				{status: 416, text: "There are no such bytes.", media: inText, schema: str},
			},
			errors: []int{404, 410},
		},
	}},
	{"Agents", "", []operation{
		{
			route: "GET /api/agents", id: "listAgents", summary: "List the agents that are connected",
			query:   []parameter{{"workspace", str, "only those of this workspace"}},
			answers: []answer{{status: 200, media: inJSON, schema: list(ref("Agent"))}},
		},
		{
			route: "GET /api/agents/{id}/history", id: "getHistory", summary: "Read the history of an agent, the oldest first",
			text:    "Answers are in one piece here. A page may have a few more entries than its limit: those of one event stay together.",
			query:   []parameter{pageOf(50, 500), turnPage, {"newest", boolean, "the last entries instead; takes no cursor"}},
			answers: one(200, "HistoryPage"),
		},
		{
			route: "POST /api/agents/{id}/inject", id: "inject", summary: "Give an agent something to know",
			text: "For its owner and administrators. It is no message: it begins no turn and is in no conversation. Only agents that declare the feature `injection` take it.",
			body: body{json: "InjectRequest"},
			answers: []answer{
				{status: 200, text: "The agent has answered: it has accepted it, or refused it.", media: inJSON, schema: ref("InjectAnswer")},
				{status: 202, text: "The agent was given it and has not answered within " + conversation.InjectTimeout.String() + ", or has disconnected: nobody knows.", media: inJSON, schema: ref("InjectAnswer")},
			},
			errors: []int{409, 503},
		},
		{
			route: "GET /api/stats/usage", id: "getUsage", summary: "Sum up tokens",
			query: []parameter{
				ofAgent, ofThread,
				{"since", moment, ""},
				{"until", moment, ""},
				{"group_by", oneOf(conversation.ByAgent, conversation.ByPrincipal, conversation.ByDay), fmt.Sprintf("also the sums of each agent, of whoever began the turns, or of each day in UTC; the first %d", conversation.MaxUsageGroups)},
			},
			answers: one(200, "UsageSums"),
		},
	}},
	{"MCP", "The tools for MCP clients, over Streamable HTTP; `docs/MCP.md` says how to connect some. The token is in the path or in a header; sessions are optional.", []operation{
		mcpPost("/mcp", "sendMCP"), mcpListen("/mcp", "listenMCP"), mcpEnd("/mcp", "endMCP"),
		mcpPost("/mcp/{token}", "sendMCPWithToken"), mcpListen("/mcp/{token}", "listenMCPWithToken"), mcpEnd("/mcp/{token}", "endMCPWithToken"),
	}},
	{"Tools", "Agents call tools; people see which there are, call them too, and read what agents have stored with the built-in ones.", []operation{
		{
			route: "GET /api/tools", id: "listTools", summary: "List all tools, by name",
			answers: one(200, "Tools"),
		},
		{
			route: "POST /api/tools/{name}/call", id: "callTool", summary: "Call a tool",
			text: "With `agent_id` on behalf of that agent, for its owner and administrators. What the caller may do counts, not what the agent may. It answers when the tool has.",
			body: body{json: "ToolCallRequest"}, answers: one(200, "ToolOutput"), errors: []int{404, 409, 422, 503},
		},
		{
			route: "GET /api/packs", id: "listPacks", summary: "List the packs that are here, by id",
			text: "A pack is a set of tools that come and go together.", answers: one(200, "Packs"),
		},
		{
			route: "GET /api/agents/{id}/log", id: "listLog", summary: "Read the log of an agent, the newest entry first",
			text: ofOwner, query: stored, answers: one(200, "LogPage"),
		},
		{
			route: "GET /api/agents/{id}/todos", id: "listTodos", summary: "List the todos of an agent, the newest first",
			text: ofOwner, query: stored, answers: one(200, "TodoPage"),
		},
		{
			route: "GET /api/agents/{id}/mail", id: "listMail", summary: "List the mails to an agent, the newest first",
			text: ofOwner, query: stored, answers: one(200, "MailPage"),
		},
		{
			route: "GET /api/agents/{id}/notes", id: "listNotes", summary: "List the notes of an agent, by key",
			text: ofOwner, query: stored, answers: one(200, "NotePage"),
		},
		{
			route: "GET /api/board", id: "listBoard", summary: "List the threads of the board that all agents share, the newest first",
			query: stored, answers: one(200, "BoardPage"),
		},
		{
			route: "GET /api/board/{id}", id: "readBoard", summary: "Read a thread of the board, then its replies, the oldest first",
			query: stored, answers: one(200, "BoardThread"), errors: []int{404},
		},
	}},
	{"Bindings", "What is written in a channel of a frontend goes to the agent that the channel is bound to.", []operation{
		{
			route: "GET /api/bindings", id: "listBindings", summary: "List bindings, or look at that of one channel",
			query: []parameter{{"frontend", str, "only of this frontend"}, {"channel_id", str, "the binding of this channel, and no list"}, ofAgent},
			answers: []answer{{
				status: 200, text: "The list; with `channel_id` one binding.", media: inJSON,
				schema: object{{"oneOf", []object{ref("Bindings"), ref("Binding")}}},
			}},
			errors: []int{404},
		},
		{
			route: "POST /api/bindings", id: "bind", summary: "Bind a channel, also one that is bound",
			body: body{json: "BindRequest"},
			answers: []answer{
				{status: 200, text: "It is bound so already.", media: inJSON, schema: ref("BindAnswer")},
				{status: 201, text: "It is bound now.", media: inJSON, schema: ref("BindAnswer")},
			},
			errors: []int{404},
		},
		{
			route: "DELETE /api/bindings", id: "unbind", summary: "Unbind a channel",
			query:   []parameter{{"frontend!", str, ""}, {"channel_id!", str, ""}},
			answers: done, errors: []int{404},
		},
	}},
	{"You", "Who a caller is, and how a browser or a new device gets in.", []operation{
		{route: "GET /api/me", id: "getMe", summary: "See who you are to the gateway", answers: one(200, "Me")},
		{
			route: "PATCH /api/me", id: "editMe", summary: "Change how you are called, and the name that you sign in with",
			text: "For people who have signed in with a browser, like all that follows about passwords and passkeys; others get a conflict.", body: body{json: "EditMe"}, answers: done, errors: []int{409},
		},
		{
			route: "PUT /api/me/password", id: "setPassword", summary: "Set your password",
			text: "Needs the old one, or a sign-in that is fresh. Ends your other sessions.", body: body{json: "SetPassword"}, answers: done, errors: []int{409},
		},
		{route: "GET /api/me/passkeys", id: "listPasskeys", summary: "List your passkeys", answers: one(200, "Passkeys")},
		{
			route: "POST /api/me/passkey-options", id: "beginPasskey", summary: "Begin to register a passkey",
			text:    "Answers with what `navigator.credentials.create` takes, see `PublicKeyCredential.parseCreationOptionsFromJSON`, and sets a cookie: the browser has five minutes.",
			answers: one(200, "PasskeyOptions"), errors: []int{409},
		},
		{
			route: "POST /api/me/passkeys", id: "addPasskey", summary: "Register a passkey",
			text: "With what `navigator.credentials.create` has returned, as `toJSON()` writes it.", body: body{json: "NewPasskey"}, answers: one(201, "Passkey"), errors: []int{409},
		},
		{route: "PATCH /api/me/passkeys/{id}", id: "renamePasskey", summary: "Rename a passkey", body: body{json: "RenamePasskey"}, answers: done, errors: []int{404, 409}},
		{
			route: "DELETE /api/me/passkeys/{id}", id: "removePasskey", summary: "Remove a passkey", text: "Not the last one of a person without a password: a conflict.",
			answers: done, errors: []int{404, 409},
		},
		{route: "GET /api/me/sessions", id: "listSessions", summary: "List your sessions, the newest first", answers: one(200, "Sessions")},
		{route: "DELETE /api/me/sessions", id: "endOtherSessions", summary: "End all your sessions but this one", text: "Their streams end at once.", answers: done},
		{route: "DELETE /api/me/sessions/{id}", id: "endSession", summary: "End one of your sessions", answers: done, errors: []int{404}},
		{
			route: "GET /api/sign-in", id: "getSignIn", summary: "See how people sign in here",
			text: "In open mode nobody does: all calls are good without credentials, and the other routes of this kind answer with a conflict.", answers: one(200, "SignIn"),
		},
		{
			route: "POST /api/sign-in/password", id: "signInPassword", summary: "Sign in with a password",
			text: "Sets the cookie of a session. It does not say whether the name or the password is wrong.", body: body{json: "SignInPassword"}, answers: one(200, "SignedIn"), errors: []int{401, 409, 429},
		},
		{
			route: "POST /api/sign-in/passkey-options", id: "beginSignIn", summary: "Begin to sign in, or to show again who you are, with a passkey",
			text:    "Answers with what `navigator.credentials.get` takes, see `PublicKeyCredential.parseRequestOptionsFromJSON`, and sets a cookie: the browser has five minutes.",
			answers: one(200, "PasskeyOptions"), errors: []int{409, 429},
		},
		{
			route: "POST /api/sign-in/passkey", id: "signInPasskey", summary: "Sign in with a passkey",
			text: "With what `navigator.credentials.get` has returned, as `toJSON()` writes it. Sets the cookie of a session.", body: body{json: "SignInPasskey"}, answers: one(200, "SignedIn"), errors: []int{401, 409, 429},
		},
		{
			route: "POST /api/sign-in/link", id: "signInLink", summary: "Sign in with a link, once",
			text: "With what stands behind `#` in the link: that of the first owner, whose names it may bring, or one from `POST /api/admin/users/{id}/reset`, which takes the person's password and passkeys. " +
				"Then let the person set a password or register a passkey: the sign-in is fresh.",
			body: body{json: "SignInLink"}, answers: one(200, "SignedIn"), errors: []int{404, 409, 429},
		},
		{
			route: "POST /api/session/reauthenticate", id: "reauthenticate", summary: "Show again who you are",
			text: "With the password, or with a passkey as in `POST /api/sign-in/passkey`. Routes marked `x-fresh` need a sign-in that is not older than ten minutes; a browser's session that is older gets 403 with the code `reauthentication_required`. " +
				"A session that was opened with a token is made fresh by `POST /api/session` with the token.",
			body: body{json: "Reauthenticate"}, answers: done, errors: []int{409},
		},
		{
			route: "POST /api/session", id: "logIn", summary: "Get a cookie for a token",
			text:    "For browsers, whose event streams send no headers of their own.",
			answers: []answer{empty("The cookie is set.")}, errors: []int{409},
		},
		{route: "DELETE /api/session", id: "logOut", summary: "End the session of the cookie", answers: done, errors: []int{409}},
		{
			route: "POST /api/link/request", id: "requestLink", summary: "Ask for a code for a new device",
			text:   "A device that can may prove that it holds its key: it signs with it as it would over gRPC.",
			header: []parameter{{"X-Ssh-Pubkey", str, ""}, {"X-Ssh-Timestamp", str, ""}, {"X-Ssh-Nonce", str, ""}, {"X-Ssh-Signature", str, ""}},
			body:   body{json: "LinkRequest"}, answers: one(200, "LinkCode"), errors: []int{429}, plain: []int{400},
		},
		{
			route: "GET /api/link/status/{code}", id: "getLinkStatus", summary: "See what has become of a code",
			answers: one(200, "LinkStatus"), errors: []int{404, 429}, plain: []int{404},
		},
		{
			route: "POST /api/invites/accept", id: "acceptInvite", summary: "Accept an invite",
			text: "Whoever does becomes a principal. With a name to sign in with it gets the cookie of a session, and, unless it brings a password, registers a passkey next; without, it gets a token.",
			body: body{json: "AcceptInvite"}, answers: one(201, "Accepted"), errors: []int{404, 409, 429},
		},
	}},
	{"OAuth", "How MCP clients ask people for rights: see `docs/MCP.md`. In open mode there is nothing of it.", []operation{
		{route: "GET /.well-known/oauth-protected-resource", id: "getProtectedResource", summary: "What a client has to know of the MCP server (RFC 9728)", text: "Also with the path of the MCP server behind it.", answers: one(200, "ProtectedResource"), errors: []int{404}},
		{route: "GET /.well-known/oauth-authorization-server", id: "getAuthorizationServer", summary: "What a client has to know of the authorization server (RFC 8414)", answers: one(200, "AuthorizationServer"), errors: []int{404}},
		{
			route: "GET /oauth/authorize", id: "authorize", summary: "Send a browser to where its user is asked",
			text: "Programs on the person's own machine hear of a request that makes no sense at once, others do not: no web site is opened without being asked.", query: authorization,
			answers: []answer{{status: 302, text: "To the page that asks, or back with an error."}}, errors: []int{404},
		},
		{route: "POST /oauth/register", id: "registerClient", summary: "Register a program (RFC 7591)", text: "It gets no secret. One to which nothing is granted is forgotten after a day.", body: body{json: "NewClient"}, answers: one(201, "Client"), errors: []int{404, 429}, oauth: []int{400}},
		{route: "POST /oauth/token", id: "getTokens", summary: "Get the next tokens", text: "For a code or for a refresh token, each of which is good once; a second time ends the grant.", body: body{words: "TokenRequest"}, answers: one(200, "ClientTokens"), errors: []int{404, 429}, oauth: []int{400}},
		{route: "POST /oauth/revoke", id: "forgetToken", summary: "End the grant of a token (RFC 7009)", body: body{words: "ForgetToken"}, answers: one(200, "Nothing"), errors: []int{404, 429}, oauth: []int{400}},
		{route: "GET /api/oauth/consent", id: "getConsent", summary: "See what a client asks you for", text: "For people who have signed in with a browser.", query: authorization, answers: one(200, "ConsentQuestion"), errors: []int{409}},
		{route: "POST /api/oauth/consent", id: "consent", summary: "Decide what a client may do", text: "What is allowed needs a fresh sign-in, as routes marked `x-fresh` do. Then send the browser to `redirect_to`.", body: body{json: "Consent"}, answers: one(200, "ConsentAnswer"), errors: []int{409}},
		{route: "GET /api/oauth/grants", id: "listGrants", summary: "List what you let MCP clients do, the newest first", answers: one(200, "Grants")},
		{route: "DELETE /api/oauth/grants/{id}", id: "revokeGrant", summary: "End one of your grants", text: "Calls that are made with it end at once.", answers: done, errors: []int{404}},
		{route: "GET /api/admin/oauth/grants", id: "listAllGrants", summary: "List what people let MCP clients do, the newest first", query: []parameter{{"principal_id", str, "only of this principal"}, pageOf(100, 500)}, answers: one(200, "Grants")},
		{route: "DELETE /api/admin/oauth/grants/{id}", id: "revokeAnyGrant", summary: "End a grant", answers: done, errors: []int{404}},
	}},
	{"Administration", "Every change is one record of the audit log.", []operation{
		{
			route: "GET /api/admin/principals", id: "listPrincipals", summary: "List principals",
			query: []parameter{{"type", str, "only of this type"}, {"status", str, "only with this status"}, pageOf(100, 500), turnPage}, answers: one(200, "Principals"),
		},
		{
			route: "POST /api/admin/principals", id: "createPrincipal", summary: "Create a principal, approved",
			body: body{json: "NewPrincipal"}, answers: one(201, "Principal"), errors: []int{409},
		},
		{route: "GET /api/admin/principals/{id}", id: "getPrincipal", summary: "Look at a principal, its keys and agents", answers: one(200, "PrincipalDetail"), errors: []int{404}},
		{
			route: "PATCH /api/admin/principals/{id}", id: "renamePrincipal", summary: "Rename a principal",
			body: body{json: "Rename"}, answers: one(200, "Principal"), errors: []int{404},
		},
		{route: "DELETE /api/admin/principals/{id}", id: "deletePrincipal", summary: "Delete a principal", answers: done, errors: []int{404, 409}},
		{route: "POST /api/admin/principals/{id}/approve", id: "approvePrincipal", summary: "Let a principal in", answers: one(200, "Principal"), errors: []int{404}},
		{route: "POST /api/admin/principals/{id}/revoke", id: "revokePrincipal", summary: "Shut a principal out", answers: one(200, "Principal"), errors: []int{404, 409}},
		{route: "PUT /api/admin/principals/{id}/roles/{role}", id: "grantRole", summary: "Grant a role", answers: one(200, "Principal"), errors: []int{404}},
		{route: "DELETE /api/admin/principals/{id}/roles/{role}", id: "takeRole", summary: "Take a role away", answers: one(200, "Principal"), errors: []int{404, 409}},
		{route: "PUT /api/admin/principals/{id}/capabilities/{capability}", id: "grantCapability", summary: "Grant a capability", answers: one(200, "Principal"), errors: []int{404}},
		{route: "DELETE /api/admin/principals/{id}/capabilities/{capability}", id: "takeCapability", summary: "Take a capability away", answers: one(200, "Principal"), errors: []int{404}},
		{route: "GET /api/admin/principals/{id}/keys", id: "listKeys", summary: "List the keys of a principal", answers: one(200, "Keys"), errors: []int{404}},
		{
			route: "POST /api/admin/principals/{id}/keys", id: "addKey", summary: "Add a key to a principal",
			body: body{json: "NewKey"}, answers: one(201, "Key"), errors: []int{404, 409},
		},
		{route: "DELETE /api/admin/principals/{id}/keys/{fingerprint}", id: "removeKey", summary: "Take a key away", answers: done, errors: []int{404}},

		{
			route: "GET /api/admin/users", id: "listUsers", summary: "List people, the newest first",
			query: []parameter{pageOf(100, 500), turnPage}, answers: one(200, "Users"),
		},
		{route: "GET /api/admin/users/{id}", id: "getUser", summary: "Look at a person, its passkeys and sessions", answers: one(200, "UserDetail"), errors: []int{404}},
		{
			route: "PATCH /api/admin/users/{id}", id: "editUser", summary: "Change a person's role or names, or shut it out",
			text: "What is not given stays. Who is disabled has no sessions any more and cannot sign in.", body: body{json: "EditUser"}, answers: one(200, "UserDetail"), errors: []int{404, 409},
		},
		{route: "DELETE /api/admin/users/{id}", id: "deleteUser", summary: "Remove a person", answers: done, errors: []int{404, 409}},
		{
			route: "POST /api/admin/users/{id}/reset", id: "resetUser", summary: "Make a link that signs a person in, once",
			text: "For whoever has lost the other ways in. Opening it takes the password and the passkeys and ends all sessions; before, nothing changes.", answers: one(201, "ResetLink"), errors: []int{404},
		},
		{route: "DELETE /api/admin/users/{id}/sessions", id: "endUserSessions", summary: "End all sessions of a person", answers: done, errors: []int{404}},
		{route: "DELETE /api/admin/users/{id}/sessions/{session}", id: "endUserSession", summary: "End a session of a person", answers: done, errors: []int{404}},

		{
			route: "GET /api/admin/tokens", id: "listTokens", summary: "List tokens, the newest first",
			query: []parameter{{"principal_id", str, "only of this principal"}, pageOf(100, 500)}, answers: one(200, "Tokens"),
		},
		{
			route: "POST /api/admin/tokens", id: "createToken", summary: "Issue a token",
			body: body{json: "NewToken"}, answers: one(201, "NewTokenAnswer"), errors: []int{404, 409},
		},
		{route: "DELETE /api/admin/tokens/{id}", id: "revokeToken", summary: "Revoke a token", answers: done, errors: []int{404}},

		{route: "GET /api/admin/invites", id: "listInvites", summary: "List invites, the newest first", answers: one(200, "Invites")},
		{
			route: "POST /api/admin/invites", id: "createInvite", summary: "Make an invite",
			body: body{json: "NewInvite"}, answers: one(201, "NewInviteAnswer"), errors: []int{409},
		},
		{route: "DELETE /api/admin/invites/{id}", id: "revokeInvite", summary: "Make an invite worthless", answers: done, errors: []int{404, 409}},

		{
			route: "GET /api/admin/agents", id: "listOwnedAgents", summary: "List who owns which agent id",
			query: []parameter{{"principal_id", str, "only of this principal"}, pageOf(100, 500), turnPage}, answers: one(200, "OwnedAgents"),
		},
		{
			route: "GET /api/admin/agents/{id}/approval-policy", id: "getApprovalPolicy", summary: "Read what becomes of an agent's wishes to run tools",
			text: "`*` stands for all agents.", answers: one(200, "ApprovalPolicy"),
		},
		{
			route: "PUT /api/admin/agents/{id}/approval-policy", id: "setApprovalPolicy", summary: "Say what becomes of an agent's wishes to run tools",
			text: "The first rule that matches counts, those of the agent before those of `*`; without one, people are asked. It replaces all rules, and holds for what is asked from now on.",
			body: body{json: "SetApprovalPolicy"}, answers: one(200, "ApprovalPolicy"), errors: []int{409},
		},
		{
			route: "POST /api/admin/agents/{id}/transfer", id: "transferAgent", summary: "Give an agent id to a principal",
			body: body{json: "Transfer"}, answers: done, errors: []int{404},
		},
		{route: "DELETE /api/admin/agents/{id}/ownership", id: "releaseAgent", summary: "Release an agent id", answers: done, errors: []int{404}},
		{
			route: "GET /api/admin/stats", id: "getStats", summary: "Count what has happened lately",
			text: "In thirty spans of equal length, the oldest first; the last one is not over.", query: []parameter{{"hours", number, "how far back, 1 to 672; 24 where it is missing"}}, answers: one(200, "Stats"),
		},

		{route: "GET /api/admin/secrets", id: "listSecrets", summary: "List secrets, without their values", answers: one(200, "Secrets")},
		{route: "PUT /api/admin/secrets", id: "putSecret", summary: "Store a secret", body: body{json: "NewSecret"}, answers: one(200, "Secret"), errors: []int{409}},
		{route: "DELETE /api/admin/secrets/{id}", id: "deleteSecret", summary: "Delete a secret", answers: done, errors: []int{404}},
		{route: "GET /api/admin/secrets/{id}/value", id: "readSecret", summary: "Read the value of a secret", answers: one(200, "SecretValue"), errors: []int{404}},
		{route: "POST /api/admin/secrets/rotate", id: "rotateSecrets", summary: "Seal all secrets with a new key", answers: one(200, "Rotated")},

		{route: "GET /api/admin/mcp/servers", id: "listMCPServers", summary: "List the MCP servers whose tools the gateway offers", answers: one(200, "MCPServers")},
		{
			route: "POST /api/admin/mcp/servers", id: "addMCPServer", summary: "Offer the tools of an MCP server",
			text: "The server is started, and its tools are in the answer if they come within 20 seconds. Nobody can call one that was not accepted. " +
				"A command needs `mcp.allow_commands` and the role owner. In the values of `env` and `headers`, `${secret:NAME}` stands for a stored secret.",
			body: body{json: "NewMCPServer"}, answers: one(201, "MCPServer"), errors: []int{409},
		},
		{route: "GET /api/admin/mcp/servers/{name}", id: "getMCPServer", summary: "Read how an MCP server is, and its tools", answers: one(200, "MCPServer"), errors: []int{404}},
		{
			route: "PATCH /api/admin/mcp/servers/{name}", id: "enableMCPServer", summary: "Stop an MCP server, or start it again",
			text: "Its tools go and come with it.", body: body{json: "EnableMCPServer"}, answers: one(200, "MCPServer"), errors: []int{404},
		},
		{route: "DELETE /api/admin/mcp/servers/{name}", id: "removeMCPServer", summary: "Stop an MCP server and forget it", answers: done, errors: []int{404}},
		{
			route: "POST /api/admin/mcp/servers/{name}/accept", id: "acceptMCPTools", summary: "Accept tools of an MCP server as they are now",
			text: "Without `tools`, all that wait: new ones, and those that are not as they were accepted. With `digest`, only if what waits is what was looked at.",
			body: body{json: "AcceptMCPTools", optional: true}, answers: one(200, "MCPServer"), errors: []int{404, 409},
		},
		{
			route: "POST /api/admin/mcp/servers/{name}/test", id: "testMCPServer", summary: "Open a session with an MCP server, and close it",
			answers: one(200, "MCPTrial"), errors: []int{404, 503},
		},
		{
			route: "GET /api/admin/mcp/servers/{name}/logs", id: "getMCPServerLogs", summary: "Read the latest lines of an MCP server, the oldest first",
			text: "What it writes to stderr, and what the gateway notes.", answers: one(200, "MCPServerLogs"), errors: []int{404},
		},

		{route: "GET /api/admin/link", id: "listLinks", summary: "List devices that want to be linked", answers: one(200, "Links")},
		{
			route: "POST /api/admin/link/{code}/approve", id: "approveLink", summary: "Let a device in",
			body: body{json: "ApproveLink", optional: true}, answers: one(200, "Link"), errors: []int{404, 409},
		},
		{route: "POST /api/admin/link/{code}/deny", id: "denyLink", summary: "Refuse a device", answers: done, errors: []int{404, 409}},

		{
			route: "GET /api/admin/audit", id: "listAudit", summary: "List the audit log, the newest record first",
			query: []parameter{
				{"action", str, "only this action"},
				{"actor", str, "only of this principal"},
				{"target", str, "only about this"},
				{"before", number, "only records before this number"},
				{"after", number, "only records after this number, the oldest first"},
				pageOf(100, 500),
			},
			answers: one(200, "AuditPage"),
		},
		{route: "GET /api/admin/audit/verify", id: "verifyAudit", summary: "Check that the audit log is as it was written", answers: one(200, "AuditCheck")},
		{
			route: "GET /api/admin/audit/export", id: "exportAudit", summary: "Export the audit log",
			text:    "`coven-admin audit verify` reads it.",
			answers: []answer{raw("application/x-ndjson", "A line of JSON for each record; the first one has the server's public key.")},
		},
	}},
	{"The gateway", "", []operation{
		{
			route: "GET /api/admin/gateway", id: "getGateway", summary: "See how the gateway is and how it is configured",
			text: "What `coven-gateway config print` says of the configuration that the gateway was started with.", answers: one(200, "GatewayState"),
		},
		{route: "/health", id: "getHealth", summary: "See whether the process lives", answers: []answer{raw(inText, "It does.")}},
		{
			route: "/health/ready", id: "getReadiness", summary: "See whether messages can be taken",
			answers: []answer{raw(inText, "They can."), {status: 503, text: "They cannot; the text says why.", media: inText, schema: str}},
		},
		{
			route: "GET /api/health/stream", id: "followHealth", summary: "Hear that the gateway is there",
			text:    "For pages in browsers: one event with the data `ok`, then comments.",
			answers: []answer{stream("Ends when the gateway stops.", nil)},
		},
		{route: "GET /metrics", id: "getMetrics", summary: "Read the metrics", answers: []answer{raw(inText, "As Prometheus reads them.")}},
		{
			route: "GET /api/openapi.json", id: "getOpenAPI", summary: "Read this documentation as a program",
			header:  []parameter{{"If-None-Match", str, "the ETag of a copy"}},
			answers: []answer{{status: 200, text: "An OpenAPI document.", media: inJSON, schema: object{{"type", "object"}}}, {status: 304, text: "The copy is good."}},
		},
		{
			route: "GET /api/docs", id: "getDocs", summary: "Read this documentation",
			header:  []parameter{{"If-None-Match", str, "the ETag of a copy"}},
			answers: []answer{raw("text/html", "A page that needs nothing else."), {status: 304, text: "The copy is good."}},
		},
	}},
}
