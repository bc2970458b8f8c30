package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"coven-gateway/internal/cli"
	pb "coven-gateway/proto/coven"
)

var bindingView = view{key: "bindings", none: "no bindings", columns: []column{
	{"ID", "id", nil},
	{"FRONTEND", "frontend", nil},
	{"CHANNEL", "channel_id", nil},
	{"AGENT", "agent_id", nil},
	{"DELIVERY", "delivery", nil},
	{"CREATED", "created_at", nil},
	{"CREATED BY", "created_by", nil},
}}

// binding is what the flags of the commands about bindings say.
type binding struct{ frontend, channel, agent, delivery string }

// bindingCommand returns a command with flags for a binding.
func bindingCommand(h help, run func(*cobra.Command, []string, binding) error) *cobra.Command {
	var b binding
	cmd := h.command(func(cmd *cobra.Command, args []string) error { return run(cmd, args, b) })
	f := cmd.Flags()
	f.StringVarP(&b.frontend, "frontend", "f", "", "the `frontend`: slack, matrix, …")
	f.StringVarP(&b.channel, "channel", "c", "", "the frontend's own `name` of the channel")
	f.StringVarP(&b.agent, "agent", "a", "", "the `id` of the agent")
	f.StringVar(&b.delivery, "delivery", "", "what becomes of a message when the agent is away or busy: `how` is fail, queue or interrupt")
	return cmd
}

// administer calls the AdminService.
func administer[T proto.Message](cmd *cobra.Command, a *app, f func(context.Context, pb.AdminServiceClient) (T, error)) ([]byte, error) {
	return call(cmd, a, func(ctx context.Context, conn grpc.ClientConnInterface) (T, error) {
		return f(ctx, pb.NewAdminServiceClient(conn))
	})
}

func bindingsCommand(a *app) *cobra.Command {
	one := bindingView
	one.key = ""
	list := func(cmd *cobra.Command, _ []string, b binding) error {
		answer, err := listBindings(cmd, a, b.frontend, b.agent)
		if err != nil || a.json && b.channel == "" {
			return errors.Join(err, write(cmd, answer))
		}
		rows, err := bindingView.objects(answer)
		if err != nil {
			return err
		}
		if b.channel != "" { // which the protocol cannot ask for
			rows = of(rows, b.channel)
		}
		if a.json {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(object{"bindings": rows})
		}
		return a.print(cmd, rows, bindingView)
	}
	cmd := bindingCommand(help{
		use: "bindings", short: "Administer which agent answers in which channel", example: "coven-admin bindings\ncoven-admin bindings list --frontend slack",
	}, list)
	create := bindingCommand(help{
		use: "create", short: "Bind a channel to an agent", example: "coven-admin bindings create -f slack -c C0123 -a echo --delivery queue", aliases: []string{"add"},
	}, func(cmd *cobra.Command, _ []string, b binding) error {
		answer, err := administer(cmd, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.Binding, error) {
			return c.CreateBinding(ctx, &pb.CreateBindingRequest{Frontend: b.frontend, ChannelId: b.channel, AgentId: b.agent, Delivery: b.delivery})
		})
		if err != nil {
			return err
		}
		return a.show(cmd, answer, one)
	})
	update := bindingCommand(help{
		use: "update [ID]", short: "Point a binding at another agent", long: "Point a binding, named by its id or by frontend and channel, at another agent.",
		example: "coven-admin bindings update -f slack -c C0123 -a other",
	}, func(cmd *cobra.Command, args []string, b binding) error {
		id, err := b.id(cmd, a, args)
		if err != nil {
			return err
		}
		answer, err := administer(cmd, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.Binding, error) {
			return c.UpdateBinding(ctx, &pb.UpdateBindingRequest{Id: id, AgentId: b.agent, Delivery: b.delivery})
		})
		if err != nil {
			return err
		}
		return a.show(cmd, answer, one)
	})
	remove := bindingCommand(help{
		use: "delete [ID]", short: "Remove a binding", long: "Remove a binding, named by its id or by frontend and channel.",
		example: "coven-admin bindings delete -f slack -c C0123", aliases: []string{"rm", "remove"},
	}, func(cmd *cobra.Command, args []string, b binding) error {
		id, err := b.id(cmd, a, args)
		if err != nil {
			return err
		}
		_, err = administer(cmd, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.DeleteBindingResponse, error) {
			return c.DeleteBinding(ctx, &pb.DeleteBindingRequest{Id: id})
		})
		if err == nil && !a.json {
			fmt.Fprintln(cmd.OutOrStdout(), "deleted")
		}
		return err
	})
	for cmd, flags := range map[*cobra.Command][]string{create: {"frontend", "channel", "agent"}, update: {"agent"}} {
		for _, f := range flags {
			_ = cmd.MarkFlagRequired(f) // there is such a flag
		}
	}
	remove.Flags().Lookup("agent").Hidden = true
	ls := bindingCommand(help{use: "list", short: "List bindings, the newest first", example: cmd.Example[2:], aliases: []string{"ls"}}, list)
	for _, c := range []*cobra.Command{cmd, ls, remove} {
		c.Flags().Lookup("delivery").Hidden = true
	}
	cmd.AddCommand(ls, create, update, remove)
	return cmd
}

func listBindings(cmd *cobra.Command, a *app, frontend, agent string) ([]byte, error) {
	return administer(cmd, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.ListBindingsResponse, error) {
		r := &pb.ListBindingsRequest{}
		if frontend != "" {
			r.Frontend = &frontend
		}
		if agent != "" {
			r.AgentId = &agent
		}
		return c.ListBindings(ctx, r)
	})
}

// of returns the bindings of a channel.
func of(rows []object, channel string) []object {
	found := []object{}
	for _, r := range rows {
		if r["channel_id"] == channel {
			found = append(found, r)
		}
	}
	return found
}

// id returns the id of the binding that a command is about.
func (b binding) id(cmd *cobra.Command, a *app, args []string) (string, error) {
	switch byChannel := b.frontend != "" && b.channel != ""; {
	case len(args) == 1 && b.frontend == "" && b.channel == "":
		return args[0], nil
	case len(args) == 1 || !byChannel:
		return "", cli.Usage(errors.New("name the binding by its id, or by --frontend and --channel"))
	}
	answer, err := listBindings(cmd, a, b.frontend, "")
	if err != nil {
		return "", err
	}
	rows, err := bindingView.objects(answer)
	if err != nil {
		return "", err
	}
	if rows = of(rows, b.channel); len(rows) != 1 {
		return "", fmt.Errorf("there is no binding of channel %q of %s", b.channel, b.frontend)
	}
	return cell(rows[0]["id"]), nil
}
