//go:build !unix

package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"coven-gateway/internal/gateway"
)

// A server is the process around a gateway. Here sockets cannot be handed to another process.
type server struct {
	options gateway.Options
	logger  *slog.Logger
}

func (s *server) serve(ctx context.Context, serving func(*gateway.Gateway)) error {
	gw, err := gateway.New(ctx, s.options)
	if err != nil {
		return err
	}
	serving(gw)
	return gw.Run(ctx)
}

func upgradeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "upgrade", Short: "Replace a running gateway (not on this operating system)", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("sockets cannot be handed over on this operating system: stop the gateway and start the new one")
		},
	}
}
