package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"coven-gateway/internal/fault"
)

// Limits of secrets.
const (
	MaxSecretName  = 256      // bytes
	MaxSecretValue = 64 << 10 // bytes
	maxSecrets     = 1000
	// maxDelivered bounds what one agent gets, in bytes: a Welcome must fit into what agents decode.
	maxDelivered = 2 << 20
	maxAgentID   = 200 // bytes
)

// A Secret is a stored secret, sealed.
type Secret struct {
	ID        string
	Name      string // of the environment variable
	AgentID   string // "" for all agents
	Sealed    []byte
	CreatedAt time.Time
	CreatedBy string
	UpdatedAt time.Time
	UpdatedBy string
}

// label is what a sealed value is bound to: it cannot be moved to another name or agent.
func (x Secret) label() string { return x.Name + "\x00" + x.AgentID }

// Agents set secrets as environment variables. These names change which code runs or where it
// looks for more of it, so that a secret could take over the agent's machine.
var (
	deniedNames = []string{
		"PATH", "HOME", "SHELL", "USER", "LOGNAME", "PWD", "IFS", "ENV", "BASH_ENV", "PS4", "PROMPT_COMMAND", "CDPATH", "TMPDIR",
		"NODE_OPTIONS", "NODE_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PERL5LIB", "PERL5OPT", "RUBYLIB", "RUBYOPT",
		"CLASSPATH", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "GCONV_PATH", "LOCPATH", "HOSTALIASES", "RESOLV_HOST_CONF",
		"EDITOR", "VISUAL", "PAGER", "BROWSER", "LESSOPEN", "LESSCLOSE", "RUSTC_WRAPPER", "CARGO_BUILD_RUSTC_WRAPPER", "GOFLAGS", "GOROOT", "MAKEFLAGS",
	}
	deniedPrefixes = []string{"LD_", "DYLD_", "GIT_", "SSH_", "BASH_FUNC_", "COVEN_", "MALLOC_", "GLIBC_", "XDG_"}
)

// CheckSecret checks the name and value of a secret. Its faults are Invalid.
func CheckSecret(name, value string) error {
	if name == "" || value == "" {
		return fault.New(fault.Invalid, "Key and value are required")
	}
	if err := checkSecretName(name); err != nil {
		return err
	}
	switch {
	case len(value) > MaxSecretValue:
		return fault.New(fault.Invalid, "Value exceeds maximum length (64KB)")
	case strings.ContainsRune(value, 0):
		return fault.New(fault.Invalid, "the value must not contain a NUL byte")
	}
	return nil
}

func checkSecretName(name string) error {
	first := name != "" && name[0] >= '0' && name[0] <= '9'
	allowed := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
	}
	if name == "" || first || len(name) > MaxSecretName || strings.ContainsFunc(name, func(r rune) bool { return !allowed(r) }) {
		return fault.New(fault.Invalid, "Key must be a valid environment variable name (letters, digits and _, not beginning with a digit, at most %d)", MaxSecretName)
	}
	upper := strings.ToUpper(name)
	if slices.Contains(deniedNames, upper) || slices.ContainsFunc(deniedPrefixes, func(p string) bool { return strings.HasPrefix(upper, p) }) {
		return fault.New(fault.Invalid, "%s must not be a secret: it changes which programs an agent's machine runs", name)
	}
	return nil
}

// Seal returns a secret with a value, as it is stored.
func (s *Service) Seal(x Secret, value string) Secret {
	x.Sealed = s.opts.SecretsKeys.seal(value, x.label())
	return x
}

// Secrets lists the stored secrets, still sealed.
func (s *Service) Secrets(ctx context.Context) ([]Secret, error) {
	return s.store.Read(ctx).Secrets()
}

// SetSecret stores a secret for one agent, or with agentID "" for all of them. Agents get it when
// they next connect.
func (s *Service) SetSecret(ctx context.Context, agentID, name, value string) (Secret, error) {
	if err := CheckSecret(name, value); err != nil {
		return Secret{}, err
	}
	if len(agentID) > maxAgentID {
		return Secret{}, fault.New(fault.Invalid, "agent_id must not be longer than %d bytes", maxAgentID)
	}
	x := Secret{ID: uuid.NewString(), Name: name, AgentID: agentID}
	err := s.change(ctx, func(c *change) error {
		all, err := c.Secrets()
		if err != nil {
			return err
		}
		action := "create_secret"
		if i := slices.IndexFunc(all, func(y Secret) bool { return y.label() == x.label() }); i >= 0 {
			action, x.ID, x.CreatedAt, x.CreatedBy = "update_secret", all[i].ID, all[i].CreatedAt, all[i].CreatedBy
		} else if len(all) >= maxSecrets {
			return fault.New(fault.Conflict, "there must not be more than %d secrets", maxSecrets)
		} else {
			x.CreatedAt, x.CreatedBy = c.now, c.actor.ID
		}
		x.Sealed, x.UpdatedAt, x.UpdatedBy = s.opts.SecretsKeys.seal(value, x.label()), c.now, c.actor.ID
		if err := c.PutSecret(x); err != nil {
			return err
		}
		return c.audit(action, "secret", x.ID, map[string]any{"name": name, "agent_id": agentID})
	})
	return x, err
}

