package gateway

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestClient: whoever is not trusted is who it is, whatever it says; behind trusted proxies the client is
// the last that is not one of them.
func TestClient(t *testing.T) {
	p := newProxies([]string{"10.0.0.0/8", "::1/128"})
	for _, c := range []struct {
		peer      string
		forwarded []string
		want      string
	}{
		{"192.0.2.1:5", []string{"198.51.100.7"}, "192.0.2.1:5"},
		{"bufconn", []string{"198.51.100.7"}, "bufconn"},
		{"10.0.0.1:5", nil, "10.0.0.1:5"},
		{"10.0.0.1:5", []string{"198.51.100.7"}, "198.51.100.7:0"},
		{"[::ffff:10.0.0.1]:5", []string{"198.51.100.7"}, "198.51.100.7:0"},
		{"[::1]:5", []string{"2001:db8::7"}, "[2001:db8::7]:0"},
		{"10.0.0.1:5", []string{"127.0.0.1, 198.51.100.7"}, "198.51.100.7:0"},
		{"10.0.0.1:5", []string{"127.0.0.1", "198.51.100.7, 10.9.9.9"}, "198.51.100.7:0"},
		{"10.0.0.1:5", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3:0"},
		{"10.0.0.1:5", []string{"198.51.100.7, unknown"}, "10.0.0.1:5"},
		{"10.0.0.1:5", []string{"198.51.100.7, unknown, 10.0.0.2"}, "10.0.0.2:0"},
		{"10.0.0.1:5", []string{"198.51.100.7:443"}, "198.51.100.7:0"},
		{"10.0.0.1:5", []string{"[2001:db8::7]:443"}, "[2001:db8::7]:0"},
		{"10.0.0.1:5", []string{"[2001:db8::7]"}, "[2001:db8::7]:0"},
		{"10.0.0.1:5", []string{"", " "}, "10.0.0.1:5"},
	} {
		if got := p.client(c.peer, c.forwarded); got != c.want {
			t.Errorf("%s, forwarded for %q: %s, want %s", c.peer, c.forwarded, got, c.want)
		}
	}
	if got := newProxies(nil).client("10.0.0.1:5", []string{"198.51.100.7"}); got != "10.0.0.1:5" {
		t.Error("nobody is trusted, but", got)
	}
}

// TestForwarded: scheme and host are believed where the address is.
func TestForwarded(t *testing.T) {
	h := newProxies([]string{"10.0.0.0/8"}).handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.URL.Scheme + " " + r.Host + " " + r.RemoteAddr))
	}))
	for _, c := range []struct{ peer, proto, host, want string }{
		{"192.0.2.1:5", "https", "evil.example", "http gateway.example 192.0.2.1:5"},
		{"10.0.0.1:5", "https", "coven.example", "https coven.example 198.51.100.7:0"},
		{"10.0.0.1:5", "http, HTTPS", "evil.example, coven.example:8443", "https coven.example:8443 198.51.100.7:0"},
		{"10.0.0.1:5", "gopher", "a b/c", "http gateway.example 198.51.100.7:0"},
		{"10.0.0.1:5", "", "", "http gateway.example 198.51.100.7:0"},
	} {
		r := httptest.NewRequest(http.MethodGet, "https://gateway.example/", nil)
		r.TLS, r.RemoteAddr = nil, c.peer
		r.Header.Set("X-Forwarded-For", "198.51.100.7")
		r.Header.Set("X-Forwarded-Proto", c.proto)
		r.Header.Set("X-Forwarded-Host", c.host)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Body.String(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
