// Package coven is the wire protocol of coven: the messages and services that
// agents, packs, clients and operators use to talk to the gateway over gRPC.
//
// All code in it is generated from proto/coven-proto/coven.proto, where the
// comments say who sends each message and when; `make proto` regenerates it.
package coven
