-- +goose Up
-- What people let MCP clients do: registered programs, what was granted to them, and the tokens for it.
CREATE TABLE oauth_clients (
    id         INTEGER PRIMARY KEY,
    client_id  TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,        -- what the program says it is called
    redirects  TEXT    NOT NULL,        -- where answers may go; words
    address    TEXT    NOT NULL,        -- where it was registered from
    created_at INTEGER NOT NULL
);

CREATE TABLE oauth_grants (
    id           INTEGER PRIMARY KEY,
    grant_id     TEXT    NOT NULL UNIQUE,
    principal_id INTEGER NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    client_id    INTEGER NOT NULL REFERENCES oauth_clients (id) ON DELETE CASCADE,
    redirect     TEXT    NOT NULL, -- where the code went
    scopes       TEXT    NOT NULL, -- words
    resource     TEXT    NOT NULL, -- what its tokens are for
    created_at   INTEGER NOT NULL,
    last_used    INTEGER NOT NULL, -- when it has last got a token; 0 before the code was shown
    expires_at   INTEGER NOT NULL,
    revoked_at   INTEGER NOT NULL  -- 0 while it is good
);
CREATE INDEX oauth_grants_principal ON oauth_grants (principal_id);
CREATE INDEX oauth_grants_client ON oauth_grants (client_id);

CREATE TABLE oauth_tokens (
    id         INTEGER PRIMARY KEY,
    hash       BLOB    NOT NULL UNIQUE,
    grant_id   INTEGER NOT NULL REFERENCES oauth_grants (id) ON DELETE CASCADE,
    kind       TEXT    NOT NULL CHECK (kind IN ('code', 'access', 'refresh')),
    challenge  TEXT    NOT NULL, -- of a code: the hash of what must be shown with it
    expires_at INTEGER NOT NULL,
    spent_at   INTEGER NOT NULL  -- of a code or refresh token: when it was used; 0 before
);
CREATE INDEX oauth_tokens_grant ON oauth_tokens (grant_id);

-- +goose Down
DROP TABLE oauth_tokens;
DROP TABLE oauth_grants;
DROP TABLE oauth_clients;
