package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
)

// proxies are the networks of server.trusted_proxies: what a peer there says about who it forwards for is
// believed, and what anybody else says is not.
type proxies []netip.Prefix

// newProxies takes networks that have been validated.
func newProxies(networks []string) proxies {
	var p proxies
	for _, s := range networks {
		if prefix, err := netip.ParsePrefix(s); err == nil {
			p = append(p, prefix)
		}
	}
	return p
}

func (p proxies) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(a) })
}

// trustsPeer is trusts for the host:port of a connection.
func (p proxies) trustsPeer(peer string) bool {
	a, err := netip.ParseAddrPort(peer)
	return err == nil && p.trusts(a.Addr().Unmap().WithZone(""))
}

// client returns the host:port of who is at the other end of a chain of proxies: peer itself, unless it is
// trusted, else the last in X-Forwarded-For that is not. Every proxy appends whom it has heard it from, so
// what stands before that one is hearsay. The port of somebody forwarded is not known: 0.
func (p proxies) client(peer string, forwarded []string) string {
	if !p.trustsPeer(peer) {
		return peer
	}
	list := strings.Split(strings.Join(forwarded, ","), ",")
	for _, word := range slices.Backward(list) {
		a, ok := forwardedAddr(strings.TrimSpace(word))
		if !ok {
			break
		}
		peer = net.JoinHostPort(a.String(), "0")
		if !p.trusts(a) {
			break
		}
	}
	return peer
}

// forwardedAddr reads an address, which some proxies write with a port.
func forwardedAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		with, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		a = with.Addr()
	}
	return a.Unmap().WithZone(""), true
}

// handler has a request say where it really comes from: RemoteAddr is the client's, URL.Scheme and Host are
// what the client has asked for.
func (p proxies) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Scheme = "http"
		if r.TLS != nil {
			r.URL.Scheme = "https"
		}
		if p.trustsPeer(r.RemoteAddr) {
			switch scheme := strings.ToLower(last(r.Header, "X-Forwarded-Proto")); scheme {
			case "http", "https":
				r.URL.Scheme = scheme
			}
			if host := last(r.Header, "X-Forwarded-Host"); forwardedHost.MatchString(host) {
				r.Host = host
			}
			r.RemoteAddr = p.client(r.RemoteAddr, r.Header.Values("X-Forwarded-For"))
		}
		next.ServeHTTP(w, r)
	})
}

// forwardedHost is what may be in X-Forwarded-Host.
var forwardedHost = regexp.MustCompile(`^([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?$`)

// last returns the last word of a header: what the proxy next to the gateway says.
func last(h http.Header, name string) string {
	all := strings.Split(strings.Join(h.Values(name), ","), ",")
	return strings.TrimSpace(all[len(all)-1])
}

// caller is client for a gRPC call.
func (p proxies) caller(peer string, md metadata.MD) string {
	return p.client(peer, md.Get("x-forwarded-for"))
}
