package auth

import (
	"context"
	"time"
)

// A Store keeps principals, credentials, grants, secrets and the audit log.
type Store interface {
	// Read returns what reads the committed state; its calls end with ctx.
	Read(ctx context.Context) Reader
	// Change runs op in one transaction. When it returns nil everything that op did is durable; on
	// an error nothing of it happened.
	Change(ctx context.Context, op func(Tx) error) error
}

// A Reader reads. What is not there is a NotFound fault.
type Reader interface {
	Principal(id string) (Principal, error)
	PrincipalByKey(fingerprint string) (Principal, error)
	// Principals returns the newest first; with f.Before only those older than that one.
	Principals(f PrincipalFilter) ([]Principal, error)
	Keys(principalID string) ([]Key, error)
	Token(id string) (Token, error)
	TokenByHash(hash []byte) (Token, error)
	// Tokens returns the newest first.
	Tokens(principalID string, limit int) ([]Token, error)
	AgentOwner(agentID string) (AgentID, error)
	// AgentIDs returns ids in their order; principalID "" means everybody's.
	AgentIDs(principalID, after string, limit int) ([]AgentID, error)
	Secret(id string) (Secret, error)
	// Secrets returns all of them, by name and agent.
	Secrets() ([]Secret, error)
	LinkCode(code string) (LinkCode, error)
	// LinkCodes returns those that expire after a time, the newest first.
	LinkCodes(after time.Time, limit int) ([]LinkCode, error)
	// HasOwner reports whether there is an approved owner.
	HasOwner() (bool, error)
	Person(principalID string) (Person, error)
	PersonByName(name string) (Person, error)
	PersonByHandle(handle []byte) (Person, error)
	// Passkeys returns the oldest first.
	Passkeys(principalID string) ([]Passkey, error)
	// Sessions returns those that are neither ended nor expired at a time, the newest first.
	Sessions(principalID string, at time.Time) ([]Token, error)
	SignInLink(hash []byte) (SignInLink, error)
	Invite(id string) (Invite, error)
	InviteByHash(hash []byte) (Invite, error)
	// Invites returns the newest first.
	Invites(limit int) ([]Invite, error)
	OAuthClient(id string) (OAuthClient, error)
	OAuthGrant(id string) (OAuthGrant, error)
	// OAuthGrants returns those that are neither ended nor expired at a time, the newest first; with
	// principalID "" everybody's.
	OAuthGrants(principalID string, at time.Time, limit int) ([]OAuthGrant, error)
	OAuthToken(hash []byte) (OAuthToken, error)
	// AuditRecords returns records in order, those with larger numbers than after.
	AuditRecords(f AuditFilter) ([]AuditRecord, error)
	// Checkpoints returns the signatures that are kept, in order.
	Checkpoints() ([]Checkpoint, error)
	// LastCheckpoint returns the newest one; the zero value where there is none.
	LastCheckpoint() (Checkpoint, error)
}

