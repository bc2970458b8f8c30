package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
)

// ApprovalPolicies keeps approval policies. It implements conversation.ApprovalPolicies.
type ApprovalPolicies struct {
	db    *DB
	audit func(auth.Tx, auth.AuditRecord) error
}

var _ conversation.ApprovalPolicies = ApprovalPolicies{}

// ApprovalPolicies returns the approval policies in the database; audit appends to the audit log.
func (db *DB) ApprovalPolicies(audit func(auth.Tx, auth.AuditRecord) error) ApprovalPolicies {
	return ApprovalPolicies{db, audit}
}

// A storedRule is a rule as it is stored.
type storedRule struct {
	Tool   string              `json:"tool"`
	Action conversation.Action `json:"action"`
}

// ApprovalPolicies implements conversation.ApprovalPolicies.
func (s ApprovalPolicies) ApprovalPolicies(ctx context.Context) (map[string][]conversation.ToolRule, error) {
	type row struct {
		agentID string
		rules   []conversation.ToolRule
	}
	rows, err := query(ctx, s.db.read, func(sc scanner) (row, error) {
		var r row
		var text string
		if err := sc.Scan(&r.agentID, &text); err != nil {
			return r, err
		}
		var stored []storedRule
		if err := json.Unmarshal([]byte(text), &stored); err != nil {
			return r, fmt.Errorf("approval policy of %q: %w", r.agentID, err)
		}
		for _, x := range stored {
			r.rules = append(r.rules, conversation.ToolRule(x))
		}
		return r, nil
	}, `SELECT agent_id, rules FROM approval_policies`)
	policies := make(map[string][]conversation.ToolRule, len(rows))
	for _, r := range rows {
		policies[r.agentID] = r.rules
	}
	return policies, err
}

// SetApprovalPolicy implements conversation.ApprovalPolicies.
func (s ApprovalPolicies) SetApprovalPolicy(ctx context.Context, agentID string, rules []conversation.ToolRule, r auth.AuditRecord) error {
	stored := make([]storedRule, len(rules))
	for i, x := range rules {
		stored[i] = storedRule(x)
	}
	text, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	return s.db.Do(ctx, func(tx *Tx) error {
		var err error
		if len(rules) == 0 {
			_, err = tx.exec(`DELETE FROM approval_policies WHERE agent_id = $1`, agentID)
		} else {
			_, err = tx.exec(`
				INSERT INTO approval_policies (agent_id, rules, updated_at, updated_by) VALUES ($1, $2, $3, $4)
				ON CONFLICT (agent_id) DO UPDATE SET rules = excluded.rules, updated_at = excluded.updated_at, updated_by = excluded.updated_by`,
				agentID, string(text), micros(time.Now()), r.Actor)
		}
		if err != nil {
			return err
		}
		return s.audit(identityTx{identityReader{context.Background(), tx.w.conn}, tx}, r)
	})
}
