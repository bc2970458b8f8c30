-- +goose Up
-- Times are microseconds since 1970 in UTC. Numbers called id are ours; agent_id, request_id and
-- thread keys are what the world calls things.

CREATE TABLE conversations (
    id         INTEGER PRIMARY KEY,
    agent_id   TEXT    NOT NULL UNIQUE,
    uid        TEXT    NOT NULL,
    created_at INTEGER NOT NULL
);

CREATE TABLE threads (
    id          INTEGER PRIMARY KEY,
    thread_id   TEXT    NOT NULL UNIQUE,
    agent_id    TEXT    NOT NULL,
    frontend    TEXT    NOT NULL,
    external_id TEXT    NOT NULL,
    title       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    activity    INTEGER NOT NULL, -- id of its newest turn
    UNIQUE (frontend, external_id)
);
CREATE INDEX threads_activity ON threads (activity);
CREATE INDEX threads_agent ON threads (agent_id, activity);

CREATE TABLE turns (
    id              INTEGER PRIMARY KEY,
    request_id      TEXT    NOT NULL UNIQUE,
    conversation_id INTEGER NOT NULL REFERENCES conversations (id),
    thread_id       INTEGER NOT NULL REFERENCES threads (id),
    principal_id    TEXT    NOT NULL,
    sender          TEXT    NOT NULL,
    idempotency_key TEXT,
    digest          BLOB    NOT NULL,
    state           TEXT    NOT NULL,
    cause           TEXT    NOT NULL,
    first_seq       INTEGER NOT NULL,
    last_seq        INTEGER NOT NULL, -- 0 while open
    started_at      INTEGER NOT NULL,
    first_event_at  INTEGER NOT NULL, -- 0 until then
    ended_at        INTEGER NOT NULL  -- 0 while open
);
CREATE UNIQUE INDEX turns_key ON turns (principal_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX turns_open ON turns (id) WHERE state = 'open';
CREATE INDEX turns_thread ON turns (thread_id);

-- One row per event. A closed block of text or thinking increments is one row that reaches from
-- seq to last_seq; cuts says where each increment ended.
CREATE TABLE events (
    id              INTEGER PRIMARY KEY,
    conversation_id INTEGER NOT NULL REFERENCES conversations (id),
    thread_id       INTEGER NOT NULL REFERENCES threads (id),
    turn_id         INTEGER NOT NULL REFERENCES turns (id),
    seq             INTEGER NOT NULL,
    last_seq        INTEGER NOT NULL,
    at              INTEGER NOT NULL,
    kind            INTEGER NOT NULL,
    text            TEXT    NOT NULL,
    detail          TEXT    NOT NULL,
    cuts            BLOB
);
CREATE UNIQUE INDEX events_seq ON events (conversation_id, seq);
CREATE INDEX events_thread ON events (thread_id, seq);

-- Increments of blocks that are still open, in commit order. Rows that a closed block covers are
-- forgotten now and then.
CREATE TABLE increments (
    id      INTEGER PRIMARY KEY,
    turn_id INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    kind    INTEGER NOT NULL,
    text    TEXT    NOT NULL,
    at      INTEGER NOT NULL
);

CREATE TABLE usage (
    id                 INTEGER PRIMARY KEY,
    conversation_id    INTEGER NOT NULL REFERENCES conversations (id),
    thread_id          INTEGER NOT NULL REFERENCES threads (id),
    turn_id            INTEGER NOT NULL REFERENCES turns (id),
    seq                INTEGER NOT NULL,
    at                 INTEGER NOT NULL,
    input_tokens       INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    cache_read_tokens  INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    thinking_tokens    INTEGER NOT NULL
);
CREATE INDEX usage_turn ON usage (turn_id);
CREATE INDEX usage_thread ON usage (thread_id);
CREATE INDEX usage_at ON usage (at);

CREATE TABLE files (
    id              INTEGER PRIMARY KEY,
    file_id         TEXT    NOT NULL UNIQUE,
    conversation_id INTEGER NOT NULL REFERENCES conversations (id),
    thread_id       INTEGER NOT NULL REFERENCES threads (id),
    turn_id         INTEGER NOT NULL REFERENCES turns (id),
    seq             INTEGER NOT NULL,
    at              INTEGER NOT NULL,
    name            TEXT    NOT NULL,
    type            TEXT    NOT NULL,
    size            INTEGER NOT NULL,
    sha256          TEXT    NOT NULL
);
CREATE INDEX files_thread ON files (thread_id);

-- +goose Down
DROP TABLE files;
DROP TABLE usage;
DROP TABLE increments;
DROP TABLE events;
DROP TABLE turns;
DROP TABLE threads;
DROP TABLE conversations;
