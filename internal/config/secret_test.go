package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func TestSecretIsNeverShown(t *testing.T) {
	c := defaults()
	c.Auth.JWTSecrets, c.Auth.SecretsKey, c.Tailscale.AuthKey = []Secret{"hunter2", "hunter2"}, "hunter2", "hunter2"
	shown := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%o", "%t"} {
		shown["config as "+verb] = fmt.Sprintf(verb, c)
		shown["pointer as "+verb] = fmt.Sprintf(verb, &c)
		shown["secret as "+verb] = fmt.Sprintf(verb, c.Auth.SecretsKey)
		shown["secrets as "+verb] = fmt.Sprintf(verb, c.Auth.JWTSecrets)
	}
	for name, encode := range map[string]func(any) ([]byte, error){"JSON": json.Marshal, "YAML": yaml.Marshal} {
		b, err := encode(c)
		if err != nil {
			t.Fatal(err)
		}
		shown["config in "+name] = string(b)
	}
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"text log": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"JSON log": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(handler(&b)).Info("x", "secret", c.Auth.SecretsKey, "secrets", c.Auth.JWTSecrets, "auth", c.Auth)
		shown[name] = b.String()
	}
	for where, s := range shown {
		if strings.Contains(s, "hunter2") || strings.Contains(strings.ToLower(s), fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("%s shows the secret: %s", where, s)
		}
		if !strings.Contains(s, "[redacted]") && !strings.HasPrefix(where, "pointer") {
			t.Errorf("%s does not say that there is one: %s", where, s)
		}
	}
	if got := c.Auth.SecretsKey.Reveal(); got != "hunter2" {
		t.Errorf("Reveal() = %q", got)
	}
}

func TestEmptySecretStaysEmpty(t *testing.T) {
	var s Secret
	b, err := json.Marshal(s)
	if got := fmt.Sprintf("%v|%s|%#v|%s|%s", s, s.String(), s, b, s.LogValue()); err != nil || got != `||config.Secret("")|""|` {
		t.Errorf("got %s, %v", got, err)
	}
}
