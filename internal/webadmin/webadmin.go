// Package webadmin serves the pages for browsers.
package webadmin

import (
	"io/fs"
	"net/http"

	"coven-gateway/web"
)

// policy lets the pages load their own scripts and styles and talk to the gateway, nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// Handler serves the chat page at /, the one that accepts an invite at /invite/{token}, and what
// they load at /static/.
func Handler() (http.Handler, error) {
	files, err := fs.Sub(web.Chat, "chat")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	serve := func(pattern, name string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, name) })
	}
	serve("GET /{$}", "index.html")
	serve("GET /invite/{token}", "invite.html")
	for _, name := range []string{"chat.css", "chat.js", "invite.js"} {
		serve("GET /static/"+name, name)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		mux.ServeHTTP(w, r)
	}), nil
}
