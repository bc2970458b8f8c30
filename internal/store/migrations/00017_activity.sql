-- +goose Up
CREATE INDEX turns_started ON turns (started_at);

-- +goose Down
DROP INDEX turns_started;
