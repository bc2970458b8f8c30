package webadmin

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestPages: every page is there, knows the way to the root, and what it loads is there in the coding that
// the browser takes.
func TestPages(t *testing.T) {
	h, err := Handler(true)
	if err != nil {
		t.Fatal(err)
	}
	for path, base := range map[string]string{
		"/": "./", "/t/abc": "../", "/t/a%2Fb": "../", "/login": "./", "/setup": "./", "/account": "./", "/invite/abc": "../", "/admin": "./", "/admin/": "../", "/admin/agents/x": "../../", "/dev/components": "../",
	} {
		w := get(t, h, path)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `<base href="`+base+`">`) || w.Header().Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
	page := get(t, h, "/").Body.String()
	names := regexp.MustCompile(`static/[\w.-]+`).FindAllString(page, -1)
	if len(names) != 2 {
		t.Fatalf("the page loads %v", names)
	}
	for _, name := range names {
		plain := get(t, h, "/"+name)
		if plain.Code != http.StatusOK || plain.Header().Get("Content-Encoding") != "" || !strings.Contains(plain.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", name, plain.Code, plain.Header())
		}
		zipped := get(t, h, "/"+name, "Accept-Encoding", "gzip, br;q=0")
		zr, err := gzip.NewReader(zipped.Body)
		if err != nil {
			t.Fatal(err)
		}
		if unzipped, err := io.ReadAll(zr); err != nil || string(unzipped) != plain.Body.String() || zipped.Header().Get("Content-Encoding") != "gzip" {
			t.Errorf("%s as gzip: %v %v", name, err, zipped.Header())
		}
		if small := get(t, h, "/"+name, "Accept-Encoding", "gzip, deflate, br, zstd"); small.Header().Get("Content-Encoding") != "br" || small.Body.Len() >= plain.Body.Len() {
			t.Errorf("%s: %v", name, small.Header())
		}
	}
	for _, path := range []string{"/static/", "/static/index.html", "/static/main.js", "/static/" + strings.TrimPrefix(names[0], "static/") + ".br", "/t/", "/t/a/b", "/none"} {
		if w := get(t, h, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// TestDevelopersPages: nobody else needs them.
func TestDevelopersPages(t *testing.T) {
	h, err := Handler(false)
	if err != nil {
		t.Fatal(err)
	}
	if w := get(t, h, "/dev/components"); w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
}
