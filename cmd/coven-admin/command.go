package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"coven-gateway/internal/cli"
)

// help is what a command says of itself. The words in capitals behind the first one of use are its
// arguments.
type help struct {
	use, short, long, example string
	aliases                   []string
}

// command returns a command with the arguments that its use names; none may be empty.
func (h help) command(run func(*cobra.Command, []string) error) *cobra.Command {
	_, words, _ := strings.Cut(h.use, " ")
	most := len(strings.Fields(words))
	least := most - strings.Count(words, "[")
	args := cobra.RangeArgs(least, most)
	if most == 0 {
		args = cobra.NoArgs // which names the word
	}
	return &cobra.Command{
		Use: h.use, Short: h.short, Long: h.long, Aliases: h.aliases, RunE: run,
		Example: "  " + strings.ReplaceAll(h.example, "\n", "\n  "),
		Args: func(cmd *cobra.Command, given []string) error {
			if slices.Contains(given, "") {
				return fmt.Errorf("an argument is empty; want %s", words)
			}
			return args(cmd, given)
		},
	}
}

// fill puts arguments, escaped, into the places {0}, {1}, … of a path.
func fill(path string, args []string) string {
	for i, s := range args {
		path = strings.ReplaceAll(path, fmt.Sprintf("{%d}", i), url.PathEscape(s))
	}
	return path
}

// A request is a command that sends one request over HTTP and shows the answer.
type request struct {
	help
	method, path string // with {0} for the first argument
	view         view
	said         string // printed where there is no answer to show
	// flags declares the command's flags and returns what makes the body of them; may be nil.
	flags func(*pflag.FlagSet) func(args []string) (any, error)
}

func (a *app) request(r request) *cobra.Command {
	var body func([]string) (any, error)
	cmd := r.command(func(cmd *cobra.Command, args []string) error {
		var in any
		if body != nil {
			var err error
			if in, err = body(args); err != nil {
				return err
			}
		}
		answer, err := a.ask(cmd.Context(), r.method, fill(r.path, args), in)
		switch {
		case err != nil:
			return err
		case len(answer) > 0:
			return a.show(cmd, answer, r.view)
		case !a.json:
			fmt.Fprintln(cmd.OutOrStdout(), r.said)
		}
		return nil
	})
	if r.flags != nil {
		body = r.flags(cmd.Flags())
	}
	return cmd
}

// A listing is a command that shows a list, page by page until there is no more.
type listing struct {
	help
	path    string // with {0} for the first argument
	view    view
	filters []filter
	limit   int    // how many to show without the flag --limit; 0 for no such flag, -1 for all
	page    int    // how many to ask for at once; 0 for a list that has no pages
	next    string // the query parameter for the next page; "" for cursor
	from    string // the field of the answer, or of its last object, that it gets; "" for next_cursor
}

// A filter is a flag that becomes a query parameter.
type filter struct{ flag, param, usage string }

func (a *app) list(l listing) *cobra.Command {
	l.next, l.from = cmp.Or(l.next, "cursor"), cmp.Or(l.from, "next_cursor")
	limit := l.limit
	values := make([]string, len(l.filters))
	cmd := l.command(func(cmd *cobra.Command, args []string) error {
		if limit == 0 && l.limit != 0 {
			return cli.Usage(fmt.Errorf("--limit must not be 0"))
		}
		q := url.Values{}
		for i, f := range l.filters {
			if values[i] != "" {
				q.Set(f.param, values[i])
			}
		}
		return a.pages(cmd, l, fill(l.path, args), q, limit)
	})
	for i, f := range l.filters {
		cmd.Flags().StringVar(&values[i], f.flag, "", f.usage)
	}
	if l.limit != 0 {
		cmd.Flags().IntVar(&limit, "limit", l.limit, "show at most `n`; -1 for all")
	}
	return cmd
}

// pages shows a list up to a limit. With --json every page is a document of its own.
func (a *app) pages(cmd *cobra.Command, l listing, path string, q url.Values, limit int) error {
	var rows []object
	for n := 0; ; {
		if l.page > 0 {
			size := l.page
			if limit > 0 {
				size = min(size, limit-n)
			}
			q.Set("limit", strconv.Itoa(size))
		}
		full := path
		if len(q) > 0 {
			full += "?" + q.Encode()
		}
		answer, err := a.ask(cmd.Context(), http.MethodGet, full, nil)
		if err != nil {
			return err
		}
		page, err := l.view.objects(answer)
		if err != nil {
			return err
		}
		n += len(page)
		if a.json {
			if _, err := cmd.OutOrStdout().Write(answer); err != nil {
				return err
			}
		} else {
			rows = append(rows, page...)
		}
		var more map[string]json.RawMessage
		_ = json.Unmarshal(answer, &more) // a list without pages may be an array
		if string(more["has_more"]) != "true" || l.page == 0 || (limit > 0 && n >= limit) || len(page) == 0 {
			break
		}
		from := cell(page[len(page)-1][l.from])
		if raw := more[l.from]; raw != nil {
			from = strings.Trim(string(raw), `"`)
		}
		q.Set(l.next, from)
	}
	if a.json {
		return nil
	}
	return a.print(cmd, rows, l.view)
}

// group returns a command that lists when it is given no other word, and has list and more below it.
func (a *app) group(h help, l listing, more ...*cobra.Command) *cobra.Command {
	l.help = h
	cmd := a.list(l)
	l.use, l.aliases, l.long = "list", []string{"ls"}, ""
	cmd.AddCommand(append([]*cobra.Command{a.list(l)}, more...)...)
	return cmd
}

// without returns a command that only has others below it.
func without(use, short string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	cmd.AddCommand(below...)
	return cmd
}
