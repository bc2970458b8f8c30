// Package demo is an agent that needs no network and shows everything an agent can do.
package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"coven-gateway/sdk/agent"
)

// ID is the agent id of the demo.
const ID = "demo"

const (
	// maxCount bounds the numbers that commands take.
	maxCount = 1_000_000
	// approvalWait bounds the wait for a person.
	approvalWait = 2 * time.Minute
	silence      = time.Minute
)

// Options describe the demo agent at a gateway.
func Options(server string) agent.Options {
	return agent.Options{
		Server: server, ID: ID, Name: "Demo", Backend: "demo", Handler: Handler{Pace: 25 * time.Millisecond},
		BackoffMax: time.Second, Capabilities: []string{"base", "chat", "notes", "ui"},
	}
}

// Handler answers messages.
type Handler struct {
	// Pace is the time between two words of an answer; 0 for none.
	Pace time.Duration
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
		{"echo", "TEXT", "say TEXT", (*turn).echo},
		{"count", "N", "count to N, one increment for each number; to 10 if you don't say", (*turn).count},
		{"long", "N", "an answer of N words; 2000 if you don't say", (*turn).long},
		{"burst", "N", "N increments as fast as possible; 1000 if you don't say", (*turn).burst},
		{"think", "", "think aloud before the answer", (*turn).think},
		{"tool", "", "use a tool", (*turn).tool},
		{"approve", "", "ask you whether a tool may run", (*turn).approve},
		{"ask", "", "ask you a question, with a tool of the gateway", (*turn).ask},
		{"note", "TEXT", "keep TEXT with a tool of the gateway; without TEXT, say what was kept", (*turn).note},
		{"file", "", "make a picture", (*turn).file},
		{"attachments", "", "describe the files that came with the message", (*turn).attachments},
		{"usage", "", "report tokens several times", (*turn).usage},
		{"session", "", "begin a session and lose it", (*turn).sessions},
		{"trouble", "", "report a problem and go on", (*turn).trouble},
		{"error", "", "fail", (*turn).fail},
		{"cancel", "", "count for a long time: press stop", (*turn).cancel},
		{"silent", "", "say nothing for a minute", (*turn).silent},
	}
}

// A turn is the answer to one message.
type turn struct {
	ctx  context.Context
	m    *agent.Message
	w    *agent.Writer
	pace time.Duration
}

// Handle implements agent.Handler.
func (h Handler) Handle(ctx context.Context, m *agent.Message, w *agent.Writer) error {
	t := &turn{ctx, m, w, h.Pace}
	text := strings.TrimSpace(m.Content)
	line, isCommand := strings.CutPrefix(text, "/")
	if !isCommand {
		return t.chat(text)
	}
	name, args := line, ""
	if i := strings.IndexAny(line, " \t\n"); i >= 0 {
		name, args = line[:i], strings.TrimSpace(line[i:])
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(t, args)
		}
	}
	return t.say(fmt.Sprintf("I don't know `/%s`. Say `/help` to see what I can do.", name))
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

// write sends one increment and waits.
func (t *turn) write(text string, pause time.Duration) error {
	if err := t.w.Text(text); err != nil {
		return err
	}
	return t.pause(pause)
}

// say writes text word by word at a typing pace.
func (t *turn) say(text string) error {
	for word := range strings.SplitAfterSeq(text, " ") {
		if err := t.write(word, t.pace); err != nil {
			return err
		}
	}
	return nil
}

// phrases are the answers to what people say to an agent that they don't know. %s is who says it.
var phrases = []struct {
	said   []string
	answer string
}{
	{
		[]string{"hi", "hello", "hey", "hallo", "moin", "good morning", "good evening"},
		"Hello, %s! I am the demo agent. I need no model and no network, and know nothing. Say `/help` to see what I can show.",
	},
	{[]string{"help", "?"}, "Say `/help`, with the slash, %s."},
	{[]string{"thanks", "thank you", "danke"}, "You are welcome, %s!"},
	{[]string{"bye", "goodbye", "see you"}, "Goodbye, %s! What we said is kept."},
	{[]string{"who are you", "what are you"}, "I am the **demo agent** of this gateway, %s: a few lines of Go that answer like a chatty model would."},
}

// chat answers what is no command, and says what it might have cost.
func (t *turn) chat(text string) error {
	answer := t.reply(text)
	if err := t.say(answer); err != nil {
		return err
	}
	const prompt = 350 // what a real agent tells its model before the message
	return t.w.Usage(agent.Usage{Input: int32(prompt + tokens(text)), Output: int32(tokens(answer))})
}

// tokens guesses how many tokens a text has.
func tokens(text string) int { return (len(text) + 3) / 4 }

