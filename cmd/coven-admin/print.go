package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// A view says how an answer is shown: what it holds below key, or all of it where key is "", as a
// table with a row for each object, or as a block of lines for each.
type view struct {
	key     string
	block   bool
	columns []column
	none    string // said on stderr when there is nothing
}

// A column shows a field of an object. "a.b" is the field b of a, or of every object in a;
// "a|b" is a, or b where a is empty.
type column struct {
	head, field string
	format      func(string) string // unless nil
}

// object is a JSON object of an answer.
type object = map[string]any

// show prints an answer: as it is with --json, else by a view.
func (a *app) show(cmd *cobra.Command, answer []byte, v view) error {
	if a.json {
		_, err := cmd.OutOrStdout().Write(answer)
		return err
	}
	rows, err := v.objects(answer)
	if err != nil {
		return err
	}
	return a.print(cmd, rows, v)
}

// objects returns the objects of an answer.
func (v view) objects(answer []byte) ([]object, error) {
	dec := json.NewDecoder(bytes.NewReader(answer))
	dec.UseNumber() // numbers are shown as they came
	var x any
	if err := dec.Decode(&x); err != nil {
		return nil, fmt.Errorf("unexpected answer: %w", err)
	}
	if m, ok := x.(object); ok && v.key != "" {
		x = m[v.key]
	} else if ok {
		x = []any{m}
	}
	list, ok := x.([]any)
	if !ok && x != nil {
		return nil, fmt.Errorf("unexpected answer: there is no list of %s in it", v.key)
	}
	rows := make([]object, len(list))
	for i, x := range list {
		if rows[i], ok = x.(object); !ok {
			return nil, fmt.Errorf("unexpected answer: %v is no object", x)
		}
	}
	return rows, nil
}

// print shows objects in columns, or each in lines of its own.
func (a *app) print(cmd *cobra.Command, rows []object, v view) error {
	if len(rows) == 0 && v.none != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), v.none)
		return nil
	}
	out := cmd.OutOrStdout()
	p := painter(a.colors(out))
	var b strings.Builder
	if v.block {
		for i, row := range rows {
			if i > 0 {
				b.WriteByte('\n')
			}
			v.writeBlock(&b, row, p)
		}
	} else {
		lines := [][]string{make([]string, len(v.columns))}
		for i, c := range v.columns {
			lines[0][i] = c.head
		}
		for _, row := range rows {
			line := make([]string, len(v.columns))
			for i, c := range v.columns {
				line[i] = c.of(row)
			}
			lines = append(lines, line)
		}
		writeTable(&b, lines, p)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (v view) writeBlock(b *strings.Builder, row object, p painter) {
	width := 0
	for _, c := range v.columns {
		width = max(width, len(c.head))
	}
	for _, c := range v.columns {
		head := c.head
		for line := range strings.SplitSeq(c.of(row), "\n") {
			fmt.Fprintf(b, "%-*s  %s\n", width, head, p.paint(line))
			head = ""
		}
	}
}

// writeTable writes lines in columns. Colours take no room, which text/tabwriter does not know.
func writeTable(b *strings.Builder, lines [][]string, p painter) {
	width := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range lines {
		for i, cell := range line {
			b.WriteString(p.paint(cell))
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
}

// of returns what a column shows of an object.
func (c column) of(row object) string {
	s := ""
	for field := range strings.SplitSeq(c.field, "|") {
		if s = cell(dig(row, strings.Split(field, "."))); s != "" {
			break
		}
	}
	if c.format != nil {
		return c.format(s)
	}
	if s == "" {
		return "-"
	}
	return s
}

// dig returns what a path of fields leads to; below a list, a list.
func dig(x any, path []string) any {
	if len(path) == 0 {
		return x
	}
	switch x := x.(type) {
	case object:
		return dig(x[path[0]], path[1:])
	case []any:
		all := make([]any, len(x))
		for i := range x {
			all[i] = dig(x[i], path)
		}
		return all
	}
	return nil
}

// cell is a value in a table.
func cell(x any) string {
	switch x := x.(type) {
	case nil:
		return ""
	case string:
		return oneLine(x)
	case bool:
		if x {
			return "yes"
		}
		return "no"
	case []any:
		parts := make([]string, len(x))
		for i := range x {
			parts[i] = cell(x[i])
		}
		return strings.Join(parts, ",")
	case object:
		keys := make([]string, 0, len(x))
		for k := range x {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for i, k := range keys {
			keys[i] = k + "=" + cell(x[k])
		}
		return oneLine(strings.Join(keys, " "))
	default:
		return fmt.Sprint(x)
	}
}

// oneLine keeps what somebody else wrote to its cell.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return harmless(r)
	}, s)
}

// harmless replaces what would steer a terminal.
func harmless(r rune) rune {
	if r == '\n' || r == '\t' || !unicode.IsControl(r) {
		return r
	}
	return unicode.ReplacementChar
}

// painter colours words that are a state, if it is true.
type painter bool

var colorOf = map[string]string{
	"approved": "32", "ready": "32", "ok": "32",
	"pending": "33",
	"revoked": "31", "denied": "31", "expired": "31", "broken": "31", "not ready": "31",
}

func (p painter) paint(word string) string {
	if c := colorOf[word]; c != "" && bool(p) {
		return "\x1b[" + c + "m" + word + "\x1b[0m"
	}
	return word
}

// colors reports whether to print colours.
func (a *app) colors(out io.Writer) bool {
	return !a.noColor && os.Getenv("NO_COLOR") == "" && isTerminal(out)
}
