//! Whether the file is sound: SQLite's own checks, then what must hold among our rows.

use rusqlite::types::FromSql;
use rusqlite::{Connection, Row};
use uuid::Uuid;

use super::super::error::is_damage;
use super::super::packed::{Name, Reference, States};
use super::super::reader::cannot_share;
use crate::backend::maintenance::Finding;
use crate::engine::machine::may_follow;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::{State, StateName};

/// So many findings are enough: what is wrong with the rest is likely the same.
const ENOUGH: usize = 1000;

pub(super) fn check(connection: &Connection) -> rusqlite::Result<Vec<Finding>> {
    // All from one moment, whoever writes meanwhile.
    let now = connection.unchecked_transaction()?;
    let mut findings = Vec::new();
    match look(&now, &mut findings) {
        // SQLite does not look for all that keeps it from reading.
        Err(error) if is_damage(&error) => {
            findings.push(Finding::damage(format!("SQLite cannot read the file: {error}")))
        }
        looked => looked?,
    }
    findings.truncate(ENOUGH);
    Ok(findings)
}

fn look(connection: &Connection, findings: &mut Vec<Finding>) -> rusqlite::Result<()> {
    sqlite(connection, findings)?;
    // In a file that is damaged our own looks mean little.
    if !findings.is_empty() {
        return Ok(());
    }
    runs(connection, "task_run", findings)?;
    runs(connection, "flow_run", findings)?;
    for invariant in INVARIANTS {
        invariant.look(connection, findings)?;
    }
    results(connection, findings)
}

fn sqlite(connection: &Connection, findings: &mut Vec<Finding>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA integrity_check(100)")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    for line in lines {
        match line {
            Ok(line) if line == "ok" => {}
            Ok(line) => findings.push(Finding::damage(format!("SQLite finds: {line}"))),
            // That says nothing of the file, and is tried again.
            Err(error) if cannot_share(&error) => return Err(error),
            Err(error) => findings.push(Finding::damage(format!("SQLite cannot check the file: {error}"))),
        }
    }
    Ok(())
}

/// What no row may do: a query that gives those which do.
struct Invariant {
    /// Gives the table (`task_run`, `flow_run`, or another one, whose runs are not named) and the id.
    query: &'static str,
    what: &'static str,
}

const INVARIANTS: [Invariant; 8] = [
    Invariant {
        query: "SELECT 'task_run', id FROM task_run AS run WHERE flow_run IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM flow_run WHERE flow_run.id = run.flow_run)
            AND NOT EXISTS (SELECT 1 FROM removal WHERE removal.run = CAST(x'66' || run.flow_run AS BLOB))",
        what: "the flow run that it belongs to is missing",
    },
    Invariant {
        query: "SELECT 'flow_run', id FROM flow_run AS run WHERE flow_run IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM flow_run WHERE flow_run.id = run.flow_run)
            AND NOT EXISTS (SELECT 1 FROM removal WHERE removal.run = CAST(x'66' || run.flow_run AS BLOB))",
        what: "the flow run that it belongs to is missing",
    },
    Invariant {
        query: "SELECT 'task_run', id FROM task_run WHERE function NOT IN (SELECT no FROM function)",
        what: "its function is missing",
    },
    Invariant {
        query: "SELECT 'flow_run', id FROM flow_run WHERE function NOT IN (SELECT no FROM function)",
        what: "its function is missing",
    },
    Invariant {
        query: "SELECT 'task_run', id FROM task_run WHERE process NOT IN (SELECT no FROM process)",
        what: "its process is missing",
    },
    Invariant {
        query: "SELECT 'flow_run', id FROM flow_run WHERE process NOT IN (SELECT no FROM process)",
        what: "its process is missing",
    },
    Invariant {
        query: "SELECT 'flow_run', root FROM result_span
            WHERE NOT EXISTS (SELECT 1 FROM flow_run WHERE flow_run.id = root)
            AND NOT EXISTS (SELECT 1 FROM removal WHERE removal.run = CAST(x'66' || root AS BLOB))",
        what: "it is missing, and results of it are kept",
    },
    Invariant {
        query: "SELECT 'flow_run', root FROM
                (SELECT root, first, last, max(last) OVER (ORDER BY first ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                FROM result_span)
            WHERE first > last OR before >= first",
        what: "the results that it keeps are not told from those of others",
    },
];

impl Invariant {
    fn look(&self, connection: &Connection, findings: &mut Vec<Finding>) -> rusqlite::Result<()> {
        let mut statement = connection.prepare(self.query)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if findings.len() >= ENOUGH {
                break;
            }
            let table: String = row.get(0)?;
            findings.push(match run_of(&table, row) {
                Ok(run) => Finding::of(run, self.what),
                Err(error) => Finding::new(format!("{table}: {}, and its id cannot be read: {error}", self.what)),
            });
        }
        Ok(())
    }
}

fn run_of(table: &str, row: &Row<'_>) -> rusqlite::Result<RunId> {
    let id = Uuid::from_bytes(row.get(1)?);
    Ok(if table == "flow_run" { FlowRunId::from_uuid(id).into() } else { TaskRunId::from_uuid(id).into() })
}

