package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/gateway"
)

func bootstrapCommand() *cobra.Command {
	var path, name string
	var renew, link bool
	cmd := &cobra.Command{
		Use:   "bootstrap --name NAME",
		Short: "Make the owner of a new gateway and its token",
		Long: `Make the owner of a new gateway and its token.

It needs no terminal. Where there is no configuration file it writes one with a new
secret and loopback addresses. The token goes to the file "token" beside it, where
coven programs look for theirs. The gateway must not be running.

The token is good for 30 days. With --renew an owner that exists gets a new one.

With --link it prints a link that signs an owner in with a browser, once, within an
hour: the first owner who is a person, whose password and passkeys it takes, or else
a new one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if link {
				file, err := configFile(path)
				if err != nil {
					return err
				}
				return printLink(cmd.Context(), cmd.OutOrStdout(), file)
			}
			if !renew {
				if err := checkOwnerName(cmd.Flags().Changed("name"), name); err != nil {
					return err
				}
			}
			file, err := configFile(path)
			if err != nil {
				return err
			}
			if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) && !renew {
				if err := writeConfig(file, newSettings()); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n", file)
			}
			return bootstrap(cmd.Context(), cmd.OutOrStdout(), file, name, renew)
		},
	}
	cmd.Flags().StringVarP(&name, "name", "n", "", "call the owner `NAME`")
	cmd.Flags().StringVar(&path, "config", "", "read the configuration from `file`, or write it there")
	cmd.Flags().BoolVar(&renew, "renew", false, "give an owner that exists a new token")
	cmd.Flags().BoolVar(&link, "link", false, "print a link that signs an owner in with a browser")
	cmd.MarkFlagsMutuallyExclusive("link", "renew")
	cmd.MarkFlagsMutuallyExclusive("link", "name")
	return cmd
}

// printLink makes a link that signs an owner in.
func printLink(ctx context.Context, out io.Writer, file string) error {
	cfg, _, err := load(file)
	if err != nil {
		return err
	}
	identity, done, err := gateway.Offline(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	token, owner, expires, err := identity.OwnerLink(ctx)
	if err = errors.Join(err, done()); err != nil {
		return err
	}
	who := "a new owner"
	if owner.ID != "" {
		who = owner.Name + ", whose password and passkeys it takes"
	}
	fmt.Fprintf(out, "It signs in %s, once, until %s:\n\n  %s\n\nnext:     coven-gateway serve\n", who, expires.Local().Format("15:04"), gateway.SetupLink(gateway.ConfiguredOrigin(cfg), token))
	return nil
}

func checkOwnerName(given bool, name string) error {
	switch {
	case !given:
		return errors.New("--name flag is required")
	case strings.TrimSpace(name) == "":
		return errors.New("display name cannot be empty or whitespace only")
	case utf8.RuneCountInString(strings.TrimSpace(name)) > auth.MaxName:
		return fmt.Errorf("display name exceeds maximum length of %d characters", auth.MaxName)
	}
	return nil
}

// configFile is the configuration file that is meant, whether it exists or not.
func configFile(path string) (string, error) {
	file, _, err := config.Options{Path: path, LookupEnv: os.LookupEnv}.Find()
	if err == nil && file == "" {
		err = errors.New("HOME is not set: say where the configuration is with --config")
	}
	return file, err
}

// bootstrap makes the owner, or renews its token, and writes the token beside the configuration.
func bootstrap(ctx context.Context, out io.Writer, file, name string, renew bool) error {
	cfg, _, err := load(file)
	if err != nil {
		return err
	}
	if len(cfg.Auth.JWTSecrets) == 0 {
		return fmt.Errorf("jwt_secret not configured in %s (required for bootstrap): set auth.jwt_secret, for example to the output of: openssl rand -base64 32", file)
	}
	// The token's place is made before the token, so that none is made that cannot be kept.
	place := filepath.Join(filepath.Dir(file), "token")
	if _, err := os.Stat(place); err == nil && !renew {
		return fmt.Errorf("%s exists: it may be the token of another gateway; move it away first", place)
	}
	f, err := os.CreateTemp(filepath.Dir(place), ".token.*") // mode 0600
	if err != nil {
		return err
	}
	owner, token, err := issueOwner(ctx, cfg, name, renew)
	if err == nil {
		_, err = f.WriteString(token + "\n")
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), place); err != nil {
		return err
	}
	fmt.Fprintf(out, "owner     %s (%s)\ntoken     %s, good for 30 days\n\nnext:     coven-gateway serve\n", owner.Name, owner.ID, place)
	return nil
}

// issueOwner makes an owner in the database, or finds one, and issues a token for it.
func issueOwner(ctx context.Context, cfg config.Config, name string, renew bool) (auth.Principal, string, error) {
	identity, done, err := gateway.Offline(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return auth.Principal{}, "", err
	}
	var owner auth.Principal
	var token string
	if renew {
		owner, token, err = identity.RenewOwner(ctx)
	} else {
		owner, token, err = identity.Bootstrap(ctx, name)
		if fault.CodeOf(err) == fault.Conflict {
			err = fmt.Errorf("%s (a lost or expired token is replaced with: coven-gateway bootstrap --renew)", fault.Message(err))
		}
	}
	return owner, token, errors.Join(err, done())
}

// settings are what init asks for.
type settings struct {
	GRPCAddr, HTTPAddr string
	DataDir            string // "" for the standard place
	AutoRegistration   config.AutoRegistration
}

func newSettings() settings {
	d := config.Default()
	return settings{GRPCAddr: d.Server.GRPCAddr, HTTPAddr: d.Server.HTTPAddr, AutoRegistration: d.Auth.AgentAutoRegistration}
}

// writeConfig writes a configuration file, mode 0600, that is safe as it is. One that exists is not
// touched.
func writeConfig(file string, s settings) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	var b strings.Builder
	fmt.Fprintf(&b, "# Configuration of coven-gateway. `coven-gateway config print` shows all keys and their values.\n\n")
	if s.DataDir != "" {
		fmt.Fprintf(&b, "data_dir: %s\n\n", config.Quote(s.DataDir))
	}
	fmt.Fprintf(&b, "server:\n  grpc_addr: %s\n  http_addr: %s\n\n", config.Quote(s.GRPCAddr), config.Quote(s.HTTPAddr))
	fmt.Fprintf(&b, `auth:
  # Signs tokens: whoever knows it can make one for anybody. To change it, put the new one in front
  # of the old one in a list, [new, old], and drop the old one when its tokens have expired.
  jwt_secret: %s
  # What becomes of an agent whose key is not known: disabled (refused), pending (waits until an
  # administrator approves it) or approved (let in).
  agent_auto_registration: %s
`, config.Quote(base64.StdEncoding.EncodeToString(secret)), s.AutoRegistration)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(b.String())
	return errors.Join(err, f.Sync(), f.Close())
}
