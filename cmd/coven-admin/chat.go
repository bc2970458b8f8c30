package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
	"coven-gateway/internal/sse"
)

// chat is a conversation of a person with an agent.
type chat struct {
	*app
	cmd            *cobra.Command
	agent          string
	thread, sender string
	approve        string // ask, yes, no, or "" to leave it to others
	lines          *lines
	midLine        bool // the answer has not ended its line
}

func chatCommand(a *app) *cobra.Command {
	c := chat{app: a}
	cmd := &cobra.Command{
		Use:   "chat AGENT [MESSAGE...]",
		Short: "Send messages and print the answers as they come",
		Long: `Send a message and print the answer as it comes. Without a message, every line that is read is one,
all in one thread.

A message is sent once, whatever happens to the connection: a lost one is opened again and the answer
goes on where it was. Ctrl-C leaves; the agent goes on.

When the agent asks whether it may run a tool, you are asked, if you are at a terminal; --approve
answers for you, and --approve=ask reads your answers from stdin also when that is no terminal. In the
same way you are asked what the agent wants to know from people.`,
		Example: "  coven-admin chat echo hello there\n  coven-admin chat echo --thread $THREAD --approve no < questions.txt",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch c.approve {
			case "ask", "yes", "no":
			case "":
				if isTerminal(cmd.InOrStdin()) {
					c.approve = "ask"
				}
			default:
				return cli.Usage(fmt.Errorf("--approve is ask, yes or no; got %q", c.approve))
			}
			c.cmd, c.agent, c.lines = cmd, args[0], &lines{in: cmd.InOrStdin()}
			if len(args) > 1 {
				return c.say(strings.Join(args[1:], " "))
			}
			return c.session()
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.thread, "thread", "", "continue the `thread`")
	f.StringVar(&c.sender, "sender", "coven-admin", "on whose behalf")
	f.StringVar(&c.approve, "approve", "", "answer the agent's questions about tools: `ask`, yes or no")
	return cmd
}

// session sends every line that is read. A turn that fails does not end it.
func (c *chat) session() error {
	failed := false
	for {
		if isTerminal(c.cmd.InOrStdin()) {
			fmt.Fprint(c.cmd.ErrOrStderr(), "> ")
		}
		line, err := c.lines.next(c.cmd.Context())
		if errors.Is(err, io.EOF) {
			if failed {
				return cli.ErrReported
			}
			return nil
		}
		if err != nil {
			return err
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		err = c.say(line)
		if f, ok := errors.AsType[*failure](err); ok && f.status == http.StatusOK {
			failed = true
			c.note("%s: %s", c.cmd.Root().Name(), f.text)
			continue
		}
		if err != nil {
			return err
		}
	}
}

// say sends a message and prints the answer.
func (c *chat) say(text string) error {
	body := map[string]string{
		"agent_id": c.agent, "content": text, "sender": c.sender, "thread_id": c.thread, "idempotency_key": rand.Text(),
	}
	open := func(ctx context.Context, last string) (*http.Response, error) {
		header := []string{"Accept", "text/event-stream"}
		if last != "" {
			header = append(header, "Last-Event-ID", last)
		}
		return c.do(ctx, http.MethodPost, "/api/send", body, header...)
	}
	said := false
	return c.stream(c.cmd.Context(), open, func(e sse.Event) error { return c.print(e, &said) })
}

// note prints something that is not the answer.
func (c *chat) note(format string, args ...any) {
	if c.midLine && isTerminal(c.cmd.OutOrStdout()) { // where both are seen
		fmt.Fprintln(c.cmd.OutOrStdout())
		c.midLine = false
	}
	out := c.cmd.ErrOrStderr()
	fmt.Fprintln(out, shown(out, fmt.Sprintf(format, args...)))
}

// print prints an event of the answer; said tells whether there was text before it.
func (c *chat) print(e sse.Event, said *bool) error {
	out := c.cmd.OutOrStdout()
	if c.json {
		fmt.Fprintf(out, "%s\n", e.Data)
	}
	var d struct {
		ID, Text, Name, Error, Reason string
		Input                         string `json:"input_json"`
		Full                          string `json:"full_response"`
		Thread                        string `json:"thread_id"`
		Filename, URL                 string
		QuestionID                    string `json:"question_id"`
		Question                      string
		Options                       []option
		Multi                         bool `json:"multi_select"`
	}
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return fmt.Errorf("unexpected event %s: %w", e.Name, err)
	}
	note := c.note
	if c.json {
		note = func(string, ...any) {}
	}
	switch e.Name {
	case "started":
		c.thread = d.Thread
	case "text":
		*said, c.midLine = true, !strings.HasSuffix(d.Text, "\n")
		if !c.json {
			fmt.Fprint(out, shown(out, d.Text))
		}
	case "tool_use":
		note("[%s %s]", d.Name, d.Input)
	case "tool_approval":
		if c.approve == "ask" {
			note = c.note // a person has to know what it is about
		}
		note("[the agent asks whether it may run %s %s]", d.Name, d.Input)
		return c.decide(d.ID)
	case "user_question":
		if c.approve == "ask" {
			note = c.note
		}
		note("[the agent asks: %s]", d.Question)
		for i, o := range d.Options {
			note("  %d. %s%s", i+1, o.Label, described(o.Description))
		}
		return c.choose(d.QuestionID, d.Options, d.Multi)
	case "file":
		note("[file %s: %s]", d.Filename, c.url(d.URL))
	case "warning":
		note("[%s]", d.Error)
	case "done":
		if !c.json {
			if !*said {
				fmt.Fprint(out, shown(out, d.Full))
			}
			fmt.Fprintln(out)
		}
		c.midLine = false
		return errSeen
	case "error":
		return &failure{http.StatusOK, d.Error}
	case "canceled":
		return &failure{http.StatusOK, "stopped: " + d.Reason}
	}
	return nil
}

