package gatewaytest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"coven-gateway/internal/agent"
	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/packs"
	pb "coven-gateway/proto/coven"
)

// A limit is a row of docs/LIMITS.md, or a part of one: what is as large as it may be is taken, and
// what is larger by one is refused, on every transport that takes it.
type limit struct {
	what string // the row
	most int
	step int // what is larger by this much is refused; 1 where it is 0

	http  func(n int) sent
	over  int    // status of the refusal
	words string // of the refusal, with N for the size

	rpc  func(n int) error
	code codes.Code // of the refusal
	said string     // its words, where they are others

	taken string // what is said to the largest, where it is refused for another reason
}

// sent is a request over HTTP.
type sent struct {
	method, path, body string
	header             []string
}

// elsewhere are the rows that other tests are about.
var elsewhere = map[string]string{
	"page":                           "TestLargestPages",
	"requests":                       "TestRefusalsOfAll, internal/auth TestManyFailures",
	"request of an MCP client":       "TestMCPSizes",
	"open requests of an MCP client": "TestMCPLimits",
	"sessions of MCP clients":        "TestMCPLimits, TestMCPSessions, TestMCPIdle",
	"X-Request-Id":                   "TestRequestID",
	"a call of `ask_…`":              "internal/packs TestTimeAndRate",
	"resources on a page, entries of a thread that is read":   "TestMCPResources",
	"MCP clients that are registered":                         "TestOAuthLimits",
	"redirect URIs of an MCP client":                          "TestOAuthRefusals",
	"used refresh tokens of a grant that are recognized":      "TestOAuthRefusals",
	"fields of a request for tokens, `state`":                 "TestOAuthRefusals",
	"grants of a person":                                      "TestOAuthLimits",
	"lives of a code, an access token, a refresh token":       "TestOAuthExpiry",
	"sums of tokens with `group_by`":                          "TestMatrix",
	"connections":                                             "TestConnections",
	"streams of a principal":                                  "TestStreamsOfPrincipal",
	"open calls of a gRPC connection":                         "TestCallsOfConnection",
	"time of a handshake, of a request's header, of its body": "TestSlowPeers",
	"time that a peer reads nothing":                          "TestUnread",
	"turns that an agent works on":                            "TestAgentTurns",
	"turns that a principal begins":                           "TestTurnRate",
	"answer of an agent in one turn":                          "TestLargeTurn",
	"silence of an agent in one turn":                         "TestSilence",
	"answer in one piece":                                     "internal/api TestWhole",
	"signature":                                               "internal/auth TestProofRefused",
	"file of an agent":                                        "TestFilesOfAgents",
	"event of an agent":                                       "internal/agent TestMessageSizes",
	"principals that wait for an administrator":               "internal/auth TestRegistrationLimits",
	"injections that an agent has not answered":               "TestInject",
	"approval policies":                                       "TestApprovalPolicies",
	"words of a tool that has failed":                         "TestWordsOfFailure",
	"time of a call":                                          "internal/packs TestTimeAndRate, TestToolPolicies",
	"calls of a tool by one principal":                        "TestToolPolicies",
	"open calls of a pack":                                    "TestOpenCalls, TestUnreadInputs",
	"open calls of tools that an agent hosts":                 "TestOpenCalls",
	"open calls of an agent":                                  "internal/agent TestToolCalls",
	"tools that an agent is told of":                          "TestLongToolList",
	"questions of a turn that wait for an answer":             "TestManyQuestions",
}

const storedText = "text that agents store: a message of the log, a todo, notes, a value, a mail, a post"

// ways is a schema with so many ways through the schemas that it combines.
func ways(n int) string {
	const hundred = 99 // times {}, and the schema itself; a reference to it is one more
	return `{"$defs":{"x":{"allOf":[{}` + strings.Repeat(`,{}`, hundred-1) + `]}},"allOf":[{"$ref":"#/$defs/x"}` +
		strings.Repeat(`,{"$ref":"#/$defs/x"}`, (n-1)/101-1) + strings.Repeat(`,{}`, (n-1)%101) + `]}`
}

// xs is a text of a length.
func xs(n int) string { return strings.Repeat("x", n) }

// withField is a JSON body with one field more.
func withField(body, field string, value any) string {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err) // no test has such a value
	}
	comma := ","
	if body == "{" {
		comma = ""
	}
	return fmt.Sprintf("%s%s%q:%s}", strings.TrimSuffix(body, "}"), comma, field, b)
}

