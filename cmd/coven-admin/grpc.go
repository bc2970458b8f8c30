package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// call makes one RPC: f gets the connection and a context with the credentials. The answer is JSON,
// with the field names of the protocol.
func call[T proto.Message](cmd *cobra.Command, a *app, f func(ctx context.Context, conn grpc.ClientConnInterface) (T, error)) ([]byte, error) {
	token, err := a.credential()
	if err != nil {
		return nil, err
	}
	server, creds := a.grpc, insecure.NewCredentials()
	if host, encrypted := strings.CutPrefix(server, "https://"); encrypted {
		server, creds = host, credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	m, err := f(ctx, conn)
	if err != nil {
		return nil, a.rpcFailure(cmd.Context(), err, token)
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer // protojson varies its spaces on purpose
	err = json.Compact(&compact, b)
	compact.WriteByte('\n')
	return compact.Bytes(), err
}

func (a *app) rpcFailure(ctx context.Context, err error, token string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch s := status.Convert(err); s.Code() {
	case codes.Unauthenticated:
		return refusal(http.StatusUnauthorized, s.Message(), token)
	case codes.PermissionDenied:
		return refusal(http.StatusForbidden, s.Message(), token)
	case codes.Unavailable, codes.DeadlineExceeded:
		return fmt.Errorf("gRPC at %s: %s", a.grpc, s.Message())
	default:
		return &failure{http.StatusOK, s.Message()}
	}
}
