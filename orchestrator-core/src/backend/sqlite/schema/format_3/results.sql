-- A row for each result that a flow run keeps.
CREATE TABLE kept (
    no INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    flow_run BLOB,
    run BLOB NOT NULL,
    created INTEGER NOT NULL,
    format TEXT NOT NULL,
    type_name TEXT NOT NULL,
    digest BLOB NOT NULL,
    size INTEGER NOT NULL,
    -- The encoded value itself, or the name of its object in the result store.
    value BLOB,
    location TEXT
) STRICT;
INSERT INTO kept (key, flow_run, run, created, format, type_name, digest, size, value)
    SELECT key, (SELECT flow_run FROM task_run WHERE task_run.id = result.run), run, created, format, type_name, digest,
        length(value), value
    FROM result ORDER BY rowid;
DROP TABLE result;
ALTER TABLE kept RENAME TO result;
CREATE INDEX result_by_flow_run ON result (flow_run);

-- Objects in the result store that no row refers to any more, whoever deleted the row.
CREATE TABLE unreferenced (
    location TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TRIGGER result_deleted AFTER DELETE ON result WHEN OLD.location IS NOT NULL BEGIN
    INSERT OR IGNORE INTO unreferenced (location) VALUES (OLD.location);
END;