// DeleteSecret removes a secret.
func (s *Service) DeleteSecret(ctx context.Context, id string) error {
	return s.change(ctx, func(c *change) error {
		x, err := c.Secret(id)
		if err != nil {
			return err
		}
		if err := c.DeleteSecret(id); err != nil {
			return err
		}
		return c.audit("delete_secret", "secret", id, map[string]any{"name": x.Name, "agent_id": x.AgentID})
	})
}

// ReadSecret returns the value of a secret. That somebody has read it is in the audit log first.
func (s *Service) ReadSecret(ctx context.Context, id string) (value string, err error) {
	err = s.change(ctx, func(c *change) error {
		x, err := c.Secret(id)
		if err != nil {
			return err
		}
		if value, err = s.opts.SecretsKeys.open(x.Sealed, x.label()); err != nil {
			return err
		}
		return c.audit("read_secret", "secret", id, map[string]any{"name": x.Name, "agent_id": x.AgentID})
	})
	if err != nil {
		return "", err
	}
	return value, nil
}

// SharedSecret returns the value of the secret of all agents that has a name, for a use by the gateway
// itself, or a NotFound fault.
func (s *Service) SharedSecret(ctx context.Context, name string) (string, error) {
	all, err := s.store.Read(ctx).Secrets()
	if err != nil {
		return "", err
	}
	for _, x := range all {
		if x.Name == name && x.AgentID == "" {
			return s.opts.SecretsKeys.open(x.Sealed, x.label())
		}
	}
	return "", fault.New(fault.NotFound, "no secret %q of all agents", name)
}

// secretsOf returns what an agent gets: the secrets of all agents, and over them its own.
func (s *Service) secretsOf(read Reader, agentID string) (map[string]string, error) {
	all, err := read.Secrets()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	values, size := make(map[string]string), 0
	for _, own := range []string{"", agentID} {
		for _, x := range all {
			if x.AgentID != own || checkSecretName(x.Name) != nil {
				continue
			}
			v, err := s.opts.SecretsKeys.open(x.Sealed, x.label())
			if err != nil {
				return nil, fmt.Errorf("secret %s of agent %q: %w", x.Name, x.AgentID, err)
			}
			size += len(x.Name) + len(v)
			values[x.Name] = v
		}
		if agentID == "" {
			break
		}
	}
	if size > maxDelivered {
		return nil, fault.New(fault.TooLarge, "the secrets of agent %q have more than %d bytes", agentID, maxDelivered)
	}
	return values, nil
}

// RotateSecrets makes a new key, seals every secret with it, or with one that is newer still, and
// forgets the old ones. Where the key comes from outside it seals them with that one.
func (s *Service) RotateSecrets(ctx context.Context) (n int, err error) {
	keys := s.opts.SecretsKeys
	key, err := keys.Add()
	if err != nil {
		return 0, err
	}
	err = s.change(ctx, func(c *change) error {
		all, err := c.Secrets()
		if err != nil {
			return err
		}
		for _, x := range all {
			v, err := keys.open(x.Sealed, x.label())
			if err != nil {
				return fmt.Errorf("secret %s of agent %q: %w", x.Name, x.AgentID, err)
			}
			x.Sealed = keys.seal(v, x.label())
			if err := c.PutSecret(x); err != nil {
				return err
			}
		}
		n = len(all)
		return c.audit("rotate_secrets", "secrets", "", map[string]any{"count": n})
	})
	if err != nil {
		return 0, err // the old keys are still there
	}
	return n, keys.Forget(key)
}

// CheckSecrets reports whether every stored secret can be opened: an operator hears of a lost key
// at the start and not from agents.
func (s *Service) CheckSecrets(ctx context.Context) error {
	all, err := s.store.Read(ctx).Secrets()
	for _, x := range all {
		if _, e := s.opts.SecretsKeys.open(x.Sealed, x.label()); e != nil {
			err = errors.Join(err, fmt.Errorf("secret %s of agent %q: %w", x.Name, x.AgentID, e))
		}
	}
	return err
}
