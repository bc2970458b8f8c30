package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"coven-gateway/internal/config"
	"coven-gateway/internal/gateway"
)

// askTimeout bounds a question to a running gateway.
const askTimeout = 5 * time.Second

func healthCommand() *cobra.Command {
	var path, addr string
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running gateway whether it can take messages",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := ask(cmd.Context(), path, addr, "/health/ready")
			if err != nil {
				return fmt.Errorf("unhealthy: %w", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "healthy:", strings.TrimSpace(string(body)))
			return nil
		},
	}
	askFlags(cmd, &path, &addr)
	return cmd
}

func agentsCommand() *cobra.Command {
	var path, addr string
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "List the agents that are connected to a running gateway",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := ask(cmd.Context(), path, addr, "/api/agents")
			if err != nil {
				return err
			}
			var agents []struct {
				ID, Name, Backend string
				InstanceID        string `json:"instance_id"`
			}
			if err := json.Unmarshal(body, &agents); err != nil {
				return fmt.Errorf("unexpected answer: %w", err)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tINSTANCE\tNAME\tBACKEND")
			for _, a := range agents {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", a.ID, a.InstanceID, a.Name, a.Backend)
			}
			return w.Flush()
		},
	}
	askFlags(cmd, &path, &addr)
	return cmd
}

func askFlags(cmd *cobra.Command, path, addr *string) {
	cmd.Flags().StringVar(path, "config", "", "read the gateway's configuration from `file`")
	cmd.Flags().StringVar(addr, "http-addr", "", "ask the gateway at `host:port` instead of the configured address")
}

// ownToken is the token of whoever runs a command: COVEN_TOKEN, or the file beside the
// configuration; "" if there is none.
func ownToken(path string) string {
	if token := os.Getenv("COVEN_TOKEN"); token != "" {
		return token
	}
	file, err := configFile(path)
	if err != nil {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(file), "token"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// ask gets a page from the gateway that the configuration or addr describes.
func ask(ctx context.Context, path, addr, page string) ([]byte, error) {
	cfg, _, err := load(path)
	if err != nil {
		return nil, err
	}
	if addr != "" {
		cfg.Server.HTTPAddr = addr
	}
	return askFor(ctx, cfg, ownToken(path), page)
}

// askFor gets a page from the gateway that a configuration describes, with a token unless it is "".
func askFor(ctx context.Context, cfg config.Config, token, page string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL(cfg)+page, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	encrypted, err := gateway.ClientTLS(cfg.Server.TLS)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: encrypted, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}