/// Each run's states follow each other as they may, and its row says what the last of them says.
fn runs(connection: &Connection, table: &str, findings: &mut Vec<Finding>) -> rusqlite::Result<()> {
    let select = format!(
        "SELECT '{table}', id, states, next_seq, state, state_at, message, created, end_time, parent FROM {table}"
    );
    let mut statement = connection.prepare(&select)?;
    let mut more = connection.prepare("SELECT states FROM history WHERE run = ?1 ORDER BY first_seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if findings.len() >= ENOUGH {
            break;
        }
        let run = match run_of(table, row) {
            Ok(run) => run,
            Err(error) => {
                findings.push(Finding::new(format!("{table}: an id cannot be read: {error}")));
                continue;
            }
        };
        let later = more.query_map([run.as_uuid().as_bytes()], |row| Ok(row.get::<_, States>(0)?.0));
        let later = later.and_then(|states| states.collect::<rusqlite::Result<Vec<_>>>());
        match later.and_then(|later| wrong(row, later)) {
            Ok(None) => {}
            Ok(Some(what)) => findings.push(Finding::of(run, what)),
            Err(error) => findings.push(Finding::of(run, format!("its row cannot be read: {error}"))),
        }
    }
    Ok(())
}

/// What is wrong with the states of a row.
fn wrong(row: &Row<'_>, later: Vec<Vec<State>>) -> rusqlite::Result<Option<String>> {
    let mut states: Vec<State> = read::<States>(row, 2)?.0;
    states.extend(later.into_iter().flatten());
    let _: Option<Reference> = row.get(9)?;
    let (next, name): (u32, StateName) = (row.get(3)?, read::<Name>(row, 4)?.0);
    let next = next as usize;
    let (at, message, created): (i64, Option<String>, i64) = (row.get(5)?, row.get(6)?, row.get(7)?);
    let ended: Option<i64> = row.get(8)?;
    let Some(last) = states.last() else { return Ok(Some("it has no states".to_owned())) };
    if states.len() > next {
        return Ok(Some(format!("it has {} states, and should have {next}", states.len())));
    }
    // A history of which some was lost is as it is; its parts need not fit together.
    if states.len() == next {
        if states[0].timestamp.timestamp_micros() != created {
            return Ok(Some("its first state is not from the time of its submission".to_owned()));
        }
        for pair in states.windows(2) {
            let [before, after] = [&pair[0], &pair[1]];
            let names = (StateName::parse(&before.name), StateName::parse(&after.name));
            if !matches!(names, (Some(from), Some(to)) if may_follow(from, to)) {
                return Ok(Some(format!("{} follows {}", after.name, before.name)));
            }
        }
    }
    if let Some(pair) = states.windows(2).find(|pair| pair[0].timestamp >= pair[1].timestamp) {
        return Ok(Some(format!("{} is not later than the {} before it", pair[1].name, pair[0].name)));
    }
    let same = last.name == name.as_str() && last.message == message && last.timestamp.timestamp_micros() == at;
    if !same {
        return Ok(Some(format!("its row says {name}, its last state is {last}")));
    }
    Ok((ended.is_some() != last.is_terminal()).then(|| match ended {
        Some(_) => format!("it is {name}, and has a time at which it ended"),
        None => format!("it is {name}, and has no time at which it ended"),
    }))
}

fn read<T: FromSql>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    row.get(column)
}

/// Each result is some flow run's, and what was stored, as far as it is in the file itself.
fn results(connection: &Connection, findings: &mut Vec<Finding>) -> rusqlite::Result<()> {
    let mut spans = connection.prepare("SELECT first, last FROM result_span ORDER BY first")?;
    let spans = spans.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let spans: Vec<(i64, i64)> = spans.collect::<rusqlite::Result<_>>()?;
    let mut spans = spans.into_iter().peekable();
    let select = "SELECT run, digest, size, value, location IS NULL, no FROM result ORDER BY no";
    let mut statement = connection.prepare(select)?;
    let mut rows = statement.query([])?;
    let mut is_nobodys = |no: i64| {
        while spans.next_if(|(_, last)| *last < no).is_some() {}
        spans.peek().is_none_or(|(first, _)| *first > no)
    };
    while let Some(row) = rows.next()? {
        let run = TaskRunId::from_uuid(Uuid::from_bytes(row.get(0)?));
        let (digest, size): (Vec<u8>, i64) = (row.get(1)?, row.get(2)?);
        let what = match row.get_ref(3)?.as_blob_or_null()? {
            Some(value) if value.len() as i64 != size || blake3::hash(value).as_bytes()[..] != digest[..] => {
                "its persisted result is not what was stored"
            }
            None if row.get(4)? => "its persisted result has neither bytes nor the name of an object",
            Some(_) | None if is_nobodys(row.get(5)?) => "its persisted result is no flow run's",
            Some(_) | None => continue,
        };
        findings.push(Finding::of(run.into(), what));
    }
    Ok(())
}
