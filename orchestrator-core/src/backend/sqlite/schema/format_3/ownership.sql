-- Each orchestrator that uses the file has a row: several in one process are told apart by their session.
CREATE TABLE owner (
    no INTEGER PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    namespace INTEGER NOT NULL,
    started INTEGER NOT NULL,
    session INTEGER NOT NULL,
    -- Until when it says that it is there; NULL if it never said so.
    lease_until INTEGER,
    -- When it said so.
    heard INTEGER,
    -- When it left, or was found to be gone. Nothing that it writes later is taken.
    ended INTEGER,
    -- Why it was found to be gone; NULL if it left.
    why TEXT,
    UNIQUE (host, pid, namespace, started, session)
) STRICT;
INSERT INTO owner (no, host, pid, namespace, started, session)
    SELECT no, host, pid, namespace, started, 0 FROM process;
DROP TABLE process;
ALTER TABLE owner RENAME TO process;
-- How often a flow run went on by itself after a crash since somebody last started it; NULL if it is not to.
ALTER TABLE flow_run ADD COLUMN resumed INTEGER;

-- Whether something is called when a run of the function crashes.
ALTER TABLE function ADD COLUMN on_crashed INTEGER NOT NULL DEFAULT 0;
-- How many times in a row flow runs of the function go on by themselves; NULL if they do not.
ALTER TABLE function ADD COLUMN crash_budget INTEGER;

-- Runs that crashed with their process, whose hooks nobody has called.
CREATE TABLE crash (
    run BLOB NOT NULL PRIMARY KEY,
    is_flow INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX process_present ON process (no) WHERE ended IS NULL;
