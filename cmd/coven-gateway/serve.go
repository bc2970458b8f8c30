package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
	"coven-gateway/internal/config"
	"coven-gateway/internal/gateway"
	"coven-gateway/internal/store"
	"coven-gateway/internal/tracing/otlp"
)

// addresses are the flags that serve and demo share.
type addresses struct{ grpc, http, dataDir string }

func (a *addresses) register(cmd *cobra.Command, dataDir string) {
	f := cmd.Flags()
	f.StringVar(&a.grpc, "grpc-addr", "", "listen for gRPC on `host:port` (default 127.0.0.1:50051)")
	f.StringVar(&a.http, "http-addr", "", "listen for HTTP on `host:port` (default 127.0.0.1:8080)")
	f.StringVar(&a.dataDir, "data-dir", dataDir, "keep everything in `folder`")
}

// apply puts what was given on the command line over a configuration.
func (a *addresses) apply(cfg *config.Config) {
	if a.grpc != "" {
		cfg.Server.GRPCAddr = a.grpc
	}
	if a.http != "" {
		cfg.Server.HTTPAddr = a.http
	}
	applyDataDir(cfg, a.dataDir)
}

// applyDataDir moves everything to another folder, apart from a database whose path was configured.
func applyDataDir(cfg *config.Config, dir string) {
	if dir == "" {
		return
	}
	cfg.DataDir = dir
	if cfg.Database.Path == "" || cfg.Origin("database.path").IsDefault() {
		cfg.Database.Path = filepath.Join(dir, "gateway.db")
	}
}

func serveCommand() *cobra.Command {
	var path string
	var addrs addresses
	var check bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway until it is interrupted.

Without a configuration file it starts with safe defaults: it listens on loopback
addresses only and keeps its data in a folder of its own.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, warnings, err := load(path)
			if err != nil {
				return err
			}
			addrs.apply(&cfg)
			if err := cfg.Validate(); err != nil {
				return err
			}
			logger := newLogger(cmd.OutOrStdout(), cfg.Logging)
			for _, w := range warnings {
				logger.Warn("configuration", "warning", w.String())
			}
			if check {
				if err := checkServe(cmd.Context(), cfg, logger); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "ok")
				return nil
			}
			o := gateway.Options{Config: cfg, Logger: logger, Version: cli.Version()}
			spans, err := otlp.Provider(cmd.Context(), os.Getenv, cli.Version(), logger)
			if err != nil {
				return err
			}
			if spans != nil {
				o.Traces = spans
				defer stopSpans(cmd.Context(), spans.Shutdown, logger)
			}
			srv := &server{options: o, logger: logger}
			return srv.serve(cmd.Context(), func(gw *gateway.Gateway) {
				logger.Info("serving", "http", gw.HTTPAddr().String(), "grpc", gw.GRPCAddr().String(),
					"data_dir", cfg.DataDir, "config", cfg.File(), "traces", spans != nil, "version", cli.Version(), "pid", os.Getpid())
				if err := greetFirstOwner(context.WithoutCancel(cmd.Context()), cmd.ErrOrStderr(), gw); err != nil {
					logger.Error("the link for the first owner cannot be made", "error", err)
				}
			})
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "read the configuration from `file`")
	cmd.Flags().BoolVar(&check, "check", false, "only look whether it would start, also beside a running gateway")
	addrs.register(cmd, "")
	return cmd
}

// checkServe looks at what serve needs, as far as that is possible beside a running gateway.
func checkServe(ctx context.Context, cfg config.Config, logger *slog.Logger) error {
	return store.Check(ctx, store.Options{
		Path: cfg.Database.Path, Synchronous: string(cfg.Database.Synchronous), Logger: logger, Registerer: prometheus.NewRegistry(),
	})
}

// greetFirstOwner prints the link for the first owner of an empty gateway. It is no log line: logs are
// kept and read by others.
func greetFirstOwner(ctx context.Context, out io.Writer, gw *gateway.Gateway) error {
	link, expires, err := gw.FirstOwner(ctx)
	if err != nil || link == "" {
		return err
	}
	fmt.Fprintf(out, "\nThis gateway has no owner yet. Whoever opens this link first becomes the owner; it is good until %s:\n\n  %s\n\n", expires.Local().Format("15:04"), link)
	return nil
}

// stopSpans has the last spans sent.
func stopSpans(ctx context.Context, shutdown func(context.Context) error, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), otlp.StopTimeout)
	defer cancel()
	if err := shutdown(ctx); err != nil {
		logger.Warn("the last spans could not be sent", "error", err)
	}
}

// load reads the configuration as serve does.
func load(path string) (config.Config, []config.Warning, error) {
	return config.Load(config.Options{Path: path, LookupEnv: os.LookupEnv})
}

func newLogger(w io.Writer, l config.Logging) *slog.Logger {
	opts := &slog.HandlerOptions{Level: l.Level}
	if l.Format == config.JSON {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// baseURL is where a gateway with this configuration is reached from its own host.
func baseURL(cfg config.Config) string {
	if cfg.Server.TLS.Enabled() {
		return "https://" + cfg.Server.HTTPAddr
	}
	return "http://" + cfg.Server.HTTPAddr
}