// A Tx is an open transaction.
type Tx interface {
	Reader

	// AddPrincipal stores a principal without its roles and capabilities.
	AddPrincipal(Principal) error
	SetStatus(principalID string, s Status) error
	Rename(principalID, name string) error
	// DeletePrincipal removes a principal, its keys, roles, capabilities and tokens.
	DeletePrincipal(principalID string) error
	// SetRole grants a role or takes it away, and reports whether that changed anything.
	SetRole(principalID string, r Role, granted bool, by string, at time.Time) (bool, error)
	SetCapability(principalID, capability string, granted bool, by string, at time.Time) (bool, error)
	// Owners counts the approved principals with the role owner.
	Owners() (int, error)
	// PendingPrincipals counts those that wait for an administrator.
	PendingPrincipals() (int, error)
	// CountPrincipals counts all.
	CountPrincipals() (int, error)
	// FirstOwner returns the approved owner that was created first.
	FirstOwner() (Principal, error)

	// AddKey stores a key; an Exists fault when it is somebody's already.
	AddKey(Key) error
	RemoveKey(principalID, fingerprint string) error

	AddToken(Token) error
	// RevokeToken revokes a token and the sessions that were opened with it, and returns their ids.
	RevokeToken(id string, at time.Time) (sessions []string, err error)
	// DropSessions forgets sessions that expired before a time.
	DropSessions(before time.Time) error

	// Inheritance reports whether there is a conversation or a secret under an agent id.
	Inheritance(agentID string) (bool, error)
	// SetAgentOwner makes a principal the owner of an agent id, whoever it was before.
	SetAgentOwner(AgentID) error
	DropAgentOwner(agentID string) error

	// PutSecret stores a secret; one with the same name and agent is replaced, and keeps its id.
	PutSecret(Secret) error
	DeleteSecret(id string) error

	AddLinkCode(LinkCode) error
	UpdateLinkCode(LinkCode) error
	// DropLinkCodes forgets codes that expired before a time.
	DropLinkCodes(before time.Time) error
	// PendingLinkCodes counts the codes that wait at a time.
	PendingLinkCodes(at time.Time) (int, error)

	// PutPerson stores how a principal signs in; an Exists fault when the name is somebody else's. The
	// handle of one that is stored already stays.
	PutPerson(Person) error
	// AddPasskey stores a passkey; an Exists fault when it is somebody's already.
	AddPasskey(Passkey) error
	// UsePasskey notes a use with the counter that the authenticator has sent. It reports false, and
	// changes nothing, when the counter has not grown, unless it and the stored one are 0.
	UsePasskey(id string, count uint32, backedUp bool, at time.Time) (bool, error)
	RenamePasskey(principalID, id, name string) error
	DeletePasskey(principalID, id string) error
	// EndSessions revokes the sessions of a principal, but for one, and returns their ids.
	EndSessions(principalID, except string, at time.Time) (sessions []string, err error)
	// ProveSession notes that whoever has a session has shown who it is.
	ProveSession(id string, at time.Time) error
	// AddSignInLink stores a link and forgets the one before it for the same principal.
	AddSignInLink(SignInLink) error
	DropSignInLink(hash []byte) error

	AddInvite(Invite) error
	// UpdateInvite stores how an invite was used or revoked.
	UpdateInvite(Invite) error
	// OpenInvites counts the invites that can be used at a time.
	OpenInvites(at time.Time) (int, error)
	// DropInvites forgets invites that expired before a time.
	DropInvites(before time.Time) error

	AddOAuthClient(OAuthClient) error
	CountOAuthClients() (int, error)
	AddOAuthGrant(OAuthGrant) error
	// UseOAuthGrant notes that a grant has got tokens, and until when it is good.
	UseOAuthGrant(id string, at, expires time.Time) error
	EndOAuthGrant(id string, at time.Time) error
	AddOAuthToken(OAuthToken) error
	// SpendOAuthToken notes the use of a token; a Conflict fault when it was used before.
	SpendOAuthToken(hash []byte, at time.Time) error
	// TrimOAuthTokens forgets the access tokens of a grant, and those that were used but for the newest.
	TrimOAuthTokens(grantID string, keep int) error
	// DropOAuth forgets grants that ended before a time, and clients from before another one to which
	// nothing is granted.
	DropOAuth(grants, clients time.Time) error

	// Touch notes when principals, keys and tokens were last used.
	Touch(Usage) error

	// AppendAudit stores a record at the end of the audit log and sets its number and hashes.
	AppendAudit(AuditRecord) (AuditRecord, error)
	// PutCheckpoint stores a signature and forgets the newest before it unless keepLast.
	PutCheckpoint(c Checkpoint, keepLast bool) error
}

// A PrincipalFilter selects principals; zero values select all.
type PrincipalFilter struct {
	Kind   Kind
	Status Status
	Before string // only those created before this one, by id
	Limit  int
}

// A Key is an SSH key of a principal.
type Key struct {
	Fingerprint string // SHA-256 of its wire form, lower-case hex
	PrincipalID string
	Comment     string
	AddedAt     time.Time
	AddedBy     string
	LastUsed    time.Time // zero if never
}

// A Token is a bearer token, without what makes it one.
type Token struct {
	ID          string
	PrincipalID string
	Kind        CredentialKind // JWT, APIToken or Session
	Parent      string         // the token that a session was opened with
	Name        string
	Scopes      []Scope // nil is everything the principal may
	Hash        []byte  // of an API token or session
	CreatedAt   time.Time
	CreatedBy   string // "" when another program made it
	ExpiresAt   time.Time
	LastUsed    time.Time // zero if never
	RevokedAt   time.Time // zero while it is good

	// Of a session:
	Device   string    // what the browser says it is
	Address  string    // where it was opened from
	ProvedAt time.Time // when whoever has it has last shown who it is
}

// An AgentID is an id and the principal that owns it.
type AgentID struct {
	ID          string
	PrincipalID string
	ClaimedAt   time.Time
	// Confirmed says that there was no conversation and no secret under the id when it was claimed,
	// or that an admin has decided about its owner. Otherwise the owner may be the agent, but
	// inherits nothing.
	Confirmed bool
}

// Usage is when things were last used, by their ids.
type Usage struct {
	Principals, Keys, Tokens map[string]time.Time
}
