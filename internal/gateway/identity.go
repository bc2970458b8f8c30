package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/store"
)

// serverID is what this gateway calls itself, the same after every start.
func serverID(dataDir string) (string, error) {
	id, err := keptSecret(filepath.Join(dataDir, "server_id"), 8)
	return "coven-gateway-" + id, err
}

// identity returns the service that knows who is who. o has what happens when rights end.
func identity(ctx context.Context, cfg config.Config, db *store.DB, logger *slog.Logger, issuer string, o auth.Options) (*auth.Service, error) {
	secret, err := keptSecret(filepath.Join(cfg.DataDir, "secret"), 32)
	if err != nil {
		return nil, err
	}
	if o.SecretsKeys, err = secretsKeys(cfg); err != nil {
		return nil, err
	}
	o.Store, o.Logger, o.Issuer, o.ServerSecret = db.Identity(), logger, issuer, []byte(secret)
	for _, s := range cfg.Auth.JWTSecrets {
		o.JWTSecrets = append(o.JWTSecrets, []byte(s.Reveal()))
	}
	o.AutoRegistration, o.OpenRemote = auth.AutoRegistration(cfg.Auth.AgentAutoRegistration), cfg.Auth.OpenRemote
	o.DefaultCapabilities = cfg.Auth.DefaultCapabilities
	o.RequestsPerSecond, o.AddressRequestsPerSecond = cfg.Limits.RequestsPerSecond, cfg.Limits.AddressRequestsPerSecond
	s := auth.New(o)
	if err := s.CheckSecrets(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("the stored secrets cannot be read: %w", err), s.Close())
	}
	return s, nil
}

// origin is where people reach the pages: as configured, or else on this machine, by a name, because
// there are no passkeys for addresses.
func origin(baseURL, scheme string, listener net.Addr) string {
	if u, err := url.Parse(baseURL); err == nil && u.Host != "" {
		host := strings.ToLower(u.Hostname())
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		if port := u.Port(); port != "" && (u.Scheme != "https" || port != "443") && (u.Scheme != "http" || port != "80") {
			host += ":" + port
		}
		return u.Scheme + "://" + host
	}
	if tcp, ok := listener.(*net.TCPAddr); ok {
		return fmt.Sprintf("%s://localhost:%d", scheme, tcp.Port)
	}
	return scheme + "://localhost"
}

// SetupLink is the link with a token that signs somebody in. The token is in the fragment, which
// browsers send to nobody.
func SetupLink(origin, token string) string { return origin + "/setup#" + token }

// ConfiguredOrigin is where people reach the pages of a gateway that does not run.
func ConfiguredOrigin(cfg config.Config) string {
	scheme := "http"
	if cfg.Server.TLS.Enabled() {
		scheme = "https"
	}
	addr, err := net.ResolveTCPAddr("tcp", cfg.Server.HTTPAddr)
	if err != nil { // there is nothing to listen on
		return origin(cfg.WebAdmin.BaseURL, scheme, nil)
	}
	return origin(cfg.WebAdmin.BaseURL, scheme, addr)
}

// Offline opens the identities of a gateway that does not run, for commands on its own machine.
// The caller calls done.
func Offline(ctx context.Context, cfg config.Config, logger *slog.Logger) (_ *auth.Service, done func() error, err error) {
	s, _, done, err := offline(ctx, cfg, logger)
	return s, done, err
}

// offline opens the database of a gateway that does not run, too.
func offline(ctx context.Context, cfg config.Config, logger *slog.Logger) (_ *auth.Service, _ *store.DB, done func() error, err error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, nil, nil, fmt.Errorf("data directory: %w", err)
	}
	id, err := serverID(cfg.DataDir)
	if err != nil {
		return nil, nil, nil, err
	}
	db, err := store.Open(ctx, store.Options{
		Path: cfg.Database.Path, Synchronous: string(cfg.Database.Synchronous), Logger: logger, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := identity(ctx, cfg, db, logger, id, auth.Options{Ended: func(string) {}, Disowned: func(string) {}})
	if err != nil {
		return nil, nil, nil, errors.Join(err, db.Close())
	}
	return s, db, func() error { return errors.Join(s.Close(), db.Close()) }, nil
}

// secretsKeys returns what seals the stored secrets: the key of the configuration where there is
// one, and in any case those in the file secrets.key of the data directory, where it exists.
func secretsKeys(cfg config.Config) (auth.Keyring, error) {
	path := filepath.Join(cfg.DataDir, "secrets.key")
	key, given, err := cfg.Auth.DecodeSecretsKey()
	if err != nil || !given {
		return auth.OpenKeyring(path)
	}
	return auth.FixedKeyring(key, path)
}

// keptSecret returns the random value in a file, and makes it where there is none: n bytes in hex,
// mode 0600.
func keptSecret(path string, n int) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if value := strings.TrimSpace(string(b)); value != "" { // a crash may have left it empty
		return value, nil
	}
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // never fails
	value := hex.EncodeToString(raw)
	return value, os.WriteFile(path, []byte(value+"\n"), 0o600)
}
