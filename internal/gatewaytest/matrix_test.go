package gatewaytest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	oldreflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/packs"
	"coven-gateway/internal/upstream"
	pb "coven-gateway/proto/coven"
)

// TestMatrix makes every call that the authorization tables name, over the wire, as every kind of
// caller and on objects of its own and of others, and compares what happens with what the tables
// say. Whatever is in neither table is refused to everybody.
//
// The rules are said here a second time, on purpose: whoever changes who may do what says so twice.
func TestMatrix(t *testing.T) {
	m := newMatrix(t)
	m.complete()
	for _, method := range slices.Sorted(maps.Keys(rpcs)) {
		e := rpcs[method]
		m.entry(method, e.rule, e.narrow, false, func(x *trial) outcome { return x.invoke(method, e) })
	}
	for _, pattern := range slices.Sorted(maps.Keys(routes)) {
		e := routes[pattern]
		m.entry(pattern, e.rule, e.narrow, e.named, func(x *trial) outcome { return x.route(pattern, e.request(x)) })
	}
	m.nothingElse()
	t.Logf("%d calls, %d refused, %d surprises", m.calls, m.refused, m.surprises)
}

// An outcome is what became of a call. Words that are not listed here tell what else happened.
type outcome string

const (
	allowed         outcome = "allowed"
	unauthenticated outcome = "unauthenticated"
	forbidden       outcome = "forbidden"
	hidden          outcome = "hidden"   // as if there were no such object
	unbuilt         outcome = "unbuilt"  // the caller came through, but nobody has written the method yet
	unserved        outcome = "unserved" // there is no such call, for nobody
)

// A relation is whose object a call acts on.
type relation string

// The relations to the turns of a conversation, and to principals.
const (
	nobodys relation = ""
	mine    relation = "own"
	others  relation = "another's with the same agent"
	agents  relation = "another's with an agent of the caller"
	devices relation = "another's with an agent whose key the caller has registered"
	lower   relation = "lower rank"
	equal   relation = "equal rank"
	higher  relation = "higher rank"
)

// A caller is one kind of caller.
type caller struct {
	name string
	auth.Principal
	token    string // what it shows; "" for nothing
	stranger bool   // nobody the gateway knows
	scope    auth.Scope
	objects  map[relation]object
	agentIDs map[relation]string
}

func (c *caller) is(roles ...auth.Role) bool {
	return slices.ContainsFunc(c.Roles, func(r auth.Role) bool { return slices.Contains(roles, r) })
}

// An object is a turn, and what belongs to it.
type object struct {
	agent, turn, thread, file string
	mark                      string // is in everything that shows it
}

// matrix is a gateway with callers and their objects.
type matrix struct {
	t                         *testing.T
	g                         *Gateway
	conn                      *grpc.ClientConn
	callers                   []*caller
	other                     auth.Principal  // begins the turns that are not the caller's
	commons                   string          // an agent that everybody talks to
	signer                    *authenticator  // of a person
	program                   string          // that people grant rights to
	made                      map[string]bool // people to act on, and who has invited them
	n                         int
	spared                    map[string]string // what refused calls act on
	calls, refused, surprises int
}

