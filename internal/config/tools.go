package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of the section tools.
const (
	MaxToolRules   = 512              // entries of each list
	MaxToolTimeout = 10 * time.Minute // in tools.timeouts
	MaxToolRate    = 1_000_000        // in tools.rates
)

// Tools is what the operator has decided about single tools. An entry is the name of a tool or, but
// for Disabled and Approval, TOOL=VALUE. A tool that nobody offers may be in it.
type Tools struct {
	Disabled     []string // tools.disabled: nobody can call them
	Approval     []string // tools.approval: people are asked before an agent's call
	Roles        []string // tools.roles: TOOL=ROLE, which callers must have; one of them where a tool has several
	Capabilities []string // tools.capabilities: TOOL=CAPABILITY, which callers must have besides those that the tool needs by itself
	Timeouts     []string // tools.timeouts: TOOL=DURATION of a call, instead of the tool's own
	Rates        []string // tools.rates: TOOL=CALLS per minute of one principal
}

// A ToolPolicy is everything that was decided about one tool.
type ToolPolicy struct {
	Disabled     bool
	Approval     bool
	Roles        []string
	Capabilities []string
	Timeout      time.Duration // 0 for the tool's own
	PerMinute    int           // 0 for no limit
}

var (
	toolName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)
	roles    = []string{"owner", "admin", "member", "leader"}
)

// Policies returns the decisions by tool. The configuration must be valid.
func (t Tools) Policies() map[string]ToolPolicy {
	all := map[string]ToolPolicy{}
	edit := func(entries []string, set func(*ToolPolicy, string)) {
		for _, e := range entries {
			tool, value, _ := strings.Cut(e, "=")
			p := all[tool]
			set(&p, value)
			all[tool] = p
		}
	}
	edit(t.Disabled, func(p *ToolPolicy, _ string) { p.Disabled = true })
	edit(t.Approval, func(p *ToolPolicy, _ string) { p.Approval = true })
	edit(t.Roles, func(p *ToolPolicy, v string) { p.Roles = append(p.Roles, v) })
	edit(t.Capabilities, func(p *ToolPolicy, v string) { p.Capabilities = append(p.Capabilities, v) })
	edit(t.Timeouts, func(p *ToolPolicy, v string) { p.Timeout, _ = time.ParseDuration(v) })
	edit(t.Rates, func(p *ToolPolicy, v string) { p.PerMinute, _ = strconv.Atoi(v) })
	return all
}

// tools checks the lists of the section.
func (r *rules) tools(t Tools) {
	r.toolList("tools.disabled", t.Disabled, "", false, nil)
	r.toolList("tools.approval", t.Approval, "", false, nil)
	r.toolList("tools.roles", t.Roles, "ROLE", true, func(v string) error {
		if !slices.Contains(roles, v) {
			return fmt.Errorf("a role is owner, admin, member or leader, not %s", excerpt(v, isText))
		}
		return nil
	})
	r.toolList("tools.capabilities", t.Capabilities, "CAPABILITY", true, func(v string) error {
		if !capability.MatchString(v) {
			return fmt.Errorf("a capability has 1 to 64 lower-case letters, digits, _, : and -, not %s", excerpt(v, isText))
		}
		return nil
	})
	r.toolList("tools.timeouts", t.Timeouts, "DURATION", false, func(v string) error {
		d, err := parseDuration("the timeout", v)
		if err == nil && (d <= 0 || d > MaxToolTimeout) {
			err = fmt.Errorf("a timeout must be more than zero and at most %s, not %s", formatDuration(MaxToolTimeout), formatDuration(d))
		}
		return err
	})
	r.toolList("tools.rates", t.Rates, "CALLS", false, func(v string) error {
		if n, err := strconv.Atoi(v); err != nil || n <= 0 || n > MaxToolRate {
			return fmt.Errorf("the calls per minute are a number from 1 to %d, not %s", MaxToolRate, excerpt(v, isText))
		}
		return nil
	})
}

// toolList checks one list. A tool may be in it more often only if it can have several values.
func (r *rules) toolList(key string, list []string, what string, several bool, check func(string) error) {
	atMost(r, key, list, MaxToolRules, "entries")
	seen := map[string]bool{}
	for i, e := range list {
		tool, value, given := strings.Cut(e, "=")
		switch {
		case check != nil && !given:
			r.item(key, i, false, "must be TOOL=%s, not %s", what, excerpt(e, isText))
			continue
		case !toolName.MatchString(tool) || check == nil && given:
			r.item(key, i, false, "%s is not the name of a tool: 1 to 128 letters, digits, _, - and .", excerpt(tool, isText))
			continue
		case check != nil:
			if err := check(value); err != nil {
				r.item(key, i, false, "%s: %s", tool, err)
			}
		}
		same := tool
		if several {
			same = e
		}
		r.item(key, i, !seen[same], "%s is given twice", excerpt(same, isText))
		seen[same] = true
	}
}