func TestLimitsOfAll(t *testing.T) {
	const message, file, files, body = 1000, 5 << 20, 3, 8 << 20
	small := New(t, func(c *config.Config) {
		c.Limits.Message, c.Limits.File, c.Limits.Attachments, c.Limits.RequestBody = message, 2000, files, body
	})
	large := New(t, func(c *config.Config) { c.Limits.File, c.Limits.RequestBody = file, body })
	locked := New(t, Locked, func(c *config.Config) { c.Limits.RequestsPerSecond, c.Limits.AddressRequestsPerSecond = 0, 0 })
	for _, g := range []*Gateway{small, large} {
		a := g.Agent("a", takesInjections)
		go func() {
			for m := a.Next(); m != nil; m = a.Next() {
				if i := m.GetInjectContext(); i != nil {
					a.Ack(i, true, "")
				}
				if s := m.GetSendMessage(); s != nil {
					a.Done(s.RequestId, "")
				}
			}
		}()
	}
	owner, token := locked.Principal("owner", auth.Owner)
	target, _ := locked.Principal("target")
	key := NewKey(t)
	if _, err := locked.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: auth.Client, Name: "has a key", PublicKey: key.Line()}); err != nil {
		t.Fatal(err)
	}
	turn, err := small.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", Sender: "me", Text: "hi"})
	if err != nil {
		t.Fatal(err)
	}
	thread := "/api/threads/" + turn.ThreadID

	const hello = `{"agent_id":"a","sender":"me","content":"hi"}`
	post := func(body string) sent {
		return sent{"POST", "/api/send", body, []string{"Accept", "application/json"}}
	}
	said := func(field string) func(int) sent {
		return func(n int) sent { return post(withField(hello, field, xs(n))) }
	}
	attachment := func(name, mediaType string, size int) map[string]any {
		return map[string]any{"filename": name, "mime_type": mediaType, "data": make([]byte, size)}
	}
	client := func(g *Gateway) pb.ClientServiceClient {
		return pb.NewClientServiceClient(g.Dial(grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(64 << 20))))
	}
	admin := func(g *Gateway) pb.AdminServiceClient { return pb.NewAdminServiceClient(g.Dial()) }
	tell := func(g *Gateway, edit func(*pb.ClientSendMessageRequest)) error {
		r := &pb.ClientSendMessageRequest{ConversationKey: "a", Content: "hi", IdempotencyKey: rand.Text()}
		edit(r)
		_, err := client(g).SendMessage(context.Background(), r)
		return err
	}
	// attached is how large a file is that makes a message to an agent so many bytes large.
	attached := func(content string, n int) int {
		id := xs(36)
		size := func(data int) int {
			return proto.Size(&pb.ServerMessage{Payload: &pb.ServerMessage_SendMessage{SendMessage: &pb.SendMessage{
				RequestId: id, ThreadId: id, Sender: content, Content: "hi", Attachments: []*pb.FileAttachment{{Filename: "f", MimeType: "t", Data: make([]byte, data)}},
			}}})
		}
		return n - (size(n) - n)
	}
	register := func(edit func(r *pb.RegisterAgent, n int)) func(int) error {
		return func(n int) error {
			a := small.Connect(rand.Text(), func(r *pb.RegisterAgent) { edit(r, n) })
			defer a.Die()
			if m := a.next(); m.GetWelcome() != nil {
				return nil
			}
			return a.Err()
		}
	}
	tool := func(edit func(x *pb.ToolDefinition, n int)) func(int) error {
		return register(func(r *pb.RegisterAgent, n int) {
			x := &pb.ToolDefinition{Name: "t", InputSchemaJson: "{}"}
			edit(x, n)
			r.Tools = []*pb.ToolDefinition{x}
		})
	}
	principals := "/api/admin/principals/"
	// waiting sends messages to an agent that is away until all but one of n wait, and expects that one.
	waits := map[string]int{}
	waiting := func(agentID string, n int) {
		t.Helper()
		for ; waits[agentID] < n-1; waits[agentID]++ {
			if _, err := small.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: agentID, Sender: "me", Text: "hi", Delivery: conversation.Queue}); err != nil {
				t.Fatal(err)
			}
		}
		waits[agentID]++
	}
	for _, id := range []string{"away over HTTP", "away over gRPC"} {
		a := small.Agent(id)
		if _, err := small.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: id, Sender: "me", Text: "hi"}); err != nil { // so that it is known
			t.Fatal(err)
		}
		a.Done(a.Message().RequestId, "")
		a.Die()
		small.away(id)
	}
	go func() {
		_ = small.Pack(Ctx(), &pb.PackManifest{PackId: "large", Tools: []*pb.ToolDefinition{definition("large", 0)}}).Serve(func(r *pb.ExecuteToolRequest) string {
			var in struct{ N int }
			if err := json.Unmarshal([]byte(r.GetInputJson()), &in); err != nil {
				t.Error(err)
			}
			return `"` + xs(in.N-2) + `"`
		})
	}()
	// offer registers a pack, which goes again.
	offer := func(edit func(m *pb.PackManifest, n int)) func(int) error {
		return func(n int) error {
			m := &pb.PackManifest{PackId: rand.Text()}
			edit(m, n)
			p, err := small.TryPack(Ctx(), m)
			if err != nil {
				return err
			}
			p.Die()
			for slices.ContainsFunc(small.Tools().Packs(), func(p packs.PackInfo) bool { return p.ID == m.PackId }) {
				runtime.Gosched()
			}
			return nil
		}
	}
	offered := func(edit func(x *pb.ToolDefinition, n int)) func(int) error {
		return offer(func(m *pb.PackManifest, n int) {
			m.Tools = []*pb.ToolDefinition{definition("t", 0)}
			edit(m.Tools[0], n)
		})
	}
	call := func(tool string, input any) sent {
		return sent{"POST", "/api/tools/" + tool + "/call", withField(`{"agent_id":"a"}`, "input", input), nil}
	}
	asked := func(question, header string, options []conversation.Option) sent {
		return call("ask_user", map[string]any{"question": question, "header": header, "options": options})
	}
	choice := []conversation.Option{{Label: "yes"}}
	// full calls a tool for an agent that has stored all but one of what it may.
	full := func(tool, insert string, input func(n int) any) func(int) sent {
		done := false
		return func(n int) sent {
			if !done {
				done = true
				db, err := sql.Open("sqlite", small.cfg.Database.Path)
				if err == nil {
					_, err = db.ExecContext(t.Context(), "PRAGMA busy_timeout = 10000; WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < $1) "+insert, n-1)
				}
				if err = errors.Join(err, db.Close()); err != nil {
					t.Fatal(err)
				}
			}
			s := call(tool, input(n))
			s.body = strings.Replace(s.body, `"a"`, `"full"`, 1)
			return s
		}
	}

	documented, tested := documentedLimits(t), map[string]bool{}
	for g, limits := range map[*Gateway][]limit{
		small: {
			{
				what: "body of a request over HTTP", most: body, http: func(n int) sent {
					const edit = `{"archived":false}`
					return sent{"PATCH", thread, edit + strings.Repeat(" ", n-len(edit)), nil}
				}, over: 413, words: "the request body must not be larger than 8388608 bytes",
			},
			{
				what: "message over gRPC", most: agent.MaxReceive, rpc: func(n int) error {
					return tell(small, func(r *pb.ClientSendMessageRequest) {
						r.Content = xs(n)
						r.Content = xs(n - (proto.Size(r) - n))
					})
				}, code: codes.ResourceExhausted, words: "grpc: received message larger than max (N vs. 16777216)", taken: "content must not be longer",
			},
			{
				what: "headers over HTTP", most: 60 << 10, step: 12 << 10, http: func(n int) sent { return sent{"GET", "/api/agents", "", []string{"X-Long", xs(n)}} },
				over: 431, words: "",
			},
			{
				what: "headers over gRPC", most: 60 << 10, step: 12 << 10, rpc: func(n int) error {
					_, err := client(small).ListAgents(metadata.AppendToOutgoingContext(context.Background(), "x-long", xs(n)), &pb.ListAgentsRequest{})
					return err
				}, code: codes.Internal, words: "header list size to send violates the maximum size (65536 bytes) set by server",
			},
			{
				what: "word", most: config.MaxWord, http: said("agent_id"), over: 400, words: "agent_id must not be longer than 500 bytes; this one has N", taken: "agent unavailable",
				rpc: func(n int) error {
					return tell(small, func(r *pb.ClientSendMessageRequest) { r.ConversationKey = xs(n) })
				},
				code: codes.InvalidArgument, said: "conversation_key must not be longer than 500 bytes; this one has N",
			},
			{
				what: "word", most: config.MaxWord, http: func(n int) sent { return sent{"GET", "/api/agents?workspace=" + xs(n), "", nil} },
				over: 400, words: `query parameter "workspace" must not be longer than 500 bytes; this one has N`,
				rpc: func(n int) error {
					_, err := client(small).ListAgents(context.Background(), &pb.ListAgentsRequest{Workspace: new(xs(n))})
					return err
				}, code: codes.InvalidArgument, said: "workspace must not be longer than 500 bytes; this one has N",
			},
			{
				what: "word", most: config.MaxWord, http: func(n int) sent { return sent{"GET", "/api/conversations/" + xs(n) + "/events", "", nil} },
				over: 400, words: "agent must not be longer than 500 bytes; this one has N",
				rpc: func(n int) error {
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					s, err := client(small).StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: xs(n)})
					if err != nil {
						return err
					}
					if md, err := s.Header(); err == nil && md != nil {
						return nil
					}
					_, err = s.Recv()
					return err
				}, code: codes.InvalidArgument, said: "conversation_key must not be longer than 500 bytes; this one has N",
			},
			{
				what: "list of words", most: config.MaxWords, http: func(n int) sent {
					return sent{"POST", "/api/admin/principals", withField(`{"type":"client","display_name":"many roles"}`, "roles", slices.Repeat([]string{"member"}, n)), nil}
				}, over: 400, words: "roles must not have more than 100 entries; this one has N",
				rpc: func(n int) error {
					_, err := admin(small).CreatePrincipal(context.Background(), &pb.CreatePrincipalRequest{Type: "client", DisplayName: "many roles", Roles: slices.Repeat([]string{"member"}, n)})
					return err
				}, code: codes.InvalidArgument,
			},
			{
				what: "text of a message", most: message, http: said("content"), over: 413, words: "content must not be longer than 1000 bytes; this one has N",
				rpc: func(n int) error { return tell(small, func(r *pb.ClientSendMessageRequest) { r.Content = xs(n) }) }, code: codes.ResourceExhausted,
			},
			{
				what: "text of a message", most: message, http: func(n int) sent {
					return sent{"POST", "/api/agents/a/send", withField("{", "message", xs(n)), []string{"Accept", "application/json"}}
				}, over: 413, words: "content must not be longer than 1000 bytes; this one has N",
			},
			{
				what: "attachments of a message", most: files, http: func(n int) sent {
					return post(withField(hello, "attachments", slices.Repeat([]map[string]any{attachment("f", "", 1)}, n)))
				}, over: 400, words: "a message must not have more than 3 attachments; this one has N",
				rpc: func(n int) error {
					return tell(small, func(r *pb.ClientSendMessageRequest) {
						r.Attachments = slices.Repeat([]*pb.FileAttachment{{Filename: "f"}}, n)
					})
				}, code: codes.InvalidArgument,
			},
			{
				what: "attached file", most: 2000, http: func(n int) sent { return post(withField(hello, "attachments", []any{attachment("f", "", n)})) },
				over: 413, words: `attachments[0]: a file must not be larger than 2000 bytes; "f" has N`,
				rpc: func(n int) error {
					return tell(small, func(r *pb.ClientSendMessageRequest) {
						r.Attachments = []*pb.FileAttachment{{Filename: "f", Data: make([]byte, n)}}
					})
				}, code: codes.ResourceExhausted,
			},
			{
				what: "file name, media type", most: conversation.MaxFileName, http: func(n int) sent { return post(withField(hello, "attachments", []any{attachment(xs(n), "", 1)})) },
				over: 400, words: "attachments[0]: filename and mime_type must not be longer than 255 bytes",
				rpc: func(n int) error {
					return tell(small, func(r *pb.ClientSendMessageRequest) { r.Attachments = []*pb.FileAttachment{{Filename: xs(n)}} })
				}, code: codes.InvalidArgument,
			},
			{
				what: "file name, media type", most: conversation.MaxFileName, http: func(n int) sent { return post(withField(hello, "attachments", []any{attachment("f", xs(n), 1)})) },
				over: 400, words: "attachments[0]: filename and mime_type must not be longer than 255 bytes",
				rpc: func(n int) error {
					return tell(small, func(r *pb.ClientSendMessageRequest) {
						r.Attachments = []*pb.FileAttachment{{Filename: "f", MimeType: xs(n)}}
					})
				}, code: codes.InvalidArgument,
			},
			{what: "sender, thread id", most: conversation.MaxSender, http: said("sender"), over: 400, words: "sender must not be longer than 200 bytes; this one has N"},
			{what: "sender, thread id", most: conversation.MaxThreadID, http: said("thread_id"), over: 400, words: "thread_id must not be longer than 200 bytes; this one has N"},
			{
				what: "frontend", most: conversation.MaxFrontend, http: func(n int) sent {
					return post(fmt.Sprintf(`{"frontend":%q,"channel_id":"c","sender":"me","content":"hi"}`, xs(n)))
				},
				over: 400, words: "frontend must not be longer than 50 bytes; this one has N", taken: "channel not bound to agent",
			},
			{
				what: "channel id", most: conversation.MaxChannelID, http: func(n int) sent {
					return post(fmt.Sprintf(`{"frontend":"f","channel_id":%q,"sender":"me","content":"hi"}`, xs(n)))
				},
				over: 400, words: "channel_id must not be longer than 500 bytes; this one has N", taken: "channel not bound to agent",
			},
			{
				what: "frontend of a binding", most: conversation.MaxFrontend, http: func(n int) sent {
					return sent{"POST", "/api/bindings", fmt.Sprintf(`{"frontend":%q,"channel_id":"http","agent_id":"a"}`, xs(n)), nil}
				}, over: 400, words: "frontend must be lowercase alphanumeric with underscores, 1-50 chars",
				rpc: func(n int) error {
					_, err := admin(small).CreateBinding(context.Background(), &pb.CreateBindingRequest{Frontend: xs(n), ChannelId: "grpc", AgentId: "a"})
					return err
				}, code: codes.InvalidArgument,
			},
			{
				what: "channel id of a binding", most: conversation.MaxChannelID, http: func(n int) sent {
					return sent{"POST", "/api/bindings", fmt.Sprintf(`{"frontend":"http","channel_id":%q,"agent_id":"a"}`, xs(n)), nil}
				}, over: 400, words: "channel_id exceeds 500 characters",
				rpc: func(n int) error {
					_, err := admin(small).CreateBinding(context.Background(), &pb.CreateBindingRequest{Frontend: "grpc", ChannelId: xs(n), AgentId: "a"})
					return err
				}, code: codes.InvalidArgument,
			},
			{
				what: "working directory of a binding", most: 4096, http: func(n int) sent {
					return sent{"POST", "/api/bindings", fmt.Sprintf(`{"frontend":"f","channel_id":"d","agent_id":"a","working_dir":%q}`, xs(n)), nil}
				}, over: 400, words: "working_dir must not be longer than 4096 bytes; this one has N",
			},
			{
				what: "idempotency key", most: conversation.MaxIdempotencyKey, http: said("idempotency_key"), over: 400, words: "the idempotency key must not be longer than 100 bytes; this one has N",
				rpc: func(n int) error {
					return tell(small, func(r *pb.ClientSendMessageRequest) { r.IdempotencyKey = strings.Repeat("z", n) })
				}, code: codes.InvalidArgument, said: "idempotency_key too long",
			},
			{
				what: "idempotency key", most: conversation.MaxIdempotencyKey, http: func(n int) sent {
					return sent{"POST", "/api/send", hello, []string{"Idempotency-Key", strings.Repeat("y", n)}}
				}, over: 400, words: "the idempotency key must not be longer than 100 bytes; this one has N",
			},
			{
				what: "time that a message waits for its agent", most: int(conversation.MaxWait / time.Second), http: func(n int) sent {
					return post(withField(withField(hello, "delivery", "queue"), "wait_seconds", n))
				}, over: 400, words: "wait_seconds must be from 1 to 2592000; got N",
				rpc: func(n int) error {
					return tell(small, func(r *pb.ClientSendMessageRequest) { r.Delivery, r.WaitSeconds = "queue", int64(n) })
				}, code: codes.InvalidArgument,
			},
			{
				what: "messages that wait for an agent", most: 1000, http: func(n int) sent {
					waiting("away over HTTP", n)
					return post(`{"agent_id":"away over HTTP","sender":"me","content":"hi","delivery":"queue"}`)
				}, over: 429, words: "1000 messages wait for the agent; no more are taken",
				rpc: func(n int) error {
					waiting("away over gRPC", n)
					return tell(small, func(r *pb.ClientSendMessageRequest) { r.ConversationKey, r.Delivery = "away over gRPC", "queue" })
				}, code: codes.ResourceExhausted,
			},
			{
				what: "reason of a cancellation", most: conversation.MaxReason, http: func(n int) sent { return sent{"POST", "/api/turns/none/cancel", withField("{", "reason", xs(n)), nil} },
				over: 400, words: "reason must not be longer than 1000 bytes", taken: "no turn",
			},
			{
				what: "reason of a cancellation", most: conversation.MaxReason, rpc: func(n int) error {
					_, err := client(small).CancelTurn(context.Background(), &pb.CancelTurnRequest{ConversationKey: "a", RequestId: turn.ID, Reason: xs(n)})
					return err
				}, code: codes.InvalidArgument, words: "reason must not be longer than 1000 bytes", taken: "the turn has already ended",
			},
			{
				what: "rules of an approval policy", most: conversation.MaxRules, http: func(n int) sent {
					return sent{"PUT", "/api/admin/agents/a/approval-policy", withField("{", "rules", slices.Repeat([]map[string]string{{"tool": "x", "action": "ask"}}, n)), nil}
				}, over: 400, words: "rules must not have more than 100 entries; this one has N",
			},
			{
				what: "pattern of a rule", most: conversation.MaxPattern, http: func(n int) sent {
					return sent{"PUT", "/api/admin/agents/a/approval-policy", withField("{", "rules", []map[string]string{{"tool": xs(n), "action": "ask"}}), nil}
				}, over: 400, words: "rules[0]: tool must not be longer than 200 bytes; this one has N",
			},
			{
				what: "agent id of an approval policy", most: 200, http: func(n int) sent {
					return sent{"PUT", "/api/admin/agents/" + xs(n) + "/approval-policy", `{"rules":[]}`, nil}
				}, over: 400, words: "agent_id must have 1 to 200 bytes of UTF-8",
			},
			{
				what: "injection", most: conversation.MaxInjection, http: func(n int) sent {
					return sent{"POST", "/api/agents/a/inject", withField("{", "content", xs(n)), nil}
				}, over: 413, words: "content must not be longer than 262144 bytes; this one has N",
			},
			{
				what: "source of an injection", most: conversation.MaxSource, http: func(n int) sent {
					return sent{"POST", "/api/agents/a/inject", withField(`{"content":"x"}`, "source", xs(n)), nil}
				}, over: 400, words: "source must not be longer than 200 bytes; this one has N",
			},
			{
				what: "title of a thread", most: conversation.MaxTitle, http: func(n int) sent { return sent{"PATCH", thread, withField("{", "title", strings.Repeat("é", n)), nil} },
				over: 400, words: "title must have 1 to 200 characters, in one line",
			},
			{
				what: "search", most: conversation.MaxSearch, http: func(n int) sent { return sent{"GET", "/api/search?q=" + strings.Repeat("%C3%A9", n), "", nil} },
				over: 400, words: "q must be UTF-8 of at most 500 characters",
			},
			{
				what: "search", most: 20, http: func(n int) sent { return sent{"GET", "/api/search?q=" + strings.Repeat("x+", n), "", nil} },
				over: 400, words: "q must not have more than 20 words; it has N",
			},
			{
				what: "answer to a question", most: 64 << 10, rpc: func(n int) error {
					_, err := client(small).AnswerQuestion(context.Background(), &pb.AnswerQuestionRequest{AgentId: "a", QuestionId: "q", CustomText: new(xs(n))})
					return err
				}, code: codes.InvalidArgument, words: "custom_text must not be longer than 65536 bytes; this one has N",
			},
			{
				what: "answer to a question", most: 4 << 10, rpc: func(n int) error {
					_, err := client(small).AnswerQuestion(context.Background(), &pb.AnswerQuestionRequest{AgentId: "a", QuestionId: "q", Selected: []string{xs(n)}})
					return err
				}, code: codes.InvalidArgument, words: "selected must not be longer than 4096 bytes; this one has N",
			},

			{
				what: "registration", most: 1 << 20, rpc: register(func(r *pb.RegisterAgent, n int) {
					for n-proto.Size(r) > 20<<10 { // with what else there is room for
						r.Tools = append(r.Tools, &pb.ToolDefinition{Name: "t", Description: xs(16 << 10), InputSchemaJson: "{}"})
					}
					last := &pb.ToolDefinition{Name: "t", InputSchemaJson: "{}"}
					r.Tools = append(r.Tools, last)
					last.InputSchemaJson = xs(n - proto.Size(r))
					last.InputSchemaJson = xs(len(last.InputSchemaJson) - (proto.Size(r) - n))
				}), code: codes.InvalidArgument, words: "RegisterAgent must not be larger than 1048576 bytes; this one has N",
			},
			{what: "agent id, name", most: agent.MaxAgentID, rpc: register(func(r *pb.RegisterAgent, n int) { r.AgentId = xs(n) }), code: codes.InvalidArgument, words: "agent_id must not be longer than 200 bytes; this one has N"},
			{what: "agent id, name", most: 200, rpc: register(func(r *pb.RegisterAgent, n int) { r.Name = xs(n) }), code: codes.InvalidArgument, words: "name must not be longer than 200 bytes; this one has N"},
			{
				what: "capabilities, features, workspaces", most: 64, rpc: register(func(r *pb.RegisterAgent, n int) { r.Capabilities = slices.Repeat([]string{"c"}, n) }),
				code: codes.InvalidArgument, words: "capabilities must not have more than 64 entries; this one has N",
			},
			{
				what: "capabilities, features, workspaces", most: 64, rpc: register(func(r *pb.RegisterAgent, n int) { r.ProtocolFeatures = slices.Repeat([]string{"c"}, n) }),
				code: codes.InvalidArgument, words: "protocol_features must not have more than 64 entries; this one has N",
			},
			{
				what: "capabilities, features, workspaces", most: 200, rpc: register(func(r *pb.RegisterAgent, n int) { r.Metadata = &pb.AgentMetadata{Workspaces: []string{xs(n)}} }),
				code: codes.InvalidArgument, words: "metadata.workspaces: an entry must not be longer than 200 bytes; this one has N",
			},
			{
				what: "folder, branch, remote", most: 4096, rpc: register(func(r *pb.RegisterAgent, n int) { r.Metadata = &pb.AgentMetadata{WorkingDirectory: xs(n)} }),
				code: codes.InvalidArgument, words: "metadata.working_directory must not be longer than 4096 bytes; this one has N",
			},
			{
				what: "tools of an agent", most: 128, rpc: register(func(r *pb.RegisterAgent, n int) {
					for i := range n {
						r.Tools = append(r.Tools, &pb.ToolDefinition{Name: "t" + strconv.Itoa(i), InputSchemaJson: "{}"})
					}
				}), code: codes.InvalidArgument, words: "tools must not have more than 128 entries; this one has N",
			},
			{what: "name of a tool", most: 128, rpc: tool(func(x *pb.ToolDefinition, n int) { x.Name = xs(n) }), code: codes.InvalidArgument, words: "tools: name must not be longer than 128 bytes; this one has N"},
			{what: "description of a tool", most: 16 << 10, rpc: tool(func(x *pb.ToolDefinition, n int) { x.Description = xs(n) }), code: codes.InvalidArgument, words: "tools: description must not be longer than 16384 bytes; this one has N"},
			{
				what: "schema of a tool", most: 64 << 10, rpc: tool(func(x *pb.ToolDefinition, n int) { x.InputSchemaJson = `{"title":"` + xs(n-12) + `"}` }),
				code: codes.InvalidArgument, words: "tools: input_schema_json must not be longer than 65536 bytes; this one has N",
			},

			{what: "pack id", most: 300, rpc: offer(func(m *pb.PackManifest, n int) { m.PackId = xs(n) }), code: codes.InvalidArgument, words: "pack_id must not be longer than 300 bytes; this one has N"},
			{what: "version of a pack", most: 100, rpc: offer(func(m *pb.PackManifest, n int) { m.Version = xs(n) }), code: codes.InvalidArgument, words: "version must be UTF-8 without control characters and not longer than 100 bytes"},
			{what: "tools of a pack", most: packs.MaxTools, rpc: offer(func(m *pb.PackManifest, n int) {
				for i := range n {
					m.Tools = append(m.Tools, definition("t"+strconv.Itoa(i), 0))
				}
			}), code: codes.InvalidArgument, words: "a pack must not have more than 512 tools; this one has N"},
			{what: "name of a pack's tool", most: 128, rpc: offered(func(x *pb.ToolDefinition, n int) { x.Name = xs(n) }), code: codes.InvalidArgument, words: "a name is 1 to 128 letters, digits, '_', '-' or '.'"},
			{what: "description of a pack's tool", most: 16 << 10, rpc: offered(func(x *pb.ToolDefinition, n int) { x.Description = xs(n) }), code: codes.InvalidArgument, words: "the description must be UTF-8 and not longer than 16384 bytes; it has N"},
			{what: "schema of a pack's tool", most: 64 << 10, rpc: offered(func(x *pb.ToolDefinition, n int) { x.InputSchemaJson = `{"title":"` + xs(n-12) + `"}` }), code: codes.InvalidArgument, words: "the input schema must not be longer than 65536 bytes; it has N"},
			{what: "schema of a pack's tool", most: 10_000, rpc: offered(func(x *pb.ToolDefinition, n int) { x.InputSchemaJson = ways(n) }), code: codes.InvalidArgument, words: "the input schema combines too many others"},
			{what: "capabilities that a tool needs", most: 64, rpc: offered(func(x *pb.ToolDefinition, n int) { x.RequiredCapabilities = slices.Repeat([]string{"c"}, n) }), code: codes.InvalidArgument, words: "it must not need more than 64 capabilities; it needs N"},
			{what: "capabilities that a tool needs", most: 64, rpc: offered(func(x *pb.ToolDefinition, n int) { x.RequiredCapabilities = []string{xs(n)} }), code: codes.InvalidArgument, words: "a required capability has 1 to 64 bytes and no control characters"},

			{what: "input of a tool", most: packs.MaxInput, http: func(n int) sent {
				return call("log_entry", map[string]string{"message": xs(n - len(`{"message":""}`))})
			}, over: 413, words: "the input of a tool must not be longer than 3145728 bytes; this one has N", taken: "message must not be longer"},
			{what: "output of a tool", most: packs.MaxOutput, http: func(n int) sent { return call("large", map[string]int{"n": n}) }, over: 413, words: "the output of a tool must not be longer than 3145728 bytes; that of large has N"},
			{what: storedText, most: 256 << 10, http: func(n int) sent { return call("log_entry", map[string]string{"message": xs(n)}) }, over: 413, words: "message must not be longer than 262144 bytes; this one has N"},
			{what: storedText, most: 256 << 10, http: func(n int) sent { return call("todo_add", map[string]string{"description": xs(n)}) }, over: 413, words: "description must not be longer than 262144 bytes; this one has N"},
			{what: storedText, most: 256 << 10, http: func(n int) sent { return call("todo_add", map[string]string{"description": "d", "notes": xs(n)}) }, over: 413, words: "notes must not be longer than 262144 bytes; this one has N"},
			{what: storedText, most: 256 << 10, http: func(n int) sent { return call("note_set", map[string]string{"key": "k", "value": xs(n)}) }, over: 413, words: "value must not be longer than 262144 bytes; this one has N"},
			{what: storedText, most: 256 << 10, http: func(n int) sent {
				return call("mail_send", map[string]string{"to_agent_id": "a", "subject": "s", "content": xs(n)})
			}, over: 413, words: "content must not be longer than 262144 bytes; this one has N"},
			{what: storedText, most: 256 << 10, http: func(n int) sent {
				return call("bbs_create_thread", map[string]string{"subject": "s", "content": xs(n)})
			}, over: 413, words: "content must not be longer than 262144 bytes; this one has N"},
			{what: "subject, key, receiver", most: 1000, http: func(n int) sent {
				return call("bbs_create_thread", map[string]string{"subject": xs(n), "content": "c"})
			}, over: 413, words: "subject must not be longer than 1000 bytes; this one has N"},
			{what: "subject, key, receiver", most: 1000, http: func(n int) sent {
				return call("mail_send", map[string]string{"to_agent_id": "a", "subject": xs(n), "content": "c"})
			}, over: 413, words: "subject must not be longer than 1000 bytes; this one has N"},
			{what: "subject, key, receiver", most: 1000, http: func(n int) sent {
				return call("mail_send", map[string]string{"to_agent_id": xs(n), "subject": "s", "content": "c"})
			}, over: 413, words: "to_agent_id must not be longer than 1000 bytes; this one has N", taken: "there is no agent"},
			{what: "subject, key, receiver", most: 1000, http: func(n int) sent { return call("note_set", map[string]string{"key": xs(n), "value": "v"}) }, over: 413, words: "key must not be longer than 1000 bytes; this one has N"},
			{what: "tags of a log entry", most: 32, http: func(n int) sent {
				return call("log_entry", map[string]any{"message": "m", "tags": slices.Repeat([]string{"t"}, n)})
			}, over: 413, words: "tags must not have more than 32 entries; this one has N"},
			{what: "tags of a log entry", most: 100, http: func(n int) sent {
				return call("log_entry", map[string]any{"message": "m", "tags": []string{xs(n)}})
			}, over: 413, words: "a tag must not be longer than 100 bytes; this one has N"},
			{what: "todos of an agent", most: 10_000, http: full("todo_add",
				"INSERT INTO tool_todos (todo_id, agent_id, description, status, priority, notes, due_at, created_at, updated_at) SELECT 'n' || n, 'full', 'd', 'pending', 'low', '', 0, 0, 0 FROM i",
				func(int) any { return map[string]string{"description": "d"} }), over: 429, words: "an agent can have 10000 todos; delete some"},
			{what: "notes of an agent", most: 10_000, http: full("note_set",
				"INSERT INTO tool_notes (agent_id, key, value, created_at, updated_at) SELECT 'full', 'n' || n, 'v', 0, 0 FROM i",
				func(n int) any { return map[string]string{"key": strconv.Itoa(n), "value": "v"} }), over: 429, words: "an agent can have 10000 notes; delete some"},
			{what: "question", most: conversation.MaxQuestion, http: func(n int) sent { return asked(xs(n), "", choice) }, over: 413, words: "question must not be longer than 16384 bytes; this one has N", taken: "no connected clients"},
			{what: "question", most: conversation.MaxHeader, http: func(n int) sent { return asked("q", xs(n), choice) }, over: 413, words: "header must not be longer than 200 bytes; this one has N", taken: "no connected clients"},
			{what: "options of a question", most: conversation.MaxOptions, http: func(n int) sent {
				var options []conversation.Option
				for i := range n {
					options = append(options, conversation.Option{Label: strconv.Itoa(i)})
				}
				return asked("q", "", options)
			}, over: 400, words: "a question must not have more than 100 options; this one has N", taken: "no connected clients"},
			{what: "options of a question", most: conversation.MaxOption, http: func(n int) sent { return asked("q", "", []conversation.Option{{Label: xs(n)}}) }, over: 413, words: "options[0]: label and description must not be longer than 1000 bytes", taken: "no connected clients"},
			{what: "options of a question", most: conversation.MaxOption, http: func(n int) sent {
				return asked("q", "", []conversation.Option{{Label: "l", Description: xs(n)}})
			}, over: 413, words: "options[0]: label and description must not be longer than 1000 bytes", taken: "no connected clients"},
			{ // the last one: it leaves no room
				what: "packs", most: packs.MaxPacks, rpc: func(n int) error {
					others := 0
					for _, p := range small.Tools().Packs() {
						if p.Kind != packs.Builtin {
							others++
						}
					}
					for i := others; i < n-1; i++ {
						if _, err := small.Tools().Add(packs.Pack{ID: rand.Text(), Kind: packs.Remote}); err != nil {
							t.Fatal(err)
						}
					}
					return offer(func(*pb.PackManifest, int) {})(n)
				}, code: codes.ResourceExhausted, words: "there are 4096 packs; there cannot be more",
			},
		},
		large: {
			{
				what: "message with its attachments", most: agent.MaxDispatch, http: func(n int) sent {
					return post(withField(hello, "attachments", []any{attachment("f", "t", attached("me", n))}))
				}, over: 413, words: "a message to an agent must not be larger than 4190208 bytes, attachments included; this one has N",
				rpc: func(n int) error {
					return tell(large, func(r *pb.ClientSendMessageRequest) {
						r.Attachments = []*pb.FileAttachment{{Filename: "f", MimeType: "t", Data: make([]byte, attached(auth.Anonymous.Name, n))}}
					})
				}, code: codes.ResourceExhausted,
			},
		},
		locked: {
			{
				what: "name of a principal, of a token", most: auth.MaxName, http: func(n int) sent {
					return sent{"POST", "/api/admin/principals", withField(`{"type":"client"}`, "display_name", strings.Repeat("é", n)), nil}
				}, over: 400, words: "display_name exceeds 100 characters",
				rpc: func(n int) error {
					_, err := admin(locked).CreatePrincipal(Bearer(token), &pb.CreatePrincipalRequest{Type: "client", DisplayName: strings.Repeat("é", n)})
					return err
				}, code: codes.InvalidArgument,
			},
			{
				what: "name of a principal, of a token", most: auth.MaxName, http: func(n int) sent {
					return sent{"PATCH", principals + target.ID, withField("{", "display_name", xs(n)), nil}
				},
				over: 400, words: "display_name exceeds 100 characters",
				rpc: func(n int) error {
					_, err := client(locked).RegisterClient(Bearer(token), &pb.RegisterClientRequest{DisplayName: xs(n), Fingerprint: fresh()})
					return err
				}, code: codes.InvalidArgument,
			},
			{
				what: "name of a principal, of a token", most: auth.MaxName, http: func(n int) sent {
					return sent{"POST", "/api/admin/tokens", fmt.Sprintf(`{"principal_id":%q,"kind":"api","name":%q}`, target.ID, xs(n)), nil}
				}, over: 400, words: "name: display_name exceeds 100 characters",
			},
			{
				what: "capability", most: auth.MaxCapability, http: func(n int) sent { return sent{"PUT", principals + target.ID + "/capabilities/" + xs(n), "", nil} },
				over: 400, words: "a capability is 1 to 64 lower-case letters",
			},
			{
				what: "public key", most: 16 << 10, http: func(n int) sent {
					line := NewKey(t).Line() + " "
					return sent{"POST", "/api/admin/principals", withField(`{"type":"client","display_name":"long key"}`, "pubkey", line+xs(n-len(line))), nil}
				}, over: 400, words: "the public key must not be longer than 16384 bytes",
				rpc: func(n int) error {
					line := NewKey(t).Line() + " "
					_, err := admin(locked).CreatePrincipal(Bearer(token), &pb.CreatePrincipalRequest{Type: "client", DisplayName: "long key", Pubkey: new(line + xs(n-len(line)))})
					return err
				}, code: codes.InvalidArgument,
			},
			{
				what: "keys of a principal", most: 20, http: func(n int) sent {
					for {
						keys, err := locked.Identity().Keys(Ctx(), target.ID)
						if err != nil {
							t.Fatal(err)
						}
						if len(keys) >= n-1 {
							return sent{"POST", principals + target.ID + "/keys", withField("{", "pubkey_fp", fresh()), nil}
						}
						if _, err := locked.Identity().AddKey(Ctx(), target.ID, "", fresh()); err != nil {
							t.Fatal(err)
						}
					}
				}, over: 409, words: "a principal must not have more than 20 keys",
			},
			{
				what: "nonce of a signature", most: 256, rpc: func(n int) error {
					p := key.Proof(time.Now())
					p.Nonce = rand.Text() + xs(n-26)
					sig, err := key.signer.Sign(rand.Reader, []byte(p.Timestamp+"|"+p.Nonce))
					if err != nil {
						t.Fatal(err)
					}
					p.Signature = base64.StdEncoding.EncodeToString(ssh.Marshal(sig))
					_, err = locked.me(Show(p))
					return err
				}, code: codes.Unauthenticated, words: "SSH auth failed: the nonce must not be longer than 256 bytes",
			},
			{
				what: "bearer token", most: 8 << 10, http: func(n int) sent {
					return sent{"GET", "/api/me", "", []string{"Authorization", "Bearer " + longToken(t, owner.ID, n)}}
				},
				over: 401, words: "invalid token",
				rpc: func(n int) error {
					_, err := locked.me(Bearer(longToken(t, owner.ID, n)))
					return err
				}, code: codes.Unauthenticated, said: "invalid or expired token",
			},
			{
				what: "life of a token", most: int(auth.MaxLife / time.Second), http: func(n int) sent {
					return sent{"POST", "/api/admin/tokens", fmt.Sprintf(`{"principal_id":%q,"ttl_seconds":%d}`, target.ID, n), nil}
				}, over: 400, words: "ttl_seconds exceeds maximum of 31536000",
				rpc: func(n int) error {
					_, err := admin(locked).CreateToken(Bearer(token), &pb.CreateTokenRequest{PrincipalId: target.ID, TtlSeconds: int64(n)})
					return err
				}, code: codes.InvalidArgument,
			},
			{what: "name of a secret", most: auth.MaxSecretName, http: func(n int) sent {
				return sent{"PUT", "/api/admin/secrets", fmt.Sprintf(`{"name":%q,"value":"v"}`, xs(n)), nil}
			}, over: 400, words: "Key must be a valid environment variable name"},
			{what: "value of a secret", most: auth.MaxSecretValue, http: func(n int) sent {
				return sent{"PUT", "/api/admin/secrets", fmt.Sprintf(`{"name":"S","value":%q}`, xs(n)), nil}
			}, over: 400, words: "Value exceeds maximum length (64KB)"},
			{what: "agent of a secret", most: 200, http: func(n int) sent {
				return sent{"PUT", "/api/admin/secrets", fmt.Sprintf(`{"name":"S","value":"v","agent_id":%q}`, xs(n)), nil}
			}, over: 400, words: "agent_id must not be longer than 200 bytes"},
			{what: "agent id that is given away", most: 200, http: func(n int) sent {
				return sent{"POST", "/api/admin/agents/" + xs(n) + "/transfer", withField("{", "principal_id", target.ID), nil}
			}, over: 400, words: "agent_id must have 1 to 200 bytes"},
			{
				what: "secrets", most: 1000, http: func(n int) sent {
					all, err := locked.Identity().Secrets(Ctx())
					for i := len(all); err == nil && i < n-1; i++ {
						_, err = locked.Identity().SetSecret(Ctx(), "nobody", fmt.Sprintf("SECRET_%d", i), "v")
					}
					if err != nil {
						t.Fatal(err)
					}
					return sent{"PUT", "/api/admin/secrets", fmt.Sprintf(`{"name":"LAST_%d","value":"v"}`, n), nil}
				}, over: 409, words: "there must not be more than 1000 secrets",
			},
			{
				what: "name to sign in with", most: auth.MaxSignInName, http: func(n int) sent {
					return sent{"POST", "/api/invites/accept", fmt.Sprintf(`{"invite":%q,"display_name":"Bea","name":%q}`, locked.invite(auth.Member), xs(n)), nil}
				}, over: 400, words: "name must begin with a letter and have 2 to 32 letters",
			},
			{
				what: "password", most: auth.MaxPassword, http: func(n int) sent {
					return sent{"POST", "/api/invites/accept", fmt.Sprintf(`{"invite":%q,"display_name":"Bea","name":"bea","password":%q}`, locked.invite(auth.Member), "words"+strings.Repeat(" and", n)[:n-5]), nil}
				}, over: 400, words: "password must not be longer than 256 bytes; this one has N",
			},
			{
				what: "note of an invite", most: auth.MaxInviteNote, http: func(n int) sent { return sent{"POST", "/api/admin/invites", withField("{", "note", xs(n)), nil} },
				over: 400, words: "note must be printable UTF-8 of at most 200 bytes; this one has N",
			},
			{
				what: "life of an invite", most: int(auth.MaxInviteLife / time.Second), http: func(n int) sent { return sent{"POST", "/api/admin/invites", withField("{", "ttl_seconds", n), nil} },
				over: 400, words: "ttl_seconds must be from 60 to 2592000; got N",
			},
			{
				what: "invites that wait to be used", most: 200, http: func(n int) sent {
					invites, err := locked.Identity().Invites(Ctx())
					invites = slices.DeleteFunc(invites, func(i auth.Invite) bool { return i.Status(time.Now()) != "open" })
					for i := len(invites); err == nil && i < n-1; i++ {
						_, _, err = locked.Identity().CreateInvite(Ctx(), auth.Member, "", 0)
					}
					if err != nil {
						t.Fatal(err)
					}
					return sent{"POST", "/api/admin/invites", "{}", nil}
				}, over: 429, words: "200 invites wait to be used; revoke some first",
			},
			{
				what: "name of a device", most: 100, http: func(n int) sent {
					return sent{"POST", "/api/link/request", fmt.Sprintf(`{"fingerprint":%q,"device_name":%q}`, fresh(), strings.Repeat("é", n)), nil}
				}, over: 400, words: "device_name must have 1 to 100 printable characters",
			},
			{
				what: "devices that wait to be linked", most: 200, http: func(n int) sent {
					links, err := locked.Identity().Links(Ctx())
					for i := len(links); err == nil && i < n-1; i++ {
						_, err = locked.Identity().RequestLink(Ctx(), auth.LinkRequest{Fingerprint: fresh(), DeviceName: "d", Address: "192.0.2.1"})
					}
					if err != nil {
						t.Fatal(err)
					}
					return sent{"POST", "/api/link/request", fmt.Sprintf(`{"fingerprint":%q,"device_name":"d"}`, fresh()), nil}
				}, over: 429, words: "200 devices wait to be linked; no more are taken",
			},
		},
	} {
		bearer := ""
		if g == locked {
			bearer = token
		}
		for _, l := range limits {
			tested[l.what] = true
			if !documented[l.what] {
				t.Errorf("docs/LIMITS.md does not have %q", l.what)
			}
			t.Run(l.what, func(t *testing.T) { l.try(t, g, bearer) })
		}
	}
	for what := range documentedLimits(t) {
		if _, ok := elsewhere[what]; !ok && !tested[what] {
			t.Errorf("docs/LIMITS.md has %q, and no test", what)
		}
	}
}