func newMatrix(t *testing.T) *matrix {
	g := New(t, Locked, func(c *config.Config) {
		c.Database.Synchronous = config.Normal
		c.Auth.AgentAutoRegistration = config.Pending
		c.Limits.RequestsPerSecond, c.Limits.AddressRequestsPerSecond = 0, 0 // limits would hide refusals
	})
	m := &matrix{t: t, g: g, conn: g.Dial(), commons: "commons", spared: map[string]string{}, made: map[string]bool{}}
	m.other, _ = g.Principal("other", auth.Member)
	m.signer = g.signer("matrix", "an owner of matrices")
	m.program, _, _ = g.oauthClient("matrix")
	_, host := g.Principal("host", auth.Member)
	m.agent(Bearer(host), m.commons)

	add := func(name string, scope auth.Scope, roles ...auth.Role) *caller {
		p, token := g.Principal(name, roles...)
		c := &caller{name: name, Principal: p, token: token, scope: scope, objects: map[relation]object{}, agentIDs: map[relation]string{}}
		m.callers = append(m.callers, c)
		for rel, key := range map[relation]Key{agents: {}, devices: NewKey(t)} {
			if scope != "" {
				break // an admin's relations make no difference
			}
			ctx := Bearer(token)
			if key.t != nil {
				member := p // it has lost that role since
				member.Roles = append(slices.Clone(p.Roles), auth.Member)
				if _, err := g.Identity().RegisterKey(auth.With(context.Background(), member), auth.Agent, fmt.Sprintf("device-%d", m.next()), key.Fingerprint()); err != nil {
					t.Fatal(err)
				}
				ctx = key.Sign()
			}
			id := fmt.Sprintf("agent-%d", m.next())
			m.agent(ctx, id)
			c.agentIDs[rel] = id
		}
		c.agentIDs[mine], c.agentIDs[others] = m.commons, m.commons
		for rel := range c.agentIDs {
			c.objects[rel] = m.begin(c, rel, false)
		}
		if scope != "" {
			var err error
			if c.token, _, err = g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: p.ID, Scopes: []auth.Scope{scope}, API: true}); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	add("no role", "")
	add("member", "", auth.Member)
	add("leader", "", auth.Leader)
	add("admin", "", auth.Admin)
	add("owner", "", auth.Owner)
	for _, s := range []auth.Scope{auth.ScopeRead, auth.ScopeSend, auth.ScopeConnect, auth.ScopeDevices, auth.ScopeAdmin} {
		add("admin's token to "+string(s), s, auth.Admin)
	}
	revoked := add("revoked", "", auth.Owner)
	if err := g.Identity().Revoke(Ctx(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	revoked.Status = auth.Revoked

	// One that waits has never had a token; one that another program has signed is as good.
	key := NewKey(t)
	_, err := pb.NewClientServiceClient(m.conn).GetMe(key.Sign(), &emptypb.Empty{})
	refused(t, err, codes.PermissionDenied, "agent registered with pending status")
	all, err := g.Identity().Principals(Ctx(), auth.PrincipalFilter{Status: auth.Pending, Limit: 1})
	if err != nil || len(all) != 1 {
		t.Fatalf("%v %v", all, err)
	}
	m.callers = append(m.callers,
		&caller{name: "pending", Principal: all[0], token: signed(t, jwt.SigningMethodHS256, jwt.MapClaims{"sub": all[0].ID, "exp": time.Now().Add(time.Hour).Unix()})},
		&caller{name: "garbage", stranger: true, token: "garbage"},
		&caller{name: "no credentials", stranger: true},
	)
	return m
}

// signed makes a JWT with the secret of a gateway that is [Locked], as other programs do.
func signed(t *testing.T, method jwt.SigningMethod, claims jwt.MapClaims) string {
	t.Helper()
	key := any([]byte(JWTSecret))
	if method == jwt.SigningMethodNone {
		key = jwt.UnsafeAllowNoneSignatureType
	}
	s, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// next numbers what must be new.
func (m *matrix) next() int {
	m.n++
	return m.n
}

// Messages say what an agent does with them.
const (
	answerNow   = "answer "
	askForTools = "ask " // and wait
	tokensSpent = 777000 // reported for each turn
)

// agent connects an agent that does what it is told.
func (m *matrix) agent(ctx context.Context, id string) {
	a := m.g.ConnectAs(ctx, id, takesInjections)
	if a.next().GetWelcome() == nil {
		m.t.Fatalf("agent %s: %v", id, a.Err())
	}
	go func() {
		for msg := a.Next(); msg != nil; msg = a.Next() {
			s := msg.GetSendMessage()
			switch {
			case msg.GetInjectContext() != nil:
				a.Ack(msg.GetInjectContext(), true, "")
			case s == nil:
			case strings.HasPrefix(s.GetContent(), askForTools):
				a.Reply(&pb.MessageResponse{RequestId: s.RequestId, Event: &pb.MessageResponse_ToolApprovalRequest{
					ToolApprovalRequest: &pb.ToolApprovalRequest{Id: "tool of " + s.RequestId, Name: "tool", InputJson: "{}"},
				}})
			default:
				a.Reply(&pb.MessageResponse{RequestId: s.RequestId, Event: &pb.MessageResponse_Usage{Usage: &pb.TokenUsage{InputTokens: tokensSpent}}})
				a.Done(s.RequestId, s.Content)
			}
		}
	}()
}

// begin makes a turn that stands in a relation to a caller. A turn that is open waits for the
// approval of a tool.
func (m *matrix) begin(c *caller, rel relation, open bool) object {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	by := m.other
	if rel == mine {
		by = c.Principal
	}
	o := object{agent: c.agentIDs[rel], mark: fmt.Sprintf("mark-%d-", m.next())}
	text := answerNow
	if open {
		text = askForTools
	}
	s := m.g.Conversations()
	turn, err := s.Send(auth.With(ctx, by), conversation.SendRequest{
		AgentID: o.agent, Sender: "me", Text: text + o.mark, Files: []conversation.FileData{{Name: o.mark, Type: "text/plain", Data: []byte(o.mark)}},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	o.turn, o.thread = turn.ID, turn.ThreadID
	r, err := s.Reader(Ctx(), o.agent, conversation.Filter{TurnID: o.turn}, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer r.Close()
	for ready := false; !ready; {
		evs, err := r.Next(ctx)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, e := range evs {
			switch b := e.Body.(type) {
			case conversation.Message:
				o.file = b.Files[0].ID
			case conversation.Approval, conversation.Ended:
				ready = true
			}
		}
	}
	return o
}

// complete checks that the test, the tables and the gateway speak of the same calls.
func (m *matrix) complete() {
	for _, side := range []struct {
		what   string
		table  map[string]auth.Rule
		here   map[string]auth.Rule
		served []string
	}{
		{"RPC", auth.RPCs, rules(rpcs, func(e rpc) auth.Rule { return e.rule }), m.g.RPCs()},
		{"route", auth.Routes, rules(routes, func(e route) auth.Rule { return e.rule }), m.g.Routes()},
	} {
		for name, rule := range side.table {
			if here, ok := side.here[name]; !ok {
				m.t.Errorf("%s %s is in the authorization table and not in this test", side.what, name)
			} else if rule != here {
				m.t.Errorf("%s %s has the rule %+v, this test knows %+v", side.what, name, rule, here)
			}
			if !slices.Contains(side.served, name) && !slices.Contains(notServed, name) {
				m.t.Errorf("%s %s is in the authorization table and nobody serves it", side.what, name)
			}
		}
		for name := range side.here {
			if _, ok := side.table[name]; !ok {
				m.t.Errorf("%s %s is in this test and not in the authorization table", side.what, name)
			}
		}
		for _, name := range side.served {
			if _, ok := side.here[name]; !ok {
				m.t.Errorf("%s %s is served and not in this test", side.what, name)
			}
			if slices.Contains(notServed, name) {
				m.t.Errorf("%s %s is served, this test knows it as one that is not", side.what, name)
			}
		}
	}
}

func rules[E any](entries map[string]E, rule func(E) auth.Rule) map[string]auth.Rule {
	m := make(map[string]auth.Rule)
	for name, e := range entries {
		m[name] = rule(e)
	}
	return m
}

// want is what the rule of a call says about a caller and an object.
func (c *caller) want(r auth.Rule, rel relation) outcome {
	switch {
	case r.Level == auth.Anybody:
		return allowed
	case c.stranger:
		return unauthenticated
	case c.Status != auth.Approved:
		return forbidden
	case r.Level == auth.Members && !c.is(auth.Member, auth.Admin, auth.Owner):
		return forbidden
	case r.Level == auth.Admins && !c.is(auth.Admin, auth.Owner):
		return forbidden
	case r.Scope != "" && c.scope != "" && c.scope != r.Scope:
		return forbidden
	}
	switch {
	case rel == higher:
		return forbidden
	case r.Objects == auth.OwnAgents && !c.is(auth.Admin, auth.Owner) && (rel == others || rel == devices && len(c.Roles) == 0):
		return forbidden // that there is such an agent is no secret
	case rel == others && !c.is(auth.Admin, auth.Owner):
		return hidden
	case rel == devices && len(c.Roles) == 0: // the device is a member
		return hidden
	case r.Objects == auth.OwnAlone && (rel == agents || rel == devices) && !c.is(auth.Admin, auth.Owner):
		return forbidden
	}
	return allowed
}

// relations are those that a rule tells apart for a caller.
func (c *caller) relations(r auth.Rule) []relation {
	if r.Objects == auth.OwnAlone {
		r.Objects = auth.OwnOnly
	}
	switch {
	case r.Objects == auth.OwnAgents && (c.stranger || c.Status == auth.Pending || c.scope != ""):
		return []relation{others}
	case r.Objects == auth.OwnAgents:
		return []relation{others, agents, devices}
	case r.Objects == auth.OwnOnly && c.stranger || r.Objects == auth.OwnOnly && c.Status == auth.Pending:
		return []relation{others}
	case r.Objects == auth.OwnOnly && c.scope != "":
		return []relation{mine, others}
	case r.Objects == auth.OwnOnly:
		return []relation{mine, others, agents, devices}
	case r.Objects == auth.Managed && c.is(auth.Owner):
		return []relation{lower, equal}
	case r.Objects == auth.Managed && c.scope != "":
		return []relation{equal, higher}
	case r.Objects == auth.Managed:
		return []relation{lower, equal, higher}
	}
	return []relation{nobodys}
}

// entry makes a call as everybody and on everything. narrow says that no token with scopes is good
// for it, named that a refusal does not hide the object, because callers choose its id.
func (m *matrix) entry(name string, rule auth.Rule, narrow, named bool, call func(*trial) outcome) {
	var trials, refusals []*trial
	for _, c := range m.callers {
		anything := c.want(rule, nobodys) == allowed
		for _, rel := range c.relations(rule) {
			x := &trial{matrix: m, caller: c, rel: rel, want: c.want(rule, rel), sends: rule.Scope == auth.ScopeSend, harmless: !anything}
			switch {
			case slices.Contains(notServed, name):
				x.want = unserved
			case x.want == allowed && narrow && c.scope != "", x.want == hidden && named:
				x.want = forbidden
			}
			if x.want == allowed {
				trials = append(trials, x)
			} else {
				refusals = append(refusals, x)
			}
		}
	}
	before := m.last()
	for i, x := range slices.Concat(refusals, trials) {
		if i == len(refusals) {
			for _, r := range m.changes(before) {
				m.surprise("%s was refused, and something happened: %s %s by %s", name, r.Action, r.Target, r.Actor)
			}
		}
		got := call(x)
		throughAnyway := got == unbuilt && (x.want == allowed || x.want == hidden)
		if m.count(got); got != x.want && !throughAnyway {
			m.surprise("%s as %s on %s: %s, want %s", name, x.caller.name, cmp.Or(x.rel, "no object"), got, x.want)
		}
		if after := x.state(); after != x.before {
			m.surprise("%s as %s on %s was refused, and something happened: %s, before %s", name, x.caller.name, x.rel, after, x.before)
		}
	}
}

func (m *matrix) count(o outcome) {
	m.calls++
	if o != allowed && o != unbuilt {
		m.refused++
	}
}

func (m *matrix) surprise(format string, args ...any) {
	m.t.Helper()
	m.surprises++
	m.t.Errorf(format, args...)
}

// A trial is one call of one caller.
type trial struct {
	*matrix
	caller   *caller
	rel      relation
	want     outcome
	sends    bool   // the call may change a turn
	harmless bool   // the call is refused whatever it acts on, which can be used again
	used     object // the object, if the call acts on one
	before   string // its state
}

// again returns what another call was refused for, or makes it.
func (x *trial) again(what string, make func() string) string {
	if !x.harmless {
		return make()
	}
	what += " of " + fmt.Sprint(x.roles())
	if x.spared[what] == "" {
		x.spared[what] = make()
	}
	return x.spared[what]
}

// object is a turn that has ended.
func (x *trial) object() object {
	if x.used = x.caller.objects[x.rel]; x.used.turn == "" { // of somebody who has none
		x.used = x.callers[0].objects[others]
	}
	return x.used
}

// open is a turn that waits for the approval of a tool.
func (x *trial) open() object {
	if x.caller.objects[x.rel].turn == "" || x.caller.Status != auth.Approved {
		x.used = x.begin(x.callers[0], others, true)
	} else {
		x.used = x.begin(x.caller, x.rel, true)
	}
	return x.used
}

// question has the agent of an open turn ask people, until the turn ends.
func (x *trial) question(o object) (id string) {
	x.t.Helper()
	go func() {
		_, _ = x.g.Conversations().Ask(Ctx(), o.agent, o.turn, conversation.UserQuestion{
			Question: "may I?", Options: []conversation.Option{{Label: "yes"}, {Label: "no"}}, Timeout: time.Hour,
		})
	}()
	for { // it is recorded at once
		pending, err := x.g.Conversations().PendingQuestions(Ctx(), o.agent)
		if err != nil {
			x.t.Fatal(err)
		}
		for _, q := range pending {
			if q.TurnID == o.turn {
				return q.ID
			}
		}
		runtime.Gosched()
	}
}

// roles are those of the principal that is acted on.
func (x *trial) roles() []auth.Role {
	switch x.rel {
	case higher:
		return []auth.Role{auth.Owner}
	case equal:
		return x.caller.Roles
	}
	return []auth.Role{auth.Member}
}

// target is a principal to act on.
func (x *trial) target() string {
	x.t.Helper()
	return x.again("principal", func() string {
		id, _ := x.withKey()
		return id
	})
}

func (x *trial) withKey() (id string, key Key) {
	x.t.Helper()
	key = NewKey(x.t)
	p, err := x.g.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: auth.Client, Name: "target", PublicKey: key.Line(), Roles: x.roles()})
	if err != nil {
		x.t.Fatal(err)
	}
	return p.ID, key
}

// fresh returns a fingerprint that nobody has.
func fresh() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// code is a link code of a device that has proved that it holds a key.
func (x *trial) code(k Key) string {
	x.t.Helper()
	return x.again("code", func() string { return x.newCode(k) })
}

func (x *trial) newCode(k Key) string {
	x.t.Helper()
	l, err := x.g.Identity().RequestLink(context.Background(), auth.LinkRequest{
		Fingerprint: k.Fingerprint(), DeviceName: "device", Proof: k.Proof(time.Now()), Address: "192.0.2.1",
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return l.Code
}

// secret is the id of a stored secret.
func (x *trial) secret() string {
	x.t.Helper()
	return x.again("secret", func() string {
		s, err := x.g.Identity().SetSecret(Ctx(), "nobody", fmt.Sprintf("SECRET_%d", x.next()), "value")
		if err != nil {
			x.t.Fatal(err)
		}
		return s.ID
	})
}

// upstreamURL is where an MCP server is.
func (x *trial) upstreamURL() string {
	if x.spared["MCP"] == "" {
		x.spared["MCP"] = serveTools(x.t, "").URL
	}
	return x.spared["MCP"]
}

// upstream is the name of an MCP server with tools that nobody has accepted.
func (x *trial) upstream() string {
	x.t.Helper()
	return x.again("MCP server", func() string {
		name := fmt.Sprintf("m%d", x.next())
		if _, err := x.g.gw.Upstream().Add(Ctx(), upstream.Server{Name: name, URL: x.upstreamURL(), AllowPrivate: true}, false); err != nil {
			x.t.Fatal(err)
		}
		return name
	})
}

// role is the one that an object is about.
func (x *trial) role() auth.Role {
	if roles := x.roles(); len(roles) > 0 {
		return roles[0]
	}
	return auth.Member
}

// invite is an invite that nobody has used.
func (x *trial) invite(by context.Context) (id, token string) {
	x.t.Helper()
	token, i, err := x.g.Identity().CreateInvite(by, x.role(), "", 0)
	if err != nil {
		x.t.Fatal(err)
	}
	return i.ID, token
}

// binding is a binding to act on.
func (x *trial) binding() conversation.Binding {
	x.t.Helper()
	b, err := x.g.Conversations().Bind(Ctx(), conversation.Binding{Frontend: "slack", ChannelID: fmt.Sprint(x.next()), AgentID: x.commons})
	if err != nil {
		x.t.Fatal(err)
	}
	return b
}

// state is what a refused call must leave as it is of its object.
func (x *trial) state() string {
	x.t.Helper()
	if !x.sends || x.want == allowed || x.used.turn == "" {
		return ""
	}
	turn, err := x.g.Conversations().Turn(Ctx(), x.used.turn)
	if err != nil {
		x.t.Fatal(err)
	}
	thread, err := x.g.Conversations().Thread(Ctx(), x.used.thread)
	if err != nil {
		x.t.Fatal(err)
	}
	return fmt.Sprintf("the turn is %s, its thread has %d", turn.State, thread.Turns)
}

// last is the number of the last record of the audit log.
func (m *matrix) last() int64 {
	m.t.Helper()
	records, err := m.g.Identity().AuditRecords(Ctx(), auth.AuditFilter{Before: math.MaxInt64, Limit: 1})
	if err != nil {
		m.t.Fatal(err)
	}
	return records[0].Seq
}

// changes are the changes of rights that callers have made since a record of the audit log.
func (m *matrix) changes(since int64) []auth.AuditRecord {
	m.t.Helper()
	records, err := m.g.Identity().AuditRecords(Ctx(), auth.AuditFilter{After: since, Limit: 500})
	if err != nil || len(records) == 500 {
		m.t.Fatalf("%d records: %v", len(records), err)
	}
	return slices.DeleteFunc(records, func(r auth.AuditRecord) bool {
		return r.Actor == auth.Anonymous.ID || m.made[r.Actor] || r.Action == "login_failed" || r.Action == "adopt_token" // those are no changes of rights
	})
}

// invoke makes an RPC of any kind and waits for the first answer.
func (x *trial) invoke(method string, e rpc) outcome {
	x.t.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(method[1:], "/", ".")))
	if err != nil {
		x.t.Fatal(err)
	}
	md := d.(protoreflect.MethodDescriptor)
	answer, err := protoregistry.GlobalTypes.FindMessageByName(md.Output().FullName())
	if err != nil {
		x.t.Fatal(err)
	}
	req, resp := e.request(x), answer.New().Interface()
	x.before = x.state()
	ctx := context.Background()
	if x.caller.token != "" {
		ctx = Bearer(x.caller.token)
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	seen := func() bool { return e.sees == nil || e.sees(x, resp) }
	switch err := call(ctx, x.conn, method, md, req, resp, e.opens, seen); status.Code(err) {
	case codes.OK:
		if e.sees != nil && !e.sees(x, resp) {
			return hidden
		}
		return allowed
	case codes.Unauthenticated:
		return unauthenticated
	case codes.PermissionDenied:
		return forbidden
	case codes.NotFound:
		return hidden
	case codes.Unimplemented:
		if strings.HasPrefix(status.Convert(err).Message(), "unknown ") {
			return unserved
		}
		return unbuilt
	default:
		return outcome(err.Error())
	}
}

// silence is how long a stream that shows nothing may take to show more.
const silence = 500 * time.Millisecond

// call makes an RPC: one request, and of the answers the first one that shows what is looked for. A
// stream that is silent has none; where nothing but that the stream opens is of interest, its headers
// are enough.
func call(ctx context.Context, conn *grpc.ClientConn, method string, md protoreflect.MethodDescriptor, req, resp proto.Message, opens bool, seen func() bool) error {
	if !md.IsStreamingClient() && !md.IsStreamingServer() {
		return conn.Invoke(ctx, method, req, resp)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: md.IsStreamingClient(), ServerStreams: true}, method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(req); err != nil && !errors.Is(err, io.EOF) { // RecvMsg has the reason
		return err
	}
	if !md.IsStreamingClient() {
		if err := s.CloseSend(); err != nil {
			return err
		}
	}
	if opens {
		if h, err := s.Header(); h != nil || err != nil {
			return err
		}
	}
	if seen() { // whatever comes first
		return s.RecvMsg(resp)
	}
	late := time.AfterFunc(silence, cancel)
	defer late.Stop()
	for {
		if err := s.RecvMsg(resp); err != nil || seen() {
			if status.Code(err) == codes.Canceled {
				return nil
			}
			return err
		}
		late.Reset(silence)
	}
}

// A request is what the call of a route needs besides its pattern.
type request struct {
	path    string // instead of the pattern's
	body    string
	sees    string   // is in an answer that shows the object, where one that does not is no error
	endless bool     // the answer does not end
	header  []string // names and values
	cannot  bool     // whoever comes through is told that there is nothing to do: a conflict
}

// route makes a request to a route.
func (x *trial) route(pattern string, r request) outcome {
	x.t.Helper()
	x.before = x.state()
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		method, path = http.MethodGet, pattern
	}
	path = cmp.Or(r.path, path)
	got := x.http(method, path, r)
	head := slices.Contains([]string{"owner", "member", "no credentials"}, x.caller.name) // who is enough
	if head && method == http.MethodGet && (got != hidden || r.sees == "") {              // the same rule holds for HEAD
		r.sees, r.endless = "", false
		if head := x.http(http.MethodHead, path, r); head != got {
			x.surprise("HEAD %s as %s on %s: %s, and GET %s", path, x.caller.name, cmp.Or(x.rel, "no object"), head, got)
		}
	}
	return got
}

func (x *trial) http(method, path string, r request) outcome {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, x.g.URL+path, strings.NewReader(r.body))
	if err != nil {
		x.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	for i := 0; i < len(r.header); i += 2 {
		req.Header.Set(r.header[i], r.header[i+1])
	}
	if x.caller.token != "" && !strings.HasPrefix(path, "/mcp/") { // there it is in the path
		req.Header.Set("Authorization", "Bearer "+x.caller.token)
	}
	resp, err := x.g.Client.Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	var body []byte
	if !r.endless {
		if body, err = io.ReadAll(resp.Body); err != nil {
			x.t.Fatal(err)
		}
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent, http.StatusFound:
		if !strings.Contains(string(body), r.sees) {
			return hidden
		}
		return allowed
	case http.StatusConflict:
		if r.cannot {
			return allowed
		}
	case http.StatusUnauthorized:
		return unauthenticated
	case http.StatusForbidden:
		return forbidden
	case http.StatusNotFound:
		return hidden
	case http.StatusMethodNotAllowed:
		return unserved
	}
	return outcome(fmt.Sprintf("%s %.200s", resp.Status, body))
}

// nothingElse makes calls that are in no table.
func (m *matrix) nothingElse() {
	for _, c := range m.callers {
		x := &trial{matrix: m, caller: c}
		ctx := context.Background()
		if c.token != "" {
			ctx = Bearer(c.token)
		}
		for _, method := range []string{
			"/coven.AdminService/Reset", "/coven.Backdoor/Open", "/coven.adminservice/ListPrincipals", "/coven.AdminService/listprincipals",
			"/coven.AdminService/ListPrincipals/", "//coven.AdminService/ListPrincipals", "/AdminService/ListPrincipals", "/grpc.channelz.v1.Channelz/GetServers",
		} {
			err := m.conn.Invoke(ctx, method, &emptypb.Empty{}, &pb.ListPrincipalsResponse{})
			if m.calls, m.refused = m.calls+1, m.refused+1; status.Code(err) != codes.Unimplemented {
				m.surprise("%s as %s: %v", method, c.name, err)
			}
		}
		for _, path := range []string{
			"/api", "/api/", "/api/admin", "/api/admin/", "/api/admin/principals/", "/api//admin/principals",
			"/api/./admin/principals", "/api/me/../admin/principals", "/api/admin%2fprincipals", "/API/admin/principals", "/api/admin/principals;x",
			"/api/admin/principals%00", "/api/admin/users/", "/mcp/a/b", "/debug/pprof/", "/static/", "/metrics/", "/health/x",
		} {
			got := x.http(http.MethodGet, path, request{})
			if m.count(got); got != hidden {
				m.surprise("GET %s as %s: %s", path, c.name, got)
			}
		}
		// The same route in other letters has the same rule.
		want := x.http(http.MethodGet, "/api/admin/principals", request{})
		for _, path := range []string{"/%61pi/admin/princip%61ls", "//api/admin/principals", "/./api/admin/principals", "/api/admin/principals?x=/health#/health"} {
			got := x.http(http.MethodGet, path, request{})
			if m.count(got); got != want {
				m.surprise("GET %s as %s: %s, the plain path is %s", path, c.name, got, want)
			}
		}
	}
	// Methods that a path does not have.
	served := map[string][]string{}
	for pattern := range routes {
		if method, path, ok := strings.Cut(pattern, " "); ok {
			served[path] = append(served[path], method)
		}
	}
	served["/api/admin/secrets/rotate"] = append(served["/api/admin/secrets/rotate"], http.MethodDelete) // a secret's id, for that route
	for path := range served {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			if slices.Contains(served[path], method) {
				continue
			}
			x := &trial{matrix: m, caller: m.callers[4]} // the owner
			got := x.http(method, strings.NewReplacer("{", "", "}", "").Replace(path), request{body: "{}"})
			if m.count(got); got != unserved && (got != hidden || strings.HasPrefix(path, "/api/")) {
				m.surprise("%s %s as %s: %s", method, path, x.caller.name, got)
			}
		}
	}
}

// notServed are the calls of the tables that nobody has written yet.
var notServed []string

// An rpc is what the test knows of one RPC.
type rpc struct {
	rule    auth.Rule
	request func(*trial) proto.Message
	sees    func(*trial, proto.Message) bool // whether an answer shows the object, where one that does not is no error
	narrow  bool                             // no token with scopes is good for it
	opens   bool                             // it is a stream on which nothing comes by itself
}

func empty(*trial) proto.Message { return &emptypb.Empty{} }

var rpcs = map[string]rpc{
	"/coven.CovenControl/AgentStream": {
		rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeConnect},
		request: func(x *trial) proto.Message {
			return &pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{AgentId: fmt.Sprintf("new-%d", x.next())}}}
		},
	},

	"/coven.PackService/Register": {
		rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeConnect}, opens: true,
		request: func(x *trial) proto.Message {
			return &pb.PackManifest{PackId: fmt.Sprintf("pack-%d", x.next()), Version: "1"}
		},
	},
	"/coven.PackService/ToolResult": {
		rule:    auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeConnect},
		request: func(*trial) proto.Message { return &pb.ExecuteToolResponse{RequestId: "r"} },
	},

	"/coven.ClientService/GetMe": {
		rule: auth.Rule{Level: auth.AnyCaller}, request: empty,
		sees: func(x *trial, m proto.Message) bool { return m.(*pb.MeResponse).GetPrincipalId() == x.caller.ID },
	},
	"/coven.ClientService/ListAgents": {
		rule:    auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeRead},
		request: func(*trial) proto.Message { return &pb.ListAgentsRequest{} },
	},
	"/coven.ClientService/GetEvents": {
		rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeRead, Objects: auth.OwnOnly},
		request: func(x *trial) proto.Message {
			return &pb.GetEventsRequest{ConversationKey: x.object().agent, Limit: proto.Int32(500)}
		},
		sees: func(x *trial, m proto.Message) bool { return strings.Contains(prototext.Format(m), x.used.mark) },
	},
	"/coven.ClientService/StreamEvents": {
		rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeRead, Objects: auth.OwnOnly},
		request: func(x *trial) proto.Message {
			first, err := x.g.Conversations().EventID(Ctx(), x.object().agent, 1)
			if err != nil {
				x.t.Fatal(err)
			}
			return &pb.StreamEventsRequest{ConversationKey: x.used.agent, SinceEventId: &first}
		},
		sees: func(x *trial, m proto.Message) bool { return strings.Contains(prototext.Format(m), x.used.mark) },
	},
	"/coven.ClientService/SendMessage": {
		rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeSend},
		request: func(x *trial) proto.Message {
			return &pb.ClientSendMessageRequest{ConversationKey: x.commons, Content: answerNow, IdempotencyKey: rand.Text()}
		},
	},
	"/coven.ClientService/ApproveTool": {
		rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeSend, Objects: auth.OwnOnly},
		request: func(x *trial) proto.Message {
			o := x.open()
			return &pb.ApproveToolRequest{AgentId: o.agent, ToolId: "tool of " + o.turn, Approved: true}
		},
		sees: func(_ *trial, m proto.Message) bool { return m.(*pb.ApproveToolResponse).GetSuccess() },
	},
	"/coven.ClientService/AnswerQuestion": {
		rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeSend, Objects: auth.OwnOnly},
		request: func(x *trial) proto.Message {
			o := x.open()
			return &pb.AnswerQuestionRequest{AgentId: o.agent, QuestionId: x.question(o), Selected: []string{"yes"}}
		},
		sees: func(_ *trial, m proto.Message) bool { return m.(*pb.AnswerQuestionResponse).GetSuccess() },
	},
	"/coven.ClientService/RegisterAgent": {
		rule:    auth.Rule{Level: auth.Members, Scope: auth.ScopeDevices},
		request: func(*trial) proto.Message { return &pb.RegisterAgentRequest{DisplayName: "a", Fingerprint: fresh()} },
	},
	"/coven.ClientService/CancelTurn": {
		rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeSend, Objects: auth.OwnOnly},
		request: func(x *trial) proto.Message {
			o := x.open()
			if x.next()%2 == 0 {
				return &pb.CancelTurnRequest{ConversationKey: o.agent, RequestId: o.turn}
			}
			turn, err := x.g.Conversations().Turn(Ctx(), o.turn)
			if err != nil {
				x.t.Fatal(err)
			}
			message, err := x.g.Conversations().EventID(Ctx(), o.agent, turn.First)
			if err != nil {
				x.t.Fatal(err)
			}
			return &pb.CancelTurnRequest{ConversationKey: o.agent, MessageId: message}
		},
	},
	"/coven.ClientService/RegisterClient": {
		rule:    auth.Rule{Level: auth.Members, Scope: auth.ScopeDevices},
		request: func(*trial) proto.Message { return &pb.RegisterClientRequest{DisplayName: "c", Fingerprint: fresh()} },
	},

	"/coven.AdminService/ListBindings": {
		rule:    auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin},
		request: func(*trial) proto.Message { return &pb.ListBindingsRequest{} },
	},
	"/coven.AdminService/CreateBinding": {
		rule: auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin},
		request: func(x *trial) proto.Message {
			return &pb.CreateBindingRequest{Frontend: "matrix", ChannelId: fmt.Sprint(x.next()), AgentId: x.commons}
		},
	},
	"/coven.AdminService/UpdateBinding": {
		rule:    auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin},
		request: func(x *trial) proto.Message { return &pb.UpdateBindingRequest{Id: x.binding().ID, AgentId: x.commons} },
	},
	"/coven.AdminService/DeleteBinding": {
		rule:    auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin},
		request: func(x *trial) proto.Message { return &pb.DeleteBindingRequest{Id: x.binding().ID} },
	},
	"/coven.AdminService/CreateToken": {
		rule: auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin, Objects: auth.Managed}, narrow: true, // it makes tokens without scopes
		request: func(x *trial) proto.Message {
			return &pb.CreateTokenRequest{PrincipalId: x.target()}
		},
	},
	"/coven.AdminService/ListPrincipals": {
		rule:    auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin},
		request: func(*trial) proto.Message { return &pb.ListPrincipalsRequest{Status: new("revoked")} },
	},
	"/coven.AdminService/CreatePrincipal": {
		rule: auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin, Objects: auth.Managed},
		request: func(x *trial) proto.Message {
			r := &pb.CreatePrincipalRequest{Type: "client", DisplayName: "new"}
			for _, role := range x.roles() {
				r.Roles = append(r.Roles, string(role))
			}
			return r
		},
	},
	"/coven.AdminService/DeletePrincipal": {
		rule: auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin, Objects: auth.Managed},
		request: func(x *trial) proto.Message {
			return &pb.DeletePrincipalRequest{Id: x.target()}
		},
	},

	"/grpc.health.v1.Health/Check": {rule: auth.Rule{Level: auth.Anybody}, request: func(*trial) proto.Message { return &healthpb.HealthCheckRequest{} }},
	"/grpc.health.v1.Health/List":  {rule: auth.Rule{Level: auth.Anybody}, request: func(*trial) proto.Message { return &healthpb.HealthListRequest{} }},
	"/grpc.health.v1.Health/Watch": {rule: auth.Rule{Level: auth.Anybody}, request: func(*trial) proto.Message { return &healthpb.HealthCheckRequest{} }},

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": {
		rule: auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin},
		request: func(*trial) proto.Message {
			return &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
		},
	},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {
		rule: auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin},
		request: func(*trial) proto.Message {
			//nolint:staticcheck // it is deprecated, and served for those who know no other
			return &oldreflectionpb.ServerReflectionRequest{MessageRequest: &oldreflectionpb.ServerReflectionRequest_ListServices{}}
		},
	},
}

