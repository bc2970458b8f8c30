-- +goose Up
-- Messages that wait for their agent. A turn that waits is open and has waiting_until.
ALTER TABLE turns ADD COLUMN waiting_until INTEGER NOT NULL DEFAULT 0; -- 0 once the agent has it, or when it never waited
ALTER TABLE bindings ADD COLUMN delivery TEXT NOT NULL DEFAULT 'fail' CHECK (delivery IN ('fail', 'queue', 'interrupt'));

-- +goose Down
ALTER TABLE bindings DROP COLUMN delivery;
ALTER TABLE turns DROP COLUMN waiting_until;
