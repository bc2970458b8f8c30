package main

import (
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"coven-gateway/internal/cli"
)

var principalView = view{key: "principals", none: "no principals", columns: []column{
	{"ID", "id", nil},
	{"TYPE", "type", nil},
	{"STATUS", "status", nil},
	{"ONLINE", "online", nil},
	{"ROLES", "roles", nil},
	{"CAPABILITIES", "capabilities", nil},
	{"LAST SEEN", "last_seen", nil},
	{"NAME", "display_name", nil},
}}

// onePrincipal is a principal as every change of it is answered.
var onePrincipal = view{block: true, columns: []column{
	{"id", "id", nil},
	{"type", "type", nil},
	{"name", "display_name", nil},
	{"status", "status", nil},
	{"online", "online", nil},
	{"roles", "roles", nil},
	{"capabilities", "capabilities", nil},
	{"created", "created_at", nil},
	{"created by", "created_by", nil},
	{"last seen", "last_seen", nil},
}}

func principalsCommand(a *app) *cobra.Command {
	detailed := onePrincipal
	detailed.columns = append(slices.Clip(detailed.columns), column{"keys", "keys.fingerprint", nil}, column{"agents", "agents", nil})

	// change is a command whose whole request is its path, and whose answer is the principal.
	change := func(use, short, example, method, path string) *cobra.Command {
		return a.request(request{
			help: help{use: use, short: short, example: example}, method: method, path: "/api/admin/principals/" + path, view: onePrincipal,
		})
	}
	return a.group(
		help{use: "principals", short: "Administer who may use the gateway", example: "coven-admin principals\ncoven-admin principals list --type agent --status pending"},
		listing{path: "/api/admin/principals", view: principalView, page: 500, filters: []filter{
			{"type", "type", "only those of the type `client`, agent, pack or user"}, {"status", "status", "only those that are `pending`, approved or revoked"},
		}},
		a.request(request{
			help:   help{use: "show ID", short: "Show a principal with its keys and agents", example: "coven-admin principals show $ALICE"},
			method: http.MethodGet, path: "/api/admin/principals/{0}", view: detailed,
		}),
		createPrincipal(a, help{
			use: "create", short: "Create an approved principal", example: "coven-admin principals create --type client --name Bob --role member",
		}, ""),
		change("approve ID", "Let a principal in", "coven-admin principals approve $PENDING", http.MethodPost, "{0}/approve"),
		change("revoke ID", "Take the right to call from a principal and end its calls", "coven-admin principals revoke $PENDING", http.MethodPost, "{0}/revoke"),
		deletePrincipal(a, "principal", "coven-admin principals delete $PENDING"),
		a.request(request{
			help:   help{use: "rename ID NAME", short: "Change the name of a principal", example: "coven-admin principals rename $ALICE 'Alice A.'"},
			method: http.MethodPatch, path: "/api/admin/principals/{0}", view: onePrincipal,
			flags: func(*pflag.FlagSet) func([]string) (any, error) {
				return func(args []string) (any, error) { return object{"display_name": args[1]}, nil }
			},
		}),
		change("grant ID ROLE", "Give a principal a role: owner, admin, member or leader", "coven-admin principals grant $ALICE leader", http.MethodPut, "{0}/roles/{1}"),
		change("ungrant ID ROLE", "Take a role from a principal", "coven-admin principals ungrant $ALICE leader", http.MethodDelete, "{0}/roles/{1}"),
		change("allow ID CAPABILITY", "Give a principal a capability", "coven-admin principals allow $ALICE mail", http.MethodPut, "{0}/capabilities/{1}"),
		change("disallow ID CAPABILITY", "Take a capability from a principal", "coven-admin principals disallow $ALICE mail", http.MethodDelete, "{0}/capabilities/{1}"),
	)
}

