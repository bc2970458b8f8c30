package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"coven-gateway/internal/gatewaytest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"coven-admin": main})
}

// TestScripts runs the command against a real gateway with an agent that echoes.
func TestScripts(t *testing.T) {
	gw := gatewaytest.New(t)
	a := gw.Agent("echo")
	go func() {
		for m := a.Next(); m != nil; m = a.Next() {
			s := m.GetSendMessage()
			switch {
			case s == nil:
			case s.Content == "fail":
				a.Fail(s.RequestId, "no model")
			default:
				a.Text(s.RequestId, "you said ", s.Content)
				a.Done(s.RequestId, "")
			}
		}
	}()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("COVEN_GATEWAY_HTTP", gw.URL)
			return nil
		},
	})
}
