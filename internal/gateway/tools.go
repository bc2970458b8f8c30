package gateway

import (
	"context"
	"fmt"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/builtins"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/packs"
	"coven-gateway/internal/store"
)

// addBuiltins makes the gateway's own tools callable. They come first, so their names are theirs.
func (g *Gateway) addBuiltins(db *store.DB) error {
	for _, p := range []packs.Pack{
		builtins.Base(db.Tools()),
		builtins.Notes(db.Tools()),
		builtins.Mail(db.Tools(), g.knowsAgent),
		builtins.UI(g.conversations),
		builtins.Admin(builtins.AdminOptions{Conversations: g.conversations, Agents: g.connected, Resolve: g.agents.Resolve, Oversee: auth.Overseeing}),
	} {
		added, err := g.tools.Add(p)
		if err != nil {
			return err
		}
		if bad := added.Rejected(); len(bad) > 0 {
			return fmt.Errorf("built-in tool %s: %s", bad[0].Tool, bad[0].Reason)
		}
	}
	return nil
}

// policies are what the operator has decided about single tools.
func policies(c config.Tools) map[string]packs.Policy {
	all := make(map[string]packs.Policy)
	for name, p := range c.Policies() {
		policy := packs.Policy{Disabled: p.Disabled, Approval: p.Approval, Needs: p.Capabilities, Timeout: p.Timeout, PerMinute: p.PerMinute}
		for _, r := range p.Roles {
			policy.Roles = append(policy.Roles, auth.Role(r))
		}
		all[name] = policy
	}
	return all
}

// connected are the connected agents.
func (g *Gateway) connected() []builtins.Agent {
	infos := g.agents.List()
	agents := make([]builtins.Agent, len(infos))
	for i, a := range infos {
		agents[i] = builtins.Agent{
			ID: a.ID, InstanceID: a.InstanceID, Name: a.Name, Backend: a.Backend, WorkingDir: a.WorkingDir,
			Capabilities: append([]string{}, a.Capabilities...), Workspaces: append([]string{}, a.Workspaces...),
		}
	}
	return agents
}

// knowsAgent reports whether there is an agent with an id: it is connected, somebody owns the id, or
// somebody has talked to it.
func (g *Gateway) knowsAgent(ctx context.Context, id string) (bool, error) {
	if here, ok := g.agents.Resolve(id); ok && here == id {
		return true, nil
	}
	if ok, err := g.identity.IsAgentID(ctx, id); ok || err != nil {
		return ok, err
	}
	ctx, err := auth.Overseeing(ctx)
	if err != nil {
		return false, err
	}
	threads, err := g.conversations.Threads(ctx, conversation.ThreadQuery{AgentID: id, Limit: 1})
	return len(threads) > 0, err
}
