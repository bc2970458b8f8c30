// Package demo is an agent that needs no network and shows everything an agent can do.
package demo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// ID is the agent id of the demo.
const ID = "demo"

// maxCount bounds the numbers that commands take.
const maxCount = 1_000_000

// Handler answers messages.
type Handler struct {
	// Pace is the time between two words of an answer; 0 for none.
	Pace time.Duration
}

// Options describe the demo agent at a gateway.
func Options(server string) agent.Options {
	return agent.Options{
		Server: server, ID: ID, Name: "Demo", Backend: "demo", Handler: Handler{Pace: 25 * time.Millisecond},
		BackoffMax: time.Second,
	}
}

// A command is something a user can ask for.
type command struct {
	name, args, help string
	run              func(t *turn, args string) error
}

// commands is the whole list; /help prints it.
func commands() []command {
	return []command{
		{"help", "", "this list", (*turn).help},
		{"echo", "TEXT", "say TEXT", func(t *turn, args string) error { return t.say(args) }},
		{"count", "N", "count to N, one increment per number", (*turn).count},
		{"long", "N", "a long answer of N words, 2000 if you don't say", (*turn).long},
		{"burst", "N", "N increments as fast as possible", (*turn).burst},
		{"think", "", "think aloud before the answer", (*turn).think},
		{"tool", "", "call a tool", (*turn).tool},
		{"approve", "", "ask whether a tool may run", (*turn).approve},
		{"file", "", "produce a file", (*turn).file},
		{"attachments", "", "describe the files that came with the message", (*turn).attachments},
		{"usage", "", "report tokens, several times", (*turn).usage},
		{"session", "", "begin and lose a session", (*turn).sessions},
		{"trouble", "", "report an error and go on", (*turn).trouble},
		{"error", "", "fail", func(*turn, string) error { return errors.New("this is what an error looks like") }},
		{"cancel", "", "count for a long time: stop me", (*turn).cancel},
		{"silent", "", "say nothing for a minute", (*turn).silent},
	}
}

// turn is the answer to one message.
type turn struct {
	ctx  context.Context
	m    *agent.Message
	w    *agent.Writer
	pace time.Duration
}

// Handle implements agent.Handler.
func (h Handler) Handle(ctx context.Context, m *agent.Message, w *agent.Writer) error {
	t := &turn{ctx, m, w, h.Pace}
	line, isCommand := strings.CutPrefix(strings.TrimSpace(m.Content), "/")
	if !isCommand {
		return t.chat()
	}
	name, args, _ := strings.Cut(line, " ")
	for _, c := range commands() {
		if c.name == name {
			return c.run(t, strings.TrimSpace(args))
		}
	}
	return t.say(fmt.Sprintf("I don't know `/%s`. `/help` lists what I can show.", name))
}

