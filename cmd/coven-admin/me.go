package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/cli"
	pb "coven-gateway/proto/coven"
)

func getMe(cmd *cobra.Command, a *app) ([]byte, error) {
	return call(cmd, a, func(ctx context.Context, conn grpc.ClientConnInterface) (*pb.MeResponse, error) {
		return pb.NewClientServiceClient(conn).GetMe(ctx, &emptypb.Empty{})
	})
}

var meView = view{block: true, columns: []column{
	{"id", "principal_id", nil}, {"type", "principal_type", nil}, {"name", "display_name", nil}, {"status", "status", nil}, {"roles", "roles", nil},
}}

func meCommand(a *app) *cobra.Command {
	return help{use: "me", short: "Say who you are to the gateway", example: "coven-admin me\ncoven-admin me --json"}.command(func(cmd *cobra.Command, _ []string) error {
		answer, err := getMe(cmd, a)
		if err != nil {
			return err
		}
		return a.show(cmd, answer, meView)
	})
}

func statusCommand(a *app) *cobra.Command {
	return help{
		use: "status", short: "Say whether the gateway takes messages, and who you are to it",
		long: `Say whether the gateway takes messages, and who you are to it.

The exit code is 1 when it cannot be reached or is not ready, and 3 when it is ready but refuses you.`,
		example: "coven-admin status\ncoven-admin status --http http://gateway.example:8080 --grpc gateway.example:50051",
	}.command(func(cmd *cobra.Command, _ []string) error {
		state := object{"http": a.http, "grpc": a.grpc, "ready": false, "state": "not ready", "client_version": cli.Version(), "me": nil}
		detail, bad := a.ask(cmd.Context(), http.MethodGet, "/health/ready", nil)
		if bad == nil {
			state["ready"], state["state"], state["detail"] = true, "ready", strings.TrimSpace(string(detail))
			var me []byte
			if me, bad = getMe(cmd, a); bad == nil {
				state["me"] = json.RawMessage(me)
				state["gateway_version"] = a.gatewayVersion(cmd.Context())
			}
		}
		if bad != nil {
			state["error"] = bad.Error()
		}
		b, err := json.Marshal(state)
		if err != nil {
			return err
		}
		if err := a.show(cmd, append(b, '\n'), view{block: true, columns: []column{
			{"http", "http", nil},
			{"grpc", "grpc", nil},
			{"state", "state", nil},
			{"detail", "detail", nil},
			{"gateway", "gateway_version", nil},
			{"client", "client_version", nil},
			{"you", "me.principal_id", nil},
			{"name", "me.display_name", nil},
			{"roles", "me.roles", nil},
		}}); err != nil {
			return err
		}
		return bad
	})
}

// gatewayVersion is what the gateway says it is; "" from one that does not say.
func (a *app) gatewayVersion(ctx context.Context) string {
	answer, err := a.ask(ctx, http.MethodGet, "/api/me", nil)
	var me struct {
		Version string `json:"gateway_version"`
	}
	if err != nil || json.Unmarshal(answer, &me) != nil {
		return ""
	}
	return me.Version
}

func versionCommand(a *app) *cobra.Command {
	return help{use: "version", short: "Print the version of this program", example: "coven-admin version"}.command(func(cmd *cobra.Command, _ []string) error {
		b, err := json.Marshal(object{"version": cli.Version()})
		if err != nil {
			return err
		}
		if a.json {
			return a.show(cmd, append(b, '\n'), view{})
		}
		fmt.Fprintln(cmd.OutOrStdout(), cli.Version())
		return nil
	})
}