// A route is what the test knows of one route.
type route struct {
	rule    auth.Rule
	request func(*trial) request
	named   bool // a refusal does not hide the object, because callers choose its id
	narrow  bool // no token with scopes is good for it
}

// The rules of most routes.
var (
	anybody   = auth.Rule{Level: auth.Anybody}
	reading   = auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeRead}
	sending   = auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeSend}
	readsOwn  = auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeRead, Objects: auth.OwnOnly}
	sendsOwn  = auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeSend, Objects: auth.OwnOnly}
	admins    = auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin}
	readsOf   = auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeRead, Objects: auth.OwnAgents}
	adminsOn  = auth.Rule{Level: auth.Admins, Scope: auth.ScopeAdmin, Objects: auth.Managed}
	principal = "/api/admin/principals/"
)

// plain is a request that the pattern says all of.
func plain(*trial) request { return request{} }

// of is a request for a list of an agent.
func of(list string) func(*trial) request {
	return func(x *trial) request { return request{path: "/api/agents/" + x.object().agent + "/" + list} }
}

// inMCP is a request to the MCP server: a call without a session, or one in a session of the caller
// where it may open one. The token is in a header, or in the path.
func inMCP(method string, inPath ...string) func(*trial) request {
	return func(x *trial) request {
		r := request{
			path: "/mcp", body: `{"jsonrpc":"2.0","id":1,"method":"ping"}`, endless: method == http.MethodGet,
			header: []string{"Content-Type", "application/json", "Accept", "text/event-stream"},
		}
		header := r.header
		if len(inPath) > 0 {
			r.path += "/" + cmp.Or(x.caller.token, "nothing")
		} else {
			header = append(header, "Authorization", "Bearer "+x.caller.token)
		}
		if method != http.MethodPost {
			id := "none"
			if x.want == allowed {
				id = x.g.session(r.path, header...)
			}
			r.header = append(r.header, "Mcp-Session-Id", id)
		}
		return r
	}
}

