-- What every process keeps to. Of a rate limit `taken` slots had not come back at `as_of`.
CREATE TABLE slot_limit (
    name TEXT NOT NULL PRIMARY KEY,
    slots INTEGER NOT NULL,
    decay REAL,
    active INTEGER NOT NULL,
    taken REAL NOT NULL,
    as_of INTEGER NOT NULL,
    -- Grows with every change of a setting.
    changed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who holds slots; what an owner holds that has ended does not count.
CREATE TABLE slot_holder (
    slot_limit TEXT NOT NULL,
    owner INTEGER NOT NULL,
    ticket INTEGER NOT NULL,
    slots INTEGER NOT NULL,
    since INTEGER NOT NULL,
    run BLOB,
    run_name TEXT,
    PRIMARY KEY (slot_limit, owner, ticket)
) STRICT, WITHOUT ROWID;
CREATE INDEX slot_holder_by_owner ON slot_holder (owner, ticket);

-- Who waits: a row for each limit of a request, in the order in which they are served. One that is served is gone.
CREATE TABLE slot_wait (
    slot_limit TEXT NOT NULL,
    class INTEGER NOT NULL,
    since INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    ticket INTEGER NOT NULL,
    slots INTEGER NOT NULL,
    run BLOB,
    run_name TEXT,
    -- The runs of the same owner that hold slots and end only after this one.
    above BLOB,
    PRIMARY KEY (slot_limit, class, since, owner, ticket)
) STRICT, WITHOUT ROWID;
CREATE INDEX slot_wait_by_owner ON slot_wait (owner, ticket);

-- Who computes the result under a cache key.
CREATE TABLE cache_claim (
    key BLOB NOT NULL PRIMARY KEY,
    owner INTEGER NOT NULL,
    ticket INTEGER NOT NULL,
    since INTEGER NOT NULL,
    run BLOB NOT NULL,
    run_name TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- How many requests each owner keeps waiting in its own queue, to be made when there is room.
CREATE TABLE slot_backlog (
    slot_limit TEXT NOT NULL,
    owner INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    PRIMARY KEY (slot_limit, owner)
) STRICT, WITHOUT ROWID;

-- Grows with every change of what those look at who wait: limits, slots, claims, and who has ended. History leaves it as
-- it is, so that they are not kept busy by it.
CREATE TABLE lease_version (
    no INTEGER NOT NULL
) STRICT;
INSERT INTO lease_version (no) VALUES (0);
CREATE TRIGGER slot_limit_added AFTER INSERT ON slot_limit BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER slot_limit_changed AFTER UPDATE ON slot_limit BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER slot_limit_deleted AFTER DELETE ON slot_limit BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER slot_holder_added AFTER INSERT ON slot_holder BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER slot_holder_changed AFTER UPDATE ON slot_holder BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER slot_holder_deleted AFTER DELETE ON slot_holder BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER slot_wait_added AFTER INSERT ON slot_wait BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER slot_wait_changed AFTER UPDATE ON slot_wait BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER slot_wait_deleted AFTER DELETE ON slot_wait BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER cache_claim_added AFTER INSERT ON cache_claim BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER cache_claim_changed AFTER UPDATE ON cache_claim BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER cache_claim_deleted AFTER DELETE ON cache_claim BEGIN UPDATE lease_version SET no = no + 1; END;
CREATE TRIGGER process_ended AFTER UPDATE OF ended ON process BEGIN UPDATE lease_version SET no = no + 1; END;
