package api

import (
	"net/http"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// me says who the caller is to the gateway.
func (a *API) me(w http.ResponseWriter, r *http.Request) error {
	p, err := auth.From(r.Context())
	if err != nil {
		return err
	}
	f := fields{
		"principal_id": p.ID, "principal_type": p.Kind, "display_name": p.Name, "status": p.Status, "roles": notNil(p.Roles),
		"gateway_version": a.Version,
		"credential":      fields{"kind": p.Credential.Kind, "id": p.Credential.ID, "scopes": p.Credential.Scopes},
	}
	if p.Credential.Kind == auth.Session {
		u, err := a.Identity.Person(r.Context(), p.ID)
		if err != nil {
			return orGone(r.Context(), err)
		}
		f["sign_in"] = fields{
			"name": u.Name, "has_password": u.Password != "", "passkeys": u.Passkeys,
			"expires_at": stamp(p.Credential.Ends), "fresh_until": stamp(p.Credential.ProvedAt.Add(auth.FreshFor)),
		}
	}
	return writeJSON(w, http.StatusOK, f)
}

func principalFields(p auth.Principal) fields {
	f := fields{
		"id": p.ID, "type": p.Kind, "display_name": p.Name, "status": p.Status, "online": p.Online,
		"roles": notNil(p.Roles), "capabilities": notNil(p.Capabilities), "created_at": stamp(p.CreatedAt), "created_by": p.CreatedBy,
	}
	return f.time("last_seen", p.LastSeen)
}

// time adds a time, unless it is zero.
func (f fields) time(name string, t time.Time) fields {
	if !t.IsZero() {
		f[name] = stamp(t)
	}
	return f
}

func (a *API) listPrincipals(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 100, auth.MaxPage)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	f := auth.PrincipalFilter{Kind: auth.Kind(q.Get("type")), Status: auth.Status(q.Get("status")), Before: q.Get("cursor"), Limit: n}
	ps, err := a.Identity.Principals(r.Context(), f)
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(ps))
	for i, p := range ps {
		list[i] = principalFields(p)
	}
	out := fields{"principals": list, "has_more": len(ps) == n}
	if len(ps) == n {
		out["next_cursor"] = ps[n-1].ID
	}
	return writeJSON(w, http.StatusOK, out)
}

func (a *API) createPrincipal(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Type        auth.Kind `json:"type"`
		DisplayName string    `json:"display_name"`
		PublicKey   string    `json:"pubkey" max:"-"`
		Fingerprint string    `json:"pubkey_fp"`
		Roles       []string  `json:"roles"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	n := auth.NewPrincipal{Kind: in.Type, Name: in.DisplayName, PublicKey: in.PublicKey, Fingerprint: in.Fingerprint}
	for _, word := range in.Roles {
		role, err := auth.ParseRole(word)
		if err != nil {
			return err
		}
		n.Roles = append(n.Roles, role)
	}
	p, err := a.Identity.CreatePrincipal(r.Context(), n)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, principalFields(p))
}

// principal is a principal with its keys and agents.
func (a *API) principal(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	p, err := a.Identity.Principal(r.Context(), id)
	if err != nil {
		return err
	}
	keys, err := a.Identity.Keys(r.Context(), id)
	if err != nil {
		return err
	}
	agents, err := a.Identity.AgentIDs(r.Context(), id, "", auth.MaxPage)
	if err != nil {
		return err
	}
	f := principalFields(p)
	ids := make([]string, len(agents))
	for i, x := range agents {
		ids[i] = x.ID
	}
	f["keys"], f["agents"] = keyList(keys), ids
	return writeJSON(w, http.StatusOK, f)
}

// answerPrincipal answers with a principal as it is after a change.
func (a *API) answerPrincipal(w http.ResponseWriter, r *http.Request, err error) error {
	if err != nil {
		return err
	}
	p, err := a.Identity.Principal(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, principalFields(p))
}

func (a *API) renamePrincipal(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		DisplayName string `json:"display_name"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	return a.answerPrincipal(w, r, a.Identity.Rename(r.Context(), r.PathValue("id"), in.DisplayName))
}

