package api_test

import (
	"testing"
	"time"

	"coven-gateway/internal/config"
	"coven-gateway/internal/gatewaytest"
)

// TestGatewayState: administrators see how the gateway is, and its configuration with where that is from.
func TestGatewayState(t *testing.T) {
	gw := gatewaytest.New(t, func(c *config.Config) { c.Limits.Attachments = 7 })
	var state struct {
		Version   string
		StartedAt time.Time `json:"started_at"`
		Ready     bool
		Settings  []struct {
			Key, Value, Origin string
			Default, Secret    bool
		}
	}
	get(t, gw, "/api/admin/gateway", &state)
	if !state.Ready || time.Since(state.StartedAt) > time.Hour {
		t.Errorf("the gateway is %+v", state)
	}
	seen := 0
	for _, s := range state.Settings {
		if s.Key == "limits.attachments" {
			if seen++; s.Value != "7" || s.Secret || s.Origin != "default" {
				t.Errorf("%+v", s)
			}
		}
	}
	if seen != 1 {
		t.Errorf("the settings are %+v", state.Settings)
	}
}
