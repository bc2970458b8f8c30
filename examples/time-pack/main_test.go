package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTime(t *testing.T) {
	m, err := timeNow(t.Context(), zone{"Europe/Berlin"})
	if err != nil || !strings.Contains(m.Time, "+0") || m.Weekday == "" {
		t.Error(m, err)
	}
	if _, err := timeNow(t.Context(), zone{"Nowhere"}); err == nil {
		t.Error("there is no such zone")
	}
}

func TestFetchOnlyWhatIsAllowed(t *testing.T) {
	secret := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("secret")) }))
	defer secret.Close()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, secret.URL, http.StatusFound)
		case "/large":
			_, _ = w.Write([]byte(strings.Repeat("x", maxPage+1)))
		default:
			_, _ = w.Write([]byte("hello"))
		}
	}))
	defer site.Close()
	fetch := fetcher([]string{strings.TrimPrefix(site.URL, "http://")})
	if c, err := fetch(t.Context(), page{site.URL}); err != nil || c.Body != "hello" || c.Status != 200 || c.Truncated {
		t.Error(c, err)
	}
	if c, err := fetch(t.Context(), page{site.URL + "/large"}); err != nil || len(c.Body) != maxPage || !c.Truncated {
		t.Error(len(c.Body), err)
	}
	for _, u := range []string{secret.URL, site.URL + "/away", "file:///etc/passwd", "http://", ":", "http://user:hunter2@elsewhere/"} {
		if c, err := fetch(t.Context(), page{u}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v %v", u, c, err)
		}
	}
}
