// Package web holds the pages of the gateway. They are clients of the public HTTP API and nothing
// else.
package web

import "embed"

//go:generate go -C build run .

// Dist is the bundle of web/src: index.html, and files whose names have a hash of their content, each
// also as name.gz and name.br.
//
//go:embed dist
var Dist embed.FS
