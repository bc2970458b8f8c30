package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"coven-gateway/internal/api/openapi"
)

// documentation is what the API says of itself. It does not change while the gateway runs.
type documentation struct {
	openapi, page published
	pagePolicy    string // Content-Security-Policy of the page
}

// published is content that clients may keep.
type published struct {
	content []byte
	etag    string
}

func publish(content []byte) published {
	sum := sha256.Sum256(content)
	return published{content, `"` + hex.EncodeToString(sum[:16]) + `"`}
}

// describe makes the documentation of an API.
func describe(o Options) (documentation, error) {
	var metrics string
	if o.Metrics != nil {
		metrics = o.MetricsPath
	}
	d := openapi.New(openapi.Options{MetricsPath: metrics, SessionCookie: SessionCookie})
	b, err := d.MarshalJSON()
	if err != nil {
		return documentation{}, err
	}
	page, policy, err := d.Page()
	return documentation{openapi: publish(b), page: publish(page), pagePolicy: policy}, err
}

// docsAge is how long clients keep the documentation before they ask whether it has changed.
const docsAge = "public, max-age=300"

func (a *API) openAPI(w http.ResponseWriter, r *http.Request) error {
	return a.docs.openapi.serve(w, r, "application/json")
}

func (a *API) docsPage(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Security-Policy", a.docs.pagePolicy)
	return a.docs.page.serve(w, r, "text/html; charset=utf-8")
}

func (p published) serve(w http.ResponseWriter, r *http.Request, mediaType string) error {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Cache-Control", docsAge)
	h.Set("ETag", p.etag)
	http.ServeContent(slowly{w}, r, "", time.Time{}, bytes.NewReader(p.content))
	return nil
}
