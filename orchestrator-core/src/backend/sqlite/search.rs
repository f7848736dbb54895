//! Finds runs among many: by a part of the id, by name, by state, and the log lines of all runs inside one.

use rusqlite::{Connection, Params, ToSql, params};
use uuid::Uuid;

use super::SqliteBackend;
use super::packed::Name;
use super::read::{functions, names_of, task_runs, time};
use crate::backend::record::{LogLine, TaskRun, TaskRunQuery};
use crate::backend::{BackendError, RunSearch};
use crate::clock::Timestamp;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::StateName;

/// The flow run `?1` and all flow runs inside it.
const INSIDE: &str = "WITH RECURSIVE inside (id) AS (
        VALUES (?1) UNION SELECT flow_run.id FROM inside JOIN flow_run ON flow_run.flow_run = inside.id)";

/// By so many microseconds a run may be younger than its id says: of one whose first states were lost the next one counts.
const LATE: i64 = 24 * 60 * 60 * 1_000_000;

impl RunSearch for SqliteBackend {
    fn runs_called(&self, text: &str, at_most: usize) -> Result<Vec<RunId>, BackendError> {
        self.read_at_once(
            || format!("look for the run '{text}' in the database {}", self.path.display()),
            |connection| {
                let by_id =
                    Digits::of(text).map_or_else(|| Ok(Vec::new()), |digits| by_id(connection, &digits, at_most))?;
                if by_id.is_empty() { by_name(connection, text, at_most) } else { Ok(by_id) }
            },
        )
    }

    fn find_task_runs(&self, query: &TaskRunQuery, now: Timestamp) -> Result<Vec<TaskRun>, BackendError> {
        let oldest = query.period().map_or(i64::MIN, |period| {
            now.as_micros().saturating_sub(i64::try_from(period.as_micros()).unwrap_or(i64::MAX))
        });
        let limit = i64::try_from(query.max()).unwrap_or(i64::MAX);
        let flow_run = query.flow_run().map(|id| id.as_uuid().into_bytes());
        // Ids sort by age, and there is no index of times.
        let first = TaskRunId::earliest(Timestamp::from_micros(oldest.saturating_sub(LATE))).as_uuid().into_bytes();
        let mut filter = "run.created >= ?1".to_owned();
        let mut values: Vec<&dyn ToSql> = vec![&oldest, &limit];
        if let Some(flow_run) = &flow_run {
            values.push(flow_run);
            filter += &format!(" AND run.flow_run = ?{}", values.len());
        }
        let name = query.wanted_name();
        if let Some(name) = &name {
            values.push(name);
            let shown = "coalesce(amendment.name, run.given_name, function.name || '-' || run.number)";
            filter += &format!(" AND ?{} IN (function.name, {shown})", values.len());
        }
        let active = query.wanted_state().is_some_and(|state| !state.is_terminal());
        if let Some(state) = query.wanted_state() {
            filter += &format!(" AND run.state IN ({})", names_of(state));
        }
        if active {
            // Said although it follows: so the index of the few that have not ended serves.
            filter += " AND run.end_time IS NULL";
        }
        if active && flow_run.is_none() {
            // The sign keeps SQLite from going through all runs in their order instead.
            filter += " ORDER BY +run.id DESC LIMIT ?2";
        } else {
            if flow_run.is_none() {
                values.push(&first);
                filter += &format!(" AND run.id >= ?{}", values.len());
            }
            filter += " ORDER BY run.id DESC LIMIT ?2";
        }
        self.read(|| self.reading(format_args!("task runs")), |connection| task_runs(connection, &filter, &values[..]))
    }

    fn count_task_runs(&self, flow_run: FlowRunId) -> Result<Vec<(StateName, u64)>, BackendError> {
        let select = "SELECT state, count(*) FROM task_run WHERE flow_run = ?1 GROUP BY state";
        let mut counts = self.read(
            || self.reading(format_args!("the task runs of flow run {flow_run}")),
            |connection| {
                let mut statement = connection.prepare_cached(select)?;
                let counts = statement.query_map([flow_run.as_uuid().as_bytes()], |row| {
                    Ok((row.get::<_, Name>(0)?.0, row.get::<_, i64>(1)?.unsigned_abs()))
                })?;
                counts.collect::<rusqlite::Result<Vec<_>>>()
            },
        )?;
        counts.sort_unstable_by_key(|(name, _)| *name);
        Ok(counts)
    }

    fn active_subflows(&self, flow_run: FlowRunId) -> Result<Option<(u64, FlowRunId)>, BackendError> {
        let select = "SELECT count(*), min(id) FROM flow_run WHERE flow_run = ?1 AND end_time IS NULL";
        self.read(
            || self.reading(format_args!("the flow runs inside flow run {flow_run}")),
            |connection| {
                connection.prepare_cached(select)?.query_row([flow_run.as_uuid().as_bytes()], |row| {
                    let first = row.get::<_, Option<[u8; 16]>>(1)?.map(|id| FlowRunId::from_uuid(Uuid::from_bytes(id)));
                    Ok(Some(row.get::<_, i64>(0)?.unsigned_abs()).zip(first))
                })
            },
        )
    }

