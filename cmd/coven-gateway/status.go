package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"coven-gateway/internal/cli"
	"coven-gateway/internal/config"
)

const (
	statusInterval = time.Second // between two looks
	statusAgents   = 20          // that are listed
)

func statusCommand() *cobra.Command {
	var path, addr string
	var live bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running gateway is doing",
		Long: `Show what a running gateway is doing: whether it takes messages, its agents and
turns, how fast it stores events and how large its database is.

With --live it looks again every second, until it is interrupted; rates and latencies
are then those of the last second. The exit code is 1 when the gateway cannot be reached
or does not take messages.`,
		Example: "coven-gateway status\ncoven-gateway status --live",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := load(path)
			if err != nil {
				return err
			}
			if addr != "" {
				cfg.Server.HTTPAddr = addr
			}
			token := ownToken(path)
			out := cmd.OutOrStdout()
			if !live {
				s := look(cmd.Context(), cfg, token)
				if _, err := io.WriteString(out, s.screen(sight{})); err != nil {
					return err
				}
				if s.unready != nil {
					return fmt.Errorf("unhealthy: %w", s.unready)
				}
				return nil
			}
			if f, ok := out.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
				return cli.Usage(errors.New("--live needs a terminal to write to"))
			}
			return watch(cmd.Context(), out, func(ctx context.Context) sight { return look(ctx, cfg, token) })
		},
	}
	askFlags(cmd, &path, &addr)
	cmd.Flags().BoolVar(&live, "live", false, "look again every second")
	return cmd
}

// watch shows one sight after the other in the same place, until ctx ends.
func watch(ctx context.Context, out io.Writer, look func(context.Context) sight) error {
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	var before sight
	clearAll := "\x1b[2J"
	for {
		s := look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		// What was there is written over, line by line: to clear it first would flicker.
		screen := strings.ReplaceAll(s.screen(before), "\n", "\x1b[K\n")
		if _, err := io.WriteString(out, clearAll+"\x1b[H"+screen+"\x1b[J"); err != nil {
			return err
		}
		before, clearAll = s, ""
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// A sight is what a gateway has shown of itself at one moment.
type sight struct {
	at      time.Time
	url     string
	ready   string
	unready error // why it takes no messages; nil if it does
	figures figures
	blind   error // why there are no figures
	agents  []agentRow
	hidden  error // why there are no agents
}

// An agentRow is an agent as the API lists it.
type agentRow struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	ConnectedAt time.Time `json:"connected_at"`
	LastSeen    time.Time `json:"last_seen"`
	OpenTurns   int       `json:"open_turns"`
}

// look asks a gateway how it is.
func look(ctx context.Context, cfg config.Config, token string) sight {
	s := sight{at: time.Now(), url: baseURL(cfg)}
	body, err := askFor(ctx, cfg, token, "/health/ready")
	s.ready, s.unready = strings.TrimSpace(string(body)), err
	if cfg.Metrics.Enabled {
		if body, s.blind = askFor(ctx, cfg, token, cfg.Metrics.Path); s.blind == nil {
			s.figures = parseFigures(body)
		}
	} else {
		s.blind = errors.New("metrics.enabled is false")
	}
	if body, s.hidden = askFor(ctx, cfg, token, "/api/agents"); s.hidden == nil {
		s.hidden = json.Unmarshal(body, &s.agents)
	}
	return s
}

// screen draws a sight. Rates and latencies are those since before, or since the gateway has started where
// before saw nothing.
func (s sight) screen(before sight) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	state := s.ready
	if s.unready != nil {
		state = "NOT READY: " + s.unready.Error()
	}
	fmt.Fprintf(w, "gateway\t%s\n", s.url)
	fmt.Fprintf(w, "state\t%s\n", plain(state))
	if f := s.figures; s.blind == nil {
		old, since, when := before.figures, s.at.Sub(before.at), ""
		up := s.at.Sub(time.Unix(0, int64(f.sum["process_start_time_seconds"]*1e9)))
		if old.sum == nil || old.sum["process_start_time_seconds"] != f.sum["process_start_time_seconds"] {
			old, since, when = figures{}, up, " on average"
		}
		rate := (f.sum["coven_events_total"] - old.sum["coven_events_total"]) / max(since.Seconds(), 0.001)
		fmt.Fprintf(w, "version\t%s, up %s\n", plain(cmp.Or(f.version, "unknown")), up.Round(time.Second))
		fmt.Fprintf(w, "turns\t%.0f open, %.0f waiting for their agents, %.0f ended\n", f.sum["coven_turns_open"], f.sum["coven_turns_waiting"], f.sum["coven_turns_ended_total"])
		fmt.Fprintf(w, "events\t%.1f/s%s, %.0f since the start\n", rate, when, f.sum["coven_events_total"])
		fmt.Fprintf(w, "commits\thalf within %s, 99%% within %s, %.0f waiting, %.0f failed\n",
			f.quantile(old, 0.5), f.quantile(old, 0.99), f.sum["coven_commit_queue"], f.sum["coven_commit_failures_total"])
		fmt.Fprintf(w, "database\t%s, and %s of write-ahead log\n", size(int64(f.sum["coven_store_bytes"])), size(int64(f.sum["coven_store_wal_bytes"])))
		fmt.Fprintf(w, "readers\t%.0f\n", f.sum["coven_readers"])
	} else if s.unready == nil {
		fmt.Fprintf(w, "figures\tnone: %s\n", plain(s.blind.Error()))
	}
	switch {
	case s.hidden == nil:
		fmt.Fprintf(w, "agents\t%d connected\n", len(s.agents))
	case s.unready == nil:
		fmt.Fprintf(w, "agents\tunknown: %s\n", plain(s.hidden.Error()))
	}
	_ = w.Flush() // to a buffer
	if len(s.agents) > 0 {
		fmt.Fprintln(&b)
		w = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "AGENT\tNAME\tTURNS\tCONNECTED FOR\tLAST HEARD")
		busy := slices.SortedStableFunc(slices.Values(s.agents), func(a, b agentRow) int { return cmp.Compare(b.OpenTurns, a.OpenTurns) })
		for _, a := range busy[:min(len(busy), statusAgents)] {
			ago := func(t time.Time) time.Duration { return max(0, s.at.Sub(t)).Round(time.Second) }
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s ago\n", plain(a.ID), plain(a.Name), a.OpenTurns, ago(a.ConnectedAt), ago(a.LastSeen))
		}
		_ = w.Flush()
		if more := len(busy) - statusAgents; more > 0 {
			fmt.Fprintf(&b, "… and %d more\n", more)
		}
	}
	return b.String()
}

