package gatewaytest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/gateway"
)

// TestTLS: agents, streams and requests work over TLS, with HTTP/2 and HTTP/1.1, as they do without; cookies
// are secure ones, and older versions of TLS and plaintext get nothing.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert := Certificate(t, dir, "first")
	g := New(t, Locked, Encrypted(dir))
	if want := "https://localhost:"; !strings.HasPrefix(g.gw.Pages(), want) {
		t.Errorf("the pages are at %s, want %s…", g.gw.Pages(), want)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	for version, protocols := range map[int][]string{2: {"h2"}, 1: {"http/1.1"}} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, NextProtos: protocols}, ForceAttemptHTTP2: version == 2}
		resp, err := (&http.Client{Transport: transport}).Get(g.URL + "/health")
		must(t, err)
		must(t, resp.Body.Close())
		if resp.ProtoMajor != version || resp.StatusCode != 200 {
			t.Errorf("%v: %s %s", protocols, resp.Proto, resp.Status)
		}
		transport.CloseIdleConnections()
	}
	for _, addr := range []string{g.cfg.Server.HTTPAddr, g.GRPCAddr()} {
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10, NextProtos: []string{"h2"}})
		if err == nil {
			t.Errorf("%s speaks TLS 1.%d", addr, c.ConnectionState().Version-tls.VersionTLS10)
			c.Close()
		}
	}
	if resp, err := http.Get("http://" + g.cfg.Server.HTTPAddr + "/health"); err == nil {
		if resp.Body.Close(); resp.StatusCode == 200 {
			t.Error("HTTP is served without TLS")
		}
	}
	plain, err := grpc.NewClient("passthrough:///"+g.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer plain.Close()
	if _, err := healthpb.NewHealthClient(plain).Check(t.Context(), &healthpb.HealthCheckRequest{}); err == nil {
		t.Error("gRPC is served without TLS")
	}

	a := g.authenticator()
	resp, body := a.call("POST", "/api/invites/accept", fmt.Sprintf(`{"invite":%q,"display_name":"A","name":"ann","password":"a long word and another"}`, g.invite(auth.Owner)))
	if c := resp.Cookies(); len(c) != 1 || c[0].Name != "__Host-"+SessionName || !c[0].Secure {
		t.Error(body, c)
	}
}

// TestTLSTurn: a turn goes from HTTP/2 to an agent and back.
func TestTLSTurn(t *testing.T) {
	dir := t.TempDir()
	Certificate(t, dir, "first")
	g := New(t, Encrypted(dir))
	a := g.Agent("a")
	go func() {
		m := a.Message()
		a.Text(m.RequestId, "over ")
		a.Done(m.RequestId, "over TLS")
	}()
	resp, err := g.Client.Post(g.URL+"/api/send", "application/json", strings.NewReader(`{"agent_id":"a","sender":"me","content":"hi"}`))
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.ProtoMajor != 2 || !strings.Contains(string(b), `{"full_response":"over TLS"}`) {
		t.Errorf("%s %s", resp.Proto, b)
	}
}

// TestTLSForBrowsersOnly: agents that speak plaintext go on while browsers have TLS.
func TestTLSForBrowsersOnly(t *testing.T) {
	dir := t.TempDir()
	Certificate(t, dir, "first")
	g := New(t, Encrypted(dir), func(c *config.Config) { c.Server.TLS.GRPC = false })
	g.Agent("a")
	if resp, err := g.Client.Get(g.URL + "/health"); err != nil || resp.TLS == nil {
		t.Error(err)
	}
}

// shown returns the certificate that a listener shows.
func shown(t *testing.T, addr string) string {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: Patience}, Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	must(t, err)
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
}

