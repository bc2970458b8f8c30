// Package openapi describes the HTTP API: for programs as an OpenAPI 3.1 document, for people as a
// page. Both are made of the table in operations.go, in whose order they are, the schemas in
// schemas.go and the events in events.go; who may call what comes from [auth.Routes].
//
// A new route is an entry of the table. The tests of gatewaytest compare the document with what is
// served: every route, every answer that any test has seen, every field.
package openapi

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"coven-gateway/internal/auth"
)

// metrics is the route whose path is configured.
const metrics = "GET /metrics"

// Options are what differs between gateways.
type Options struct {
	MetricsPath   string // where the metrics are; "" if they are not served
	SessionCookie string // name of the cookie of a browser that has logged in
}

// A Document describes the API. Its zero value is not useful, see [New].
type Document struct {
	object
	Options
}

// New returns the document of an API. It panics when a route has no entry in the authorization
// table.
func New(opts Options) Document {
	d := Document{Options: opts}
	var tags []object
	paths := object{}
	for _, g := range groups {
		tags = append(tags, object{{"name", g.name}}.with("description", g.text))
		for _, o := range g.operations {
			method, path, ok := d.where(o)
			if !ok {
				continue
			}
			at := slices.IndexFunc(paths, func(m member) bool { return m.name == path })
			if at < 0 {
				at, paths = len(paths), paths.with(path, object{})
			}
			item := paths[at].value.(object)
			paths[at].value = item.with(strings.ToLower(method), o.describe(g.name, path))
		}
	}
	d.object = object{
		{"openapi", "3.1.0"},
		{"info", object{
			{"title", "coven-gateway"},
			{"summary", "The control plane for AI agents, over HTTP."},
			{"description", about},
			{"version", "1"},
		}},
		{"servers", []object{{{"url", "/"}}}},
		{"tags", tags},
		{"paths", paths},
		{"components", object{
			{"schemas", schemas()},
			{"responses", refusals()},
			{"securitySchemes", object{
				{"bearer", object{{"type", "http"}, {"scheme", "bearer"}, {"description", "A token: `Authorization: Bearer TOKEN`."}}},
				{"session", object{{"type", "apiKey"}, {"in", "cookie"}, {"name", opts.SessionCookie}, {"description", "The cookie that signing in sets, or `POST /api/session` for a token. Over TLS its name begins with `__Host-`."}}},
			}},
		}},
	}
	return d
}

const about = "Everything is HTTP with JSON, and server-sent events for what is live. Times are RFC 3339 in UTC. " +
	"Fields may be added to answers; ignore those that you do not know. Unknown fields of requests are ignored.\n\n" +
	"A gateway that has `auth.jwt_secret` asks for credentials: a token or the cookie of a session. One that has not trusts its own machine, and answers no other.\n\n" +
	"Every answer has an `X-Request-Id`, which is in the gateway's log too; a request may bring its own. HEAD is answered like GET. " +
	"Every request may also be answered 500 `internal` when the gateway has failed, 503 `unavailable` while it stops, and 431 when its headers are too large.\n\n" +
	"A stream is made of events with a name, data and, as id, the number of the event. A comment comes every 15 seconds when there is nothing to say. " +
	"A gateway that stops ends its streams with a `retry` hint: come back with the last id."

// where returns the method and the path of an operation; ok is false for one that is not served.
func (d Document) where(o operation) (method, path string, ok bool) {
	method, path, found := strings.Cut(o.route, " ")
	if !found { // any method
		method, path = http.MethodGet, o.route
	}
	if o.route == metrics {
		path = d.MetricsPath
	}
	return method, path, path != ""
}

// A refusal is an error that many routes have.
type refusal struct {
	status     int
	name, text string
}

var refusalTexts = []refusal{
	{400, "BadRequest", "Something about the request is wrong; the message names it."},
	{401, "Unauthenticated", "No credentials, or none that are good."},
	{403, "Forbidden", "The caller lacks a role or a scope, or, with the code `reauthentication_required`, has to show again who it is; waits for approval or was revoked; or the request comes from another web site, or for an unknown host."},
	{404, "NotFound", "There is no such thing, or the caller may not know of it."},
	{405, "MethodNotAllowed", "The path does not have this method, or not now; `Allow` has those that it has."},
	{409, "Conflict", "The request does not fit with what is there."},
	{410, "PositionLost", "The conversation has not come that far: the position is from another one, or from before a restore. Begin at 0."},
	{413, "TooLarge", "The body or a part of it is too large; the message has the limit."},
	{422, "ToolFailed", "The tool has failed; the message is what it says."},
	{429, "RateLimited", "Too many requests."},
	{503, "Unavailable", "The agent is not connected, the tool does not answer, nothing can be stored, or the gateway is stopping."},
}

