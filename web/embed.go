// Package web holds the pages of the gateway. They are clients of the public HTTP API and nothing
// else.
package web

import "embed"

// Chat is the page to talk to the agents.
//
//go:embed chat
var Chat embed.FS
