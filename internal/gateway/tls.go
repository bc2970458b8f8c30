package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"coven-gateway/internal/config"
)

const (
	// certificateInterval is how often the files of the certificate are looked at.
	certificateInterval = 2 * time.Second
	// maxCertificateFile bounds each of the two files, in bytes.
	maxCertificateFile = 1 << 20
	// idlePing is after how long without a word from a peer an HTTP/2 connection is asked whether it lives.
	idlePing = 30 * time.Second
)

// A certificate is what the listeners show of themselves: always the last good one that was in its files.
type certificate struct {
	files  config.TLS
	logger *slog.Logger
	now    atomic.Pointer[tls.Certificate]
	stop   chan struct{}
	done   sync.WaitGroup

	seen   []byte // content of both files; owned by watch
	failed string // what was said about them last; owned by watch
}

// openCertificate reads a certificate. The caller watches and closes it.
func openCertificate(files config.TLS, logger *slog.Logger) (*certificate, error) {
	c := &certificate{files: files, logger: logger, stop: make(chan struct{})}
	if _, err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// load reads the files and reports whether there is another certificate in them.
func (c *certificate) load() (changed bool, err error) {
	chain, err := readPEM(c.files.CertFile)
	if err != nil {
		return false, fmt.Errorf("server.tls.cert_file: %w", err)
	}
	key, err := readPEM(c.files.KeyFile)
	if err != nil {
		return false, fmt.Errorf("server.tls.key_file: %w", err)
	}
	both := bytes.Join([][]byte{chain, key}, []byte{0})
	if bytes.Equal(both, c.seen) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return false, fmt.Errorf("server.tls: the certificate in %s and the key in %s cannot be used: %w", c.files.CertFile, c.files.KeyFile, err)
	}
	c.now.Store(&pair)
	c.seen = both
	return true, nil
}

func readPEM(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCertificateFile+1))
	if err == nil && len(b) > maxCertificateFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxCertificateFile)
	}
	return b, err
}

// watch looks from time to time whether the files have changed, until close. What is wrong with new ones is
// said once, and the old certificate stays.
func (c *certificate) watch() {
	c.done.Go(func() {
		tick := time.NewTicker(certificateInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.look()
			case <-c.stop:
				return
			}
		}
	})
}

func (c *certificate) look() {
	changed, err := c.load()
	switch {
	case err != nil && err.Error() != c.failed:
		c.failed = err.Error()
		c.logger.Warn("the new certificate is not used, the old one stays", "error", err)
	case err == nil:
		c.failed = ""
	}
	if changed {
		c.logger.Info("there is a new certificate", "subject", c.now.Load().Leaf.Subject.String(), "not_after", c.now.Load().Leaf.NotAfter)
	}
}

func (c *certificate) close(context.Context) error {
	close(c.stop)
	c.done.Wait()
	return nil
}

// config is what a listener needs. Each gets its own, because servers add their protocols to it.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil },
	}
}

// scheme is how the HTTP listener is reached.
func (g *Gateway) scheme() string {
	if g.certificate != nil {
		return "https"
	}
	return "http"
}

// grpcTLS is what the gRPC listener needs, or nil if it speaks plaintext.
func (g *Gateway) grpcTLS(cfg config.Config) *tls.Config {
	if g.certificate == nil || !cfg.Server.TLS.GRPC {
		return nil
	}
	return g.certificate.config()
}

// serveHTTP serves HTTP until the server is shut down.
func (g *Gateway) serveHTTP() error {
	if g.certificate != nil {
		return g.httpServer.ServeTLS(g.http, "", "") // the files are in TLSConfig
	}
	return g.httpServer.Serve(g.http)
}

// ClientTLS is how a program on the gateway's own machine reaches it, by whatever address: it trusts the
// certificate that is configured and no other. nil where the gateway speaks plaintext.
func ClientTLS(files config.TLS) (*tls.Config, error) {
	if !files.Enabled() {
		return nil, nil //nolint:nilnil // nil is the plaintext configuration of http.Transport
	}
	own, err := readPEM(files.CertFile)
	if err != nil {
		return nil, fmt.Errorf("server.tls.cert_file: %w", err)
	}
	leaf, err := firstCertificate(own)
	if err != nil {
		return nil, fmt.Errorf("server.tls.cert_file: %s: %w", files.CertFile, err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection wants this very certificate
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, leaf) {
				return errors.New("what answers there does not have the certificate of server.tls.cert_file")
			}
			return nil
		},
	}, nil
}

// firstCertificate returns the first certificate of a PEM file, in DER.
func firstCertificate(b []byte) ([]byte, error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return nil, errors.New("there is no certificate in it")
		}
		if block.Type == "CERTIFICATE" {
			return block.Bytes, nil
		}
	}
}