// figures are the metrics of a gateway.
type figures struct {
	sum     map[string]float64 // by name, over all labels
	commits []bucket           // of coven_commit_seconds, by bound
	version string
}

// A bucket counts the commits that took at most so many seconds.
type bucket struct{ most, count float64 }

var (
	sample  = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? (\S+)`)
	bound   = regexp.MustCompile(`le="([^"]+)"`)
	version = regexp.MustCompile(`version="([^"]+)"`)
)

// parseFigures reads metrics in the text form of Prometheus. Lines that it does not understand are left out.
func parseFigures(text []byte) figures {
	f := figures{sum: make(map[string]float64)}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		m := sample.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			continue
		}
		f.sum[m[1]] += v
		switch m[1] {
		case "coven_commit_seconds_bucket":
			if le := bound.FindStringSubmatch(m[2]); le != nil {
				if most, err := strconv.ParseFloat(le[1], 64); err == nil {
					f.commits = append(f.commits, bucket{most, v})
				}
			}
		case "coven_build_info":
			if x := version.FindStringSubmatch(m[2]); x != nil {
				f.version = x[1]
			}
		}
	}
	return f
}

// quantile returns within how long a part of the commits since old were done, as the bound of a bucket.
func (f figures) quantile(old figures, q float64) string {
	count := func(i int) float64 {
		if i < len(old.commits) {
			return f.commits[i].count - old.commits[i].count
		}
		return f.commits[i].count
	}
	last := len(f.commits) - 1
	if last < 0 || count(last) == 0 {
		return "–"
	}
	for i, b := range f.commits[:last] { // the last one has no bound
		if count(i) >= q*count(last) {
			return time.Duration(b.most * float64(time.Second)).Round(10 * time.Microsecond).String()
		}
	}
	return "more than " + time.Duration(f.commits[last-1].most*float64(time.Second)).Round(time.Millisecond).String()
}

// plain is a text of somebody else's without what would steer a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