    fn logs_after(&self, run: RunId, after: u64, at_most: usize) -> Result<Vec<(u64, LogLine)>, BackendError> {
        let lines = |connection: &Connection| {
            let id = run.as_uuid().into_bytes();
            let (after, at_most) =
                (i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(at_most).unwrap_or(i64::MAX));
            let columns = "log.no, log.run, log.at, log.level, log.target, log.message";
            let select = match run {
                RunId::Task(_) => {
                    format!("SELECT {columns}, 0 FROM log WHERE run = ?1 AND no > ?2 ORDER BY no LIMIT ?3")
                }
                // From the runs to their lines, or, for what was stored lately, from the lines to their runs.
                RunId::Flow(_) if after == 0 => format!(
                    "{INSIDE}, runs (id, is_flow) AS (
                        SELECT id, 1 FROM inside
                        UNION ALL SELECT task_run.id, 0 FROM inside CROSS JOIN task_run ON task_run.flow_run = inside.id)
                    SELECT {columns}, is_flow FROM runs CROSS JOIN log ON log.run = runs.id
                    WHERE log.no > ?2 ORDER BY log.no LIMIT ?3"
                ),
                RunId::Flow(_) => format!(
                    "{INSIDE}
                    SELECT {columns}, log.run IN (SELECT id FROM inside) AS is_flow FROM log LEFT JOIN task_run ON task_run.id = log.run
                    WHERE log.no > ?2 AND (is_flow OR task_run.flow_run IN (SELECT id FROM inside))
                    ORDER BY log.no LIMIT ?3"
                ),
            };
            let mut statement = connection.prepare_cached(&select)?;
            let lines = statement.query_map(params![id, after, at_most], |row| {
                let id = Uuid::from_bytes(row.get(1)?);
                let run = if row.get(6)? { FlowRunId::from_uuid(id).into() } else { TaskRunId::from_uuid(id).into() };
                let (timestamp, level) = (time(row.get(2)?), row.get(3)?);
                let line = LogLine { run, timestamp, level, target: row.get(4)?, message: row.get(5)? };
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), line))
            })?;
            lines.collect()
        };
        self.read(|| self.reading(format_args!("the log of run {run}")), lines)
    }
}

/// What somebody typed of an id.
struct Digits {
    hex: String,
    /// The lowest and the highest id that begin so.
    range: ([u8; 16], [u8; 16]),
}

impl Digits {
    fn of(text: &str) -> Option<Self> {
        let hex: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
        if hex.is_empty() || hex.len() > 32 || text.starts_with('-') || !hex.bytes().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        let filled = |with: char| -> Option<[u8; 16]> {
            let digits: String = hex.chars().chain(std::iter::repeat(with)).take(32).collect();
            u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
        };
        Some(Self { range: (filled('0')?, filled('f')?), hex })
    }
}

fn by_id(connection: &Connection, digits: &Digits, at_most: usize) -> rusqlite::Result<Vec<RunId>> {
    let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
    let (low, high) = digits.range;
    let found = of_both(|table| {
        let select = format!("SELECT id FROM {table} WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT ?3");
        ids(connection, &select, params![low, high, limit])
    })?;
    if !found.is_empty() || digits.hex.len() == 32 {
        return Ok(found);
    }
    // Whole bytes are compared by the database, an odd digit here.
    let bytes = digits.hex.len() / 2;
    let end = &high[..digits.hex.len().div_ceil(2)];
    let odd = digits.hex.len() % 2 == 1;
    let last: Vec<u8> = match odd {
        false => end.to_vec(),
        true => (0..bytes).filter_map(|n| u8::from_str_radix(&digits.hex[2 * n + 1..2 * n + 3], 16).ok()).collect(),
    };
    of_both(|table| {
        let select = format!("SELECT id FROM {table} WHERE substr(id, ?1) = ?2");
        let mut found = if bytes == 0 {
            ids(connection, &format!("SELECT id FROM {table}"), [])?
        } else {
            ids(connection, &select, params![-i64::try_from(bytes).unwrap_or(16), last])?
        };
        found.retain(|id| Uuid::from_bytes(*id).simple().to_string().ends_with(&digits.hex));
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(at_most);
        Ok(found)
    })
}

fn by_name(connection: &Connection, name: &str, at_most: usize) -> rusqlite::Result<Vec<RunId>> {
    let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
    // A run that nobody named is called after its function and its number.
    let (function, number) = match name.rsplit_once('-') {
        Some((function, digits)) => {
            let number = digits.parse::<u32>().ok().filter(|number| number.to_string() == digits);
            (functions(connection, function)?, number)
        }
        None => (Vec::new(), None),
    };
    let function = function.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    of_both(|table| {
        let unamended =
            "NOT EXISTS (SELECT 1 FROM amendment WHERE amendment.run = run.id AND amendment.name IS NOT NULL)";
        // Numbers have no index: all runs are looked at, unless no function is called so.
        let numbered = match function.is_empty() || number.is_none() {
            true => String::new(),
            false => format!(
                "UNION SELECT id FROM {table} AS run
                WHERE given_name IS NULL AND number = ?2 AND function IN ({function}) AND {unamended}"
            ),
        };
        let select = format!(
            "SELECT id FROM {table} AS run WHERE given_name = ?1 AND {unamended} {numbered}
            UNION SELECT run FROM amendment WHERE name = ?1 AND run IN (SELECT id FROM {table})
            ORDER BY id DESC LIMIT ?3"
        );
        ids(connection, &select, params![name, number, limit])
    })
}

/// The answers for flow runs, then those for task runs.
fn of_both(mut find: impl FnMut(&'static str) -> rusqlite::Result<Vec<[u8; 16]>>) -> rusqlite::Result<Vec<RunId>> {
    let flow = find("flow_run")?.into_iter().map(|id| FlowRunId::from_uuid(Uuid::from_bytes(id)).into());
    let task = find("task_run")?.into_iter().map(|id| TaskRunId::from_uuid(Uuid::from_bytes(id)).into());
    Ok(flow.chain(task).collect())
}

fn ids(connection: &Connection, select: &str, values: impl Params) -> rusqlite::Result<Vec<[u8; 16]>> {
    let mut statement = connection.prepare_cached(select)?;
    statement.query_map(values, |row| row.get(0))?.collect()
}