// pause waits; it ends early when the turn is stopped.
func (t *turn) pause(d time.Duration) error {
	if d <= 0 {
		return context.Cause(t.ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
}

// say writes text word by word at a typing pace.
func (t *turn) say(text string) error {
	for _, word := range strings.SplitAfter(text, " ") {
		if word == "" {
			continue
		}
		if err := t.w.Text(word); err != nil {
			return err
		}
		if err := t.pause(t.pace); err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) chat() error {
	text := strings.TrimSpace(t.m.Content)
	var b strings.Builder
	switch greeting := strings.ToLower(strings.Trim(text, "!. ")); greeting {
	case "hi", "hello", "hey", "hallo", "moin":
		fmt.Fprintf(&b, "Hello, %s! I am the demo agent: I answer without knowing anything. Say `/help` to see what I can show.", t.m.Sender)
	default:
		fmt.Fprintf(&b, "## You said\n\n> %s\n\n", strings.ReplaceAll(text, "\n", "\n> "))
		fmt.Fprintf(&b, "That is **%d words** in %d characters. I am a demo, so here is what an answer may contain:\n\n", len(strings.Fields(text)), len([]rune(text)))
		b.WriteString("1. a list\n2. with `code` in it\n\n")
		b.WriteString("```go\nfmt.Println(\"a block of code\")\n```\n\n")
		b.WriteString("| a | table |\n| --- | --- |\n| with | two rows |\n| of | words |\n\n")
		b.WriteString("Say `/help` for more.")
	}
	if err := t.say(b.String()); err != nil {
		return err
	}
	return t.w.Usage(agent.Usage{Input: int32(len(text)/4 + 1), Output: int32(b.Len() / 4)})
}

func (t *turn) help(string) error {
	var b strings.Builder
	b.WriteString("Anything you write is answered. These show more:\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "* `%s` %s\n", strings.TrimSpace("/"+c.name+" "+c.args), c.help)
	}
	return t.say(b.String())
}

// number reads the argument of a command.
func (t *turn) number(args string, standard int) (int, error) {
	if args == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(args)
	if err != nil || n < 1 || n > maxCount {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", args, maxCount)
	}
	return n, nil
}

func (t *turn) count(args string) error {
	n, err := t.number(args, 10)
	if err != nil {
		return err
	}
	for i := range n {
		if err := t.w.Textf("%d\n", i+1); err != nil {
			return err
		}
		if err := t.pause(t.pace); err != nil {
			return err
		}
	}
	return nil
}

const sentence = "A long answer is only many short ones, and each of them is stored before you see it. "

func (t *turn) long(args string) error {
	n, err := t.number(args, 2000)
	if err != nil {
		return err
	}
	words := strings.SplitAfter(sentence, " ")
	words = words[:len(words)-1]
	for i := range n {
		if err := t.w.Text(words[i%len(words)]); err != nil {
			return err
		}
		if err := t.pause(t.pace / 10); err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) burst(args string) error {
	n, err := t.number(args, 1000)
	if err != nil {
		return err
	}
	for i := range n {
		if err := t.w.Textf("%d ", i); err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) think(string) error {
	for _, s := range []string{"The question is about thinking. ", "I could show it. ", "I will show it."} {
		if err := t.w.Thinking(s); err != nil {
			return err
		}
		if err := t.pause(20 * t.pace); err != nil {
			return err
		}
	}
	return t.say("I have thought about it, and the answer is yes.")
}

func (t *turn) tool(string) error {
	const id = "call-1"
	steps := []func() error{
		func() error { return t.w.ToolState(id, pb.ToolState_TOOL_STATE_PENDING, "") },
		func() error { return t.w.ToolUse(id, "list_files", map[string]string{"path": "."}) },
		func() error { return t.w.ToolState(id, pb.ToolState_TOOL_STATE_RUNNING, "reading the folder") },
		func() error { return t.w.ToolResult(id, "README.md\ndocs\ngo.mod", false) },
		func() error { return t.w.ToolState(id, pb.ToolState_TOOL_STATE_COMPLETED, "") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
		if err := t.pause(10 * t.pace); err != nil {
			return err
		}
	}
	return t.say("The tool found three files.")
}

// approvalWait bounds the wait for a person.
const approvalWait = 2 * time.Minute

func (t *turn) approve(string) error {
	const id = "call-2"
	input := map[string]string{"command": "rm -r /tmp/nothing"}
	if err := t.w.ToolUse(id, "bash", input); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.ctx, approvalWait)
	defer cancel()
	yes, err := t.w.ToolApproval(ctx, id, "bash", input)
	switch {
	case t.ctx.Err() != nil:
		return context.Cause(t.ctx)
	case err != nil:
		return t.refused(id, "Nobody answered, so I did not run it.")
	case !yes:
		return t.refused(id, "You said no, so I did not run it.")
	}
	if err := t.w.ToolResult(id, "done", false); err != nil {
		return err
	}
	return t.say("You said yes. (It was only a demonstration: nothing was run.)")
}

func (t *turn) refused(id, text string) error {
	if err := t.w.ToolResult(id, "Tool execution denied by user", true); err != nil {
		return err
	}
	return t.say(text)
}

const picture = `<svg xmlns="http://www.w3.org/2000/svg" width="120" height="120"><circle cx="60" cy="60" r="50" fill="#3a4fc4"/><text x="60" y="68" font-size="24" text-anchor="middle" fill="#fff">coven</text></svg>`

func (t *turn) file(string) error {
	if err := t.w.File("coven.svg", "image/svg+xml", []byte(picture)); err != nil {
		return err
	}
	return t.say("Here is a picture.")
}

func (t *turn) attachments(string) error {
	if len(t.m.Attachments) == 0 {
		return t.say("No file came with the message.")
	}
	var b strings.Builder
	for _, a := range t.m.Attachments {
		fmt.Fprintf(&b, "* `%s`, %s, %d bytes\n", a.Name, a.Type, len(a.Data))
	}
	return t.say(b.String())
}

func (t *turn) usage(string) error {
	for _, u := range []agent.Usage{{Input: 1200, Output: 80, CacheRead: 900}, {Input: 1400, Output: 150, CacheWrite: 300, Thinking: 60}} {
		if err := t.w.Usage(u); err != nil {
			return err
		}
	}
	return t.say("I have reported the tokens of two model calls.")
}

func (t *turn) sessions(string) error {
	if err := t.w.SessionInit("session-1"); err != nil {
		return err
	}
	if err := t.say("A session has begun "); err != nil {
		return err
	}
	if err := t.w.SessionOrphaned("Session expired"); err != nil {
		return err
	}
	return t.say("and is lost again.")
}

func (t *turn) trouble(string) error {
	if err := t.say("Half of the answer, then a problem: "); err != nil {
		return err
	}
	if err := t.w.Error("the model was overloaded, trying again"); err != nil {
		return err
	}
	return t.say("and the other half. The turn goes on after a warning.")
}

func (t *turn) cancel(string) error {
	for i := range 3600 {
		if err := t.w.Textf("%d … ", i+1); err != nil {
			return err
		}
		if err := t.pause(max(20*t.pace, time.Millisecond)); err != nil {
			return err
		}
	}
	return t.say("Nobody stopped me.")
}

func (t *turn) silent(string) error {
	if err := t.pause(time.Minute); err != nil {
		return err
	}
	return t.say("That was a minute.")
}
