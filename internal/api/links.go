package api

import (
	"errors"
	"io"
	"net/http"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// requestLink makes a code for a device that wants to be linked. A device that can may prove that
// it holds its key, with the headers that it would send over gRPC.
func (a *API) requestLink(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Fingerprint string `json:"fingerprint"`
		DeviceName  string `json:"device_name"`
	}
	if err := decode(r, &in); err != nil {
		return linkError(w, fault.Wrap(err, fault.CodeOf(err), "Invalid request body"))
	}
	h := r.Header
	l, err := a.Identity.RequestLink(r.Context(), auth.LinkRequest{
		Fingerprint: in.Fingerprint, DeviceName: in.DeviceName, Address: auth.Address(r.RemoteAddr),
		Proof: auth.Proof{PublicKey: h.Get("X-Ssh-Pubkey"), Timestamp: h.Get("X-Ssh-Timestamp"), Nonce: h.Get("X-Ssh-Nonce"), Signature: h.Get("X-Ssh-Signature")},
	})
	if err != nil {
		return linkError(w, err)
	}
	return writeJSON(w, http.StatusOK, fields{"code": l.Code, "expires_at": l.ExpiresAt.Format(time.RFC3339)})
}

func (a *API) linkStatus(w http.ResponseWriter, r *http.Request) error {
	answer, err := a.Identity.PollLink(r.Context(), r.PathValue("code"), auth.Address(r.RemoteAddr))
	if err != nil {
		return linkError(w, err)
	}
	f := fields{"status": answer.Status}
	if answer.Token != "" {
		f["principal_id"], f["token"] = answer.PrincipalID, answer.Token
	}
	return writeJSON(w, http.StatusOK, f)
}

// linkError answers in plain text what coven-link prints as it is (grpc.md 9.10).
func linkError(w http.ResponseWriter, err error) error {
	switch fault.CodeOf(err) {
	case fault.Invalid, fault.NotFound:
		return text(w, fault.HTTPStatus(err), fault.Message(err)+"\n")
	}
	return err
}

func linkFields(l auth.Link) fields {
	f := fields{
		"code": l.Code, "fingerprint": l.Fingerprint, "device_name": l.DeviceName, "proved": l.Proved, "address": l.Address,
		"status": l.Status, "created_at": stamp(l.CreatedAt), "expires_at": stamp(l.ExpiresAt),
	}
	if l.PrincipalID != "" {
		f["principal_id"] = l.PrincipalID
	}
	if l.Known.ID != "" && l.Status == auth.LinkPending {
		f["known"] = principalFields(l.Known)
		f["warning"] = "this key belongs to " + l.Known.Name + " already: whoever has the code will speak for that principal"
	}
	return f
}

func (a *API) listLinks(w http.ResponseWriter, r *http.Request) error {
	links, err := a.Identity.Links(r.Context())
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(links))
	for i, l := range links {
		list[i] = linkFields(l)
	}
	return writeJSON(w, http.StatusOK, fields{"codes": list})
}

// approveLink lets a device in. known says that its key may be somebody's already.
func (a *API) approveLink(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Known bool `json:"known"`
	}
	if err := decode(r, &in); err != nil && !errors.Is(err, io.EOF) { // no body is fine
		return err
	}
	l, err := a.Identity.ApproveLink(r.Context(), r.PathValue("code"), in.Known)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, linkFields(l))
}

func (a *API) denyLink(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.DenyLink(r.Context(), r.PathValue("code")))
}