// on is a request about a principal to act on.
func on(suffix, body string) func(*trial) request {
	return func(x *trial) request {
		return request{path: principal + x.target() + suffix, body: body}
	}
}

var routes = map[string]route{
	"/health":                {rule: anybody, request: plain},
	"/health/ready":          {rule: anybody, request: plain},
	"GET /api/health/stream": {rule: anybody, request: func(*trial) request { return request{endless: true} }},
	"GET /api/openapi.json":  {rule: anybody, request: plain},
	"GET /api/docs":          {rule: anybody, request: plain},
	"GET /metrics":           {rule: reading, request: plain},

	"POST /api/link/request": {rule: anybody, request: func(*trial) request {
		return request{body: fmt.Sprintf(`{"fingerprint":%q,"device_name":"d"}`, fresh())}
	}},
	"GET /api/link/status/{code}": {rule: anybody, request: func(x *trial) request {
		return request{path: "/api/link/status/" + x.code(NewKey(x.t))}
	}},

	"POST /api/invites/accept": {rule: anybody, request: func(x *trial) request {
		_, token := x.invite(auth.With(context.Background(), x.callers[4].Principal)) // it is worth what its maker is
		return request{body: fmt.Sprintf(`{"invite":%q,"display_name":"guest"}`, token)}
	}},

	"GET /api/sign-in": {rule: anybody, request: plain},
	"POST /api/sign-in/password": {rule: anybody, request: func(x *trial) request {
		name := fmt.Sprintf("matrix-%d", x.next()) // one name is not tried that often
		x.g.signer(name, "an owner of matrices")
		return request{body: fmt.Sprintf(`{"name":%q,"password":"an owner of matrices"}`, name)}
	}},
	"POST /api/sign-in/passkey-options": {rule: anybody, request: plain},
	"POST /api/sign-in/passkey": {rule: anybody, request: func(x *trial) request {
		cookie, answer := x.signer.signIn()
		return request{body: `{"passkey":` + answer + `}`, header: []string{"Cookie", cookie}}
	}},
	"POST /api/sign-in/link": {rule: anybody, request: func(x *trial) request {
		token, _, err := x.g.Identity().ResetUser(Ctx(), x.person(auth.Member))
		if err != nil {
			x.t.Fatal(err)
		}
		return request{body: fmt.Sprintf(`{"link":%q}`, token)}
	}},
	"GET /.well-known/oauth-protected-resource":   {rule: anybody, request: plain},
	"GET /.well-known/oauth-authorization-server": {rule: anybody, request: plain},
	"GET /oauth/authorize": {rule: anybody, request: func(x *trial) request {
		_, query, _ := x.g.oauthClient("matrix")
		return request{path: "/oauth/authorize?" + query.Encode()}
	}},
	"POST /oauth/register": {rule: anybody, request: func(x *trial) request {
		return request{body: `{"redirect_uris":["http://127.0.0.1/"]}`}
	}},
	"POST /oauth/token": {rule: anybody, request: func(x *trial) request {
		c, query, verifier := x.g.oauthClient("matrix")
		_, body := x.signer.consent(query, `,"allow":true`)
		return request{body: url.Values{"grant_type": {"authorization_code"}, "client_id": {c}, "code": {sentBack(x.t, body).Get("code")}, "code_verifier": {verifier}}.Encode(), header: inForm}
	}},
	"POST /oauth/revoke": {rule: anybody, request: func(*trial) request {
		return request{body: "token=x", header: inForm}
	}},
	"GET /api/oauth/consent":        inBrowsers(""),
	"POST /api/oauth/consent":       {rule: auth.Rule{Level: auth.AnyCaller}, request: func(*trial) request { return request{body: "{}", cannot: true} }},
	"GET /api/oauth/grants":         {rule: auth.Rule{Level: auth.AnyCaller}, request: plain},
	"DELETE /api/oauth/grants/{id}": {rule: auth.Rule{Level: auth.AnyCaller}, narrow: true, request: func(x *trial) request { return request{path: "/api/oauth/grants/" + x.grantOf(x.caller.Principal)} }},
	"GET /api/admin/oauth/grants":   {rule: admins, request: plain},
	"DELETE /api/admin/oauth/grants/{id}": {rule: adminsOn, request: func(x *trial) request {
		return request{path: x.again("grant", func() string {
			p, err := x.g.Identity().Principal(Ctx(), x.person(x.role()))
			if err != nil {
				x.t.Fatal(err)
			}
			return "/api/admin/oauth/grants/" + x.grantOf(p)
		})}
	}},
	"PATCH /api/me":                inBrowsers(`{"name":"x"}`),
	"PUT /api/me/password":         inBrowsers(`{"password":"quite a long password"}`),
	"GET /api/me/passkeys":         {rule: auth.Rule{Level: auth.AnyCaller}, request: plain},
	"POST /api/me/passkey-options": inBrowsers(""),
	"POST /api/me/passkeys":        inBrowsers(`{"passkey":{}}`),
	"PATCH /api/me/passkeys/{id}":  inBrowsers(`{"name":"x"}`),
	"DELETE /api/me/passkeys/{id}": inBrowsers(""),
	"GET /api/me/sessions":         {rule: auth.Rule{Level: auth.AnyCaller}, request: plain},
	"DELETE /api/me/sessions":      {rule: auth.Rule{Level: auth.AnyCaller}, narrow: true, request: plain},
	"DELETE /api/me/sessions/{id}": {rule: auth.Rule{Level: auth.AnyCaller}, narrow: true, request: func(x *trial) request {
		return request{path: "/api/me/sessions/" + x.sessionOf(x.caller.Principal)}
	}},
	"POST /api/session/reauthenticate": inBrowsers(`{"password":"x"}`),

	"GET /api/admin/users":                  {rule: admins, request: plain},
	"GET /api/admin/users/{id}":             {rule: admins, request: onUser("", "")},
	"PATCH /api/admin/users/{id}":           {rule: adminsOn, request: onUser("", `{"display_name":"renamed"}`)},
	"DELETE /api/admin/users/{id}":          {rule: adminsOn, request: onUser("", "")},
	"POST /api/admin/users/{id}/reset":      {rule: adminsOn, narrow: true, request: onUser("/reset", "")},
	"DELETE /api/admin/users/{id}/sessions": {rule: adminsOn, narrow: true, request: onUser("/sessions", "")},
	"DELETE /api/admin/users/{id}/sessions/{session}": {rule: adminsOn, narrow: true, request: func(x *trial) request {
		return request{path: x.again("session", func() string {
			id := x.person(x.role())
			p, err := x.g.Identity().Principal(Ctx(), id)
			if err != nil {
				x.t.Fatal(err)
			}
			return "/api/admin/users/" + id + "/sessions/" + x.sessionOf(p)
		})}
	}},

	"GET /api/me": {rule: auth.Rule{Level: auth.AnyCaller}, request: func(x *trial) request { return request{sees: x.caller.ID} }},

	"POST /api/session":   {rule: auth.Rule{Level: auth.AnyCaller}, request: plain},
	"DELETE /api/session": {rule: auth.Rule{Level: auth.AnyCaller}, request: func(*trial) request { return request{cannot: true} }},

	"GET /api/bindings": {rule: reading, request: plain},
	"POST /api/bindings": {rule: admins, request: func(x *trial) request {
		return request{body: fmt.Sprintf(`{"frontend":"matrix","channel_id":"%d","agent_id":%q}`, x.next(), x.commons)}
	}},
	"DELETE /api/bindings": {rule: admins, request: func(x *trial) request {
		b := x.binding()
		return request{path: "/api/bindings?frontend=" + b.Frontend + "&channel_id=" + b.ChannelID}
	}},

	"POST /api/send": {rule: sendsOwn, named: true, request: func(x *trial) request {
		o := x.object()
		return request{body: fmt.Sprintf(`{"agent_id":%q,"thread_id":%q,"sender":"me","content":"hi"}`, o.agent, o.thread)}
	}},
	"POST /api/agents/{id}/send": {rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeSend}, request: func(x *trial) request {
		return request{path: "/api/agents/" + x.commons + "/send", body: `{"message":"hi"}`}
	}},
	"POST /api/tools/approve": {rule: sendsOwn, request: func(x *trial) request {
		o := x.open()
		return request{body: fmt.Sprintf(`{"agent_id":%q,"tool_id":"tool of %s","approved":true}`, o.agent, o.turn)}
	}},

	"GET /api/approvals": {rule: readsOwn, request: func(x *trial) request {
		o := x.open()
		return request{path: "/api/approvals?agent_id=" + o.agent, sees: "tool of " + o.turn}
	}},
	"GET /api/questions": {rule: readsOwn, request: func(x *trial) request {
		o := x.open()
		return request{path: "/api/questions?agent_id=" + o.agent, sees: x.question(o)}
	}},
	"POST /api/questions/answer": {rule: sendsOwn, request: func(x *trial) request {
		o := x.open()
		return request{body: fmt.Sprintf(`{"agent_id":%q,"question_id":%q,"selected":["yes"]}`, o.agent, x.question(o))}
	}},
	"GET /api/search": {rule: readsOwn, request: func(x *trial) request {
		return request{path: "/api/search?limit=100&q=" + x.object().mark + "&agent_id=" + x.used.agent, sees: x.used.thread}
	}},

	"GET /api/tools": {rule: reading, request: plain},
	"POST /api/tools/{name}/call": {rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeSend, Objects: auth.OwnAgents}, named: true, request: func(x *trial) request {
		return request{path: "/api/tools/note_list/call", body: fmt.Sprintf(`{"agent_id":%q}`, x.object().agent)}
	}},
	"POST /mcp":                  {rule: sending, request: inMCP(http.MethodPost)},
	"GET /mcp":                   {rule: sending, request: inMCP(http.MethodGet)},
	"DELETE /mcp":                {rule: sending, request: inMCP(http.MethodDelete)},
	"POST /mcp/{token}":          {rule: sending, request: inMCP(http.MethodPost, "/")},
	"GET /mcp/{token}":           {rule: sending, request: inMCP(http.MethodGet, "/")},
	"DELETE /mcp/{token}":        {rule: sending, request: inMCP(http.MethodDelete, "/")},
	"GET /api/packs":             {rule: reading, request: plain},
	"GET /api/agents/{id}/log":   {rule: readsOf, named: true, request: of("log")},
	"GET /api/agents/{id}/todos": {rule: readsOf, named: true, request: of("todos")},
	"GET /api/agents/{id}/mail":  {rule: readsOf, named: true, request: of("mail")},
	"GET /api/agents/{id}/notes": {rule: readsOf, named: true, request: of("notes")},
	"GET /api/board":             {rule: reading, request: plain},
	"GET /api/board/{id}": {rule: reading, request: func(x *trial) request {
		return request{path: "/api/board/" + x.again("post", func() string {
			out, err := x.g.Tools().Call(context.Background(), packs.Caller{Principal: auth.Anonymous, AgentID: "a"}, "bbs_create_thread", []byte(`{"subject":"s","content":"c"}`))
			var post struct {
				ID string `json:"thread_id"`
			}
			if err = cmp.Or(err, json.Unmarshal([]byte(out), &post)); err != nil {
				x.t.Fatal(err)
			}
			return post.ID
		})}
	}},
	"POST /api/agents/{id}/inject": {rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeSend, Objects: auth.OwnAgents}, request: func(x *trial) request {
		return request{path: "/api/agents/" + x.object().agent + "/inject", body: `{"content":"know this"}`}
	}},

	"GET /api/agents": {rule: reading, request: plain},
	"GET /api/agents/{id}/history": {rule: readsOwn, request: func(x *trial) request {
		return request{path: "/api/agents/" + x.object().agent + "/history?limit=500", sees: x.used.mark}
	}},
	"GET /api/conversations/{agent}/events": {rule: readsOwn, request: func(x *trial) request {
		return request{path: "/api/conversations/" + x.object().agent + "/events?limit=1000", sees: x.used.mark}
	}},
	"GET /api/turns": {rule: readsOwn, request: func(x *trial) request {
		o := x.open()
		return request{path: "/api/turns?limit=500&state=open&agent_id=" + o.agent, sees: o.turn}
	}},
	"GET /api/turns/{id}":        {rule: readsOwn, request: func(x *trial) request { return request{path: "/api/turns/" + x.object().turn} }},
	"GET /api/turns/{id}/events": {rule: readsOwn, request: func(x *trial) request { return request{path: "/api/turns/" + x.object().turn + "/events"} }},
	"POST /api/turns/{id}/cancel": {rule: sendsOwn, request: func(x *trial) request {
		return request{path: "/api/turns/" + x.open().turn + "/cancel", body: "{}"}
	}},
	"GET /api/threads": {rule: readsOwn, request: func(x *trial) request {
		return request{path: "/api/threads?limit=500&agent_id=" + x.object().agent, sees: x.used.thread}
	}},
	"PATCH /api/threads/{id}": {rule: sendsOwn, request: func(x *trial) request {
		return request{path: "/api/threads/" + x.object().thread, body: `{"archived":false}`}
	}},
	"DELETE /api/threads/{id}": {rule: auth.Rule{Level: auth.AnyCaller, Scope: auth.ScopeSend, Objects: auth.OwnAlone}, request: func(x *trial) request {
		if x.want == allowed {
			return request{path: "/api/threads/" + x.begin(x.caller, x.rel, false).thread}
		}
		return request{path: "/api/threads/" + x.object().thread}
	}},
	"GET /api/threads/{id}/export": {rule: readsOwn, request: func(x *trial) request {
		return request{path: "/api/threads/" + x.object().thread + "/export"}
	}},
	"GET /api/threads/{id}": {rule: readsOwn, request: func(x *trial) request { return request{path: "/api/threads/" + x.object().thread} }},
	"GET /api/threads/{id}/messages": {rule: readsOwn, request: func(x *trial) request {
		return request{path: "/api/threads/" + x.object().thread + "/messages"}
	}},
	"GET /api/threads/{id}/turns": {rule: readsOwn, request: func(x *trial) request { return request{path: "/api/threads/" + x.object().thread + "/turns"} }},
	"GET /api/threads/{id}/usage": {rule: readsOwn, request: func(x *trial) request { return request{path: "/api/threads/" + x.object().thread + "/usage"} }},
	"GET /api/threads/{id}/files": {rule: readsOwn, request: func(x *trial) request { return request{path: "/api/threads/" + x.object().thread + "/files"} }},
	"GET /api/files/{id}":         {rule: readsOwn, request: func(x *trial) request { return request{path: "/api/files/" + x.object().file} }},
	"GET /api/stats/usage": {rule: readsOwn, request: func(x *trial) request {
		o := x.object()
		return request{path: "/api/stats/usage?agent_id=" + o.agent + "&thread_id=" + o.thread + "&group_by=agent", sees: fmt.Sprintf(`"total_input":%d`, tokensSpent)}
	}},

	"GET /api/admin/principals": {rule: admins, request: plain},
	"POST /api/admin/principals": {rule: adminsOn, request: func(x *trial) request {
		return request{body: fmt.Sprintf(`{"type":"client","display_name":"new","roles":[%s]}`, quoted(x.roles()))}
	}},
	"GET /api/admin/principals/{id}":                              {rule: admins, request: on("", "")},
	"PATCH /api/admin/principals/{id}":                            {rule: adminsOn, request: on("", `{"display_name":"renamed"}`)},
	"DELETE /api/admin/principals/{id}":                           {rule: adminsOn, request: on("", "")},
	"POST /api/admin/principals/{id}/approve":                     {rule: adminsOn, request: on("/approve", "")},
	"POST /api/admin/principals/{id}/revoke":                      {rule: adminsOn, request: on("/revoke", "")},
	"PUT /api/admin/principals/{id}/roles/{role}":                 {rule: adminsOn, request: on("/roles/leader", "")},
	"DELETE /api/admin/principals/{id}/roles/{role}":              {rule: adminsOn, request: on("/roles/member", "")},
	"PUT /api/admin/principals/{id}/capabilities/{capability}":    {rule: adminsOn, request: on("/capabilities/admin", "")},
	"DELETE /api/admin/principals/{id}/capabilities/{capability}": {rule: adminsOn, request: on("/capabilities/admin", "")},
	"GET /api/admin/principals/{id}/keys":                         {rule: admins, request: on("/keys", "")},
	"POST /api/admin/principals/{id}/keys": {rule: adminsOn, narrow: true, request: func(x *trial) request {
		return on("/keys", fmt.Sprintf(`{"pubkey_fp":%q}`, fresh()))(x)
	}},
	"DELETE /api/admin/principals/{id}/keys/{fingerprint}": {rule: adminsOn, request: func(x *trial) request {
		return request{path: x.again("key", func() string {
			id, key := x.withKey()
			return principal + id + "/keys/" + key.Fingerprint()
		})}
	}},

	"GET /api/admin/invites": {rule: admins, request: plain},
	"POST /api/admin/invites": {rule: adminsOn, narrow: true, request: func(x *trial) request {
		return request{body: fmt.Sprintf(`{"role":%q}`, x.role())}
	}},
	"DELETE /api/admin/invites/{id}": {rule: adminsOn, request: func(x *trial) request {
		return request{path: "/api/admin/invites/" + x.again("invite", func() string {
			id, _ := x.invite(Ctx())
			return id
		})}
	}},

	"GET /api/admin/tokens": {rule: admins, request: plain},
	"POST /api/admin/tokens": {rule: adminsOn, request: func(x *trial) request {
		id := x.target()
		return request{body: fmt.Sprintf(`{"principal_id":%q,"kind":"api","scopes":["admin"]}`, id)}
	}},
	"DELETE /api/admin/tokens/{id}": {rule: adminsOn, request: func(x *trial) request {
		return request{path: "/api/admin/tokens/" + x.again("token", func() string {
			_, token, err := x.g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: x.target()})
			if err != nil {
				x.t.Fatal(err)
			}
			return token.ID
		})}
	}},

	"GET /api/admin/agents":                      {rule: admins, request: plain},
	"GET /api/admin/agents/{id}/approval-policy": {rule: admins, request: func(*trial) request { return request{path: "/api/admin/agents/nobody/approval-policy"} }},
	"PUT /api/admin/agents/{id}/approval-policy": {rule: admins, request: func(*trial) request {
		return request{path: "/api/admin/agents/nobody/approval-policy", body: `{"rules":[{"tool":"*","action":"deny"}]}`}
	}},
	"POST /api/admin/agents/{id}/transfer": {rule: adminsOn, request: func(x *trial) request {
		id := x.target()
		return request{path: fmt.Sprintf("/api/admin/agents/given-%d/transfer", x.next()), body: fmt.Sprintf(`{"principal_id":%q}`, id)}
	}},
	"DELETE /api/admin/agents/{id}/ownership": {rule: adminsOn, request: func(x *trial) request {
		return request{path: "/api/admin/agents/" + x.again("agent", func() string {
			agent := fmt.Sprintf("given-%d", x.next())
			if err := x.g.Identity().TransferAgent(Ctx(), agent, x.target()); err != nil {
				x.t.Fatal(err)
			}
			return agent
		}) + "/ownership"}
	}},

	"GET /api/admin/mcp/servers": {rule: admins, request: plain},
	"POST /api/admin/mcp/servers": {rule: admins, request: func(x *trial) request {
		return request{body: fmt.Sprintf(`{"name":"n%d","url":%q,"allow_private":true}`, x.next(), x.upstreamURL())}
	}},
	"GET /api/admin/mcp/servers/{name}": {rule: admins, request: func(x *trial) request { return request{path: "/api/admin/mcp/servers/" + x.upstream()} }},
	"PATCH /api/admin/mcp/servers/{name}": {rule: admins, request: func(x *trial) request {
		return request{path: "/api/admin/mcp/servers/" + x.upstream(), body: `{"enabled":false}`}
	}},
	"DELETE /api/admin/mcp/servers/{name}": {rule: admins, request: func(x *trial) request { return request{path: "/api/admin/mcp/servers/" + x.upstream()} }},
	"POST /api/admin/mcp/servers/{name}/accept": {rule: admins, request: func(x *trial) request {
		return request{path: "/api/admin/mcp/servers/" + x.upstream() + "/accept"}
	}},
	"POST /api/admin/mcp/servers/{name}/test": {rule: admins, request: func(x *trial) request {
		return request{path: "/api/admin/mcp/servers/" + x.upstream() + "/test"}
	}},
	"GET /api/admin/mcp/servers/{name}/logs": {rule: admins, request: func(x *trial) request { return request{path: "/api/admin/mcp/servers/" + x.upstream() + "/logs"} }},
	"GET /api/admin/stats":                   {rule: admins, request: plain},

	"GET /api/admin/secrets":            {rule: admins, request: plain},
	"PUT /api/admin/secrets":            {rule: admins, request: func(*trial) request { return request{body: `{"name":"MATRIX","agent_id":"nobody","value":"v"}`} }},
	"DELETE /api/admin/secrets/{id}":    {rule: admins, request: func(x *trial) request { return request{path: "/api/admin/secrets/" + x.secret()} }},
	"GET /api/admin/secrets/{id}/value": {rule: admins, request: func(x *trial) request { return request{path: "/api/admin/secrets/" + x.secret() + "/value"} }},
	"POST /api/admin/secrets/rotate":    {rule: admins, request: plain},

	"GET /api/admin/link": {rule: admins, request: plain},
	"POST /api/admin/link/{code}/approve": {rule: adminsOn, narrow: true, request: func(x *trial) request {
		_, key := x.withKey()
		return request{path: "/api/admin/link/" + x.code(key) + "/approve", body: `{"known":true}`}
	}},
	"POST /api/admin/link/{code}/deny": {rule: admins, request: func(x *trial) request {
		return request{path: "/api/admin/link/" + x.code(NewKey(x.t)) + "/deny"}
	}},

	"GET /api/admin/gateway": {rule: admins, request: plain},

	"GET /api/admin/audit":        {rule: admins, request: plain},
	"GET /api/admin/audit/verify": {rule: admins, request: plain},
	"GET /api/admin/audit/export": {rule: admins, request: plain},
}