func refusals() object {
	o := object{}
	for _, r := range refusalTexts {
		x := object{{"description", r.text}}
		if r.status == 429 || r.status == 503 {
			x = x.with("headers", object{{"Retry-After", object{{"description", "seconds until it makes sense to try again"}, {"schema", number}}}})
		}
		o = o.with(r.name, x.with("content", object{{inJSON, object{{"schema", ref("Error")}}}}))
	}
	return o
}

// refusals are the errors of a route: of all routes, of those that ask who the caller is, of those
// that take a body, and its own.
func (o operation) refusals() []int {
	all := append([]int{400, 403}, o.errors...)
	if auth.Routes[o.route].Level != auth.Anybody {
		all = append(all, 401, 429)
	}
	if o.body.json != "" || o.body.words != "" {
		all = append(all, 413)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// describe returns the operation object.
func (o operation) describe(tag, path string) object {
	rule, ok := auth.Routes[o.route]
	if !ok {
		panic("no entry in the authorization table: " + o.route)
	}
	x := object{{"operationId", o.id}, {"summary", o.summary}}.with("description", o.text).with("tags", []string{tag})
	scopes := []string{}
	if rule.Scope != "" {
		scopes = append(scopes, string(rule.Scope))
	}
	if rule.Level == auth.Anybody {
		x = x.with("security", []object{})
	} else {
		x = x.with("security", []object{{{"bearer", scopes}}, {{"session", scopes}}})
	}
	if auth.Fresh[o.route] {
		x = x.with("x-fresh", true)
	}
	if role := needs[rule.Level]; role != "" {
		x = x.with("x-role", role)
	}
	var ps []object
	before := ""
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			name = strings.TrimSuffix(name, "}")
			ps = append(ps, object{{"name", name}, {"in", "path"}, {"required", true}}.with("description", inPaths[before+"/"+part]).with("schema", str))
		}
		before = part
	}
	for _, p := range o.query {
		ps = append(ps, p.describe("query"))
	}
	for _, p := range o.header {
		ps = append(ps, p.describe("header"))
	}
	if len(ps) > 0 {
		x = x.with("parameters", ps)
	}
	if o.body.words != "" {
		x = x.with("requestBody", object{{"required", true}, {"content", object{{"application/x-www-form-urlencoded", object{{"schema", ref(o.body.words)}}}}}})
	}
	if o.body.json != "" {
		content := object{{inJSON, object{{"schema", ref(o.body.json)}}}}
		if o.body.form != "" {
			content = content.with("multipart/form-data", object{{"schema", ref(o.body.form)}})
		}
		x = x.with("requestBody", object{{"required", !o.body.optional}, {"content", content}})
	}
	return x.with("responses", o.responses())
}

// needs are the roles that the levels ask for.
var needs = map[auth.Level]auth.Role{auth.Members: auth.Member, auth.Admins: auth.Admin}

func (p parameter) describe(in string) object {
	name, needed := strings.CutSuffix(p.name, "!")
	return object{{"name", name}, {"in", in}, {"required", needed}}.with("description", p.text).with("schema", p.of)
}

// responses are all answers and refusals, the forms of one status together.
func (o operation) responses() object {
	statuses := o.refusals()
	for _, a := range o.answers {
		statuses = append(statuses, a.status)
	}
	slices.Sort(statuses)
	all := object{}
	for _, status := range slices.Compact(statuses) {
		name := strconv.Itoa(status)
		text, content := "", object{}
		for _, a := range o.answers {
			if a.status != status {
				continue
			}
			text = cmp.Or(text, a.text)
			if a.media == "" {
				continue
			}
			m := object{{"schema", a.schema}}
			if a.events != nil {
				m = m.with("x-events", a.events)
			}
			content = content.with(a.media, m)
		}
		x := object{{"description", cmp.Or(text, http.StatusText(status))}}
		if i := slices.IndexFunc(refusalTexts, func(r refusal) bool { return r.status == status }); i >= 0 && slices.Contains(o.refusals(), status) {
			r := refusalTexts[i]
			switch {
			case slices.Contains(o.plain, status):
				forms := object{{inText, object{{"schema", str}}}}
				if status == http.StatusBadRequest { // what is wrong with any request is said as everywhere
					forms = forms.with(inJSON, object{{"schema", ref("Error")}})
				}
				x = object{{"description", r.text}, {"content", forms}}
			case slices.Contains(o.oauth, status):
				x = object{{"description", r.text}, {"content", object{{inJSON, object{{"schema", object{{"anyOf", []object{ref("Error"), ref("OAuthError")}}}}}}}}}
			case slices.Contains(o.rpc, status):
				x = object{{"description", r.text}, {"content", object{{inJSON, object{{"schema", object{{"anyOf", []object{ref("Error"), ref("MCPMessage")}}}}}}}}}
			default:
				x = object{{"$ref", "#/components/responses/" + r.name}}
			}
		} else if len(content) > 0 {
			x = x.with("content", content)
		}
		all = all.with(name, x)
	}
	return all
}
