-- +goose Up
-- What becomes of an agent's wish to run a tool, before anybody is asked.

CREATE TABLE approval_policies (
    agent_id   TEXT    NOT NULL PRIMARY KEY, -- '*' for all agents
    rules      TEXT    NOT NULL,             -- JSON: [{"tool": pattern, "action": what becomes of it}], in order
    updated_at INTEGER NOT NULL,
    updated_by TEXT    NOT NULL              -- a principal
) WITHOUT ROWID;

-- +goose Down
DROP TABLE approval_policies;
