//! Reads runs, histories and logs.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Params, Row, params};
use uuid::Uuid;

use super::SqliteBackend;
use super::look::Reason;
use super::packed::{Json, LastStates, Name, Paused, Reference, References, States, Tags};
use crate::backend::record::{ActiveRuns, CacheKey, CacheLook, CrashBudget, FlowRun, FlowRunQuery, LogLine, TaskRun};
use crate::backend::{BackendError, RunHistory};
use crate::clock::Timestamp;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::{State, StateFilter, StateName, StateType, Transition};

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
        let newest = |connection: &Connection| {
            if query.enclosing().is_some() || query.is_active() {
                return few_flow_runs(connection, query, oldest, limit);
            }
            if query.flow_name().is_none() && query.wanted_state().is_none() {
                let roots = if query.is_of_roots() { "run.parent IS NULL AND" } else { "" };
                let filter = format!("{roots} run.created >= ?1 ORDER BY run.created DESC, run.id DESC LIMIT ?2");
                return flow_runs(connection, &filter, params![oldest, limit]);
            }
            let mut found = Vec::new();
            // One function and state after the other, so that the index gives the order.
            for function in flow_functions(connection, query.flow_name())? {
                for state in StateName::ALL {
                    if query.wanted_state().is_none_or(|wanted| wanted.takes(state)) {
                        let roots = query.is_of_roots();
                        found.extend(newest_of(connection, function, state, roots, oldest, limit)?);
                    }
                }
            }
            found.sort_unstable_by_key(|run| Reverse(*run));
            found.truncate(query.max());
            let mut runs = Vec::with_capacity(found.len());
            for (_, id) in found {
                runs.extend(flow_runs(connection, "run.id = ?1", [id])?);
            }
            Ok(runs)
        };
        self.read_at_once(|| self.reading(format_args!("flow runs")), newest)
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

    fn active_among(&self, ids: &[RunId], at_most: usize) -> Result<ActiveRuns, BackendError> {
        let is_active = |table| format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE id = ?1 AND end_time IS NULL)");
        let (task, flow) = (is_active("task_run"), is_active("flow_run"));
        let select = |connection: &Connection| {
            let (mut task, mut flow) = (connection.prepare_cached(&task)?, connection.prepare_cached(&flow)?);
            let mut active = ActiveRuns::default();
            for id in ids {
                let key = id.as_uuid().into_bytes();
                let statement = if id.as_task().is_some() { &mut task } else { &mut flow };
                if !statement.query_row([key], |row| row.get(0))? {
                    continue;
                }
                active.count += 1;
                if active.first.len() < at_most {
                    let run = match id {
                        RunId::Task(_) => {
                            task_runs(connection, "run.id = ?1", [key])?.pop().map(|run| (run.name, run.state))
                        }
                        RunId::Flow(_) => {
                            flow_runs(connection, "run.id = ?1", [key])?.pop().map(|run| (run.name, run.state))
                        }
                    };
                    active.first.extend(run.map(|(name, state)| (*id, name, state)));
                }
            }
            Ok(active)
        };
        self.read_at_once(|| self.reading(format_args!("the runs that a run waits for")), select)
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
    runs(connection, "flow_run", ", run.resumed, function.crash_budget", filter, values, |row| {
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
            on_crash: on_crash(row)?,
            host: run.host,
            pid: run.pid,
            created: run.created,
            start_time: run.start_time,
            end_time: run.end_time,
            last_seen: run.last_seen,
        })
    })
}

fn on_crash(row: &Row<'_>) -> rusqlite::Result<Option<CrashBudget>> {
    let counted = row.get::<_, Option<u32>>(23)?.zip(row.get::<_, Option<u32>>(24)?);
    Ok(counted.map(|(used, budget)| CrashBudget { used, budget }))
}

pub(super) fn task_runs(connection: &Connection, filter: &str, values: impl Params) -> rusqlite::Result<Vec<TaskRun>> {
    runs(connection, "task_run", ", run.cache_key, run.cache_reason", filter, values, |row| {
        let run = RunRow::read(row)?;
        let key = row.get::<_, Option<[u8; 32]>>(23)?.map(CacheKey);
        let cache = row.get::<_, Option<Reason>>(24)?.map(|reason| CacheLook::new(key, reason.0));
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
            last_seen: run.last_seen,
        })
    })
}

