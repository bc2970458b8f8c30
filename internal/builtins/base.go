package builtins

import (
	"context"

	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// CapabilitySharedLog lets an agent search what others have logged.
const CapabilitySharedLog = "log:all"

// A LogEntry is something that an agent has written down.
type LogEntry struct {
	Seq       int64 `json:"-"` // the order of entries
	ID        string
	AgentID   string
	Message   string
	Tags      []string
	CreatedAt Time
}

// A LogQuery selects entries.
type LogQuery struct {
	Page
	AgentID string // "" for all agents
	Text    string // is in the message, whatever its case; "" for all
	Since   Time   // at this time or later
}

// A LogStore keeps what agents have logged.
type LogStore interface {
	AddLogEntry(ctx context.Context, e LogEntry) error
	// LogEntries returns entries, the newest first.
	LogEntries(ctx context.Context, q LogQuery) ([]LogEntry, error)
}

// A Todo is something that an agent is going to do.
type Todo struct {
	Seq         int64 `json:"-"` // the order in which they were added
	ID          string
	AgentID     string
	Description string
	Status      string
	Priority    string
	Notes       string
	DueDate     Time
	CreatedAt   Time
	UpdatedAt   Time
}

// A TodoQuery selects todos.
type TodoQuery struct {
	Page
	AgentID          string
	Status, Priority string // "" for all
}

// A TodoStore keeps todos. What is asked for by id and not there is ErrNotFound.
type TodoStore interface {
	// AddTodo fails with a Limited fault if the agent has most already.
	AddTodo(ctx context.Context, t Todo, most int) error
	// Todos returns todos, the newest first.
	Todos(ctx context.Context, q TodoQuery) ([]Todo, error)
	// EditTodo changes a todo in one transaction, unless edit fails.
	EditTodo(ctx context.Context, id string, edit func(*Todo) error) error
	// DeleteTodo deletes a todo in one transaction, unless allow fails.
	DeleteTodo(ctx context.Context, id string, allow func(Todo) error) error
}

// A Post is a contribution to the board that all agents share: a thread, or a reply to one.
type Post struct {
	Seq       int64 `json:"-"` // the order of posts
	ID        string
	AgentID   string
	ThreadID  string // that it replies to; "" for a thread
	Subject   string // "" for a reply
	Content   string
	CreatedAt Time
}

// A BoardStore keeps the board. What is asked for by id and not there is ErrNotFound.
type BoardStore interface {
	// AddPost stores a thread, or a reply: ThreadID must then be that of a thread.
	AddPost(ctx context.Context, p Post) error
	// Post returns a thread or a reply.
	Post(ctx context.Context, id string) (Post, error)
	// Threads returns threads, the newest first.
	Threads(ctx context.Context, p Page) ([]Post, error)
	// Replies returns at most limit replies to a thread after a Seq, the oldest first.
	Replies(ctx context.Context, threadID string, after int64, limit int) ([]Post, error)
}

// A BaseStore is what the base pack needs.
type BaseStore interface {
	LogStore
	TodoStore
	BoardStore
}

// The words for todos.
var (
	todoStates     = []string{"pending", "in_progress", "completed"}
	todoPriorities = []string{"low", "medium", "high"}
)

const (
	statusSchema   = `"status":{"type":"string","enum":["pending","in_progress","completed"]}`
	prioritySchema = `"priority":{"type":"string","enum":["low","medium","high"]}`
	dueSchema      = `{"type":"string","format":"date-time","description":"RFC 3339"}`
)

// Base returns the pack of a log, todos and a board.
func Base(s BaseStore) packs.Pack {
	b := base{s}
	const need = "base"
	return packs.Pack{ID: "builtin:base", Kind: packs.Builtin, Version: version, Tools: []packs.Tool{
		tool("log_entry", "Write down what you did in your activity log",
			`{"type":"object","properties":{"message":{"type":"string"},"tags":{"type":"array","items":{"type":"string"}}},"required":["message"]}`, need, b.logEntry),
		tool("log_search", "Search your activity log, the newest entries first",
			`{"type":"object","properties":{"query":{"type":"string","description":"Text that the message contains"},"since":{"type":"string","format":"date-time"},`+
				`"agent_id":{"type":"string","description":"Search the log of another agent, or with * of all; needs the capability `+CapabilitySharedLog+`"},`+pagingSchema(50)+`}}`, need, b.logSearch),
		tool("todo_add", "Add a todo",
			`{"type":"object","properties":{"description":{"type":"string"},`+prioritySchema+`,"due_date":`+dueSchema+`,"notes":{"type":"string"}},"required":["description"]}`, need, b.todoAdd),
		tool("todo_list", "List your todos, the newest first",
			`{"type":"object","properties":{`+statusSchema+`,`+prioritySchema+`,`+pagingSchema(maxLimit)+`}}`, need, b.todoList),
		tool("todo_update", "Change a todo; what is left out or empty stays as it is, null clears notes and due_date",
			`{"type":"object","properties":{"id":{"type":"string"},"description":{"type":"string"},`+statusSchema+`,`+prioritySchema+`,`+
				`"notes":{"type":["string","null"]},"due_date":{"type":["string","null"],"description":"RFC 3339"}},"required":["id"]}`, need, b.todoUpdate),
		tool("todo_delete", "Delete a todo",
			`{"type":"object","properties":{"id":{"type":"string"}},"required":["id"]}`, need, b.todoDelete),
		tool("bbs_create_thread", "Begin a thread on the board that all agents share",
			`{"type":"object","properties":{"subject":{"type":"string"},"content":{"type":"string"}},"required":["subject","content"]}`, need, b.createThread),
		tool("bbs_reply", "Reply to a thread on the board",
			`{"type":"object","properties":{"thread_id":{"type":"string"},"content":{"type":"string"}},"required":["thread_id","content"]}`, need, b.reply),
		tool("bbs_list_threads", "List the threads of the board, the newest first",
			`{"type":"object","properties":{`+pagingSchema(50)+`}}`, need, b.listThreads),
		tool("bbs_read_thread", "Read a thread of the board with its replies, the oldest first",
			`{"type":"object","properties":{"thread_id":{"type":"string"},`+pagingSchema(maxLimit)+`},"required":["thread_id"]}`, need, b.readThread),
	}}
}

type base struct{ store BaseStore }

func (b base) logEntry(ctx context.Context, c *packs.Call, in struct {
	Message string   `json:"message"`
	Tags    []string `json:"tags"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	if err := text("message", in.Message, maxText); err != nil {
		return nil, err
	}
	if len(in.Tags) > maxTags {
		return nil, fault.New(fault.TooLarge, "tags must not have more than %d entries; this one has %d", maxTags, len(in.Tags))
	}
	for _, t := range in.Tags {
		if err := atMost("a tag", t, maxTag); err != nil {
			return nil, err
		}
	}
	e := LogEntry{ID: newID(), AgentID: me, Message: in.Message, Tags: in.Tags, CreatedAt: now()}
	return map[string]any{"id": e.ID, "status": "logged"}, b.store.AddLogEntry(ctx, e)
}

func (b base) logSearch(ctx context.Context, c *packs.Call, in struct {
	Query   string `json:"query"`
	Since   string `json:"since"`
	AgentID string `json:"agent_id"`
	Limit   int    `json:"limit"`
	Cursor  string `json:"cursor"`
},
) (any, error) {
	q := LogQuery{AgentID: in.AgentID, Text: in.Query}
	if in.AgentID == "" || in.AgentID == c.AgentID {
		me, err := agent(c)
		if err != nil {
			return nil, err
		}
		q.AgentID = me
	} else if err := c.Require(ctx, CapabilitySharedLog); err != nil {
		return nil, err
	}
	if in.AgentID == "*" {
		q.AgentID = ""
	}
	var err error
	if q.Since, err = date("since date", in.Since); err != nil {
		return nil, err
	}
	if q.Page, err = page(in.Limit, 50, in.Cursor); err != nil {
		return nil, err
	}
	entries, err := b.store.LogEntries(ctx, q)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		if entries[i].Tags == nil {
			entries[i].Tags = []string{}
		}
	}
	return list("entries", q.Page, entries, func(e LogEntry) int64 { return e.Seq }, func(e LogEntry) int { return len(e.Message) }), nil
}

func (b base) todoAdd(ctx context.Context, c *packs.Call, in struct {
	Description string `json:"description"`
	Priority    string `json:"priority"`
	DueDate     string `json:"due_date"`
	Notes       string `json:"notes"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	at := now()
	t := Todo{ID: newID(), AgentID: me, Description: in.Description, Status: "pending", Priority: in.Priority, Notes: in.Notes, CreatedAt: at, UpdatedAt: at}
	if t.Priority == "" {
		t.Priority = "medium"
	}
	if t.DueDate, err = date("due_date", in.DueDate); err != nil {
		return nil, err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return map[string]any{"id": t.ID, "status": "created"}, b.store.AddTodo(ctx, t, maxTodos)
}

func (t Todo) check() error {
	if err := oneOf("status", t.Status, todoStates...); err != nil {
		return err
	}
	if err := oneOf("priority", t.Priority, todoPriorities...); err != nil {
		return err
	}
	if err := atMost("description", t.Description, maxText); err != nil {
		return err
	}
	return atMost("notes", t.Notes, maxText)
}

func (b base) todoList(ctx context.Context, c *packs.Call, in struct {
	Status   string `json:"status"`
	Priority string `json:"priority"`
	Limit    int    `json:"limit"`
	Cursor   string `json:"cursor"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	q := TodoQuery{AgentID: me, Status: in.Status, Priority: in.Priority}
	if q.Status != "" {
		if err := oneOf("status", q.Status, todoStates...); err != nil {
			return nil, err
		}
	}
	if q.Priority != "" {
		if err := oneOf("priority", q.Priority, todoPriorities...); err != nil {
			return nil, err
		}
	}
	if q.Page, err = page(in.Limit, maxLimit, in.Cursor); err != nil {
		return nil, err
	}
	todos, err := b.store.Todos(ctx, q)
	if err != nil {
		return nil, err
	}
	return list("todos", q.Page, todos, func(t Todo) int64 { return t.Seq }, func(t Todo) int { return len(t.Description) + len(t.Notes) }), nil
}

// mine refuses the todo of another agent.
func (t Todo) mine(agentID string) error {
	if t.AgentID != agentID {
		return fault.New(fault.NotFound, "todo not found")
	}
	return nil
}

func (b base) todoUpdate(ctx context.Context, c *packs.Call, in struct {
	ID          string `json:"id"`
	Description string `json:"description"`
	Status      string `json:"status"`
	Priority    string `json:"priority"`
	Notes       change `json:"notes"`
	DueDate     change `json:"due_date"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	due, err := date("due_date", in.DueDate.value)
	if err != nil {
		return nil, err
	}
	err = b.store.EditTodo(ctx, in.ID, func(t *Todo) error {
		if err := t.mine(me); err != nil {
			return err
		}
		set(&t.Description, in.Description)
		set(&t.Status, in.Status)
		set(&t.Priority, in.Priority)
		if set(&t.Notes, in.Notes.value); in.Notes.null {
			t.Notes = ""
		}
		if !due.IsZero() || in.DueDate.null {
			t.DueDate = due
		}
		t.UpdatedAt = now()
		if err := t.check(); err != nil {
			return fault.Wrap(err, fault.CodeOf(err), "apply todo updates: %s", fault.Message(err))
		}
		return nil
	})
	return map[string]any{"status": "updated"}, err
}

// set gives a field a new value, if there is one.
func set(field *string, value string) {
	if value != "" {
		*field = value
	}
}

func (b base) todoDelete(ctx context.Context, c *packs.Call, in struct {
	ID string `json:"id"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	return map[string]any{"status": "deleted"}, b.store.DeleteTodo(ctx, in.ID, func(t Todo) error { return t.mine(me) })
}

func (b base) createThread(ctx context.Context, c *packs.Call, in struct {
	Subject string `json:"subject"`
	Content string `json:"content"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	if err := text("subject", in.Subject, maxLine); err != nil {
		return nil, err
	}
	if err := text("content", in.Content, maxText); err != nil {
		return nil, err
	}
	p := Post{ID: newID(), AgentID: me, Subject: in.Subject, Content: in.Content, CreatedAt: now()}
	return map[string]any{"thread_id": p.ID, "status": "created"}, b.store.AddPost(ctx, p)
}

func (b base) reply(ctx context.Context, c *packs.Call, in struct {
	ThreadID string `json:"thread_id"`
	Content  string `json:"content"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	if err := text("thread_id", in.ThreadID, maxLine); err != nil {
		return nil, err
	}
	if err := text("content", in.Content, maxText); err != nil {
		return nil, err
	}
	switch to, err := b.store.Post(ctx, in.ThreadID); {
	case fault.CodeOf(err) == fault.NotFound:
		return nil, fault.Wrap(err, fault.NotFound, "thread not found")
	case err != nil:
		return nil, err
	case to.ThreadID != "":
		return nil, fault.New(fault.Invalid, "cannot reply to a reply, use original thread_id")
	}
	p := Post{ID: newID(), AgentID: me, ThreadID: in.ThreadID, Content: in.Content, CreatedAt: now()}
	return map[string]any{"post_id": p.ID, "status": "posted"}, b.store.AddPost(ctx, p)
}

func (b base) listThreads(ctx context.Context, _ *packs.Call, in struct {
	Limit  int    `json:"limit"`
	Cursor string `json:"cursor"`
},
) (any, error) {
	p, err := page(in.Limit, 50, in.Cursor)
	if err != nil {
		return nil, err
	}
	threads, err := b.store.Threads(ctx, p)
	if err != nil {
		return nil, err
	}
	return list("threads", p, threads, Post.seq, Post.size), nil
}

func (p Post) seq() int64 { return p.Seq }
func (p Post) size() int  { return len(p.Subject) + len(p.Content) }

func (b base) readThread(ctx context.Context, _ *packs.Call, in struct {
	ThreadID string `json:"thread_id"`
	Limit    int    `json:"limit"`
	Cursor   string `json:"cursor"`
},
) (any, error) {
	p, err := page(in.Limit, maxLimit, in.Cursor)
	if err != nil {
		return nil, err
	}
	post, err := b.store.Post(ctx, in.ThreadID)
	if err != nil {
		return nil, err
	}
	replies, err := b.store.Replies(ctx, post.ID, p.Before, p.Limit)
	if err != nil {
		return nil, err
	}
	out := list("Replies", p, replies, Post.seq, Post.size)
	delete(out, "count")
	out["Post"] = post
	return out, nil
}
