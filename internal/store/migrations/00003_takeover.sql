-- +goose Up
-- What a takeover from the public gateway brings besides principals and conversations. The pages and
-- the tools hosted by the gateway read these tables. Times are microseconds since 1970 in UTC, 0 where
-- there is none.

-- People who log in to the web pages.
CREATE TABLE users (
    id            INTEGER PRIMARY KEY,
    user_id       TEXT    NOT NULL UNIQUE,
    username      TEXT    NOT NULL UNIQUE,
    display_name  TEXT    NOT NULL,
    password_hash TEXT    NOT NULL, -- '' where there is no password
    created_at    INTEGER NOT NULL
);

-- What agents have written down about what they did.
CREATE TABLE tool_log (
    id         INTEGER PRIMARY KEY,
    entry_id   TEXT    NOT NULL UNIQUE,
    agent_id   TEXT    NOT NULL,
    message    TEXT    NOT NULL,
    tags       TEXT    NOT NULL, -- JSON array of strings
    created_at INTEGER NOT NULL
);
CREATE INDEX tool_log_agent ON tool_log (agent_id, created_at);

CREATE TABLE tool_todos (
    id          INTEGER PRIMARY KEY,
    todo_id     TEXT    NOT NULL UNIQUE,
    agent_id    TEXT    NOT NULL,
    description TEXT    NOT NULL,
    status      TEXT    NOT NULL, -- pending, in_progress or completed
    priority    TEXT    NOT NULL, -- low, medium or high
    notes       TEXT    NOT NULL,
    due_at      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
);
CREATE INDEX tool_todos_agent ON tool_todos (agent_id, created_at);

-- The board that all agents share: posts, and replies to posts.
CREATE TABLE tool_posts (
    id         INTEGER PRIMARY KEY,
    post_id    TEXT    NOT NULL UNIQUE,
    parent_id  INTEGER REFERENCES tool_posts (id), -- the post that a reply is about; NULL for a post
    agent_id   TEXT    NOT NULL,
    subject    TEXT    NOT NULL, -- '' for a reply
    content    TEXT    NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX tool_posts_parent ON tool_posts (parent_id, created_at);

CREATE TABLE tool_mail (
    id            INTEGER PRIMARY KEY,
    mail_id       TEXT    NOT NULL UNIQUE,
    from_agent_id TEXT    NOT NULL,
    to_agent_id   TEXT    NOT NULL,
    subject       TEXT    NOT NULL,
    content       TEXT    NOT NULL,
    read_at       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL
);
CREATE INDEX tool_mail_to ON tool_mail (to_agent_id, created_at);

CREATE TABLE tool_notes (
    id         INTEGER PRIMARY KEY,
    agent_id   TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (agent_id, key)
);

-- +goose Down
DROP TABLE tool_notes;
DROP TABLE tool_mail;
DROP TABLE tool_posts;
DROP TABLE tool_todos;
DROP TABLE tool_log;
DROP TABLE users;
