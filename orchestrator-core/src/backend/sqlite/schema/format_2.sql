ALTER TABLE amendment ADD COLUMN pause TEXT;

ALTER TABLE task_run ADD COLUMN cache_key BLOB;
ALTER TABLE task_run ADD COLUMN cache_reason TEXT;

CREATE TABLE result (
    key BLOB NOT NULL PRIMARY KEY,
    run BLOB NOT NULL,
    created INTEGER NOT NULL,
    format TEXT NOT NULL,
    type_name TEXT NOT NULL,
    digest BLOB NOT NULL,
    value BLOB NOT NULL
) STRICT;
