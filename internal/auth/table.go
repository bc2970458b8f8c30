package auth

import (
	"slices"

	"coven-gateway/internal/fault"
)

// A Level is how much of an identity a call needs.
type Level int

// The levels.
const (
	Anybody   Level = iota + 1 // no credentials
	AnyCaller                  // any approved principal
	Members                    // the role member, or a higher one
	Admins                     // the role admin, or a higher one
)

// Objects says on whose objects a call acts.
type Objects int

// The kinds of objects.
const (
	NoObject  Objects = iota // nobody's, or everybody's
	OwnOnly                  // the caller's own turns, and those of agents that it owns; an admin's are all
	OwnAlone                 // what belongs to the caller's own turns and to nobody else's; an admin's are all
	Managed                  // principals of no higher rank than the caller
	OwnAgents                // what belongs to an agent that the caller oversees; an admin's are all
)

// A Rule says who may make a call, with which scope, and on whose objects.
type Rule struct {
	Level   Level
	Scope   Scope // "" for any
	Objects Objects
}

// RPCs is the authorization table of the gRPC server. A method that is not in it is not served.
var RPCs = map[string]Rule{
	"/coven.CovenControl/AgentStream": {AnyCaller, ScopeConnect, NoObject},

	"/coven.PackService/Register":   {AnyCaller, ScopeConnect, NoObject},
	"/coven.PackService/ToolResult": {AnyCaller, ScopeConnect, NoObject},

	"/coven.ClientService/GetMe":          {AnyCaller, "", NoObject},
	"/coven.ClientService/ListAgents":     {AnyCaller, ScopeRead, NoObject},
	"/coven.ClientService/GetEvents":      {AnyCaller, ScopeRead, OwnOnly},
	"/coven.ClientService/StreamEvents":   {AnyCaller, ScopeRead, OwnOnly},
	"/coven.ClientService/SendMessage":    {AnyCaller, ScopeSend, NoObject}, // its thread is the caller's
	"/coven.ClientService/ApproveTool":    {AnyCaller, ScopeSend, OwnOnly},
	"/coven.ClientService/AnswerQuestion": {AnyCaller, ScopeSend, OwnOnly},
	"/coven.ClientService/CancelTurn":     {AnyCaller, ScopeSend, OwnOnly},
	"/coven.ClientService/RegisterAgent":  {Members, ScopeDevices, NoObject},
	"/coven.ClientService/RegisterClient": {Members, ScopeDevices, NoObject},

	"/coven.AdminService/ListBindings":    {Admins, ScopeAdmin, NoObject},
	"/coven.AdminService/CreateBinding":   {Admins, ScopeAdmin, NoObject},
	"/coven.AdminService/UpdateBinding":   {Admins, ScopeAdmin, NoObject},
	"/coven.AdminService/DeleteBinding":   {Admins, ScopeAdmin, NoObject},
	"/coven.AdminService/CreateToken":     {Admins, ScopeAdmin, Managed},
	"/coven.AdminService/ListPrincipals":  {Admins, ScopeAdmin, NoObject},
	"/coven.AdminService/CreatePrincipal": {Admins, ScopeAdmin, Managed},
	"/coven.AdminService/DeletePrincipal": {Admins, ScopeAdmin, Managed},

	"/grpc.health.v1.Health/Check": {Anybody, "", NoObject},
	"/grpc.health.v1.Health/List":  {Anybody, "", NoObject},
	"/grpc.health.v1.Health/Watch": {Anybody, "", NoObject},

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {Admins, ScopeAdmin, NoObject},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {Admins, ScopeAdmin, NoObject},
}

