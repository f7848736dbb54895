//! Reads runs, histories and logs.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Params, Row, params};
use uuid::Uuid;

use super::SqliteBackend;
use super::look::Reason;
use super::packed::{Json, Name, Paused, Reference, References, States, Tags};
use crate::backend::record::{CacheKey, CacheLook, FlowRun, FlowRunQuery, LogLine, TaskRun};
use crate::backend::{BackendError, RunHistory};
use crate::clock::Timestamp;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::{State, StateName, StateType, Transition};

impl RunHistory for SqliteBackend {
    fn flow_run(&self, id: FlowRunId) -> Result<Option<FlowRun>, BackendError> {
        self.read(
            || self.reading(format_args!("flow run {id}")),
            |connection| Ok(flow_runs(connection, "run.id = ?1", [id.as_uuid().as_bytes()])?.pop()),
        )
    }

    fn flow_runs(&self, query: &FlowRunQuery, now: Timestamp) -> Result<Vec<FlowRun>, BackendError> {
        let oldest = query.period().map_or(i64::MIN, |period| {
            now.as_micros().saturating_sub(i64::try_from(period.as_micros()).unwrap_or(i64::MAX))
        });
        let limit = i64::try_from(query.max()).unwrap_or(i64::MAX);
        let state =
            query.state_type().map_or_else(String::new, |kind| format!("AND run.state IN ({})", names_of(kind)));
        let enclosing = query.enclosing().map(|id| id.as_uuid().into_bytes());
        let enclosed = if enclosing.is_some() { "AND run.flow_run = ?4" } else { "AND ?4 IS NULL" };
        let active = if query.is_active() { "AND run.end_time IS NULL" } else { "" };
        let rest = format!(
            "AND run.created >= ?2 {state} {enclosed} {active} ORDER BY run.created DESC, run.id DESC LIMIT ?3"
        );
        let newest = |connection: &Connection| {
            let Some(name) = query.flow_name() else {
                return flow_runs(
                    connection,
                    &format!("?1 IS NULL {rest}"),
                    params![None::<i64>, oldest, limit, enclosing],
                );
            };
            // One function after the other, so that the index gives the order.
            let mut runs = Vec::new();
            for function in functions(connection, name)? {
                let filter = format!("run.function = ?1 {rest}");
                runs.extend(flow_runs(connection, &filter, params![function, oldest, limit, enclosing])?);
            }
            runs.sort_by_key(|run| Reverse((run.created, run.id)));
            runs.truncate(query.max());
            Ok(runs)
        };
        self.read(|| self.reading(format_args!("flow runs")), newest)
    }

    fn task_runs(&self, flow_run: FlowRunId) -> Result<Vec<TaskRun>, BackendError> {
        let mut runs = self.read(
            || self.reading(format_args!("the task runs of flow run {flow_run}")),
            |connection| task_runs(connection, "run.flow_run = ?1", [flow_run.as_uuid().as_bytes()]),
        )?;
        runs.sort_by_key(|run| (run.created, run.id));
        Ok(runs)
    }

    fn task_run(&self, id: TaskRunId) -> Result<Option<TaskRun>, BackendError> {
        self.read(
            || self.reading(format_args!("task run {id}")),
            |connection| Ok(task_runs(connection, "run.id = ?1", [id.as_uuid().as_bytes()])?.pop()),
        )
    }

    fn states(&self, run: RunId) -> Result<Vec<State>, BackendError> {
        let table = match run {
            RunId::Task(_) => "task_run",
            RunId::Flow(_) => "flow_run",
        };
        let select =
            format!("SELECT states FROM {table} WHERE id = ?1 UNION ALL SELECT states FROM history WHERE run = ?1");
        self.read(
            || self.reading(format_args!("the states of run {run}")),
            |connection| {
                let mut statement = connection.prepare_cached(&select)?;
                let states = statement.query_map([run.as_uuid().as_bytes()], |row| Ok(row.get::<_, States>(0)?.0))?;
                let mut states = states.collect::<rusqlite::Result<Vec<_>>>()?.concat();
                // A crash that somebody else noticed is not in the run's row, but what follows on it may be.
                states.sort_by_key(|state| state.timestamp);
                Ok(states)
            },
        )
    }

    fn logs(&self, run: RunId) -> Result<Vec<LogLine>, BackendError> {
        let select = "SELECT at, level, target, message FROM log WHERE run = ?1 ORDER BY at, no";
        self.read(
            || self.reading(format_args!("the log of run {run}")),
            |connection| {
                let mut statement = connection.prepare_cached(select)?;
                let lines = statement.query_map([run.as_uuid().as_bytes()], |row| {
                    Ok(LogLine {
                        run,
                        timestamp: time(row.get(0)?),
                        level: row.get(1)?,
                        target: row.get(2)?,
                        message: row.get(3)?,
                    })
                })?;
                lines.collect()
            },
        )
    }
}

impl SqliteBackend {
    pub(super) fn reading(&self, what: std::fmt::Arguments<'_>) -> String {
        format!("read {what} from the database {}", self.path.display())
    }
}

