-- +goose Up
-- Turns that their agent can go on with after the gateway was restarted.
ALTER TABLE turns ADD COLUMN resumable INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN received  INTEGER NOT NULL DEFAULT 0; -- what is recorded of what the agent has numbered
ALTER TABLE turns ADD COLUMN crashes   INTEGER NOT NULL DEFAULT 0; -- starts that found it open, since anything of it was recorded

-- +goose Down
ALTER TABLE turns DROP COLUMN crashes;
ALTER TABLE turns DROP COLUMN received;
ALTER TABLE turns DROP COLUMN resumable;
