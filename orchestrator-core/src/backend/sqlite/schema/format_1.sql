CREATE TABLE function (
    no INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT
) STRICT;
CREATE INDEX function_by_name ON function (name, key);

CREATE TABLE process (
    no INTEGER PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    namespace INTEGER NOT NULL,
    started INTEGER NOT NULL,
    UNIQUE (host, pid, namespace, started)
) STRICT;

CREATE TABLE task_run (
    id BLOB NOT NULL PRIMARY KEY,
    function INTEGER NOT NULL,
    given_name TEXT,
    number INTEGER NOT NULL,
    parent BLOB,
    flow_run BLOB,
    tags TEXT,
    upstream BLOB,
    process INTEGER NOT NULL,
    created INTEGER NOT NULL,
    states TEXT NOT NULL,
    next_seq INTEGER NOT NULL,
    run_count INTEGER NOT NULL,
    state TEXT NOT NULL,
    state_at INTEGER NOT NULL,
    message TEXT,
    start_time INTEGER,
    end_time INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX task_run_by_flow_run ON task_run (flow_run);
CREATE INDEX task_run_unfinished ON task_run (process) WHERE end_time IS NULL;

CREATE TABLE flow_run (
    id BLOB NOT NULL PRIMARY KEY,
    function INTEGER NOT NULL,
    given_name TEXT,
    number INTEGER NOT NULL,
    parent BLOB,
    flow_run BLOB,
    tags TEXT,
    upstream BLOB,
    process INTEGER NOT NULL,
    created INTEGER NOT NULL,
    states TEXT NOT NULL,
    next_seq INTEGER NOT NULL,
    run_count INTEGER NOT NULL,
    state TEXT NOT NULL,
    state_at INTEGER NOT NULL,
    message TEXT,
    start_time INTEGER,
    end_time INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX flow_run_unfinished ON flow_run (process) WHERE end_time IS NULL;
CREATE INDEX flow_run_by_time ON flow_run (created, id);
CREATE INDEX flow_run_by_function ON flow_run (function, created, id);

CREATE TABLE history (
    run BLOB NOT NULL,
    first_seq INTEGER NOT NULL,
    states TEXT NOT NULL,
    PRIMARY KEY (run, first_seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE amendment (
    run BLOB NOT NULL PRIMARY KEY,
    name TEXT,
    upstream BLOB,
    parameters TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE log (
    no INTEGER PRIMARY KEY,
    run BLOB NOT NULL,
    at INTEGER NOT NULL,
    level TEXT NOT NULL,
    target TEXT NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX log_by_run ON log (run);

CREATE TABLE cache (
    key BLOB NOT NULL PRIMARY KEY,
    task_key TEXT NOT NULL,
    run BLOB NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER,
    format TEXT NOT NULL,
    type_name TEXT NOT NULL,
    value BLOB NOT NULL
) STRICT;
CREATE INDEX cache_by_expiry ON cache (expires) WHERE expires IS NOT NULL;