fn flow_runs(connection: &Connection, filter: &str, values: impl Params) -> rusqlite::Result<Vec<FlowRun>> {
    runs(connection, "flow_run", "", filter, values, |row| {
        let run = RunRow::read(row)?;
        let pause = if run.state.kind == StateType::Paused { row.get::<_, Option<Paused>>(20)? } else { None };
        Ok(FlowRun {
            id: FlowRunId::from_uuid(run.id),
            name: run.name,
            flow_name: run.function,
            flow_key: row.get(18)?,
            state: run.state,
            run_count: run.run_count,
            upstream: run.upstream,
            parent: run.parent,
            version: run.version,
            tags: run.tags,
            parameters: row.get::<_, Json>(17)?.0,
            pause: pause.map(|pause| pause.0),
            host: run.host,
            pid: run.pid,
            created: run.created,
            start_time: run.start_time,
            end_time: run.end_time,
        })
    })
}

pub(super) fn task_runs(connection: &Connection, filter: &str, values: impl Params) -> rusqlite::Result<Vec<TaskRun>> {
    runs(connection, "task_run", ", run.cache_key, run.cache_reason", filter, values, |row| {
        let run = RunRow::read(row)?;
        let key = row.get::<_, Option<[u8; 32]>>(21)?.map(CacheKey);
        let cache = row.get::<_, Option<Reason>>(22)?.map(|reason| CacheLook::new(key, reason.0));
        Ok(TaskRun {
            id: TaskRunId::from_uuid(run.id),
            name: run.name,
            task_name: run.function,
            task_key: row.get(18)?,
            state: run.state,
            run_count: run.run_count,
            upstream: run.upstream,
            parent: run.parent,
            flow_run_id: row.get::<_, Option<[u8; 16]>>(19)?.map(|id| FlowRunId::from_uuid(Uuid::from_bytes(id))),
            version: run.version,
            tags: run.tags,
            cache,
            host: run.host,
            pid: run.pid,
            created: run.created,
            start_time: run.start_time,
            end_time: run.end_time,
        })
    })
}

fn runs<T>(
    connection: &Connection,
    table: &str,
    more: &str,
    filter: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    // The cross joins keep SQLite from starting with another table than the runs'.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT run.id, coalesce(amendment.name, run.given_name), function.name, run.number, run.state, run.state_at,
            run.message, run.run_count, coalesce(amendment.upstream, run.upstream), run.parent, function.version, run.tags, process.host,
            process.pid, run.created, run.start_time, run.end_time, amendment.parameters, function.key, run.flow_run,
            amendment.pause{more}
        FROM {table} AS run
        CROSS JOIN function ON function.no = run.function
        CROSS JOIN process ON process.no = run.process
        LEFT JOIN amendment ON amendment.run = run.id
        WHERE {filter}"
    ))?;
    statement.query_map(values, read)?.collect()
}

/// What flow runs and task runs have in common.
struct RunRow {
    id: Uuid,
    name: String,
    function: String,
    state: State,
    run_count: u32,
    upstream: Vec<RunId>,
    parent: Option<RunId>,
    version: Option<String>,
    tags: Vec<String>,
    host: String,
    pid: u32,
    created: DateTime<Utc>,
    start_time: Option<DateTime<Utc>>,
    end_time: Option<DateTime<Utc>>,
}

impl RunRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let function: String = row.get(2)?;
        let name = match row.get(1)? {
            Some(name) => name,
            None => format!("{function}-{}", row.get::<_, u32>(3)?),
        };
        let message: Option<String> = row.get(6)?;
        let state = Transition {
            name: row.get::<_, Name>(4)?.0,
            at: Timestamp::from_micros(row.get(5)?),
            message: message.map(Into::into),
        };
        Ok(Self {
            id: Uuid::from_bytes(row.get(0)?),
            name,
            function,
            state: State::from(&state),
            run_count: row.get(7)?,
            upstream: row.get::<_, References>(8)?.0,
            parent: row.get::<_, Option<Reference>>(9)?.map(|parent| parent.0),
            version: row.get(10)?,
            tags: row.get::<_, Tags>(11)?.0,
            host: row.get(12)?,
            pid: row.get(13)?,
            created: time(row.get(14)?),
            start_time: row.get::<_, Option<i64>>(15)?.map(time),
            end_time: row.get::<_, Option<i64>>(16)?.map(time),
        })
    }
}

/// The numbers of the functions of that display name.
pub(super) fn functions(connection: &Connection, name: &str) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached("SELECT no FROM function WHERE name = ?1")?;
    statement.query_map([name], |row| row.get(0))?.collect()
}

/// The names of that type's states, as a list in SQL.
pub(super) fn names_of(kind: StateType) -> String {
    let names = StateName::ALL.into_iter().filter(|name| name.kind() == kind);
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

pub(super) fn time(micros: i64) -> DateTime<Utc> {
    Timestamp::from_micros(micros).to_datetime()
}
