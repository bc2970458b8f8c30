-- +goose Up
-- Always empty: rows are written and removed in one transaction to see whether something can be stored.
CREATE TABLE disk_probe (data BLOB NOT NULL);

-- +goose Down
DROP TABLE disk_probe;
