-- +goose Up
-- How people sign in. A person is a principal of the kind user.

CREATE TABLE people (
    principal_id INTEGER PRIMARY KEY REFERENCES principals (id) ON DELETE CASCADE,
    name         TEXT    NOT NULL UNIQUE, -- to sign in with; lower case
    handle       BLOB    NOT NULL UNIQUE, -- what passkeys know the person by; random
    password     TEXT    NOT NULL,        -- argon2id in PHC form; '' where there is none
    password_at  INTEGER NOT NULL         -- when it was set; 0 where there is none
);

CREATE TABLE passkeys (
    id              INTEGER PRIMARY KEY,
    passkey_id      TEXT    NOT NULL UNIQUE, -- what the API calls it
    principal_id    INTEGER NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    credential_id   BLOB    NOT NULL UNIQUE, -- what the authenticator calls it
    public_key      BLOB    NOT NULL,        -- COSE
    name            TEXT    NOT NULL,        -- for people
    aaguid          BLOB    NOT NULL,        -- the model of the authenticator
    transports      TEXT    NOT NULL,        -- words
    sign_count      INTEGER NOT NULL,
    backup_eligible INTEGER NOT NULL,
    backed_up       INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    last_used       INTEGER NOT NULL         -- 0 if never
);
CREATE INDEX passkeys_principal ON passkeys (principal_id);

-- Links that sign somebody in, once: the first owner, or whoever has lost the other ways in.
CREATE TABLE sign_in_links (
    id           INTEGER PRIMARY KEY,
    hash         BLOB    NOT NULL UNIQUE, -- of its token
    principal_id TEXT    NOT NULL,        -- '' for an owner that it makes
    first        INTEGER NOT NULL,        -- 1 if it is good only while there is no owner
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    expires_at   INTEGER NOT NULL
);

-- Of a session: what was signed in, from where, and when whoever sits there has last shown who it is.
ALTER TABLE tokens ADD COLUMN device TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN proved_at INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE tokens DROP COLUMN proved_at;
ALTER TABLE tokens DROP COLUMN address;
ALTER TABLE tokens DROP COLUMN device;
DROP TABLE sign_in_links;
DROP TABLE passkeys;
DROP TABLE people;