/// The states of which more is known than their message.
const AWAITING_RETRY: StateName = StateName::AwaitingRetry;
const CRASHED: StateName = StateName::Crashed;

/// Whether somebody else wrote that the run crashed, when it was found out that its process had ended: whoever ends one that is
/// gone says the same of it and of its runs, so that the clocks of two machines are not compared. Of one that left, which seldom
/// leaves runs behind, the times tell.
const FOUND_OUT: &str = "iif(process.why IS NULL, process.ended <= run.end_time, run.message IS process.why)";

/// When something was last heard of a process, or of a run, apart from the states of that.
const HEARD: &str = "max(
    coalesce(process.heard, 0),
    iif(process.why IS NULL, process.ended, 0),
    coalesce((SELECT at FROM log WHERE log.run = run.id ORDER BY no DESC LIMIT 1), 0)";

/// The same of the newest task runs of a flow run: the others mostly ended before.
const HEARD_OF_TASKS: &str = ",
    coalesce((
        SELECT max(max(created, coalesce(start_time, 0), iif(state = 'Crashed', 0, coalesce(end_time, 0))))
        FROM (SELECT * FROM task_run WHERE flow_run = run.id ORDER BY id DESC LIMIT 16)
    ), 0)";

fn runs<T>(
    connection: &Connection,
    table: &str,
    more: &str,
    filter: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let of_tasks = if table == "flow_run" { HEARD_OF_TASKS } else { "" };
    // The cross joins keep SQLite from starting with another table than the runs'.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT run.id, coalesce(amendment.name, run.given_name), function.name, run.number, run.state, run.state_at,
            run.message, run.run_count, coalesce(amendment.upstream, run.upstream), run.parent, function.version, run.tags, process.host,
            process.pid, run.created, run.start_time, run.end_time, amendment.parameters, function.key, run.flow_run,
            amendment.pause,
            iif(run.state IN ('{AWAITING_RETRY}', '{CRASHED}'), run.states || coalesce(
                (SELECT group_concat(states, '' ORDER BY first_seq) FROM
                    (SELECT states, first_seq FROM history WHERE history.run = run.id ORDER BY first_seq DESC LIMIT 2)), ''), NULL),
            iif(run.state = '{CRASHED}' AND {FOUND_OUT}, {HEARD}{of_tasks}), NULL)
            {more}
        FROM {table} AS run
        CROSS JOIN function ON function.no = run.function
        CROSS JOIN process ON process.no = run.process
        LEFT JOIN amendment ON amendment.run = run.id
        WHERE {filter}"
    ))?;
    let mut read = read;
    statement.query_map(values, |row| read(row).map_err(|error| of_run(table, row.get(0), error)))?.collect()
}

/// An error over a row, with the run that the row is of.
fn of_run(table: &str, id: rusqlite::Result<[u8; 16]>, error: rusqlite::Error) -> rusqlite::Error {
    let kind = if table == "flow_run" { "flow run" } else { "task run" };
    let why = match id {
        Ok(id) => format!("{kind} {}: {error}", Uuid::from_bytes(id)),
        Err(_) => format!("a {kind} whose id cannot be read: {error}"),
    };
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, why.into())
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
    last_seen: Option<DateTime<Utc>>,
}

impl RunRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let function: String = row.get(2)?;
        let name = match row.get(1)? {
            Some(name) => name,
            None => format!("{function}-{}", row.get::<_, u32>(3)?),
        };
        let message: Option<String> = row.get(6)?;
        let state = State::from(&Transition {
            message: message.map(Into::into),
            ..Transition::new(row.get::<_, Name>(4)?.0, Timestamp::from_micros(row.get(5)?))
        });
        // What else is known of it stands among the states that the run has gone through. Where those are damaged, the run
        // can be told without.
        let LastStates { last, before } = row.get::<_, Option<LastStates>>(21)?.unwrap_or_default();
        let known = last.filter(|known| known.name == state.name && known.timestamp == state.timestamp);
        let created = time(row.get(14)?);
        let end_time = row.get::<_, Option<i64>>(16)?.map(time);
        let last_seen = row.get::<_, Option<i64>>(22)?.map(|heard| {
            let heard = time(heard).max(created).max(before.map_or(created, |before| before.timestamp));
            // By other clocks it may be later.
            end_time.map_or(heard, |end| heard.min(end))
        });
        Ok(Self {
            id: Uuid::from_bytes(row.get(0)?),
            name,
            function,
            state: known.unwrap_or(state),
            run_count: row.get(7)?,
            upstream: row.get::<_, References>(8)?.0,
            parent: row.get::<_, Option<Reference>>(9)?.map(|parent| parent.0),
            version: row.get(10)?,
            tags: row.get::<_, Tags>(11)?.0,
            host: row.get(12)?,
            pid: row.get(13)?,
            created,
            start_time: row.get::<_, Option<i64>>(15)?.map(time),
            end_time,
            last_seen,
        })
    }
}

