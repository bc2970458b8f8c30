package auth_test

import (
	"context"
	"flag"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// A model is what the service should know.
type model struct {
	r       *rig
	who     map[string]*person
	deleted []string
	records int
}

type person struct {
	status   auth.Status
	roles    map[auth.Role]bool
	able     map[string]bool // capabilities
	keys     map[string]key  // by fingerprint
	tokens   map[string]bool // by id: whether it is good
	loginKey string
}

func (p *person) rank() (n int) {
	for r := range p.roles {
		n = max(n, ranks[r])
	}
	return n
}

func (m *model) owners() (n int) {
	for _, p := range m.who {
		if p.status == auth.Approved && p.roles[auth.Owner] {
			n++
		}
	}
	return n
}

func newPerson(status auth.Status, roles ...auth.Role) *person {
	p := &person{status: status, roles: map[auth.Role]bool{}, able: map[string]bool{}, keys: map[string]key{}, tokens: map[string]bool{}}
	for _, r := range roles {
		p.roles[r] = true
	}
	return p
}

func (p *person) give(k key) {
	p.keys[k.fingerprint()] = k
	if p.loginKey == "" {
		p.loginKey = k.fingerprint()
	}
}

func (m *model) pick(t *rapid.T, label string) string {
	return rapid.SampledFrom(slices.Concat(slices.Sorted(maps.Keys(m.who)), m.deleted)).Draw(t, label)
}

// act lets somebody do something to somebody. want is whether it should succeed, once the actor may
// call and is an admin of no lower rank than the other; done notes what has changed then and
// returns the number of audit records it makes.
func (m *model) act(t *rapid.T, route string, do func(ctx context.Context, id string) error, want func(actor, target *person, self bool) bool, done func(actor, target *person, id string) int) {
	actorID, id := m.pick(t, "actor"), m.pick(t, "target")
	actor, target := m.who[actorID], m.who[id]
	if actor == nil {
		return // cannot call
	}
	k, ok := actor.keys[actor.loginKey]
	if !ok {
		return
	}
	caller, err := m.r.prove(k.proof(time.Now()), 1)
	if (err == nil) != (actor.status == auth.Approved) {
		t.Fatalf("a principal that is %s logs in: %v", actor.status, err)
	}
	if err != nil {
		return
	}
	if err := auth.Routes[route].Allow(caller); err != nil {
		if actor.rank() >= 2 {
			t.Fatal(err)
		}
		return
	}
	if actor.rank() < 2 {
		t.Fatalf("somebody with %v may %s", actor.roles, route)
	}
	ctx, leave, err := m.r.Enter(context.Background(), caller)
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	err = do(ctx, id)
	should := target != nil && target.rank() <= actor.rank() && want(actor, target, actorID == id)
	if (err == nil) != should {
		t.Fatalf("%s of %s %+v by %s %+v: want success %t, got %v", route, id, target, actorID, actor, should, err)
	}
	if err == nil {
		m.records += done(actor, target, id)
	} else if fault.CodeOf(err) == fault.Internal {
		t.Fatal(err)
	}
}

func always(*person, *person, bool) bool { return true }

func (m *model) check(t *rapid.T) {
	if m.owners() == 0 {
		t.Fatal("there is no owner")
	}
	ps, err := m.r.Principals(system, auth.PrincipalFilter{Limit: auth.MaxPage})
	if err != nil || len(ps) != len(m.who) {
		t.Fatalf("%d principals, want %d (%v)", len(ps), len(m.who), err)
	}
	for _, p := range ps {
		want := m.who[p.ID]
		has := map[auth.Role]bool{}
		for _, r := range p.Roles {
			has[r] = true
		}
		if want == nil || p.Status != want.status || !maps.Equal(has, want.roles) || !slices.Equal(p.Capabilities, slices.Sorted(maps.Keys(want.able))) {
			t.Fatalf("got %+v, want %+v", p, want)
		}
	}
	if n := m.r.count(); n != m.records {
		t.Fatalf("%d audit records, want %d: %s", n, m.records, m.r.actions(""))
	}
}

func TestModel(t *testing.T) {
	t.Parallel()
	if !flag.Parsed() || flag.Lookup("rapid.checks").Value.String() == "100" { // the standard: each opens a database
		must(t, flag.Set("rapid.checks", "25"))
	}
	rapid.Check(t, func(t2 *rapid.T) {
		r := &rig{t: t, dir: t.TempDir()}
		r.options = rigOptions(t, r)
		r.options.AutoRegistration = auth.RegisterPending
		r.start()
		defer r.stop()
		m := &model{r: r, who: map[string]*person{}}
		for i, role := range []auth.Role{auth.Owner, auth.Owner, auth.Admin, auth.Admin, auth.Member} {
			p, k := r.keyed("p", role)
			m.who[p.ID] = newPerson(auth.Approved, role)
			m.who[p.ID].give(k)
			m.records = i + 1
		}
		roles := rapid.SampledFrom([]auth.Role{auth.Owner, auth.Admin, auth.Member, auth.Leader})
		t2.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"create": func(t *rapid.T) {
				role, k := roles.Draw(t, "role"), newKey(r.t)
				var made auth.Principal
				var actorRank int
				m.act(t, "POST /api/admin/principals", func(ctx context.Context, id string) (err error) {
					if m.who[id] == nil { // the target plays no part but that the model wants one
						return fault.New(fault.NotFound, "")
					}
					caller, _ := auth.From(ctx)
					if actorRank = m.who[caller.ID].rank(); m.who[id].rank() > actorRank {
						return fault.New(fault.Forbidden, "")
					}
					made, err = r.CreatePrincipal(ctx, auth.NewPrincipal{Kind: auth.Agent, Name: "new", PublicKey: k.line(), Roles: []auth.Role{role}})
					return err
				}, func(actor, _ *person, _ bool) bool { return ranks[role] <= actor.rank() }, func(actor, _ *person, _ string) int {
					m.who[made.ID] = newPerson(auth.Approved, role)
					m.who[made.ID].give(k)
					return 1
				})
			},
			"register": func(t *rapid.T) {
				k := newKey(r.t)
				_, err := r.Authenticate(context.Background(), auth.Credentials{Proof: k.proof(time.Now()), Address: k.fingerprint()})
				if fault.CodeOf(err) != fault.Forbidden {
					t.Fatal(err)
				}
				p, err := r.db.Identity().Read(context.Background()).PrincipalByKey(k.fingerprint())
				if err != nil {
					t.Fatal(err)
				}
				m.who[p.ID] = newPerson(auth.Pending)
				m.who[p.ID].give(k)
				m.records++
			},
			"approve": func(t *rapid.T) {
				m.act(t, "POST /api/admin/principals/{id}/approve", r.Approve, always, func(_, p *person, _ string) (n int) {
					if p.status == auth.Approved {
						return 0
					}
					n = 1
					if p.status == auth.Pending && len(p.roles) == 0 {
						p.roles[auth.Member], n = true, 2
					}
					p.status = auth.Approved
					return n
				})
			},
			"revoke": func(t *rapid.T) {
				m.act(t, "POST /api/admin/principals/{id}/revoke", r.Revoke, func(_, p *person, self bool) bool {
					return p.status == auth.Revoked || !self
				}, func(_, p *person, _ string) int {
					if p.status == auth.Revoked {
						return 0
					}
					p.status = auth.Revoked
					return 1
				})
			},
			"delete": func(t *rapid.T) {
				m.act(t, "DELETE /api/admin/principals/{id}", r.Delete, func(_, _ *person, self bool) bool { return !self }, func(_, _ *person, id string) int {
					delete(m.who, id)
					m.deleted = append(m.deleted, id)
					return 1
				})
			},
			"role": func(t *rapid.T) {
				role, granted := roles.Draw(t, "role"), rapid.Bool().Draw(t, "granted")
				m.act(t, "PUT /api/admin/principals/{id}/roles/{role}", func(ctx context.Context, id string) error { return r.SetRole(ctx, id, role, granted) },
					func(actor, p *person, _ bool) bool {
						last := role == auth.Owner && !granted && p.roles[role] && m.owners() == 1 && p.status == auth.Approved
						return ranks[role] <= actor.rank() && !last
					}, func(actor, p *person, _ string) int {
						if ranks[role] > actor.rank() {
							t.Fatal("granted by somebody of lower rank")
						}
						if p.roles[role] == granted {
							return 0
						}
						if delete(p.roles, role); granted {
							p.roles[role] = true
						}
						return 1
					})
			},
			"capability": func(t *rapid.T) {
				granted := rapid.Bool().Draw(t, "granted")
				m.act(t, "PUT /api/admin/principals/{id}/capabilities/{capability}", func(ctx context.Context, id string) error { return r.SetCapability(ctx, id, "mail", granted) },
					always, func(_, p *person, _ string) int {
						if p.able["mail"] == granted {
							return 0
						}
						if delete(p.able, "mail"); granted {
							p.able["mail"] = true
						}
						return 1
					})
			},
			"token": func(t *rapid.T) {
				var made auth.Token
				m.act(t, "POST /api/admin/tokens", func(ctx context.Context, id string) (err error) {
					_, made, err = r.CreateToken(ctx, auth.TokenRequest{PrincipalID: id})
					return err
				}, func(_, p *person, _ bool) bool { return p.status == auth.Approved }, func(_, p *person, _ string) int {
					p.tokens[made.ID] = true
					return 1
				})
			},
			"revoke token": func(t *rapid.T) {
				var of string
				m.act(t, "DELETE /api/admin/tokens/{id}", func(ctx context.Context, id string) error {
					if of = "none"; m.who[id] != nil && len(m.who[id].tokens) > 0 {
						of = slices.Min(slices.Collect(maps.Keys(m.who[id].tokens)))
					}
					return r.RevokeToken(ctx, of)
				}, func(_, p *person, _ bool) bool { return len(p.tokens) > 0 }, func(_, p *person, _ string) int {
					if !p.tokens[of] {
						return 0
					}
					p.tokens[of] = false
					return 1
				})
			},
			"add key": func(t *rapid.T) {
				k := newKey(r.t)
				m.act(t, "POST /api/admin/principals/{id}/keys", func(ctx context.Context, id string) error {
					_, err := r.AddKey(ctx, id, k.line(), "")
					return err
				}, func(_, p *person, _ bool) bool { return len(p.keys) < auth.MaxKeys }, func(_, p *person, _ string) int { p.give(k); return 1 })
			},
			"remove key": func(t *rapid.T) {
				gone := vectorFingerprint
				m.act(t, "DELETE /api/admin/principals/{id}/keys/{fingerprint}", func(ctx context.Context, id string) error {
					if p := m.who[id]; p != nil && len(p.keys) > 1 {
						gone = slices.Min(slices.Collect(maps.Keys(p.keys)))
					}
					return r.RemoveKey(ctx, id, gone)
				}, func(_, p *person, _ bool) bool { return len(p.keys) > 1 }, func(_, p *person, _ string) int {
					if delete(p.keys, gone); p.loginKey == gone {
						p.loginKey = slices.Min(slices.Collect(maps.Keys(p.keys)))
					}
					return 1
				})
			},
		})
		if v := r.verified(); !v.OK || v.Records != int64(m.records) || v.Signed != v.Records {
			t2.Fatalf("%+v, want %d records", v, m.records)
		}
	})
}
