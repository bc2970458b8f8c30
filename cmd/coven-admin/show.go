package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func table(out io.Writer, head string, rows func(w io.Writer)) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	rows(w)
	return w.Flush()
}

func statusCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say whether the gateway takes messages", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := c.ask(cmd.Context(), http.MethodGet, "/health/ready", nil)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", c.base, strings.TrimSpace(string(b)))
			return nil
		},
	}
}

func agentsCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use: "agents", Short: "List the connected agents", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			type agent struct {
				ID, Name, Backend string
				InstanceID        string `json:"instance_id"`
				OpenTurns         int    `json:"open_turns"`
			}
			return show(cmd.Context(), c, cmd.OutOrStdout(), "/api/agents", func(agents []agent) error {
				return table(cmd.OutOrStdout(), "ID\tINSTANCE\tNAME\tBACKEND\tOPEN TURNS", func(w io.Writer) {
					for _, a := range agents {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", a.ID, a.InstanceID, a.Name, a.Backend, a.OpenTurns)
					}
				})
			})
		},
	}
}

func threadsCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use: "threads [AGENT]", Short: "List threads, the most recently active first", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/api/threads?limit=500"
			if len(args) > 0 {
				path += "&agent_id=" + url.QueryEscape(args[0])
			}
			type threads struct {
				Threads []struct {
					ID, Title string
					AgentID   string `json:"agent_id"`
					UpdatedAt string `json:"updated_at"`
					Turns     int
				}
			}
			return show(cmd.Context(), c, cmd.OutOrStdout(), path, func(t threads) error {
				return table(cmd.OutOrStdout(), "ID\tAGENT\tTURNS\tUPDATED\tTITLE", func(w io.Writer) {
					for _, t := range t.Threads {
						fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", t.ID, t.AgentID, t.Turns, t.UpdatedAt, t.Title)
					}
				})
			})
		},
	}
}

func messagesCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use: "messages THREAD", Short: "Print the newest messages of a thread", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			type messages struct {
				Messages []struct{ Sender, Type, Content string }
			}
			return show(cmd.Context(), c, cmd.OutOrStdout(), "/api/threads/"+url.PathEscape(args[0])+"/messages?limit=500", func(m messages) error {
				for _, m := range m.Messages {
					who := m.Sender
					if m.Type != "message" {
						who += " (" + m.Type + ")"
					}
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", who, m.Content)
				}
				return nil
			})
		},
	}
}

func cancelCommand(c *client) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "cancel REQUEST", Short: "Stop a turn", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := c.ask(cmd.Context(), http.MethodPost, "/api/turns/"+url.PathEscape(args[0])+"/cancel", map[string]string{"reason": reason})
			if err == nil && c.json {
				_, err = cmd.OutOrStdout().Write(b)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "tell the agent why")
	return cmd
}
