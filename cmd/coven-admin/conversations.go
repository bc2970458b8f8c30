package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"coven-gateway/internal/cli"
)

func usageCommand(a *app) *cobra.Command {
	var agent, since, until string
	cmd := help{
		use: "usage", short: "Sum up the tokens that agents have used",
		long:    "Sum up the tokens that agents have used. A time is RFC 3339, a date, or how long ago: 36h.",
		example: "coven-admin usage\ncoven-admin usage --agent echo --since 24h",
	}.command(func(cmd *cobra.Command, _ []string) error {
		q := url.Values{"agent_id": {agent}}
		for name, s := range map[string]string{"since": since, "until": until} {
			if s == "" {
				continue
			}
			at, err := moment(s)
			if err != nil {
				return cli.Usage(fmt.Errorf("--%s: %w", name, err))
			}
			q.Set(name, at.UTC().Format(time.RFC3339))
		}
		answer, err := a.ask(cmd.Context(), http.MethodGet, "/api/stats/usage?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		return a.show(cmd, answer, view{columns: []column{
			{"REPORTS", "request_count", nil},
			{"INPUT", "total_input", nil},
			{"OUTPUT", "total_output", nil},
			{"THINKING", "total_thinking", nil},
			{"CACHE READ", "total_cache_read", nil},
			{"CACHE WRITE", "total_cache_write", nil},
			{"TOTAL", "total_tokens", nil},
		}})
	})
	f := cmd.Flags()
	f.StringVar(&agent, "agent", "", "only of the agent with this `id`")
	f.StringVar(&since, "since", "", "only since this `time`")
	f.StringVar(&until, "until", "", "only until this `time`")
	return cmd
}

// moment reads a time as people give it.
func moment(s string) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("want a time like 2026-01-31T09:00:00Z, a date like 2026-01-31, or how long ago like 36h; got %q", s)
}

func threadsCommand(a *app) *cobra.Command {
	l := listing{
		path: "/api/threads", page: 500, limit: 500, filters: []filter{{"agent", "agent_id", "only those with the agent with this `id`"}},
		view: view{key: "threads", none: "no threads", columns: []column{
			{"ID", "id", nil}, {"AGENT", "agent_id", nil}, {"TURNS", "turns", nil}, {"UPDATED", "updated_at", nil}, {"TITLE", "title", nil},
		}},
		help: help{use: "threads [AGENT]", short: "List threads, the most recently active first", example: "coven-admin threads echo"},
	}
	cmd := a.list(l)
	listAll := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			if err := cmd.Flags().Set("agent", args[0]); err != nil {
				return err
			}
		}
		return listAll(cmd, nil)
	}
	cmd.AddCommand(deleteThread(a))
	return cmd
}

