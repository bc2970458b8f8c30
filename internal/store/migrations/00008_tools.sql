-- +goose Up
-- What agents store is read in the order in which it came, which is that of the row ids; times are
-- no order.
DROP INDEX tool_log_agent;
DROP INDEX tool_todos_agent;
DROP INDEX tool_posts_parent;
DROP INDEX tool_mail_to;
CREATE INDEX tool_log_agent ON tool_log (agent_id);
CREATE INDEX tool_todos_agent ON tool_todos (agent_id);
CREATE INDEX tool_posts_parent ON tool_posts (parent_id);
CREATE INDEX tool_mail_to ON tool_mail (to_agent_id);

-- +goose Down
DROP INDEX tool_log_agent;
DROP INDEX tool_todos_agent;
DROP INDEX tool_posts_parent;
DROP INDEX tool_mail_to;
CREATE INDEX tool_log_agent ON tool_log (agent_id, created_at);
CREATE INDEX tool_todos_agent ON tool_todos (agent_id, created_at);
CREATE INDEX tool_posts_parent ON tool_posts (parent_id, created_at);
CREATE INDEX tool_mail_to ON tool_mail (to_agent_id, created_at);