/// The numbers of the functions of that display name.
pub(super) fn functions(connection: &Connection, name: &str) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached("SELECT no FROM function WHERE name = ?1")?;
    statement.query_map([name], |row| row.get(0))?.collect()
}

/// The names of those states, as a list in SQL.
pub(super) fn names_of(wanted: StateFilter) -> String {
    let names = StateName::ALL.into_iter().filter(|name| wanted.takes(*name));
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

/// The newest flow runs that match a query which only few can match: those are found first, and put in order then.
fn few_flow_runs(
    connection: &Connection,
    query: &FlowRunQuery,
    oldest: i64,
    limit: i64,
) -> rusqlite::Result<Vec<FlowRun>> {
    let enclosing = query.enclosing().map(|id| id.as_uuid().into_bytes());
    let enclosed = if enclosing.is_some() { "run.flow_run = ?1" } else { "?1 IS NULL" };
    let active = if query.is_active() { "AND run.end_time IS NULL" } else { "" };
    let roots = if query.is_of_roots() { "AND +run.parent IS NULL" } else { "" };
    let state =
        query.wanted_state().map_or_else(String::new, |state| format!("AND +run.state IN ({})", names_of(state)));
    // The signs keep SQLite from going through all runs in the order of time.
    let filter = format!(
        "{enclosed} {active} {roots} {state} AND (?2 IS NULL OR function.name = ?2) AND +run.created >= ?3
        ORDER BY +run.created DESC, +run.id DESC LIMIT ?4"
    );
    flow_runs(connection, &filter, params![enclosing, query.flow_name(), oldest, limit])
}

/// The numbers of the functions that flow runs are of: of all, or of those with that display name.
fn flow_functions(connection: &Connection, name: Option<&str>) -> rusqlite::Result<Vec<i64>> {
    // From one number to the next one in the index, however many runs each has.
    let select = "WITH RECURSIVE flow (no) AS (
            SELECT min(function) FROM flow_run
            UNION ALL
            SELECT (SELECT min(function) FROM flow_run WHERE function > flow.no) FROM flow WHERE flow.no IS NOT NULL
        )
        SELECT flow.no FROM flow CROSS JOIN function ON function.no = flow.no WHERE ?1 IS NULL OR function.name = ?1";
    let mut statement = connection.prepare_cached(select)?;
    statement.query_map([name], |row| row.get(0))?.collect()
}

/// When the newest flow runs of a function in a state were submitted, and their ids.
fn newest_of(
    connection: &Connection,
    function: i64,
    state: StateName,
    roots: bool,
    oldest: i64,
    limit: i64,
) -> rusqlite::Result<Vec<(i64, [u8; 16])>> {
    // The sign keeps SQLite from going through all roots.
    let roots = if roots { "AND +parent IS NULL" } else { "" };
    let select = format!(
        "SELECT created, id FROM flow_run WHERE function = ?1 AND state = ?2 AND created >= ?3 {roots}
        ORDER BY created DESC, id DESC LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&select)?;
    let runs = statement.query_map(params![function, state.as_str(), oldest, limit], |row| {
        let read = || Ok((row.get(0)?, row.get(1)?));
        read().map_err(|error| of_run("flow_run", row.get(1), error))
    })?;
    runs.collect()
}

pub(super) fn time(micros: i64) -> DateTime<Utc> {
    Timestamp::from_micros(micros).to_datetime()
}
