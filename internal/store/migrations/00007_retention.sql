-- +goose Up
-- What was removed from conversations: a thread that somebody deleted, turns that were kept for long
-- enough. Its numbers are not given again.

-- Runs of numbers that stood for events and stand for nothing now. They do not touch.
CREATE TABLE pruned (
    conversation_id INTEGER NOT NULL REFERENCES conversations (id),
    first           INTEGER NOT NULL CHECK (first > 0),
    last            INTEGER NOT NULL CHECK (last >= first),
    PRIMARY KEY (conversation_id, last)
) WITHOUT ROWID;

-- The usage reports of turns that were removed, so that sums of the past stay true.
CREATE TABLE pruned_usage (
    id                 INTEGER PRIMARY KEY,
    conversation_id    INTEGER NOT NULL REFERENCES conversations (id),
    thread_id          INTEGER REFERENCES threads (id) ON DELETE SET NULL,
    principal_id       TEXT    NOT NULL, -- who began the turn
    at                 INTEGER NOT NULL,
    input_tokens       INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    cache_read_tokens  INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    thinking_tokens    INTEGER NOT NULL
);
CREATE INDEX pruned_usage_at ON pruned_usage (at);
CREATE INDEX pruned_usage_thread ON pruned_usage (thread_id);

-- Contents of files to which nothing refers any more, perhaps. They are removed after the commit.
CREATE TABLE orphans (
    id     INTEGER PRIMARY KEY,
    sha256 TEXT    NOT NULL
);

-- What the run of retention that is under way, or was interrupted, has removed; at most one row.
CREATE TABLE retention_run (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    began_at INTEGER NOT NULL,
    turns    INTEGER NOT NULL,
    events   INTEGER NOT NULL,
    bytes    INTEGER NOT NULL, -- of text
    threads  INTEGER NOT NULL,
    files    INTEGER NOT NULL  -- whose content has expired
);

ALTER TABLE threads ADD COLUMN pruned_seq INTEGER NOT NULL DEFAULT 0; -- the newest event that was removed from it; 0 for none
ALTER TABLE threads ADD COLUMN deleted_at INTEGER NOT NULL DEFAULT 0; -- unless 0 it is being deleted, and nobody sees it
ALTER TABLE turns ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;       -- 1 while it is being removed, from its beginning
ALTER TABLE turns ADD COLUMN size INTEGER NOT NULL DEFAULT 0;         -- bytes of its events; 0 while open
ALTER TABLE files ADD COLUMN expired_at INTEGER NOT NULL DEFAULT 0;   -- unless 0 its content is gone

CREATE INDEX events_turn ON events (turn_id, seq);
CREATE INDEX files_turn ON files (turn_id);
CREATE INDEX files_content ON files (sha256, size) WHERE expired_at = 0;
CREATE INDEX files_age ON files (at) WHERE expired_at = 0;
CREATE INDEX turns_ended ON turns (ended_at, size) WHERE state <> 'open';
UPDATE turns SET size = (SELECT COALESCE(SUM(octet_length(e.text) + octet_length(e.detail)), 0) FROM events e WHERE e.turn_id = turns.id)
WHERE state <> 'open';

-- +goose Down
DROP INDEX turns_ended;
DROP INDEX files_age;
DROP INDEX files_content;
DROP INDEX files_turn;
DROP INDEX events_turn;
ALTER TABLE files DROP COLUMN expired_at;
ALTER TABLE turns DROP COLUMN size;
ALTER TABLE turns DROP COLUMN pruned;
ALTER TABLE threads DROP COLUMN deleted_at;
ALTER TABLE threads DROP COLUMN pruned_seq;
DROP TABLE retention_run;
DROP TABLE orphans;
DROP TABLE pruned_usage;
DROP TABLE pruned;
