package gatewaytest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	pb "coven-gateway/proto/coven"
)

// TestTrustedProxies: what a trusted proxy says is in sessions, cookies, invitations and the log of both
// transports; the same words from anybody else are nothing.
func TestTrustedProxies(t *testing.T) {
	for network, believed := range map[string]bool{"127.0.0.0/8": true, "10.0.0.0/8": false} {
		g := New(t, Locked, func(c *config.Config) { c.Server.TrustedProxies = []string{network} })
		lines := &journal{}
		g.Observe(nil, slog.NewTextHandler(lines, nil))
		header := []string{"X-Forwarded-For", "127.0.0.1, 198.51.100.7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "coven.example"}
		_, owner := g.Principal("owner", auth.Owner)
		resp, body := g.request("POST", "/api/session", owner, "", header...)
		cookies := resp.Cookies()
		if len(cookies) != 1 {
			t.Fatal(resp.Status, body)
		}
		if got := strings.HasPrefix(cookies[0].Name, "__Host-") && cookies[0].Secure; got != believed {
			t.Errorf("%s: a secure cookie: %v", network, got)
		}
		want := `"address":"127.0.0.1"`
		if believed {
			want = `"address":"198.51.100.7"`
		}
		if _, body := g.request("GET", "/api/me/sessions", owner, ""); !strings.Contains(body, want) {
			t.Errorf("%s: %s, want %s", network, body, want)
		}
		_, body = g.request("POST", "/api/admin/invites", owner, `{"role":"member"}`, header...)
		if got := strings.Contains(body, `"https://coven.example/invite/`); got != believed {
			t.Errorf("%s: %s", network, body)
		}

		ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+owner, "x-forwarded-for", "198.51.100.9")
		if _, err := pb.NewClientServiceClient(g.Dial()).GetMe(ctx, &emptypb.Empty{}); err != nil {
			t.Error(err)
		}
		for _, address := range []string{"198.51.100.7", "198.51.100.9"} {
			if got := lines.count(fmt.Sprintf("peer=%s:0", address)) > 0; got != believed {
				t.Errorf("%s: %s is in the log: %v", network, address, got)
			}
		}
	}
}

// TestProxyOfOpenGateway: an open gateway serves nobody behind a proxy, trusted or not.
func TestProxyOfOpenGateway(t *testing.T) {
	g := New(t, func(c *config.Config) { c.Server.TrustedProxies = []string{"127.0.0.0/8"} })
	for _, client := range []string{"198.51.100.7", "127.0.0.1"} {
		if resp, body := g.request("GET", "/api/agents", "", "", "X-Forwarded-For", client); resp.StatusCode != 403 {
			t.Errorf("%s: %s %s", client, resp.Status, body)
		}
	}
}

// TestConnectionsOfProxies: a proxy may have more connections than one address may.
func TestConnectionsOfProxies(t *testing.T) {
	for network, status := range map[string]string{"127.0.0.0/8": "200 OK", "10.0.0.0/8": "503 Service Unavailable"} {
		g := New(t, func(c *config.Config) {
			c.Server.TrustedProxies, c.Limits.AddressConnections = []string{network}, 1
		})
		first := dialHTTP(t, g)
		if resp, err := http.Get(g.URL + "/health"); err != nil || resp.Status != status {
			t.Errorf("%s: %v %v", network, resp, err)
		}
		must(t, first.Close())
	}
}

// dialHTTP opens a connection that says nothing and is counted.
func dialHTTP(t *testing.T, g *Gateway) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", g.cfg.Server.HTTPAddr)
	must(t, err)
	return c
}
