-- +goose Up
-- What people look for: messages, answers and what tools returned. The text itself stays in events.

CREATE VIRTUAL TABLE events_text USING fts5 (
    text, content = 'events', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
);

-- +goose StatementBegin
CREATE TRIGGER events_text_insert AFTER INSERT ON events WHEN new.kind IN (1, 2, 6) BEGIN
    INSERT INTO events_text (rowid, text) VALUES (new.id, new.text);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER events_text_delete AFTER DELETE ON events WHEN old.kind IN (1, 2, 6) BEGIN
    INSERT INTO events_text (events_text, rowid, text) VALUES ('delete', old.id, old.text);
END;
-- +goose StatementEnd

INSERT INTO events_text (rowid, text) SELECT id, text FROM events WHERE kind IN (1, 2, 6);

ALTER TABLE threads ADD COLUMN archived_at INTEGER NOT NULL DEFAULT 0; -- 0 while it is not

-- +goose Down
ALTER TABLE threads DROP COLUMN archived_at;
DROP TRIGGER events_text_delete;
DROP TRIGGER events_text_insert;
DROP TABLE events_text;
