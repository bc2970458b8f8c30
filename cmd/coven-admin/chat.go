package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"coven-gateway/internal/sse"
)

func chatCommand(c *client) *cobra.Command {
	var thread, sender string
	cmd := &cobra.Command{
		Use:   "chat AGENT MESSAGE...",
		Short: "Send a message and print the answer as it comes",
		Long: `Send a message and print the answer as it comes.

The message is sent once, whatever happens to the connection: a lost one is opened
again and the answer goes on where it was. Ctrl-C leaves; the agent goes on.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]string{
				"agent_id": args[0], "content": strings.Join(args[1:], " "), "sender": sender, "thread_id": thread, "idempotency_key": rand.Text(),
			}
			open := func(ctx context.Context, last string) (*http.Response, error) {
				header := []string{"Accept", "text/event-stream"}
				if last != "" {
					header = append(header, "Last-Event-ID", last)
				}
				return c.do(ctx, http.MethodPost, "/api/send", body, header...)
			}
			return c.stream(cmd.Context(), open, printer(cmd, c))
		},
	}
	cmd.Flags().StringVar(&thread, "thread", "", "continue the `thread`")
	cmd.Flags().StringVar(&sender, "sender", "coven-admin", "on whose behalf")
	return cmd
}

// printer prints the answer to one message.
func printer(cmd *cobra.Command, c *client) func(sse.Event) error {
	out, said := cmd.OutOrStdout(), false
	return func(e sse.Event) error {
		if c.json {
			fmt.Fprintf(out, "%s\n", e.Data)
		}
		var d struct {
			Text, Name, Error, Reason string
			Input                     string `json:"input_json"`
			Full                      string `json:"full_response"`
			Filename, URL             string
		}
		if err := json.Unmarshal(e.Data, &d); err != nil {
			return fmt.Errorf("unexpected event %s: %w", e.Name, err)
		}
		line := func(format string, args ...any) {
			if !c.json {
				fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...)
			}
		}
		switch e.Name {
		case "text":
			said = true
			if !c.json {
				fmt.Fprint(out, d.Text)
			}
		case "tool_use":
			line("[%s %s]", d.Name, d.Input)
		case "tool_approval":
			line("[the agent asks whether it may run %s %s]", d.Name, d.Input)
		case "file":
			line("[file %s: %s%s]", d.Filename, c.base, d.URL)
		case "warning":
			line("[%s]", d.Error)
		case "done":
			if !c.json {
				if !said {
					fmt.Fprint(out, d.Full)
				}
				fmt.Fprintln(out)
			}
			return errSeen
		case "error":
			return &failure{http.StatusOK, d.Error}
		case "canceled":
			return &failure{http.StatusOK, "stopped: " + d.Reason}
		}
		return nil
	}
}

func tailCommand(c *client) *cobra.Command {
	var after int64
	var follow bool
	cmd := &cobra.Command{
		Use: "tail AGENT", Short: "Print the events of a conversation, and follow it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/api/conversations/" + url.PathEscape(args[0]) + "/events"
			head := int64(0)
			if !follow {
				b, err := c.ask(cmd.Context(), http.MethodGet, path+"?limit=1", nil)
				if err != nil {
					return err
				}
				var page struct{ Head int64 }
				if err := json.Unmarshal(b, &page); err != nil {
					return err
				}
				if head = page.Head; head <= after {
					return nil
				}
			}
			open := func(ctx context.Context, last string) (*http.Response, error) {
				if last == "" {
					last = strconv.FormatInt(after, 10)
				}
				return c.do(ctx, http.MethodGet, path, nil, "Accept", "text/event-stream", "Last-Event-ID", last)
			}
			err := c.stream(cmd.Context(), open, func(e sse.Event) error {
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", e.Data)
				if n, err := strconv.ParseInt(e.ID, 10, 64); err != nil || (!follow && n >= head) {
					return errors.Join(err, errSeen)
				}
				return nil
			})
			return err
		},
	}
	cmd.Flags().Int64Var(&after, "after", 0, "begin behind the event with this `number`")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	return cmd
}