func (a *API) deletePrincipal(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.Delete(r.Context(), r.PathValue("id")))
}

func (a *API) approvePrincipal(w http.ResponseWriter, r *http.Request) error {
	return a.answerPrincipal(w, r, a.Identity.Approve(r.Context(), r.PathValue("id")))
}

func (a *API) revokePrincipal(w http.ResponseWriter, r *http.Request) error {
	return a.answerPrincipal(w, r, a.Identity.Revoke(r.Context(), r.PathValue("id")))
}

// setRole grants a role with PUT and takes it away with DELETE.
func (a *API) setRole(w http.ResponseWriter, r *http.Request) error {
	role, err := auth.ParseRole(r.PathValue("role"))
	if err != nil {
		return err
	}
	return a.answerPrincipal(w, r, a.Identity.SetRole(r.Context(), r.PathValue("id"), role, r.Method == http.MethodPut))
}

// setCapability grants a capability with PUT and takes it away with DELETE.
func (a *API) setCapability(w http.ResponseWriter, r *http.Request) error {
	return a.answerPrincipal(w, r, a.Identity.SetCapability(r.Context(), r.PathValue("id"), r.PathValue("capability"), r.Method == http.MethodPut))
}

func keyFields(k auth.Key) fields {
	return fields{"fingerprint": k.Fingerprint, "comment": k.Comment, "added_at": stamp(k.AddedAt), "added_by": k.AddedBy}.time("last_used", k.LastUsed)
}

func keyList(keys []auth.Key) []fields {
	list := make([]fields, len(keys))
	for i, k := range keys {
		list[i] = keyFields(k)
	}
	return list
}

func (a *API) listKeys(w http.ResponseWriter, r *http.Request) error {
	keys, err := a.Identity.Keys(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fields{"keys": keyList(keys)})
}

func (a *API) addKey(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		PublicKey   string `json:"pubkey" max:"-"`
		Fingerprint string `json:"pubkey_fp"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if in.PublicKey != "" && in.Fingerprint != "" {
		return fault.New(fault.Invalid, "give pubkey or pubkey_fp, not both")
	}
	k, err := a.Identity.AddKey(r.Context(), r.PathValue("id"), in.PublicKey, in.Fingerprint)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, keyFields(k))
}

func (a *API) removeKey(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.RemoveKey(r.Context(), r.PathValue("id"), r.PathValue("fingerprint")))
}

// listOwners lists the agent ids that are owned.
func (a *API) listOwners(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 100, auth.MaxPage)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	ids, err := a.Identity.AgentIDs(r.Context(), q.Get("principal_id"), q.Get("cursor"), n)
	if err != nil {
		return orGone(r.Context(), err)
	}
	here := make(map[string]bool)
	for _, x := range a.Agents.List() {
		here[x.ID] = true
	}
	list := make([]fields, len(ids))
	for i, x := range ids {
		list[i] = fields{"id": x.ID, "principal_id": x.PrincipalID, "claimed_at": stamp(x.ClaimedAt), "confirmed": x.Confirmed, "connected": here[x.ID]}
	}
	out := fields{"agents": list, "has_more": len(ids) == n}
	if len(ids) == n {
		out["next_cursor"] = ids[n-1].ID
	}
	return writeJSON(w, http.StatusOK, out)
}

func (a *API) transferAgent(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		PrincipalID string `json:"principal_id"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	return done(w, a.Identity.TransferAgent(r.Context(), r.PathValue("id"), in.PrincipalID))
}

func (a *API) releaseAgent(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.ReleaseAgent(r.Context(), r.PathValue("id")))
}

// done answers a change that has nothing to show.
func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}
