package builtins

import (
	"context"

	"coven-gateway/internal/packs"
)

// A Note is a value that an agent keeps under a key.
type Note struct {
	AgentID, Key, Value string
	CreatedAt           Time
	UpdatedAt           Time
}

// A NoteStore keeps notes. One that is not there is ErrNotFound.
type NoteStore interface {
	// SetNote stores a note or replaces its value. It fails with a Limited fault if the agent has
	// most others already.
	SetNote(ctx context.Context, n Note, most int) error
	Note(ctx context.Context, agentID, key string) (Note, error)
	// Notes returns at most limit notes of an agent whose keys come after one, by key.
	Notes(ctx context.Context, agentID, after string, limit int) ([]Note, error)
	DeleteNote(ctx context.Context, agentID, key string) error
}

// Notes returns the pack of notes.
func Notes(s NoteStore) packs.Pack {
	n := notes{s}
	const need = "notes"
	const key = `{"type":"object","properties":{"key":{"type":"string"}},"required":["key"]}`
	return packs.Pack{ID: "builtin:notes", Kind: packs.Builtin, Version: version, Tools: []packs.Tool{
		tool("note_set", "Keep a value under a key", `{"type":"object","properties":{"key":{"type":"string"},"value":{"type":"string"}},"required":["key","value"]}`, need, n.set),
		tool("note_get", "Get the value that is kept under a key", key, need, n.get),
		tool("note_list", "List the keys of your notes", `{"type":"object","properties":{"limit":{"type":"integer"},"cursor":{"type":"string","description":"The next_cursor of the page before"}}}`, need, n.list),
		tool("note_delete", "Delete what is kept under a key", key, need, n.delete),
	}}
}

type notes struct{ store NoteStore }

type keyed struct {
	Key string `json:"key"`
}

func (n notes) set(ctx context.Context, c *packs.Call, in struct {
	Key   string `json:"key"`
	Value string `json:"value"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	if err := text("key", in.Key, maxLine); err != nil {
		return nil, err
	}
	if err := atMost("value", in.Value, maxText); err != nil {
		return nil, err
	}
	at := now()
	return map[string]any{"key": in.Key, "status": "saved"}, n.store.SetNote(ctx, Note{AgentID: me, Key: in.Key, Value: in.Value, CreatedAt: at, UpdatedAt: at}, maxNotes)
}

func (n notes) get(ctx context.Context, c *packs.Call, in keyed) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	note, err := n.store.Note(ctx, me, in.Key)
	return map[string]any{"key": note.Key, "value": note.Value}, err
}

func (n notes) list(ctx context.Context, c *packs.Call, in struct {
	Limit  int    `json:"limit"`
	Cursor string `json:"cursor"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	limit := maxNotes // all, as it always was
	if in.Limit > 0 {
		limit = min(in.Limit, limit)
	}
	found, err := n.store.Notes(ctx, me, in.Cursor, limit+1)
	if err != nil {
		return nil, err
	}
	keys, bytes := []string{}, 0
	for _, x := range found {
		if bytes += len(x.Key); len(keys) == limit || bytes > maxPage {
			break
		}
		keys = append(keys, x.Key)
	}
	out := map[string]any{"count": len(keys), "keys": keys}
	if len(keys) < len(found) {
		out["has_more"], out["next_cursor"] = true, keys[len(keys)-1]
	}
	return out, nil
}

func (n notes) delete(ctx context.Context, c *packs.Call, in keyed) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	return map[string]any{"key": in.Key, "status": "deleted"}, n.store.DeleteNote(ctx, me, in.Key)
}
