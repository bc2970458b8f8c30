package api

import (
	"net/http"

	"coven-gateway/internal/fault"
)

// mcp answers MCP clients. Unlike elsewhere, a page of another web site must not even read: the
// token may be in the path.
func (a *API) mcp(w http.ResponseWriter, r *http.Request) error {
	changing := *r
	changing.Method = http.MethodPost
	if err := a.origins.Check(&changing); err != nil {
		return fault.Wrap(err, fault.Forbidden, "cross-origin request refused")
	}
	return a.MCP.Serve(w, r)
}
