-- How results were encoded, which many have in common.
CREATE TABLE encoding (
    no INTEGER PRIMARY KEY,
    format TEXT NOT NULL,
    type_name TEXT NOT NULL,
    UNIQUE (format, type_name)
) STRICT;

-- A row for each result that a flow run keeps. Numbers grow, and none is given out twice.
CREATE TABLE kept (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Of rows of one root flow run with the same key the first one counts.
    key BLOB NOT NULL,
    run BLOB NOT NULL,
    created INTEGER NOT NULL,
    encoding INTEGER NOT NULL,
    digest BLOB NOT NULL,
    size INTEGER NOT NULL,
    -- The encoded value itself; or the result store, the name of the object there, and the flow run that it is named for.
    value BLOB,
    store TEXT,
    location TEXT,
    flow_run BLOB
) STRICT;

-- Which results are whose: the numbers from `first` to `last` are those of the root flow run. Keys are random, so that
-- an index over them would cost more than all else that is written; whoever needs it reads the keys of a root flow run.
CREATE TABLE result_span (
    root BLOB NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (root, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE moved AS
    WITH RECURSIVE above (result, flow_run) AS (
        SELECT result.rowid, task_run.flow_run FROM result JOIN task_run ON task_run.id = result.run
        WHERE task_run.flow_run IS NOT NULL
        UNION ALL
        SELECT above.result, flow_run.flow_run FROM above JOIN flow_run ON flow_run.id = above.flow_run
        WHERE flow_run.flow_run IS NOT NULL
    ),
    root (result, flow_run) AS (
        SELECT above.result, above.flow_run FROM above JOIN flow_run ON flow_run.id = above.flow_run
        WHERE flow_run.flow_run IS NULL
    )
    SELECT row_number() OVER (ORDER BY root.flow_run, root.result) AS no, root.result, root.flow_run FROM root;
INSERT INTO encoding (format, type_name) SELECT DISTINCT format, type_name FROM result;
INSERT INTO kept (no, key, run, created, encoding, digest, size, value)
    SELECT moved.no, result.key, result.run, result.created, encoding.no, result.digest, length(result.value), result.value
    FROM moved JOIN result ON result.rowid = moved.result
        JOIN encoding ON encoding.format = result.format AND encoding.type_name = result.type_name
    ORDER BY moved.no;
INSERT INTO result_span (root, first, last) SELECT flow_run, min(no), max(no) FROM moved GROUP BY flow_run;
DROP TABLE moved;
DROP TABLE result;
ALTER TABLE kept RENAME TO result;
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
