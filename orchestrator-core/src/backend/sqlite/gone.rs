//! Orchestrators that are gone, in a database that cannot be written: whoever looks is shown their runs as Crashed.
//!
//! That is done by views that stand before the tables. They are slower than those, and are made only if they are needed.

use rusqlite::{Connection, OptionalExtension, params};

use super::orphans::{LAST_KNOWN, crashed_line};
use super::write::STATES_IN_ROW;
use super::{SqliteBackend, lock};
use crate::backend::{BackendError, Owner};
use crate::clock::Timestamp;
use crate::state::StateName;

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Gone {
    owner: i64,
    /// How long its lease was to last. One that has renewed it is not gone.
    lease: Option<i64>,
    at: i64,
    why: String,
}

impl SqliteBackend {
    /// Shows the runs of an orchestrator as crashed, if it is as it was.
    pub(super) fn show_as_gone(&self, owner: &Owner, at: Timestamp, why: &str) -> Result<(), BackendError> {
        let select = "SELECT lease_until IS ?2 FROM process WHERE no = ?1";
        let lease = owner.lease_until.map(Timestamp::as_micros);
        let unchanged = self.read(
            || self.reading(format_args!("who uses the database")),
            |connection| connection.query_row(select, params![owner.no.0, lease], |row| row.get(0)).optional(),
        )?;
        let mut gone = lock(&self.gone);
        if unchanged == Some(true) && gone.iter().all(|known| (known.owner, known.lease) != (owner.no.0, lease)) {
            gone.push(Gone { owner: owner.no.0, lease, at: at.as_micros(), why: why.to_owned() });
        }
        Ok(())
    }
}

/// What the tables say of these orchestrators, the connection sees otherwise from now on.
pub(super) fn cover(connection: &Connection, gone: &[Gone]) -> rusqlite::Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    connection.execute_batch(
        "PRAGMA temp_store = MEMORY;
        CREATE TEMP TABLE gone (no INTEGER PRIMARY KEY, lease INTEGER, at INTEGER NOT NULL, why TEXT NOT NULL, rest TEXT NOT NULL,
            known INTEGER)",
    )?;
    for Gone { owner, lease, at, why } in gone {
        let rest = format!(",{}]\n", serde_json::Value::from(why.as_str()));
        // Once, and not for each run that is read.
        connection.execute(
            &format!("INSERT OR REPLACE INTO temp.gone VALUES (?1, ?2, ?3, ?4, ?5, ({LAST_KNOWN}))"),
            params![owner, lease, at, why, rest],
        )?;
    }
    let of = |column: &str| format!("(SELECT {column} FROM temp.gone WHERE gone.no = process)");
    let (at, why, rest) = (of("at"), of("why"), of("rest"));
    let still = "SELECT gone.no FROM temp.gone JOIN main.process AS owner ON owner.no = gone.no AND owner.lease_until IS gone.lease";
    let lost = format!("(end_time IS NULL AND process IN ({still}))");
    let time = format!("max({at}, state_at + 1)");
    let line = crashed_line(&time, &rest);
    let long = format!("next_seq >= {STATES_IN_ROW}");
    let crashed = StateName::Crashed;
    for table in ["flow_run", "task_run"] {
        let columns = [
            ("states", format!("iif({long}, states, states || {line})")),
            ("next_seq", "next_seq + 1".to_owned()),
            ("state", format!("'{crashed}'")),
            ("state_at", time.clone()),
            ("message", why.clone()),
            ("end_time", time.clone()),
        ];
        let columns: Vec<_> =
            columns.iter().map(|(name, then)| (*name, format!("iif({lost}, {then}, {name})"))).collect();
        view(connection, table, &columns, "")?;
    }
    let known = |column: &str| {
        format!("(SELECT {column} FROM temp.gone WHERE gone.no = process.no AND gone.lease IS process.lease_until)")
    };
    // Before what it changes is looked up: that it has ended says that it left.
    let why = format!("iif(ended IS NULL, {}, why)", known("why"));
    let heard = format!("coalesce(max(coalesce(heard, 0), {}), heard)", known("known"));
    let ended = format!("coalesce(ended, {})", known("at"));
    view(connection, "process", &[("ended", ended), ("why", why), ("heard", heard)], "")?;
    let also = ["flow_run", "task_run"]
        .map(|table| format!("UNION ALL SELECT id, next_seq, {line} FROM main.{table} WHERE {lost} AND {long}"));
    view(connection, "history", &[], &also.join(" "))
}

/// A view of the name of a table, with other values in some columns.
fn view(connection: &Connection, table: &str, others: &[(&str, String)], also: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1, 'main')")?;
    let names = statement.query_map([table], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let column = |name: &String| match others.iter().find(|(other, _)| other == name) {
        Some((_, then)) => format!("{then} AS {name}"),
        None => name.clone(),
    };
    let columns: Vec<_> = names.iter().map(column).collect();
    let columns = columns.join(", ");
    connection.execute_batch(&format!("CREATE TEMP VIEW {table} AS SELECT {columns} FROM main.{table} {also}"))
}
