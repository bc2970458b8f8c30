package api

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"net/http"

	"coven-gateway/internal/auth"
)

// listAudit lists records of the audit log, the newest first; with after, the oldest first.
func (a *API) listAudit(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 100, 500)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	f := auth.AuditFilter{Action: q.Get("action"), Actor: q.Get("actor"), Target: q.Get("target"), Limit: n}
	if f.Before, err = position(r, "before"); err != nil {
		return err
	}
	if f.After, err = position(r, "after"); err != nil {
		return err
	}
	if f.Before == 0 && q.Get("after") == "" {
		f.Before = math.MaxInt64
	}
	records, err := a.Identity.AuditRecords(r.Context(), f)
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(records))
	for i, x := range records {
		list[i] = fields{
			"seq": x.Seq, "at": stamp(x.At), "actor": x.Actor, "action": x.Action, "target_type": x.TargetType, "target": x.Target,
			"detail": json.RawMessage(x.Detail), "hash": hex.EncodeToString(x.Hash),
		}
	}
	return writeJSON(w, http.StatusOK, fields{"records": list, "has_more": len(list) == n})
}

func (a *API) verifyAudit(w http.ResponseWriter, r *http.Request) error {
	v, err := a.Identity.VerifyAudit(r.Context())
	if err != nil {
		return orGone(r.Context(), err)
	}
	return writeJSON(w, http.StatusOK, v)
}

// exportAudit sends the whole audit log as JSON lines, see [auth.CheckExport].
func (a *API) exportAudit(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Content-Disposition", `attachment; filename="audit.jsonl"`)
	return a.Identity.ExportAudit(r.Context(), func(line []byte) error {
		extendDeadline(w)
		if _, err := w.Write(append(line, '\n')); err != nil {
			return clientGone(err)
		}
		return nil
	})
}
