-- The schema of the public gateway (http.md 6.1), for tests.
CREATE TABLE threads (
    id TEXT PRIMARY KEY, frontend_name TEXT NOT NULL, external_id TEXT NOT NULL, agent_id TEXT NOT NULL,
    created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, UNIQUE (frontend_name, external_id));
CREATE TABLE messages (
    id TEXT PRIMARY KEY, thread_id TEXT NOT NULL, sender TEXT NOT NULL, content TEXT NOT NULL, type TEXT NOT NULL DEFAULT 'message',
    tool_name TEXT, tool_id TEXT, created_at DATETIME NOT NULL, FOREIGN KEY (thread_id) REFERENCES threads (id));
CREATE TABLE agent_state (agent_id TEXT PRIMARY KEY, state BLOB NOT NULL, updated_at DATETIME NOT NULL);
CREATE TABLE channel_bindings (
    frontend TEXT NOT NULL, channel_id TEXT NOT NULL, agent_id TEXT NOT NULL, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
    PRIMARY KEY (frontend, channel_id));
CREATE TABLE bindings (
    binding_id TEXT PRIMARY KEY, frontend TEXT NOT NULL, channel_id TEXT NOT NULL, agent_id TEXT NOT NULL, working_dir TEXT,
    created_at TEXT NOT NULL, created_by TEXT, UNIQUE (frontend, channel_id));
CREATE TABLE ledger_events (
    event_id TEXT PRIMARY KEY, conversation_key TEXT NOT NULL, thread_id TEXT,
    direction TEXT NOT NULL CHECK (direction IN ('inbound_to_agent', 'outbound_from_agent')), author TEXT NOT NULL, timestamp TEXT NOT NULL,
    type TEXT NOT NULL CHECK (type IN ('message', 'tool_call', 'tool_result', 'system', 'error')),
    text TEXT, raw_transport TEXT, raw_payload_ref TEXT, actor_principal_id TEXT, actor_member_id TEXT);
CREATE INDEX idx_ledger_conversation ON ledger_events (conversation_key, timestamp);
CREATE INDEX idx_ledger_thread ON ledger_events (thread_id) WHERE thread_id IS NOT NULL;
CREATE TABLE message_usage (
    id TEXT PRIMARY KEY, thread_id TEXT NOT NULL REFERENCES threads (id), message_id TEXT, request_id TEXT NOT NULL, agent_id TEXT NOT NULL,
    input_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0, cache_read_tokens INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0, thinking_tokens INTEGER NOT NULL DEFAULT 0, created_at DATETIME NOT NULL);
CREATE TABLE principals (
    principal_id TEXT PRIMARY KEY, type TEXT NOT NULL CHECK (type IN ('client', 'agent', 'pack')), pubkey_fingerprint TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN ('pending', 'approved', 'revoked', 'offline', 'online')),
    created_at TEXT NOT NULL, last_seen TEXT, metadata_json TEXT);
CREATE TABLE roles (
    subject_type TEXT NOT NULL CHECK (subject_type IN ('principal', 'member')), subject_id TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'leader')), created_at TEXT NOT NULL,
    PRIMARY KEY (subject_type, subject_id, role));
CREATE TABLE audit_log (
    audit_id TEXT PRIMARY KEY, actor_principal_id TEXT NOT NULL, actor_member_id TEXT, action TEXT NOT NULL, target_type TEXT NOT NULL,
    target_id TEXT NOT NULL, ts TEXT NOT NULL, detail_json TEXT);
CREATE TABLE admin_users (id TEXT PRIMARY KEY, username TEXT UNIQUE NOT NULL, password_hash TEXT, display_name TEXT NOT NULL, created_at DATETIME NOT NULL);
CREATE TABLE admin_sessions (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES admin_users (id) ON DELETE CASCADE, created_at DATETIME NOT NULL, expires_at DATETIME NOT NULL);
CREATE TABLE admin_invites (
    id TEXT PRIMARY KEY, created_by TEXT REFERENCES admin_users (id), created_at DATETIME NOT NULL, expires_at DATETIME NOT NULL,
    used_at DATETIME, used_by TEXT REFERENCES admin_users (id));
CREATE TABLE link_codes (
    id TEXT PRIMARY KEY, code TEXT UNIQUE NOT NULL, fingerprint TEXT NOT NULL, device_name TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'approved', 'expired')), created_at DATETIME NOT NULL, expires_at DATETIME NOT NULL,
    approved_by TEXT REFERENCES admin_users (id), approved_at DATETIME, principal_id TEXT REFERENCES principals (principal_id), token TEXT);
CREATE TABLE webauthn_credentials (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES admin_users (id) ON DELETE CASCADE, credential_id BLOB UNIQUE NOT NULL, public_key BLOB NOT NULL,
    attestation_type TEXT, transports TEXT, sign_count INTEGER DEFAULT 0, created_at DATETIME NOT NULL);
CREATE TABLE secrets (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, value TEXT NOT NULL, agent_id TEXT, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, created_by TEXT);
CREATE UNIQUE INDEX idx_secrets_global ON secrets (key) WHERE agent_id IS NULL;
CREATE UNIQUE INDEX idx_secrets_agent ON secrets (key, agent_id) WHERE agent_id IS NOT NULL;
CREATE TABLE log_entries (id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, message TEXT NOT NULL, tags TEXT, created_at TEXT NOT NULL);
CREATE TABLE todos (
    id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, description TEXT NOT NULL, status TEXT DEFAULT 'pending', priority TEXT DEFAULT 'medium', notes TEXT,
    due_date TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE bbs_posts (id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, thread_id TEXT, subject TEXT, content TEXT NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE agent_mail (
    id TEXT PRIMARY KEY, from_agent_id TEXT NOT NULL, to_agent_id TEXT NOT NULL, subject TEXT NOT NULL, content TEXT NOT NULL, read_at TEXT, created_at TEXT NOT NULL);
CREATE TABLE agent_notes (
    id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, UNIQUE (agent_id, key));
