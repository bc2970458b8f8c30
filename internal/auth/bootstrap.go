package auth

import (
	"context"

	"coven-gateway/internal/fault"
)

// RenewOwner issues a token for the oldest owner, for whoever holds the gateway's own machine.
func (s *Service) RenewOwner(ctx context.Context) (Principal, string, error) {
	var p Principal
	var shown string
	err := s.change(With(ctx, local), func(c *change) (err error) {
		if p, err = c.FirstOwner(); err != nil {
			return err
		}
		shown, _, err = c.issue(TokenRequest{PrincipalID: p.ID, Life: StandardLife, Name: "renewed"})
		return err
	})
	return p, shown, err
}

// local is whoever runs a command on the gateway's own machine, with its data in their hands.
var local = Principal{ID: "local", Name: "local", Roles: []Role{Owner}}

// Bootstrap makes the first principal, an owner, and its token. A Conflict fault says that there
// are principals already.
func (s *Service) Bootstrap(ctx context.Context, name string) (Principal, string, error) {
	name, err := checkName(name)
	if err != nil {
		return Principal{}, "", err
	}
	var p Principal
	var shown string
	err = s.change(With(ctx, local), func(c *change) error {
		if n, err := c.CountPrincipals(); err != nil || n > 0 {
			if err == nil {
				err = fault.New(fault.Conflict, "bootstrap already complete: %d principal(s) exist", n)
			}
			return err
		}
		var err error
		if p, err = c.create(Client, name, Key{}, []Role{Owner}); err != nil {
			return err
		}
		shown, _, err = c.issue(TokenRequest{PrincipalID: p.ID, Life: StandardLife, Name: "bootstrap"})
		return err
	})
	return p, shown, err
}
