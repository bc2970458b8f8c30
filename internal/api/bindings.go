package api

import (
	"net/http"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// bind binds a channel to an agent, by the instance id of its connection, its agent id or its
// principal. A channel that is bound is bound anew; one that is bound as asked stays as it is.
func (a *API) bind(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Frontend   string `json:"frontend" max:"-"`
		ChannelID  string `json:"channel_id" max:"-"`
		InstanceID string `json:"instance_id"`
		AgentID    string `json:"agent_id"`
		WorkingDir string `json:"working_dir" max:"4096"`
		Delivery   string `json:"delivery"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	id := in.InstanceID
	switch {
	case in.Frontend == "" || in.ChannelID == "" || in.InstanceID == "" && in.AgentID == "":
		return fault.New(fault.Invalid, "frontend, channel_id, and instance_id are required")
	case in.InstanceID != "" && in.AgentID != "":
		return fault.New(fault.Invalid, "give instance_id or agent_id, not both")
	case in.InstanceID != "":
		if _, ok := a.online(in.InstanceID); !ok {
			return fault.New(fault.NotFound, "no agent online with instance_id '%s'", in.InstanceID)
		}
	default:
		id = in.AgentID
	}
	now, was, err := a.Conversations.BindAnyway(r.Context(), conversation.Binding{
		Frontend: in.Frontend, ChannelID: in.ChannelID, AgentID: id, WorkingDir: in.WorkingDir, Delivery: conversation.Delivery(in.Delivery),
	})
	if err != nil {
		return err
	}
	out := a.bindingFields(now)
	out["rebound_from"] = nil
	if was.ID == now.ID {
		return writeJSON(w, http.StatusOK, out)
	}
	if was.ID != "" {
		out["rebound_from"] = a.agentName(was.AgentID)
	}
	return writeJSON(w, http.StatusCreated, out)
}

// listBindings lists all bindings, or answers with that of one channel.
func (a *API) listBindings(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if channel := q.Get("channel_id"); channel != "" {
		b, err := a.Conversations.BindingOf(r.Context(), q.Get("frontend"), channel)
		if err != nil {
			if fault.CodeOf(err) == fault.NotFound {
				err = fault.Wrap(err, fault.NotFound, "no binding for this channel")
			}
			return err
		}
		return writeJSON(w, http.StatusOK, a.bindingFields(b))
	}
	bs, err := a.Conversations.Bindings(r.Context(), q.Get("frontend"), q.Get("agent_id"))
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(bs))
	for i, b := range bs {
		list[i] = a.bindingFields(b)
	}
	return writeJSON(w, http.StatusOK, fields{"bindings": list})
}

func (a *API) unbind(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if q.Get("frontend") == "" || q.Get("channel_id") == "" {
		return fault.New(fault.Invalid, "frontend and channel_id query params required")
	}
	b, err := a.Conversations.BindingOf(r.Context(), q.Get("frontend"), q.Get("channel_id"))
	if err != nil {
		return err
	}
	return done(w, a.Conversations.Unbind(r.Context(), b.ID))
}

// bindingFields is a binding with what is known of its agent now.
func (a *API) bindingFields(b conversation.Binding) fields {
	agent, online := a.online(b.AgentID)
	f := fields{
		"binding_id": b.ID, "frontend": b.Frontend, "channel_id": b.ChannelID, "agent_id": b.AgentID, "agent_name": a.agentName(b.AgentID),
		"agent_online": online, "online": online, "working_dir": b.WorkingDir, "delivery": b.Delivery, "created_at": stamp(b.CreatedAt), "created_by": b.CreatedBy,
	}
	if b.WorkingDir == "" {
		f["working_dir"] = agent.WorkingDir
	}
	return f
}

// online returns the connected agent that an agent id, an instance id or a principal names.
func (a *API) online(id string) (Agent, bool) {
	for _, x := range a.Agents.List() {
		if x.ID == id || x.InstanceID == id || x.PrincipalID == id {
			return x, true
		}
	}
	return Agent{}, false
}

// agentName is the name of a connected agent, else its id.
func (a *API) agentName(id string) string {
	if x, ok := a.online(id); ok {
		return x.Name
	}
	return id
}
