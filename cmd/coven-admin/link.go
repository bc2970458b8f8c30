package main

import (
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var linkView = view{key: "codes", block: true, none: "no device wants to be linked", columns: []column{
	{"code", "code", nil},
	{"status", "status", nil},
	{"device", "device_name", nil},
	{"address", "address", nil},
	{"fingerprint", "fingerprint", grouped},
	{"proved", "proved", proved},
	{"expires", "expires_at", nil},
	{"principal", "principal_id|known.id", nil},
	{"warning", "warning", nil},
}}

// grouped sets a fingerprint as a person compares it: four digits at a time, two lines.
func grouped(fp string) string {
	var lines []string
	for line := range slices.Chunk([]byte(fp), 32) {
		var groups []string
		for g := range slices.Chunk(line, 4) {
			groups = append(groups, string(g))
		}
		lines = append(lines, strings.Join(groups, " "))
	}
	return strings.Join(lines, "\n")
}

func proved(yes string) string {
	if yes == "yes" {
		return "yes: the device has signed with the key"
	}
	return "no: the device has not shown that it holds the key; compare the fingerprint with what it shows"
}

func linkCommand(a *app) *cobra.Command {
	one := linkView
	one.key = ""
	return a.group(
		help{use: "link", short: "Let devices in that have asked for a code", example: "coven-admin link"},
		listing{path: "/api/admin/link", view: linkView},
		a.request(request{
			help: help{
				use: "approve CODE", short: "Let a device in", example: "coven-admin link approve $CODE",
				long: "Let a device in. Compare the fingerprint that link shows with the one on the device before.",
			},
			method: http.MethodPost, path: "/api/admin/link/{0}/approve", view: one,
			flags: func(f *pflag.FlagSet) func([]string) (any, error) {
				known := f.Bool("known", false, "although its key is somebody's already: the device will speak for that principal")
				return func([]string) (any, error) { return object{"known": *known}, nil }
			},
		}),
		a.request(request{
			help:   help{use: "deny CODE", short: "Refuse a device", example: "coven-admin link deny $OTHER_CODE"},
			method: http.MethodPost, path: "/api/admin/link/{0}/deny", said: "denied",
		}),
	)
}