// Routes is the authorization table of the HTTP API, by the patterns of net/http. A route that is
// not in it is not served.
var Routes = map[string]Rule{
	"/health":                {Anybody, "", NoObject},
	"/health/ready":          {Anybody, "", NoObject},
	"GET /api/health/stream": {Anybody, "", NoObject},
	"GET /api/openapi.json":  {Anybody, "", NoObject},
	"GET /api/docs":          {Anybody, "", NoObject},
	"GET /metrics":           {AnyCaller, ScopeRead, NoObject}, // wherever metrics.path puts it

	"GET /api/bindings":    {AnyCaller, ScopeRead, NoObject},
	"POST /api/bindings":   {Admins, ScopeAdmin, NoObject},
	"DELETE /api/bindings": {Admins, ScopeAdmin, NoObject},

	"POST /api/link/request":      {Anybody, "", NoObject},
	"GET /api/link/status/{code}": {Anybody, "", NoObject},

	"POST /api/invites/accept": {Anybody, "", NoObject},

	"GET /api/me":                      {AnyCaller, "", NoObject},
	"PATCH /api/me":                    {AnyCaller, "", NoObject},
	"PUT /api/me/password":             {AnyCaller, "", NoObject},
	"GET /api/me/passkeys":             {AnyCaller, "", NoObject},
	"POST /api/me/passkey-options":     {AnyCaller, "", NoObject},
	"POST /api/me/passkeys":            {AnyCaller, "", NoObject},
	"PATCH /api/me/passkeys/{id}":      {AnyCaller, "", NoObject},
	"DELETE /api/me/passkeys/{id}":     {AnyCaller, "", NoObject},
	"GET /api/me/sessions":             {AnyCaller, "", NoObject},
	"DELETE /api/me/sessions":          {AnyCaller, "", NoObject},
	"DELETE /api/me/sessions/{id}":     {AnyCaller, "", NoObject},
	"POST /api/session/reauthenticate": {AnyCaller, "", NoObject},

	"GET /api/sign-in":                  {Anybody, "", NoObject},
	"POST /api/sign-in/password":        {Anybody, "", NoObject},
	"POST /api/sign-in/passkey-options": {Anybody, "", NoObject},
	"POST /api/sign-in/passkey":         {Anybody, "", NoObject},
	"POST /api/sign-in/link":            {Anybody, "", NoObject},

	"POST /api/session":   {AnyCaller, "", NoObject},
	"DELETE /api/session": {AnyCaller, "", NoObject},

	"POST /api/send":             {AnyCaller, ScopeSend, OwnOnly},
	"POST /api/agents/{id}/send": {AnyCaller, ScopeSend, NoObject},
	"POST /api/tools/approve":    {AnyCaller, ScopeSend, OwnOnly},
	"GET /api/approvals":         {AnyCaller, ScopeRead, OwnOnly},

	"GET /api/tools":               {AnyCaller, ScopeRead, NoObject},
	"POST /api/tools/{name}/call":  {AnyCaller, ScopeSend, OwnAgents}, // and what the tool needs
	"GET /api/packs":               {AnyCaller, ScopeRead, NoObject},
	"GET /api/agents/{id}/log":     {AnyCaller, ScopeRead, OwnAgents},
	"GET /api/agents/{id}/todos":   {AnyCaller, ScopeRead, OwnAgents},
	"GET /api/agents/{id}/mail":    {AnyCaller, ScopeRead, OwnAgents},
	"GET /api/agents/{id}/notes":   {AnyCaller, ScopeRead, OwnAgents},
	"GET /api/board":               {AnyCaller, ScopeRead, NoObject}, // all agents share it
	"GET /api/board/{id}":          {AnyCaller, ScopeRead, NoObject},
	"POST /api/agents/{id}/inject": {AnyCaller, ScopeSend, OwnAgents},

	"POST /mcp":           {AnyCaller, ScopeSend, NoObject}, // and what each tool needs
	"GET /mcp":            {AnyCaller, ScopeSend, NoObject},
	"DELETE /mcp":         {AnyCaller, ScopeSend, NoObject},
	"POST /mcp/{token}":   {AnyCaller, ScopeSend, NoObject},
	"GET /mcp/{token}":    {AnyCaller, ScopeSend, NoObject},
	"DELETE /mcp/{token}": {AnyCaller, ScopeSend, NoObject},

	"GET /.well-known/oauth-protected-resource":   {Anybody, "", NoObject},
	"GET /.well-known/oauth-authorization-server": {Anybody, "", NoObject},
	"GET /oauth/authorize":                        {Anybody, "", NoObject},
	"POST /oauth/register":                        {Anybody, "", NoObject},
	"POST /oauth/token":                           {Anybody, "", NoObject}, // whoever shows a code or a refresh token
	"POST /oauth/revoke":                          {Anybody, "", NoObject},
	"GET /api/oauth/consent":                      {AnyCaller, "", NoObject},
	"POST /api/oauth/consent":                     {AnyCaller, "", NoObject},
	"GET /api/oauth/grants":                       {AnyCaller, "", NoObject},
	"DELETE /api/oauth/grants/{id}":               {AnyCaller, "", NoObject},

	"GET /api/admin/oauth/grants":         {Admins, ScopeAdmin, NoObject},
	"DELETE /api/admin/oauth/grants/{id}": {Admins, ScopeAdmin, Managed},

	"GET /api/questions":         {AnyCaller, ScopeRead, OwnOnly},
	"POST /api/questions/answer": {AnyCaller, ScopeSend, OwnOnly},

	"GET /api/agents":                       {AnyCaller, ScopeRead, NoObject},
	"GET /api/agents/{id}/history":          {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/conversations/{agent}/events": {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/turns":                        {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/turns/{id}":                   {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/turns/{id}/events":            {AnyCaller, ScopeRead, OwnOnly},
	"POST /api/turns/{id}/cancel":           {AnyCaller, ScopeSend, OwnOnly},
	"GET /api/search":                       {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/threads":                      {AnyCaller, ScopeRead, OwnOnly},
	"PATCH /api/threads/{id}":               {AnyCaller, ScopeSend, OwnOnly},
	"DELETE /api/threads/{id}":              {AnyCaller, ScopeSend, OwnAlone},
	"GET /api/threads/{id}/export":          {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/threads/{id}":                 {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/threads/{id}/messages":        {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/threads/{id}/turns":           {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/threads/{id}/usage":           {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/threads/{id}/files":           {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/files/{id}":                   {AnyCaller, ScopeRead, OwnOnly},
	"GET /api/stats/usage":                  {AnyCaller, ScopeRead, OwnOnly},

	"GET /api/admin/principals":                                   {Admins, ScopeAdmin, NoObject},
	"POST /api/admin/principals":                                  {Admins, ScopeAdmin, Managed},
	"GET /api/admin/principals/{id}":                              {Admins, ScopeAdmin, NoObject},
	"PATCH /api/admin/principals/{id}":                            {Admins, ScopeAdmin, Managed},
	"DELETE /api/admin/principals/{id}":                           {Admins, ScopeAdmin, Managed},
	"POST /api/admin/principals/{id}/approve":                     {Admins, ScopeAdmin, Managed},
	"POST /api/admin/principals/{id}/revoke":                      {Admins, ScopeAdmin, Managed},
	"PUT /api/admin/principals/{id}/roles/{role}":                 {Admins, ScopeAdmin, Managed},
	"DELETE /api/admin/principals/{id}/roles/{role}":              {Admins, ScopeAdmin, Managed},
	"PUT /api/admin/principals/{id}/capabilities/{capability}":    {Admins, ScopeAdmin, Managed},
	"DELETE /api/admin/principals/{id}/capabilities/{capability}": {Admins, ScopeAdmin, Managed},
	"GET /api/admin/principals/{id}/keys":                         {Admins, ScopeAdmin, NoObject},
	"POST /api/admin/principals/{id}/keys":                        {Admins, ScopeAdmin, Managed},
	"DELETE /api/admin/principals/{id}/keys/{fingerprint}":        {Admins, ScopeAdmin, Managed},

	"GET /api/admin/users":                            {Admins, ScopeAdmin, NoObject},
	"GET /api/admin/users/{id}":                       {Admins, ScopeAdmin, NoObject},
	"PATCH /api/admin/users/{id}":                     {Admins, ScopeAdmin, Managed},
	"DELETE /api/admin/users/{id}":                    {Admins, ScopeAdmin, Managed},
	"POST /api/admin/users/{id}/reset":                {Admins, ScopeAdmin, Managed},
	"DELETE /api/admin/users/{id}/sessions":           {Admins, ScopeAdmin, Managed},
	"DELETE /api/admin/users/{id}/sessions/{session}": {Admins, ScopeAdmin, Managed},

	"GET /api/admin/tokens":         {Admins, ScopeAdmin, NoObject},
	"POST /api/admin/tokens":        {Admins, ScopeAdmin, Managed},
	"DELETE /api/admin/tokens/{id}": {Admins, ScopeAdmin, Managed},

	"GET /api/admin/invites":         {Admins, ScopeAdmin, NoObject},
	"POST /api/admin/invites":        {Admins, ScopeAdmin, Managed}, // the principals that they promise
	"DELETE /api/admin/invites/{id}": {Admins, ScopeAdmin, Managed},

	"GET /api/admin/agents":                      {Admins, ScopeAdmin, NoObject},
	"GET /api/admin/agents/{id}/approval-policy": {Admins, ScopeAdmin, NoObject},
	"PUT /api/admin/agents/{id}/approval-policy": {Admins, ScopeAdmin, NoObject},
	"POST /api/admin/agents/{id}/transfer":       {Admins, ScopeAdmin, Managed},
	"DELETE /api/admin/agents/{id}/ownership":    {Admins, ScopeAdmin, Managed},
	"GET /api/admin/stats":                       {Admins, ScopeAdmin, NoObject},

	"GET /api/admin/secrets":            {Admins, ScopeAdmin, NoObject},
	"PUT /api/admin/secrets":            {Admins, ScopeAdmin, NoObject},
	"DELETE /api/admin/secrets/{id}":    {Admins, ScopeAdmin, NoObject},
	"GET /api/admin/secrets/{id}/value": {Admins, ScopeAdmin, NoObject},
	"POST /api/admin/secrets/rotate":    {Admins, ScopeAdmin, NoObject},

	"GET /api/admin/mcp/servers":                {Admins, ScopeAdmin, NoObject},
	"POST /api/admin/mcp/servers":               {Admins, ScopeAdmin, NoObject}, // owners alone, if it is a command
	"GET /api/admin/mcp/servers/{name}":         {Admins, ScopeAdmin, NoObject},
	"PATCH /api/admin/mcp/servers/{name}":       {Admins, ScopeAdmin, NoObject}, // likewise
	"DELETE /api/admin/mcp/servers/{name}":      {Admins, ScopeAdmin, NoObject},
	"POST /api/admin/mcp/servers/{name}/accept": {Admins, ScopeAdmin, NoObject},
	"POST /api/admin/mcp/servers/{name}/test":   {Admins, ScopeAdmin, NoObject},
	"GET /api/admin/mcp/servers/{name}/logs":    {Admins, ScopeAdmin, NoObject},

	"GET /api/admin/link":                 {Admins, ScopeAdmin, NoObject},
	"POST /api/admin/link/{code}/approve": {Admins, ScopeAdmin, Managed},
	"POST /api/admin/link/{code}/deny":    {Admins, ScopeAdmin, NoObject},

	"GET /api/admin/gateway": {Admins, ScopeAdmin, NoObject},

	"GET /api/admin/audit":        {Admins, ScopeAdmin, NoObject},
	"GET /api/admin/audit/verify": {Admins, ScopeAdmin, NoObject},
	"GET /api/admin/audit/export": {Admins, ScopeAdmin, NoObject},
}

// Fresh are the routes that a browser's session is good for only when whoever sits there has shown a
// moment ago who it is, see [Principal.Fresh]: what gives rights or secrets away for longer than a
// session lasts.
var Fresh = map[string]bool{
	"POST /api/me/passkey-options":                             true,
	"POST /api/me/passkeys":                                    true,
	"DELETE /api/me/passkeys/{id}":                             true,
	"POST /api/admin/principals":                               true,
	"DELETE /api/admin/principals/{id}":                        true,
	"PUT /api/admin/principals/{id}/roles/{role}":              true,
	"PUT /api/admin/principals/{id}/capabilities/{capability}": true,
	"POST /api/admin/principals/{id}/keys":                     true,
	"PATCH /api/admin/users/{id}":                              true,
	"DELETE /api/admin/users/{id}":                             true,
	"POST /api/admin/users/{id}/reset":                         true,
	"POST /api/admin/tokens":                                   true,
	"POST /api/admin/invites":                                  true,
	"POST /api/admin/agents/{id}/transfer":                     true,
	"GET /api/admin/secrets/{id}/value":                        true,
	"POST /api/admin/secrets/rotate":                           true,
	"POST /api/admin/link/{code}/approve":                      true,
}

// Allow returns a Forbidden fault unless a caller meets a rule. Whose objects it acts on is
// decided where they are.
func (r Rule) Allow(p Principal) error {
	need, ok := Role(""), true
	switch r.Level {
	case Anybody:
		return nil
	case AnyCaller:
	case Members:
		need, ok = Member, p.Has(Member)
	case Admins:
		need, ok = Admin, p.Has(Admin)
	default:
		ok = false // no rule
	}
	if !ok {
		return fault.New(fault.Forbidden, "%s role required", need)
	}
	if p.Credential.Kind == OAuth { // good for the MCP server only, which asks for its own scopes
		return nil
	}
	if r.Scope != "" && p.Credential.Scopes != nil && !slices.Contains(p.Credential.Scopes, r.Scope) {
		return fault.New(fault.Forbidden, "this token lacks the scope %q", r.Scope)
	}
	return nil
}