// documentedLimits are the rows of docs/LIMITS.md.
func documentedLimits(t *testing.T) map[string]bool {
	t.Helper()
	doc, err := os.ReadFile("../../docs/LIMITS.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([^|]+) \|`).FindAllSubmatch(doc, -1) {
		if what := string(m[1]); what != "what" && what != "---" {
			rows[what] = true
		}
	}
	return rows
}

// TestLargestPages: whoever asks for more than a page may have gets the largest.
func TestLargestPages(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	go func() {
		for m := a.Next(); m != nil; m = a.Next() {
			if s := m.GetSendMessage(); s != nil {
				a.Reply(&pb.MessageResponse{RequestId: s.RequestId, Event: &pb.MessageResponse_Usage{Usage: &pb.TokenUsage{InputTokens: 1}}})
				a.Done(s.RequestId, "")
			}
		}
	}()
	const turns = 501 // of three events each, in one thread
	thread := ""
	for range turns {
		turn, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", ThreadID: thread, Sender: "me", Text: "word"})
		if err != nil {
			t.Fatal(err)
		}
		thread = turn.ThreadID
	}
	if _, body := g.web("POST", "/api/send", `{"agent_id":"a","sender":"me","content":"the last"}`); !strings.Contains(body, "event: done") {
		t.Fatal(body)
	}
	for path, c := range map[string]struct {
		list string
		most int
		full bool // there are as many
	}{
		"/api/conversations/a/events?":          {"events", 1000, true},
		"/api/agents/a/history?":                {"events", 500, false},
		"/api/search?q=word&":                   {"results", 100, true},
		"/api/threads/" + thread + "/usage?":    {"usage", turns, true},
		"/api/threads/" + thread + "/messages?": {"messages", 1000, false},
		"/api/threads?":                         {"threads", 2, true},
	} {
		for _, n := range []int{1000, 1001, 1 << 30} {
			_, body := g.web("GET", path+"limit="+strconv.Itoa(n), "")
			var page map[string]any
			if err := json.Unmarshal([]byte(body), &page); err != nil {
				t.Fatalf("%s: %v %.200s", path, err, body)
			}
			if list, _ := page[c.list].([]any); len(list) == 0 || len(list) > c.most || c.full && len(list) != c.most {
				t.Errorf("%slimit=%d: %d entries, want %d", path, n, len(list), c.most)
			}
		}
	}
	page, err := pb.NewClientServiceClient(g.Dial()).GetEvents(context.Background(), &pb.GetEventsRequest{ConversationKey: "a", Limit: proto.Int32(501)})
	if err != nil || len(page.GetEvents()) == 0 || len(page.GetEvents()) > 500 {
		t.Errorf("over gRPC: %d entries, %v", len(page.GetEvents()), err)
	}
}

