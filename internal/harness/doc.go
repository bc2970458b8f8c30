// Package harness puts load on a gateway and breaks things, from outside: it speaks the wire protocols to a
// process, as agents and clients do, and compares what they saw with the log. `coven-gateway bench`,
// `coven-gateway chaos` and the tests of package gatewaytest that need a process of their own use it.
package harness
