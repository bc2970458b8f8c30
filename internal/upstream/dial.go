package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Bounds of a connection to a server behind a URL.
const (
	dialTimeout    = 10 * time.Second
	maxRedirects   = 3
	maxHeaderBytes = 64 << 10
)

// reserved are addresses that no public server has, beside those that net/netip knows.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"), netip.MustParsePrefix("::/96"),
}

// public reports whether an address may be called without allow_private. Metadata services of clouds
// have link-local or private ones.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
		return false
	}
	for _, p := range reserved {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// guard refuses addresses at the moment when they are dialled: a name may have another one then than
// when it was looked at.
func guard(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !public(a.Addr()) {
		return fmt.Errorf("%s is not a public address; the server must be added with allow_private to reach it", a.Addr())
	}
	return nil
}

// dialer returns a client that reaches the server and sends it its headers, and sends them nowhere
// else. No proxy is used: it would look up names for itself.
func (x *server) dialer(ctx context.Context) (*http.Client, error) {
	to, err := url.Parse(x.config.URL)
	if err != nil {
		return nil, err
	}
	headers := http.Header{}
	for name, v := range x.config.Headers {
		v, err := x.service.resolve(ctx, v)
		if err != nil {
			return nil, err
		}
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("the header %s must be a line of text, with its secrets", name)
		}
		headers.Set(name, v)
	}
	d := &net.Dialer{Timeout: dialTimeout}
	if !x.config.AllowPrivate {
		d.Control = guard
	}
	return &http.Client{
		Transport: &outgoing{to: to, headers: headers, next: &http.Transport{
			DialContext: d.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout, MaxResponseHeaderBytes: maxHeaderBytes,
			MaxConnsPerHost: 2 * MaxCalls, IdleConnTimeout: time.Minute,
		}},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			switch {
			case !sameOrigin(r.URL, to):
				return errors.New("it redirects to another host, which is not followed")
			case len(via) > maxRedirects:
				return fmt.Errorf("it redirects more than %d times", maxRedirects)
			}
			return nil
		},
	}, nil
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host) }

// outgoing adds the headers of a server to what it is sent, and bounds what it answers.
type outgoing struct {
	to      *url.URL
	headers http.Header
	next    *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (o *outgoing) RoundTrip(r *http.Request) (*http.Response, error) {
	if !sameOrigin(r.URL, o.to) {
		return nil, errors.New("only the server itself is called")
	}
	r = r.Clone(r.Context())
	maps.Copy(r.Header, o.headers)
	resp, err := o.next.RoundTrip(r)
	if err == nil && !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		resp.Body = &boundedBody{resp.Body, maxMessage}
	}
	return resp, err
}

// CloseIdleConnections is what http.Client.CloseIdleConnections looks for.
func (o *outgoing) CloseIdleConnections() { o.next.CloseIdleConnections() }

// boundedBody is a body that fails where it is too long.
type boundedBody struct {
	io.ReadCloser
	left int64
}

// Read reads a part of the body.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes", maxMessage)
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}
