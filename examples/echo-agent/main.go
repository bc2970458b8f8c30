// Echo-agent is the smallest useful agent: it says what it hears.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	"coven-gateway/sdk/agent"
)

func main() {
	server := flag.String("server", "127.0.0.1:50051", "gRPC `address` of the gateway")
	id := flag.String("id", "echo", "agent `id`")
	key := flag.String("key", "", "log in with the OpenSSH private key in `file`")
	flag.Parse()

	opts := agent.Options{
		Server:    *server,
		ID:        *id,
		OnWelcome: func(w agent.Welcome) { log.Printf("connected as %s", w.AgentID) },
		Handler: agent.HandlerFunc(func(_ context.Context, m *agent.Message, w *agent.Writer) error {
			return w.Text(m.Content)
		}),
	}
	if *key != "" {
		var err error
		if opts.Credentials, err = agent.KeyFile(*key); err != nil {
			log.Fatal(err)
		}
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := agent.Run(ctx, opts); err != nil {
		log.Fatal(err)
	}
}
