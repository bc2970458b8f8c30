-- +goose Up
-- MCP servers whose tools the gateway offers, and what was accepted of them.

CREATE TABLE mcp_servers (
    name       TEXT    NOT NULL PRIMARY KEY,
    settings   TEXT    NOT NULL, -- JSON
    enabled    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL  -- a principal
) WITHOUT ROWID;

CREATE TABLE mcp_tools (
    server      TEXT    NOT NULL REFERENCES mcp_servers (name) ON DELETE CASCADE,
    name        TEXT    NOT NULL, -- the server's own
    definition  TEXT    NOT NULL, -- JSON, as it was accepted
    accepted_at INTEGER NOT NULL,
    accepted_by TEXT    NOT NULL, -- a principal; '' where the server is trusted with new tools
    PRIMARY KEY (server, name)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE mcp_tools;
DROP TABLE mcp_servers;