func (t *turn) reply(text string) string {
	if text == "" {
		return "You said nothing. Say `/help` to see what I can do."
	}
	plain := strings.ToLower(strings.Trim(text, "!., "))
	for _, p := range phrases {
		if slices.Contains(p.said, strings.TrimRight(plain, "?")) || slices.Contains(p.said, plain) {
			return fmt.Sprintf(p.answer, cmp.Or(t.m.Sender, "stranger"))
		}
	}
	return fmt.Sprintf(freeText, strings.ReplaceAll(text, "\n", "\n> "), len(strings.Fields(text)), utf8.RuneCountInString(text))
}

// freeText has in it what a chat may have to render.
const freeText = `## You said

> %s

That is **%d words** in %d characters. A model would have something to say about it; I can only show what an answer may contain:

1. a list
2. with ` + "`code`" + ` and *emphasis* in it

` + "```go" + `
fmt.Println("a block of code")
` + "```" + `

| a table | with |
| --- | --- |
| two | columns |
| and two | rows |

### And now?

Say ` + "`/help`" + ` for more.`

func (t *turn) help(string) error {
	var b strings.Builder
	b.WriteString("I answer whatever you write. With these you can see more:\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "* `%s` %s\n", strings.TrimSpace("/"+c.name+" "+c.args), c.help)
	}
	return t.say(b.String())
}

func (t *turn) echo(args string) error {
	if args == "" {
		return t.say("`/echo` what?")
	}
	return t.say(args)
}

// increments writes as many words as the argument of a command says, at a pace.
func (t *turn) increments(args string, n int, pace time.Duration, word func(i int) string) error {
	if args != "" {
		var err error
		if n, err = strconv.Atoi(args); err != nil || n < 1 || n > maxCount {
			return fmt.Errorf("%q is not a number from 1 to %d", args, maxCount)
		}
	}
	for i := range n {
		if err := t.write(word(i), pace); err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) count(args string) error {
	return t.increments(args, 10, t.pace, func(i int) string { return strconv.Itoa(i+1) + "\n" })
}

func (t *turn) long(args string) error {
	words := strings.Fields("A long answer is only many short ones, and each of them is stored before you see it.")
	return t.increments(args, 2000, t.pace/10, func(i int) string { return words[i%len(words)] + " " })
}

func (t *turn) burst(args string) error {
	return t.increments(args, 1000, 0, func(i int) string { return strconv.Itoa(i) + " " })
}

func (t *turn) think(string) error {
	for _, s := range []string{"The question is whether I can think. ", "I can at least show how it looks. ", "That will do."} {
		if err := t.w.Thinking(s); err != nil {
			return err
		}
		if err := t.pause(20 * t.pace); err != nil {
			return err
		}
	}
	return t.say("I have thought about it, and the answer is yes.")
}

// steps does one thing after the other, so that one can watch.
func (t *turn) steps(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
		if err := t.pause(10 * t.pace); err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) tool(string) error {
	id := t.m.RequestID + "-list"
	err := t.steps(
		func() error { return t.w.ToolState(id, agent.ToolPending, "") },
		func() error { return t.w.ToolUse(id, "list_files", map[string]string{"path": "."}) },
		func() error { return t.w.ToolState(id, agent.ToolRunning, "reading the folder") },
		func() error { return t.w.ToolResult(id, "README.md\ndocs\ngo.mod", false) },
		func() error { return t.w.ToolState(id, agent.ToolCompleted, "") },
	)
	if err != nil {
		return err
	}
	return t.say("The tool found three files. (They are made up.)")
}

// ask puts a question to the user.
func (t *turn) ask(string) error {
	if err := t.say("Let me ask you something. "); err != nil {
		return err
	}
	var answer struct {
		Answered bool
		Selected []string
		Text     string `json:"custom_text"`
	}
	err := t.call("ask_user", map[string]any{
		"question": "What would you like to drink?", "header": "A break",
		"options":         []map[string]string{{"label": "Coffee", "description": "strong"}, {"label": "Tea", "description": "green"}, {"label": "Water"}},
		"timeout_seconds": int(approvalWait / time.Second),
	}, &answer)
	switch {
	case err != nil:
		return err
	case !answer.Answered:
		return t.say("Nobody answered.")
	}
	return t.say(fmt.Sprintf("%s it is.", cmp.Or(strings.Join(answer.Selected, " and "), answer.Text)))
}

// note keeps a text, or says what was kept.
func (t *turn) note(text string) error {
	if text != "" {
		if err := t.call("note_set", map[string]string{"key": "demo", "value": text}, nil); err != nil {
			return err
		}
		return t.say("I have written it down. Say `/note` to hear it again, also after a restart.")
	}
	var kept struct{ Value string }
	var missing *agent.ToolError
	switch err := t.call("note_get", map[string]string{"key": "demo"}, &kept); {
	case errors.As(err, &missing):
		return t.say("There is no note. Say `/note` and something to remember.")
	case err != nil:
		return err
	}
	return t.say("You told me: " + kept.Value)
}

// call runs a tool of the gateway, unless the turn is stopped, and decodes its output.
func (t *turn) call(name string, input, output any) error {
	out, err := t.w.CallTool(t.ctx, name, input)
	if err != nil || output == nil {
		return err
	}
	return json.Unmarshal(out, output)
}

func (t *turn) approve(string) error {
	id, input := t.m.RequestID+"-rm", map[string]string{"command": "rm -r ./everything"}
	if err := t.say("I would like to tidy up. "); err != nil {
		return err
	}
	if err := t.w.ToolUse(id, "bash", input); err != nil {
		return err
	}
	if err := t.w.ToolState(id, agent.ToolAwaitingApproval, ""); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.ctx, approvalWait)
	defer cancel()
	yes, err := t.w.ToolApproval(ctx, id, "bash", input)
	switch {
	case err == nil && yes:
		err := t.steps(
			func() error { return t.w.ToolState(id, agent.ToolRunning, "") },
			func() error { return t.w.ToolResult(id, "nothing was removed: this is a demo", false) },
			func() error { return t.w.ToolState(id, agent.ToolCompleted, "") },
		)
		if err != nil {
			return err
		}
		return t.say("You said yes. Don't worry: nothing was run.")
	case err == nil:
		return t.refused(id, agent.ToolDenied, "Tool execution denied by user", "You said no, so I did not run it.")
	case t.ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return t.refused(id, agent.ToolTimeout, "Nobody answered", "Nobody answered, so I did not run it.")
	}
	return err
}

