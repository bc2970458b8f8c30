package api

import (
	"bufio"
	"cmp"
	"fmt"
	"net/http"
	"strings"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// exportPage is how many lines of history are read at once.
const exportPage = 200

// exportThread sends a whole thread, as one JSON document or as Markdown for people.
func (a *API) exportThread(w http.ResponseWriter, r *http.Request) error {
	t, err := a.Conversations.Thread(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	out := bufio.NewWriter(slowly{w})
	var begin, end string
	var each func(e conversation.Entry, first bool) error
	switch format := cmp.Or(r.URL.Query().Get("format"), "json"); format {
	case "json":
		head, err := marshal(threadFields(t))
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Disposition", attachment(t.Title+".json"))
		begin, end = `{"thread":`+string(head)+`,"messages":[`, "]}\n"
		each = func(e conversation.Entry, first bool) error {
			b, err := marshal(messageFields(e))
			if err != nil {
				return err
			}
			if !first {
				out.WriteString(",\n") // a failed write is reported by Flush
			}
			_, err = out.Write(b)
			return err
		}
	case "markdown":
		w.Header().Set("Content-Type", "text/markdown; charset=utf-8")
		w.Header().Set("Content-Disposition", attachment(t.Title+".md"))
		begin = "# " + t.Title + "\n"
		each = func(e conversation.Entry, _ bool) error {
			_, err := out.WriteString(markdown(e))
			return err
		}
	default:
		return fault.New(fault.Invalid, "format must be json or markdown; got %q", format)
	}
	out.WriteString(begin) // likewise
	first := true
	for q := (conversation.HistoryQuery{AgentID: t.AgentID, ThreadID: t.ID, Limit: exportPage}); ; {
		page, err := a.Conversations.History(r.Context(), q)
		if err != nil {
			return orGone(r.Context(), err)
		}
		for _, e := range page.Entries {
			if err := each(e, first); err != nil {
				return clientGone(err)
			}
			first = false
		}
		if q.After = page.Next; !page.More {
			break
		}
	}
	out.WriteString(end) // likewise
	if err := out.Flush(); err != nil {
		return clientGone(err)
	}
	return nil
}

// markdown is a line of history for people to read.
func markdown(e conversation.Entry) string {
	text := e.Text
	switch e.Type {
	case conversation.EntryToolCall, conversation.EntryToolResult:
		f := messageFields(e)
		fence := "```"
		content := fmt.Sprint(f["content"])
		for strings.Contains(content, fence) {
			fence += "`"
		}
		text = fence + "\n" + content + "\n" + fence
	case conversation.EntryError:
		text = "*" + strings.ReplaceAll(text, "*", `\*`) + "*"
	}
	what := e.Author
	if e.Type != conversation.EntryMessage {
		what += ", " + strings.ReplaceAll(string(e.Type), "_", " ") + " " + e.ToolName
	}
	return fmt.Sprintf("\n**%s** · %s\n\n%s\n", strings.TrimSpace(what), e.At.UTC().Format("2006-01-02 15:04:05 UTC"), text)
}
