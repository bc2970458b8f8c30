-- +goose Up
-- Who is who. principal_id is what the world calls a principal; it is random and never used again.

CREATE TABLE principals (
    id           INTEGER PRIMARY KEY,
    principal_id TEXT    NOT NULL UNIQUE,
    kind         TEXT    NOT NULL CHECK (kind IN ('client', 'agent', 'pack', 'user')),
    name         TEXT    NOT NULL,
    status       TEXT    NOT NULL CHECK (status IN ('pending', 'approved', 'revoked')),
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL, -- a principal_id, or '' where nobody did
    last_seen    INTEGER NOT NULL  -- 0 if never
);
CREATE INDEX principals_status ON principals (status);

CREATE TABLE principal_keys (
    fingerprint  TEXT    PRIMARY KEY, -- SHA-256 of the key's SSH wire form, lower-case hex
    principal_id INTEGER NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    comment      TEXT    NOT NULL,
    added_at     INTEGER NOT NULL,
    added_by     TEXT    NOT NULL,
    last_used    INTEGER NOT NULL
);
CREATE INDEX principal_keys_principal ON principal_keys (principal_id);

CREATE TABLE principal_roles (
    principal_id INTEGER NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    role         TEXT    NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'leader')),
    granted_at   INTEGER NOT NULL,
    granted_by   TEXT    NOT NULL,
    PRIMARY KEY (principal_id, role)
);

CREATE TABLE principal_capabilities (
    principal_id INTEGER NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    capability   TEXT    NOT NULL,
    granted_at   INTEGER NOT NULL,
    granted_by   TEXT    NOT NULL,
    PRIMARY KEY (principal_id, capability)
);

CREATE TABLE tokens (
    id           INTEGER PRIMARY KEY,
    token_id     TEXT    NOT NULL UNIQUE, -- of a JWT its jti, or the hash of one that has none
    principal_id INTEGER NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    kind         TEXT    NOT NULL CHECK (kind IN ('jwt', 'api', 'session')),
    parent       TEXT    NOT NULL, -- the token that a session was opened with; it ends with that one
    name         TEXT    NOT NULL,
    scopes       TEXT    NOT NULL, -- words; '' is everything the principal may
    hash         BLOB    UNIQUE,   -- of an API token or session; NULL for a JWT
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    expires_at   INTEGER NOT NULL,
    last_used    INTEGER NOT NULL,
    revoked_at   INTEGER NOT NULL  -- 0 while it is good
);
CREATE INDEX tokens_principal ON tokens (principal_id);
CREATE INDEX tokens_parent ON tokens (parent) WHERE parent != '';

-- Who owns an agent id. The row outlives the principal, so that nobody inherits an id, and its
-- secrets, by chance.
CREATE TABLE agent_ids (
    agent_id     TEXT    PRIMARY KEY,
    principal_id TEXT    NOT NULL,
    claimed_at   INTEGER NOT NULL,
    confirmed    INTEGER NOT NULL -- 0 when there was history or a secret to inherit and no admin has agreed
);
CREATE INDEX agent_ids_principal ON agent_ids (principal_id);

CREATE TABLE secrets (
    id         INTEGER PRIMARY KEY,
    secret_id  TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    agent_id   TEXT    NOT NULL, -- '' for all agents
    sealed     BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    updated_at INTEGER NOT NULL,
    updated_by TEXT    NOT NULL,
    UNIQUE (name, agent_id)
);

CREATE TABLE link_codes (
    id           INTEGER PRIMARY KEY,
    code         TEXT    NOT NULL UNIQUE,
    fingerprint  TEXT    NOT NULL,
    device_name  TEXT    NOT NULL,
    proved       INTEGER NOT NULL, -- 1 when the requester has shown that it holds the key
    address      TEXT    NOT NULL,
    status       TEXT    NOT NULL CHECK (status IN ('pending', 'approved', 'denied')),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    decided_at   INTEGER NOT NULL,
    decided_by   TEXT    NOT NULL,
    principal_id TEXT    NOT NULL,
    token_id     TEXT    NOT NULL,
    handed_at    INTEGER NOT NULL  -- when its token was first handed out; 0 before
);
CREATE INDEX link_codes_expiry ON link_codes (expires_at);

CREATE TABLE bindings (
    id          INTEGER PRIMARY KEY,
    binding_id  TEXT    NOT NULL UNIQUE,
    frontend    TEXT    NOT NULL,
    channel_id  TEXT    NOT NULL,
    agent_id    TEXT    NOT NULL, -- an agent id or a principal_id
    working_dir TEXT    NOT NULL, -- '' for any
    created_at  INTEGER NOT NULL,
    created_by  TEXT    NOT NULL,
    UNIQUE (frontend, channel_id)
);
CREATE INDEX bindings_agent ON bindings (agent_id);

-- Every change of rights. A record's hash covers the hash of the one before it.
CREATE TABLE audit_log (
    seq         INTEGER PRIMARY KEY, -- 1, 2, 3 … without a gap
    at          INTEGER NOT NULL,
    actor       TEXT    NOT NULL,
    action      TEXT    NOT NULL,
    target_type TEXT    NOT NULL,
    target      TEXT    NOT NULL,
    detail      TEXT    NOT NULL, -- JSON object
    prev        BLOB    NOT NULL,
    hash        BLOB    NOT NULL
);
CREATE INDEX audit_log_target ON audit_log (target_type, target);

-- The server's signature over what the log was when it had seq records: of the newest record and
-- of some before it.
CREATE TABLE audit_checkpoints (
    seq       INTEGER PRIMARY KEY,
    hash      BLOB    NOT NULL,
    at        INTEGER NOT NULL,
    signature BLOB    NOT NULL
);

CREATE INDEX turns_principal ON turns (principal_id, thread_id);

-- +goose Down
DROP INDEX turns_principal;
DROP TABLE audit_checkpoints;
DROP TABLE audit_log;
DROP TABLE bindings;
DROP TABLE link_codes;
DROP TABLE secrets;
DROP TABLE agent_ids;
DROP TABLE tokens;
DROP TABLE principal_capabilities;
DROP TABLE principal_roles;
DROP TABLE principal_keys;
DROP TABLE principals;