// inBrowsers is a route for people who have signed in with a browser: whoever shows a token is told so.
func inBrowsers(body string) route {
	return route{rule: auth.Rule{Level: auth.AnyCaller}, request: func(*trial) request { return request{body: body, cannot: true} }}
}

// onUser makes a request that acts on a person.
func onUser(suffix, body string) func(*trial) request {
	return func(x *trial) request {
		return request{path: "/api/admin/users/" + x.again("user", func() string { return x.person(x.role()) }) + suffix, body: body}
	}
}

// person is the id of a person with a role.
func (m *matrix) person(role auth.Role) string {
	m.t.Helper()
	p, err := m.g.invited(fmt.Sprintf("person-%d", m.next()), role)
	if err != nil {
		m.t.Fatal(err)
	}
	m.made[p.ID], m.made[p.CreatedBy] = true, true
	return p.ID
}

// sessionOf is a session of a principal; of one that may have none it is no session.
func (x *trial) sessionOf(p auth.Principal) string {
	x.t.Helper()
	if p.Status != auth.Approved || p.ID == x.caller.ID && x.want != allowed {
		return "x"
	}
	_, token, err := x.g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: p.ID})
	if err != nil {
		x.t.Fatal(err)
	}
	p.Credential = auth.Credential{Kind: auth.JWT, ID: token.ID}
	_, t, err := x.g.Identity().LogIn(auth.With(context.Background(), p), auth.Browser{})
	if err != nil {
		x.t.Fatal(err)
	}
	return t.ID
}

func quoted(roles []auth.Role) string {
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = `"` + string(r) + `"`
	}
	return strings.Join(words, ",")
}

// grantOf is a grant of a principal to an MCP client; of one that may have none it is no grant.
func (x *trial) grantOf(p auth.Principal) string {
	x.t.Helper()
	if p.Status != auth.Approved || p.ID == x.caller.ID && x.want != allowed {
		return "x"
	}
	ctx := context.Background()
	p.Kind, p.Credential = auth.User, auth.Credential{Kind: auth.Session, ProvedAt: time.Now()}
	if _, err := x.g.Identity().ConsentOAuth(auth.With(ctx, p), auth.OAuthRequest{
		ClientID: x.program, Redirect: oauthRedirect, ResponseType: "code", Method: "S256", Challenge: strings.Repeat("A", 43),
	}, nil); err != nil {
		x.t.Fatal(err)
	}
	all, err := x.g.Identity().OAuthGrants(ctx, p.ID, 1)
	if err != nil || len(all) != 1 {
		x.t.Fatal(all, err)
	}
	return all[0].ID
}