// TestFilesOfAgents: a file of an agent that is too large is refused in the turn, which goes on.
func TestFilesOfAgents(t *testing.T) {
	g := New(t, func(c *config.Config) { c.Limits.File = 1000 })
	a := g.Agent("a")
	go func() {
		m := a.Message()
		for _, f := range []*pb.FileData{{Filename: "fits", Data: make([]byte, 1000)}, {Filename: "does not", Data: make([]byte, 1001)}, {Filename: xs(256)}} {
			a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_File{File: f}})
		}
		a.Text(m.RequestId, "here they are")
		a.Done(m.RequestId, "")
	}()
	_, body := g.web("POST", "/api/send", `{"agent_id":"a","sender":"me","content":"hi"}`)
	for _, want := range []string{
		`"filename":"fits"`, `{"error":"a file of the agent was refused: a file must not be larger than 1000 bytes; \"does not\" has 1001"}`,
		`{"error":"a file of the agent was refused: filename and mime_type must not be longer than 255 bytes"}`, "event: done",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is not in\n%s", want, body)
		}
	}
}

// longToken makes a token of a length that is good.
func longToken(t *testing.T, principalID string, n int) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": principalID, "exp": time.Now().Add(time.Hour).Unix(), "pad": ""}
	token := signed(t, jwt.SigningMethodHS256, claims)
	for pad := (n - len(token)) / 4 * 3; len(token) < n; pad++ { // three bytes are four of a token
		claims["pad"] = xs(pad)
		token = signed(t, jwt.SigningMethodHS256, claims)
	}
	return token
}

