-- What orchestrators want of each other. `wanted` and `answer` are JSON.
CREATE TABLE request (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Whom it is for, and about which run.
    owner INTEGER NOT NULL,
    run BLOB NOT NULL,
    is_flow INTEGER NOT NULL,
    wanted TEXT NOT NULL,
    created INTEGER NOT NULL,
    taken INTEGER NOT NULL DEFAULT 0,
    answer TEXT
) STRICT;
CREATE INDEX request_by_owner ON request (owner, taken);