func deleteThread(a *app) *cobra.Command {
	var yes bool
	cmd := help{
		use: "delete THREAD", short: "Remove a thread with everything that was said in it", aliases: []string{"rm", "remove"},
		long:    "Remove a thread with everything that was said in it, and its files. It cannot be had back.\nWithout --yes you are asked first, with its title.",
		example: "coven-admin threads delete $THREAD",
	}.command(func(cmd *cobra.Command, args []string) error {
		path := fill("/api/threads/{0}", args)
		if !yes {
			answer, err := a.ask(cmd.Context(), http.MethodGet, path, nil)
			if err != nil {
				return err
			}
			var t struct {
				Title string
				Agent string `json:"agent_id"`
				Turns int
			}
			if err := json.Unmarshal(answer, &t); err != nil {
				return fmt.Errorf("unexpected answer: %w", err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Delete %q, %d turns with %s? [y/N] ", strings.Map(harmless, t.Title), t.Turns, t.Agent)
			said, err := (&lines{in: cmd.InOrStdin()}).next(cmd.Context())
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			switch strings.ToLower(strings.TrimSpace(said)) {
			case "y", "yes":
			default:
				return errors.New("not deleted")
			}
		}
		if _, err := a.read(cmd.Context(), http.MethodDelete, path, nil); err != nil { // it takes as long as there is much
			return err
		}
		if !a.json {
			fmt.Fprintln(cmd.OutOrStdout(), "deleted")
		}
		return nil
	})
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func messagesCommand(a *app) *cobra.Command {
	return help{use: "messages THREAD", short: "Print the newest messages of a thread", example: "coven-admin messages $THREAD"}.command(func(cmd *cobra.Command, args []string) error {
		answer, err := a.ask(cmd.Context(), http.MethodGet, fill("/api/threads/{0}/messages?limit=500", args), nil)
		if err != nil || a.json {
			return errors.Join(err, write(cmd, answer))
		}
		var m struct {
			Messages []struct{ Sender, Type, Content string }
		}
		if err := json.Unmarshal(answer, &m); err != nil {
			return fmt.Errorf("unexpected answer: %w", err)
		}
		out := cmd.OutOrStdout()
		for _, m := range m.Messages {
			who := m.Sender
			if m.Type != "message" {
				who += " (" + m.Type + ")"
			}
			fmt.Fprintf(out, "%s: %s\n", who, shown(out, m.Content))
		}
		return nil
	})
}

func eventsCommand(a *app) *cobra.Command {
	return a.list(listing{
		help: help{use: "events AGENT", short: "List events of a conversation, the oldest first", example: "coven-admin events echo --after 10 --limit 5"},
		path: "/api/conversations/{0}/events", page: 1000, limit: 100, next: "after", from: "next",
		filters: []filter{{"after", "after", "begin behind the event with this `number`"}, {"thread", "thread_id", "only those of the `thread`"}},
		view: view{key: "events", none: "no events", columns: []column{
			{"SEQ", "seq", nil},
			{"TIME", "time", nil},
			{"TYPE", "type", nil},
			{"REQUEST", "request_id", nil},
			{"WHAT", "text|content|full_response|error|reason|name|output|state|filename|session_id", nil},
		}},
	})
}

func turnsCommand(a *app) *cobra.Command {
	return a.list(listing{
		help: help{
			use: "turns", short: "List the turns that are not over, the oldest first",
			long:    "List the turns that are not over, the oldest first: those that an agent works on, and those whose message waits for its agent.",
			example: "coven-admin turns\ncoven-admin turns --agent echo --state queued",
		},
		path: "/api/turns",
		filters: []filter{
			{"agent", "agent_id", "only those of the agent with this `id`"},
			{"state", "state", "only those in this `state`: open or queued"},
			{"limit", "limit", "show at most `n`, up to 500; 100 without"},
		},
		view: view{key: "turns", none: "no turn is open, and no message waits", columns: []column{
			{"REQUEST", "request_id", nil},
			{"AGENT", "agent_id", nil},
			{"THREAD", "thread_id", nil},
			{"SENDER", "sender", nil},
			{"STATE", "state", nil},
			{"STARTED", "started_at", nil},
			{"WAITS UNTIL", "waiting_until", nil},
		}},
	})
}

func cancelCommand(a *app) *cobra.Command {
	return a.request(request{
		help:   help{use: "cancel REQUEST", short: "Stop a turn", example: "coven-admin cancel $REQUEST --reason 'not needed any more'"},
		method: http.MethodPost, path: "/api/turns/{0}/cancel", said: "canceled",
		view: view{block: true, columns: []column{{"request", "request_id", nil}, {"state", "state", nil}}},
		flags: func(f *pflag.FlagSet) func([]string) (any, error) {
			reason := f.String("reason", "", "tell the agent `why`")
			return func([]string) (any, error) { return object{"reason": *reason}, nil }
		},
	})
}

// shown is text as it is printed: to a terminal without what would steer it.
func shown(out any, text string) string {
	if isTerminal(out) {
		return strings.Map(harmless, text)
	}
	return text
}