// createPrincipal creates a principal of a kind, or of the one that --type names.
func createPrincipal(a *app, h help, kind string) *cobra.Command {
	cmd := a.request(request{
		help: h, method: http.MethodPost, path: "/api/admin/principals", view: onePrincipal,
		flags: func(f *pflag.FlagSet) func([]string) (any, error) {
			if kind == "" {
				f.StringVar(&kind, "type", "", "`client`, agent or user")
			}
			name := f.StringP("name", "n", "", "its `name`, for people")
			roles := f.StringSlice("role", nil, "give it the `role` owner, admin, member or leader; may be repeated")
			key := keyFlags(f)
			return func([]string) (any, error) {
				body, err := key()
				if err != nil {
					return nil, err
				}
				body["type"], body["display_name"], body["roles"] = kind, *name, *roles
				return body, nil
			}
		},
	})
	_ = cmd.MarkFlagRequired("name") // there is such a flag
	if kind == "" {
		_ = cmd.MarkFlagRequired("type")
	}
	oneKey(cmd)
	return cmd
}

func deletePrincipal(a *app, what, example string) *cobra.Command {
	return a.request(request{
		help:   help{use: "delete ID", short: "Remove a " + what + " with its keys, tokens and grants", example: example, aliases: []string{"rm", "remove"}},
		method: http.MethodDelete, path: "/api/admin/principals/{0}", said: "deleted",
	})
}

// keyFlags declares the flags that name a key and returns what reads them.
func keyFlags(f *pflag.FlagSet) func() (object, error) {
	line := f.StringP("pubkey", "k", "", "its public key, as a `line` of authorized_keys")
	file := f.String("pubkey-file", "", "read its public key from `file`")
	fp := f.StringP("pubkey-fp", "f", "", "the `fingerprint` of its key: 64 hex digits; also --fp")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "fp" {
			name = "pubkey-fp"
		}
		return pflag.NormalizedName(name)
	})
	return func() (object, error) {
		if *file != "" {
			b, err := os.ReadFile(*file)
			if err != nil {
				return nil, err
			}
			if strings.Contains(string(b), "PRIVATE KEY") {
				return nil, cli.Usage(errors.New(*file + " holds a private key; give the file that ends in .pub"))
			}
			*line = string(b)
		}
		body := object{}
		if s := strings.TrimSpace(*line); s != "" {
			body["pubkey"] = s
		}
		if *fp != "" {
			body["pubkey_fp"] = *fp
		}
		return body, nil
	}
}

// oneKey refuses more than one key.
func oneKey(cmd *cobra.Command) { cmd.MarkFlagsMutuallyExclusive("pubkey", "pubkey-file", "pubkey-fp") }

var keyView = view{key: "keys", none: "no keys", columns: []column{
	{"FINGERPRINT", "fingerprint", nil}, {"ADDED", "added_at", nil}, {"ADDED BY", "added_by", nil}, {"LAST USED", "last_used", nil}, {"COMMENT", "comment", nil},
}}

func keysCommand(a *app) *cobra.Command {
	oneView := keyView
	oneView.key = ""
	add := a.request(request{
		help:   help{use: "add PRINCIPAL", short: "Give a principal another key", example: "coven-admin keys add $ALICE --pubkey-file id_ed25519.pub\ncoven-admin keys add $ALICE --fp $FINGERPRINT"},
		method: http.MethodPost, path: "/api/admin/principals/{0}/keys", view: oneView,
		flags: func(f *pflag.FlagSet) func([]string) (any, error) {
			key := keyFlags(f)
			return func([]string) (any, error) { return key() }
		},
	})
	oneKey(add)
	add.MarkFlagsOneRequired("pubkey", "pubkey-file", "pubkey-fp")
	return without("keys", "Administer the SSH keys of principals",
		a.list(listing{
			help: help{use: "list PRINCIPAL", short: "List the keys of a principal", example: "coven-admin keys list $ALICE", aliases: []string{"ls"}},
			path: "/api/admin/principals/{0}/keys", view: keyView,
		}),
		add,
		a.request(request{
			help:   help{use: "remove PRINCIPAL FINGERPRINT", short: "Take a key from a principal and end the calls made with it", example: "coven-admin keys remove $ALICE $FINGERPRINT", aliases: []string{"rm", "delete"}},
			method: http.MethodDelete, path: "/api/admin/principals/{0}/keys/{1}", said: "removed",
		}),
	)
}
