// Package webadmin serves the pages for browsers.
package webadmin

import (
	"bytes"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"coven-gateway/web"
)

// policy lets the pages load their own scripts and styles and talk to the gateway, nothing else. Markup
// becomes part of a page only behind DOMPurify, whose policy of that name is the only one there is.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; base-uri 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify"

// appPages are the addresses of the one page in web/src; main.tsx there knows what is shown at each.
var appPages = []string{"/{$}", "/t/{thread}", "/login", "/setup", "/invite/{token}", "/account", "/oauth/consent", "/admin", "/admin/{page...}"}

// devPages are those that show how the pages are made.
var devPages = []string{"/dev/components"}

// Handler serves the pages and, at /static/, what they load. With dev it serves those for developers too.
func Handler(dev bool) (http.Handler, error) {
	dist, err := fs.Sub(web.Dist, "dist")
	if err != nil {
		return nil, err
	}
	page, err := fs.ReadFile(dist, "index.html")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	pages := appPages
	if dev {
		pages = append(slices.Clip(pages), devPages...)
	}
	for _, p := range pages {
		mux.HandleFunc("GET "+p, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			body := bytes.Replace(page, []byte("BASE"), []byte(base(r.URL.EscapedPath())), 1)
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body) // the client may be gone
		})
	}
	assets, err := bundle(dist)
	if err != nil {
		return nil, err
	}
	mux.Handle("GET /static/{name}", assets)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		mux.ServeHTTP(w, r)
	}), nil
}

// base is the way from a page to the root of the gateway. It is relative, so that the pages work below a
// path that a proxy takes off.
func base(p string) string {
	if n := strings.Count(p, "/") - 1; n > 0 {
		return strings.Repeat("../", n)
	}
	return "./"
}

// immutable is how long browsers may keep a file whose name changes with its content.
const immutable = "public, max-age=31536000, immutable"

// An asset is a file of the bundle, as it is and compressed.
type asset struct {
	mediaType string
	encoded   map[string][]byte // by content coding; "" is the file itself
}

// bundle serves the files of web/dist other than the page.
func bundle(dist fs.FS) (http.Handler, error) {
	entries, err := fs.ReadDir(dist, ".")
	if err != nil {
		return nil, err
	}
	files := map[string]asset{}
	for _, e := range entries {
		data, err := fs.ReadFile(dist, e.Name())
		if err != nil {
			return nil, err
		}
		name, coding := e.Name(), ""
		for suffix, c := range map[string]string{".br": "br", ".gz": "gzip"} {
			if n, ok := strings.CutSuffix(name, suffix); ok {
				name, coding = n, c
			}
		}
		if name == "index.html" {
			continue
		}
		a, ok := files[name]
		if !ok {
			a = asset{mediaType: mime.TypeByExtension(path.Ext(name)), encoded: map[string][]byte{}}
			if path.Ext(name) == ".js" { // what a system says about it varies
				a.mediaType = "text/javascript; charset=utf-8"
			}
			files[name] = a
		}
		a.encoded[coding] = data
	}
	for name, a := range files {
		if len(a.encoded) != 3 {
			return nil, fmt.Errorf("web/dist/%s is not there in all three forms", name)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := files[r.PathValue("name")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", a.mediaType)
		h.Set("Cache-Control", immutable)
		h.Set("Vary", "Accept-Encoding")
		coding := best(r.Header.Values("Accept-Encoding"))
		if coding != "" {
			h.Set("Content-Encoding", coding)
		}
		body := a.encoded[coding]
		h.Set("Content-Length", strconv.Itoa(len(body)))
		if r.Method != http.MethodHead {
			_, _ = w.Write(body) // the client may be gone
		}
	}), nil
}

// best chooses the content coding of an answer: the smallest that the client takes.
func best(accepted []string) string {
	takes := map[string]bool{}
	for _, v := range accepted {
		for part := range strings.SplitSeq(v, ",") {
			name, params, _ := strings.Cut(strings.ToLower(strings.TrimSpace(part)), ";")
			q := strings.TrimPrefix(strings.ReplaceAll(params, " ", ""), "q=")
			weight, err := strconv.ParseFloat(q, 64)
			takes[strings.TrimSpace(name)] = q == "" || err == nil && weight > 0
		}
	}
	for _, coding := range []string{"br", "gzip"} {
		if takes[coding] {
			return coding
		}
	}
	return ""
}
