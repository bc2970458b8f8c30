// Package contract holds the promises of the gateway that no single package can
// keep on its own: the wire protocol, who may import whom, and how packages are
// documented. It consists of tests.
package contract