// TestNewCertificate: a new certificate is shown soon after its files are there, without a restart and to
// those who come; files that are broken or do not belong together change nothing and are complained of once.
func TestNewCertificate(t *testing.T) {
	dir := t.TempDir()
	Certificate(t, dir, "first")
	g := New(t, Encrypted(dir))
	lines := &journal{}
	g.Observe(nil, slog.NewTextHandler(lines, nil))
	a := g.Agent("a")
	g.request("GET", "/health", "", "") // over a connection that is used later
	until := func(name, what string, ok func() bool) {
		t.Helper()
		for late := time.After(Patience); !ok(); {
			select {
			case <-late:
				t.Fatalf("%s: %s", name, what)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	good, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	must(t, err)
	complaints := func() int { return lines.count("the new certificate is not used, the old one stays") }
	for i, broken := range []func(){
		func() { must(t, os.WriteFile(filepath.Join(dir, "cert.pem"), good[:len(good)/2], 0o600)) },
		func() { must(t, os.Remove(filepath.Join(dir, "cert.pem"))) },
		func() { // somebody else's
			other := t.TempDir()
			Certificate(t, other, "other")
			b, err := os.ReadFile(filepath.Join(other, "cert.pem"))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, "cert.pem"), b, 0o600))
		},
	} {
		broken()
		until("broken", "there is no warning", func() bool { return complaints() > i })
		if got := complaints(); got != i+1 {
			t.Errorf("%d warnings, want %d", got, i+1)
		}
		if got := shown(t, g.cfg.Server.HTTPAddr); got != "first" {
			t.Errorf("with broken files %q is shown", got)
		}
	}
	Certificate(t, dir, "second")
	for _, addr := range []string{g.cfg.Server.HTTPAddr, g.GRPCAddr()} {
		until(addr, "the new certificate is not shown", func() bool { return shown(t, addr) == "second" })
	}
	if lines.count("there is a new certificate") != 1 {
		t.Error("the new certificate is not in the log once")
	}
	go func() { // the old connection goes on
		m := a.Message()
		a.Done(m.RequestId, "still here")
	}()
	_, body := g.request("POST", "/api/send", "", `{"agent_id":"a","sender":"me","content":"hi"}`)
	if !strings.Contains(body, "still here") {
		t.Error(body)
	}
}

// TestTLSConnections: a connection that is one too many is closed, not answered in plaintext, and those that
// never finish their handshake count.
func TestTLSConnections(t *testing.T) {
	dir := t.TempDir()
	Certificate(t, dir, "first")
	g := New(t, Encrypted(dir), func(c *config.Config) { c.Limits.Connections = 1 })
	first, err := net.Dial("tcp", g.cfg.Server.HTTPAddr)
	must(t, err)
	second, err := net.Dial("tcp", g.cfg.Server.HTTPAddr)
	must(t, err)
	must(t, second.SetDeadline(time.Now().Add(Patience)))
	if b, err := io.ReadAll(second); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the second connection was told %q, %v", b, err)
	}
	must(t, errors.Join(first.Close(), second.Close()))
}

// TestBrokenCertificate: a gateway whose certificate cannot be used does not start, and says why.
func TestBrokenCertificate(t *testing.T) {
	dir := t.TempDir()
	Certificate(t, dir, "first")
	must(t, os.WriteFile(filepath.Join(dir, "key.pem"), []byte("no key"), 0o600))
	err := tryStart(t, Encrypted(dir))
	if err == nil || !strings.Contains(err.Error(), "key.pem cannot be used: ") {
		t.Error(err)
	}
	must(t, os.Remove(filepath.Join(dir, "key.pem")))
	if err := tryStart(t, Encrypted(dir)); err == nil || !strings.HasPrefix(err.Error(), "server.tls.key_file: ") || !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// tryStart starts a gateway that should refuse to.
func tryStart(t *testing.T, configure func(*config.Config)) error {
	t.Helper()
	cfg := config.Default()
	cfg.DataDir, cfg.Database.Path = t.TempDir(), ":memory:"
	cfg.Server.GRPCAddr, cfg.Server.HTTPAddr = "127.0.0.1:0", "127.0.0.1:0"
	configure(&cfg)
	gw, err := gateway.New(t.Context(), gateway.Options{Config: cfg, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		must(t, gw.Stop(t.Context()))
	}
	return err
}

// journal is the log of a gateway.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

// count is how many lines have a message.
func (j *journal) count(message string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), message)
}
