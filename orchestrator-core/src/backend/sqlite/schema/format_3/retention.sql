-- Which runs are old, and what is beneath each.
CREATE INDEX flow_run_roots ON flow_run (created, id) WHERE parent IS NULL;
CREATE INDEX flow_run_by_flow_run ON flow_run (flow_run) WHERE flow_run IS NOT NULL;
CREATE INDEX flow_run_outside ON flow_run (parent) WHERE flow_run IS NULL AND parent IS NOT NULL;
CREATE INDEX task_run_outside ON task_run (parent) WHERE flow_run IS NULL;

-- Runs that are gone already, while what was beneath them follows; references as in `parent`.
CREATE TABLE removal (
    run BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Who removes what is old, until when nobody else begins to, and when all of it was last done.
CREATE TABLE upkeep (
    no INTEGER NOT NULL PRIMARY KEY CHECK (no = 1),
    holder INTEGER,
    held_until INTEGER,
    done INTEGER
) STRICT;
INSERT INTO upkeep (no) VALUES (1);

-- By state as well as by flow: the newest of each, without a look at the others.
DROP INDEX flow_run_by_function;
CREATE INDEX flow_run_by_function ON flow_run (function, state, created, id);
