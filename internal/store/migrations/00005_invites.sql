-- +goose Up
-- Invitations of people: whoever shows the token of one becomes a principal, once.
CREATE TABLE invites (
    id         INTEGER PRIMARY KEY,
    invite_id  TEXT    NOT NULL UNIQUE,
    hash       BLOB    NOT NULL UNIQUE, -- of its token
    role       TEXT    NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'leader')),
    note       TEXT    NOT NULL,        -- for people: whom it is for
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER NOT NULL,        -- 0 before
    used_by    TEXT    NOT NULL,        -- the principal_id of whom it has made
    revoked_at INTEGER NOT NULL         -- 0 while it is good
);
CREATE INDEX invites_expiry ON invites (expires_at);

-- +goose Down
DROP TABLE invites;