// decide answers whether the agent may run a tool. Somebody else may have been faster: that is no
// error.
func (c *chat) decide(tool string) error {
	ctx := c.cmd.Context()
	answer := object{"agent_id": c.agent, "tool_id": tool, "approved": c.approve == "yes", "approve_all": false}
	switch c.approve {
	case "":
		return nil
	case "ask":
		for asking := true; asking; {
			fmt.Fprint(c.cmd.ErrOrStderr(), "[y]es, [n]o, or yes to [a]ll of this answer? ")
			line, err := c.lines.next(ctx)
			if errors.Is(err, io.EOF) {
				c.note("[not answered]")
				return nil
			}
			if err != nil {
				return err
			}
			asking = false
			switch strings.ToLower(strings.TrimSpace(line)) {
			case "y", "yes":
				answer["approved"] = true
			case "a", "all":
				answer["approved"], answer["approve_all"] = true, true
			case "n", "no":
			default:
				asking = true
			}
		}
	}
	_, err := c.ask(ctx, http.MethodPost, "/api/tools/approve", answer)
	if f, ok := errors.AsType[*failure](err); ok && f.status == http.StatusNotFound {
		c.note("[%s]", f.text)
		return nil
	}
	return err
}

// An option is an answer that the agent suggests.
type option struct{ Label, Description string }

func described(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

// choose answers a question of the agent to people. Somebody else may have been faster: that is no
// error.
func (c *chat) choose(id string, options []option, multi bool) error {
	if c.approve != "ask" {
		return nil
	}
	what := "a number"
	if multi {
		what = "numbers"
	}
	for {
		fmt.Fprintf(c.cmd.ErrOrStderr(), "%s, or your own words? ", what)
		line, err := c.lines.next(c.cmd.Context())
		if errors.Is(err, io.EOF) {
			c.note("[not answered]")
			return nil
		}
		if err != nil {
			return err
		}
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		answer := object{"agent_id": c.agent, "question_id": id}
		if labels := chosen(line, options); labels != nil {
			answer["selected"] = labels
		} else {
			answer["custom_text"] = line
		}
		_, err = c.ask(c.cmd.Context(), http.MethodPost, "/api/questions/answer", answer)
		if f, ok := errors.AsType[*failure](err); ok && (f.status == http.StatusNotFound || f.status == http.StatusBadRequest) {
			c.note("[%s]", f.text)
			if f.status == http.StatusBadRequest {
				continue
			}
			return nil
		}
		return err
	}
}

// chosen returns the labels of the options that a line has the numbers of; nil when it has anything else.
func chosen(line string, options []option) (labels []string) {
	for _, word := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ',' }) {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n > len(options) {
			return nil
		}
		labels = append(labels, options[n-1].Label)
	}
	return labels
}

// lines reads lines and can stop waiting for one: a read of a terminal cannot be interrupted.
type lines struct {
	in   io.Reader
	read chan line // made by the first next
}

type line struct {
	text string
	err  error
}

// next waits for a line, or for the end of ctx.
func (l *lines) next(ctx context.Context) (string, error) {
	if l.read == nil {
		l.read = make(chan line)
		go func() { // ends with the program
			r := bufio.NewReader(l.in)
			for {
				s, err := r.ReadString('\n')
				if s != "" {
					l.read <- line{s, nil}
				}
				if err != nil {
					for {
						l.read <- line{"", err}
					}
				}
			}
		}()
	}
	select {
	case x := <-l.read:
		return x.text, x.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func tailCommand(a *app) *cobra.Command {
	var after int64
	var follow bool
	cmd := help{
		use: "tail AGENT", short: "Print the events of a conversation as JSON, and follow it", example: "coven-admin tail echo --after 10\ncoven-admin tail echo --follow",
	}.command(func(cmd *cobra.Command, args []string) error {
		path := fill("/api/conversations/{0}/events", args)
		head := int64(0)
		if !follow {
			b, err := a.ask(cmd.Context(), http.MethodGet, path+"?limit=1", nil)
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
			return a.do(ctx, http.MethodGet, path, nil, "Accept", "text/event-stream", "Last-Event-ID", last)
		}
		return a.stream(cmd.Context(), open, func(e sse.Event) error {
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n", e.Data)
			if e.ID == "" { // not an event of the log: a thread was deleted
				return nil
			}
			if n, err := strconv.ParseInt(e.ID, 10, 64); err != nil || (!follow && n >= head) {
				return errors.Join(err, errSeen)
			}
			return nil
		})
	})
	cmd.Flags().Int64Var(&after, "after", 0, "begin behind the event with this `number`")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	return cmd
}
