package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/spf13/cobra"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/cli"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/demo"
	"coven-gateway/internal/gateway"
	"coven-gateway/sdk/agent"
)

func demoCommand() *cobra.Command {
	var addrs addresses
	var verbose bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a gateway with an agent that answers, to look around",
		Long: `Run a gateway with an agent that answers, to look around.

It needs no configuration and no network: it listens on loopback addresses and
keeps what is said in ./coven-data. Configuration files and variables are ignored.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := config.Default()
			addrs.apply(&cfg)
			if err := cfg.Validate(); err != nil {
				return err
			}
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelDebug
			}
			logger := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return runDemo(cmd.Context(), cfg, logger, cmd.OutOrStdout())
		},
	}
	addrs.register(cmd, "./coven-data")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show every request")
	return cmd
}

// runDemo serves until ctx ends, with the demo agent connected like any other agent.
func runDemo(ctx context.Context, cfg config.Config, logger *slog.Logger, out io.Writer) error {
	gw, err := gateway.New(ctx, gateway.Options{Config: cfg, Logger: logger, Version: cli.Version(), Demo: true})
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	served := make(chan error, 1)
	go func() { served <- gw.Run(ctx) }()
	o := demo.Options(gw.GRPCAddr().String())
	o.Logger = logger
	connected := make(chan struct{}, 1)
	o.OnWelcome = func(agent.Welcome) {
		select {
		case connected <- struct{}{}:
		default: // a reconnect
		}
	}
	left := make(chan error, 1)
	agentCtx, leave := context.WithCancel(context.WithoutCancel(ctx))
	go func() { left <- agent.Run(agentCtx, o) }()
	select {
	case <-connected:
		greet(ctx, out, gw, cfg, o.ID)
		err = <-served
	case err = <-left:
		left <- nil
		end(err)
		err = errors.Join(err, <-served)
	case err = <-served:
	}
	leave()
	if l := <-left; l != nil && !errors.Is(l, context.Canceled) {
		err = errors.Join(err, l)
	}
	return err
}

// greet tells what can be done now.
func greet(ctx context.Context, out io.Writer, gw *gateway.Gateway, cfg config.Config, agentID string) {
	url := "http://" + reachable(gw.HTTPAddr())
	if err := greetFirstOwner(ctx, out, gw); err != nil {
		fmt.Fprintf(out, "The link for the first owner could not be made: %v\n", err)
	}
	fmt.Fprintf(out, `coven-gateway is running, and the agent %q has connected.

  HTTP  %s
  gRPC  %s
  data  %s

Open it in a browser, which need not sign in: the demo asks nobody who they are.

  %s/

Talk to the agent:

  curl -N %s/api/send -d '{"agent_id":"%s","sender":"me","content":"/help"}'

See everything that was said, and follow what comes:

  curl -N -H 'Accept: text/event-stream' %s/api/conversations/%s/events

`, agentID, url, reachable(gw.GRPCAddr()), cfg.DataDir, gw.Pages(), url, agentID, url, agentID)
	threads, err := gw.Conversations().Threads(auth.With(ctx, auth.Anonymous), conversation.ThreadQuery{AgentID: agentID, Limit: 1000})
	if err == nil && len(threads) > 0 {
		last := threads[0]
		fmt.Fprintf(out, "Nothing is forgotten: %d earlier conversations are here, the last one %q of %s:\n\n  curl %s/api/threads/%s/messages\n\n",
			len(threads), last.Title, last.UpdatedAt.Local().Format("2 January 15:04"), url, last.ID)
	}
	fmt.Fprintln(out, "Ctrl-C stops it.")
}

// reachable makes an address that a program on this host can connect to.
func reachable(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String()
	}
	if tcp.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", fmt.Sprint(tcp.Port))
	}
	return tcp.String()
}
