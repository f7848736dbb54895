-- A row for each result that a flow run keeps.
CREATE TABLE kept (
    no INTEGER PRIMARY KEY,
    -- No other row has the same.
    key BLOB NOT NULL,
    flow_run BLOB,
    run BLOB NOT NULL,
    created INTEGER NOT NULL,
    format TEXT NOT NULL,
    type_name TEXT NOT NULL,
    digest BLOB NOT NULL,
    size INTEGER NOT NULL,
    -- The encoded value itself; or the result store, and the name of the object there.
    value BLOB,
    store TEXT,
    location TEXT
) STRICT;
INSERT INTO kept (key, flow_run, run, created, format, type_name, digest, size, value)
    SELECT key, (SELECT flow_run FROM task_run WHERE task_run.id = result.run), run, created, format, type_name, digest,
        length(value), value
    FROM result ORDER BY rowid;
DROP TABLE result;
ALTER TABLE kept RENAME TO result;
-- Keys are random: of the pages of their index each batch writes most, so that it pays to have few.
CREATE INDEX result_by_key ON result (substr(key, 1, 5));
CREATE INDEX result_objects ON result (flow_run) WHERE location IS NOT NULL;

-- Objects that no row refers to any more, whoever deleted the row.
CREATE TABLE unreferenced (
    store TEXT NOT NULL,
    location TEXT NOT NULL,
    PRIMARY KEY (store, location)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER result_deleted AFTER DELETE ON result WHEN OLD.location IS NOT NULL BEGIN
    INSERT OR IGNORE INTO unreferenced (store, location) VALUES (OLD.store, OLD.location);
END;

-- Flow runs that crashed, perhaps between an object and its row, and when.
CREATE TABLE interrupted (
    flow_run BLOB NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER flow_run_made_crashed AFTER INSERT ON flow_run WHEN NEW.state = 'Crashed' BEGIN
    INSERT INTO interrupted (flow_run, at) VALUES (NEW.id, NEW.state_at)
        ON CONFLICT (flow_run) DO UPDATE SET at = max(at, excluded.at);
END;
CREATE TRIGGER flow_run_crashed AFTER UPDATE OF state ON flow_run WHEN NEW.state = 'Crashed' BEGIN
    INSERT INTO interrupted (flow_run, at) VALUES (NEW.id, NEW.state_at)
        ON CONFLICT (flow_run) DO UPDATE SET at = max(at, excluded.at);
END;