// try sends the largest and one that is larger.
func (l limit) try(t *testing.T, g *Gateway, token string) {
	more := l.most + max(l.step, 1)
	if l.http != nil {
		send := func(n int) (int, string) {
			s := l.http(n)
			if s.header == nil || s.header[0] != "Authorization" {
				s.header = append(s.header, "Authorization", "Bearer "+token)
			}
			resp, body := g.web(s.method, s.path, s.body, s.header...)
			return resp.StatusCode, body
		}
		if code, body := send(l.most); l.taken == "" && code >= 300 || !strings.Contains(body, l.taken) {
			t.Errorf("%d over HTTP: %d %.300s", l.most, code, body)
		}
		code, body := send(more)
		var refusal struct{ Error string }
		if json.Unmarshal([]byte(body), &refusal) == nil {
			body = refusal.Error
		}
		if want := strings.ReplaceAll(l.words, "N", strconv.Itoa(more)); code != l.over || !strings.Contains(body, want) {
			t.Errorf("%d over HTTP: got %d %.300s, want %d %s", more, code, body, l.over, want)
		}
	}
	if l.rpc != nil {
		if err := l.rpc(l.most); (err != nil || l.taken != "") && (l.taken == "" || !strings.Contains(fmt.Sprint(err), l.taken) && status.Code(err) != codes.NotFound) {
			t.Errorf("%d over gRPC: %.300s", l.most, fmt.Sprint(err))
		}
		words := l.words
		if l.said != "" {
			words = l.said
		}
		words = strings.ReplaceAll(words, "N", strconv.Itoa(more))
		if err := l.rpc(more); status.Code(err) != l.code || !strings.Contains(status.Convert(err).Message(), words) {
			t.Errorf("%d over gRPC: got %.300s, want %v %s", more, fmt.Sprint(err), l.code, words)
		}
	}
}