func (t *turn) refused(id string, state agent.ToolState, result, text string) error {
	if err := t.w.ToolResult(id, result, true); err != nil {
		return err
	}
	if err := t.w.ToolState(id, state, ""); err != nil {
		return err
	}
	return t.say(text)
}

const picture = `<svg xmlns="http://www.w3.org/2000/svg" width="160" height="160"><circle cx="80" cy="80" r="70" fill="#3a4fc4"/>` +
	`<text x="80" y="88" font-family="sans-serif" font-size="28" text-anchor="middle" fill="#fff">coven</text></svg>` + "\n"

func (t *turn) file(string) error {
	if err := t.w.File("coven.svg", "image/svg+xml", []byte(picture)); err != nil {
		return err
	}
	return t.say("Here is a picture.")
}

func (t *turn) attachments(string) error {
	if len(t.m.Attachments) == 0 {
		return t.say("No file came with your message.")
	}
	var b strings.Builder
	b.WriteString("| file | type | bytes | begins with |\n| --- | --- | ---: | --- |\n")
	for _, a := range t.m.Attachments {
		fmt.Fprintf(&b, "| %s | %s | %d | %s |\n", cell(a.Name), cell(a.Type), len(a.Data), beginning(a.Data))
	}
	return t.say(b.String())
}

// cell is text in a table.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ").Replace(s)
}

// beginning shows the first few characters of a text, or bytes of anything else.
func beginning(data []byte) string {
	if !utf8.Valid(data) {
		return fmt.Sprintf("`% x`", data[:min(len(data), 8)])
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if r := []rune(line); len(r) > 40 {
		line = string(r[:40]) + "…"
	}
	return cell(line)
}

func (t *turn) usage(string) error {
	for _, u := range []agent.Usage{
		{Input: 1200, Output: 80, CacheRead: 900},
		{Input: 1400, Output: 150, CacheWrite: 300, Thinking: 60},
	} {
		if err := t.w.Usage(u); err != nil {
			return err
		}
		if err := t.pause(10 * t.pace); err != nil {
			return err
		}
	}
	return t.say("I have reported what two model calls might have cost: 2600 tokens in, 230 out.")
}

func (t *turn) sessions(string) error {
	if err := t.w.SessionInit("demo-" + t.m.RequestID); err != nil {
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
	if err := t.say("This is half of an answer. "); err != nil {
		return err
	}
	if err := t.w.Error("the model is overloaded; trying again"); err != nil {
		return err
	}
	if err := t.pause(20 * t.pace); err != nil {
		return err
	}
	return t.say("And this is the other half: a problem does not have to be the end.")
}

func (t *turn) fail(string) error { return errors.New("this is what a failure looks like") }

func (t *turn) cancel(string) error {
	if err := t.say("I am going to count. Please press **stop**.\n\n"); err != nil {
		return err
	}
	for i := range 3600 {
		if err := t.write(strconv.Itoa(i+1)+" ", time.Second); err != nil {
			return err
		}
	}
	return t.say("\n\nNobody stopped me.")
}

func (t *turn) silent(string) error {
	if err := t.pause(silence); err != nil {
		return err
	}
	return t.say("That was a minute.")
}
