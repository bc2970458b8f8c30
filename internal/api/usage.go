package api

import (
	"net/http"
	"strconv"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

func (a *API) usage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	f := conversation.UsageFilter{AgentID: q.Get("agent_id"), ThreadID: q.Get("thread_id")}
	for _, p := range []struct {
		name string
		at   *time.Time
	}{{"since", &f.Since}, {"until", &f.Until}} {
		s := q.Get(p.name)
		if s == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return fault.Wrap(err, fault.Invalid, "invalid '%s' format (use RFC3339)", p.name)
		}
		*p.at = t
	}
	total, err := a.Conversations.UsageTotal(r.Context(), f)
	if err != nil {
		return orGone(r.Context(), err)
	}
	out := totalFields(total)
	if by := q.Get("group_by"); by != "" {
		groups, err := a.Conversations.UsageGroups(r.Context(), f, conversation.UsageKey(by))
		if err != nil {
			return orGone(r.Context(), err)
		}
		list := make([]fields, len(groups))
		for i, g := range groups {
			list[i] = totalFields(g.UsageTotal)
			list[i]["key"] = g.Key
		}
		out["groups"] = list
	}
	return writeJSON(w, http.StatusOK, out)
}

// maxStatsHours is how far back the statistics reach at most: four weeks.
const maxStatsHours = 28 * 24

// stats counts what has happened in the last hours, in spans of equal length.
func (a *API) stats(w http.ResponseWriter, r *http.Request) error {
	hours := 24
	if s := r.URL.Query().Get("hours"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxStatsHours {
			return fault.New(fault.Invalid, "hours must be from 1 to %d; got %q", maxStatsHours, s)
		}
		hours = n
	}
	const spans = 30
	span := time.Duration(hours) * time.Hour / spans
	list, err := a.Conversations.Activity(r.Context(), span, spans)
	if err != nil {
		return orGone(r.Context(), err)
	}
	buckets := make([]fields, len(list))
	for i, x := range list {
		f := usageFields(x.Usage)
		f["at"], f["turns"], f["failed"], f["cancelled"] = stamp(x.At), x.Turns, x.Failed, x.Cancelled
		f["first_event_ms_mean"], f["first_event_ms_max"] = x.FirstEventMean.Milliseconds(), x.FirstEventWorst.Milliseconds()
		buckets[i] = f
	}
	return writeJSON(w, http.StatusOK, fields{"bucket_seconds": int64(span / time.Second), "buckets": buckets})
}
