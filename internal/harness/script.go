package harness

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"coven-gateway/sdk/agent"
)

// A step is something that an agent does in an answer.
type step struct {
	text  string        // an increment; "" for a tool
	pause time.Duration // before it
}

// script is what an agent answers to a message: always the same.
func script(content string) []step {
	h := fnv.New64a()
	_, _ = h.Write([]byte(content)) // never fails
	rnd := rand.New(rand.NewPCG(h.Sum64(), 1))
	steps := make([]step, 10+rnd.IntN(90))
	for i := range steps {
		if rnd.IntN(30) > 0 {
			steps[i].text = strconv.Itoa(i) + " "
		}
		if rnd.IntN(5) == 0 {
			steps[i].pause = time.Duration(rnd.IntN(12)) * time.Millisecond
		}
	}
	return steps
}

// scriptText is the text of the answer to a message.
func scriptText(content string) string {
	var b strings.Builder
	for _, s := range script(content) {
		b.WriteString(s.text)
	}
	return b.String()
}

// perform answers a message by its script.
func perform(ctx context.Context, content string, w *agent.Writer) error {
	for i, s := range script(content) {
		if s.pause > 0 && !sleep(ctx, s.pause) {
			return context.Cause(ctx)
		}
		if s.text != "" {
			if err := w.Text(s.text); err != nil {
				return err
			}
			continue
		}
		id := strconv.Itoa(i)
		if err := w.ToolUse(id, "tool", i); err != nil {
			return err
		}
		if err := w.ToolResult(id, "result", false); err != nil {
			return err
		}
	}
	return nil
}

// sleep waits, and reports whether ctx has let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
