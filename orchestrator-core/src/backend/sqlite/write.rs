//! Appends batches of events, one transaction each.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, OptionalExtension, ToSql, Transaction, TransactionBehavior, params};

use super::cache::CacheWriter;
use super::look::Reason;
use super::ownership;
use super::packed::{Paused, Reference, References, Tags, pack};
use super::result::{Batch, Known, ResultWriter};
use crate::backend::OwnerNo;
use crate::backend::record::{Event, LogRecord, OnCrash, Process, Resumer, RunEvent, RunInfo, TakeOver};
use crate::id::RunId;
use crate::state::{StateType, Transition};

/// A run's row takes up states until it has so many: a longer history would be rewritten with every event.
pub(super) const STATES_IN_ROW: u32 = 32;

/// The connection that writes, and what it need not look up again.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    numbers: Numbers,
    cache: CacheWriter,
    results: ResultWriter,
}

impl Writer {
    pub(super) fn new(connection: Connection, known: Arc<Known>) -> Self {
        let (numbers, cache, results) = (Numbers::default(), CacheWriter::default(), ResultWriter::new(known));
        Self { connection, numbers, cache, results }
    }

    /// The connection, for what is not an event.
    pub(super) const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Stores a batch, unless the orchestrator in whose name it comes has ended; says whether it did.
    pub(super) fn append(&mut self, batch: &[Event], by: Option<OwnerNo>) -> rusqlite::Result<bool> {
        let stored = self.store(batch, by);
        if stored.is_err() {
            // Numbers that were given out in a transaction that was rolled back are not in the file.
            self.numbers = Numbers::default();
            self.results.rolled_back();
        }
        stored
    }

    fn store(&mut self, batch: &[Event], by: Option<OwnerNo>) -> rusqlite::Result<bool> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(owner) = by
            && ownership::is_fenced(&transaction, owner)?
        {
            return Ok(false);
        }
        let mut tasks = RunTable::new(&transaction, "task_run")?;
        let mut flows = RunTable::new(&transaction, "flow_run")?;
        let mut results = Batch::default();
        for event in batch {
            match event {
                Event::Run(event) => match event.run.id {
                    RunId::Task(_) => tasks.store(event, &mut self.numbers)?,
                    RunId::Flow(_) => flows.store(event, &mut self.numbers)?,
                },
                Event::Parameters { run, json } => amend(&transaction, (*run).into(), "parameters", json)?,
                Event::Paused { run, pause } => amend(&transaction, (*run).into(), "pause", &Paused::to_json(pause))?,
                Event::Renamed { run, name } => amend(&transaction, *run, "name", name)?,
                Event::Upstream { run, upstream } => {
                    amend(&transaction, *run, "upstream", &References::to_bytes(upstream))?;
                }
                Event::Log(line) => log(&transaction, line)?,
                Event::Cached(record) => self.cache.store(&transaction, record)?,
                Event::Persisted(record) => results.add(record),
                Event::Discarded { root, key } => self.results.discard(&mut results, (*root, key), &transaction)?,
            }
        }
        drop((tasks, flows));
        self.results.store(&mut results, &transaction)?;
        transaction.commit()?;
        self.results.committed(&results);
        Ok(true)
    }

    /// Lets a flow run go on, and says whether it does; `None` if the orchestrator that takes it over has ended.
    pub(super) fn take_over(&mut self, take_over: &TakeOver) -> rusqlite::Result<Option<bool>> {
        let taken = self.let_go_on(take_over);
        if taken.is_err() {
            self.numbers = Numbers::default();
        }
        taken
    }

    fn let_go_on(&mut self, take_over: &TakeOver) -> rusqlite::Result<Option<bool>> {
        let TakeOver { run, seq, process, running, by } = take_over;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let owner = self.numbers.process(process, &transaction)?;
        if ownership::is_fenced(&transaction, OwnerNo(owner))? {
            return Ok(None);
        }
        let mut text = String::new();
        pack([running.clone()], &mut text);
        let in_row = *seq < STATES_IN_ROW;
        let id = run.as_uuid().into_bytes();
        let update = "UPDATE flow_run SET
                states = states || ?3, next_seq = ?2 + 1, run_count = run_count + 1, state = ?4, state_at = ?5,
                message = ?6, start_time = coalesce(start_time, ?5), end_time = NULL, process = ?7,
                resumed = iif(?8 IS NULL, ?9, resumed + 1)
            WHERE id = ?1 AND next_seq = ?2 AND end_time IS NOT NULL AND (?8 IS NULL OR resumed < ?8)";
        let (budget, anew) = match *by {
            Resumer::Somebody { on_crash } => (None, on_crash.then_some(0)),
            Resumer::Itself { budget } => (Some(budget), None),
        };
        let changes = transaction.execute(
            update,
            params![
                id,
                seq,
                if in_row { &*text } else { "" },
                running.name.as_str(),
                running.at.as_micros(),
                running.message,
                owner,
                budget,
                anew,
            ],
        )?;
        if changes > 0 && !in_row {
            let insert = "INSERT INTO history (run, first_seq, states) VALUES (?1, ?2, ?3)";
            transaction.execute(insert, params![id, seq, text])?;
        }
        transaction.commit()?;
        Ok(Some(changes > 0))
    }
}

/// Puts down what became known of a run, whether or not the run itself is known yet.
fn amend(transaction: &Transaction<'_>, run: RunId, column: &str, value: &dyn ToSql) -> rusqlite::Result<()> {
    let upsert = format!(
        "INSERT INTO amendment (run, {column}) VALUES (?1, ?2)
        ON CONFLICT (run) DO UPDATE SET {column} = excluded.{column}"
    );
    transaction.prepare_cached(&upsert)?.execute(params![run.as_uuid().as_bytes(), value]).map(drop)
}

fn log(transaction: &Transaction<'_>, line: &LogRecord) -> rusqlite::Result<()> {
    let LogRecord { run, at, level, target, message } = line;
    let insert = "INSERT INTO log (run, at, level, target, message) VALUES (?1, ?2, ?3, ?4, ?5)";
    let run = run.as_uuid().into_bytes();
    transaction.prepare_cached(insert)?.execute(params![run, at.as_micros(), level, target, message]).map(drop)
}

/// One of the two tables of runs, with the statements that most events need.
struct RunTable<'t> {
    transaction: &'t Transaction<'t>,
    name: &'static str,
    insert: CachedStatement<'t>,
    update: CachedStatement<'t>,
    /// Where states are packed, event after event.
    text: String,
}

impl<'t> RunTable<'t> {
    fn new(transaction: &'t Transaction<'t>, name: &'static str) -> rusqlite::Result<Self> {
        let insert = transaction.prepare_cached(&format!(
            "INSERT INTO {name} (
                id, function, given_name, number, parent, flow_run, tags, upstream, process, created,
                states, next_seq, run_count, state, state_at, message, start_time, end_time
            ) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
            ON CONFLICT (id) DO NOTHING"
        ))?;
        let update = transaction.prepare_cached(&format!(
            "UPDATE {name} SET
                states = states || ?3, next_seq = ?4, run_count = ?5, state = ?6, state_at = ?7, message = ?8,
                start_time = coalesce(start_time, ?9), end_time = iif(?11, coalesce(end_time, ?10), ?10)
            WHERE id = ?1 AND next_seq = ?2"
        ))?;
        Ok(Self { transaction, name, insert, update, text: String::new() })
    }

    fn store(&mut self, event: &RunEvent, numbers: &mut Numbers) -> rusqlite::Result<()> {
        if event.first_seq > 0 && self.go_on(event)? {
            return Ok(());
        }
        if !self.insert(event, numbers)? {
            self.go_on(event)?;
        }
        Ok(())
    }

    /// Inserts the run, and says whether it was unknown.
    fn insert(&mut self, event: &RunEvent, numbers: &mut Numbers) -> rusqlite::Result<bool> {
        let (Some(first), Some(last)) = (event.transitions.first(), event.transitions.last()) else {
            return Ok(true);
        };
        let info = &event.run;
        let times = Times::of(event.transitions.iter());
        pack(event.transitions.iter(), &mut self.text);
        let changes = self.insert.execute(params![
            info.id.as_uuid().as_bytes(),
            numbers.function(info, self.transaction)?,
            info.given_name,
            info.index,
            info.parent.map(|parent| Reference(parent).to_bytes()),
            info.flow_run.map(|flow_run| flow_run.as_uuid().into_bytes()),
            Tags::to_json(&info.tags),
            (!info.upstream.is_empty()).then(|| References::to_bytes(&info.upstream)),
            numbers.process(info.process, self.transaction)?,
            first.at.as_micros(),
            self.text,
            end_seq(event),
            event.run_count,
            last.name.as_str(),
            last.at.as_micros(),
            last.message,
            times.start,
            times.end,
        ])?;
        if changes > 0 {
            self.looked(event)?;
            self.on_crash(info)?;
        }
        Ok(changes > 0)
    }

    /// Puts down that the run is to go on by itself if it crashes: few are.
    fn on_crash(&self, info: &RunInfo) -> rusqlite::Result<()> {
        let RunId::Flow(id) = info.id else { return Ok(()) };
        if info.on_crash().budget.is_none() || info.parent.is_some() {
            return Ok(());
        }
        let update = "UPDATE flow_run SET resumed = 0 WHERE id = ?1";
        self.transaction.prepare_cached(update)?.execute([id.as_uuid().as_bytes()]).map(drop)
    }

    /// Puts down what the run found in the cache: most runs do not look.
    fn looked(&self, event: &RunEvent) -> rusqlite::Result<()> {
        let (Some(look), RunId::Task(id)) = (&event.cache, event.run.id) else { return Ok(()) };
        let update = "UPDATE task_run SET cache_key = ?2, cache_reason = ?3 WHERE id = ?1";
        let (id, key) = (id.as_uuid().into_bytes(), look.key.map(|key| key.0));
        let reason = Reason::to_json(&look.reason);
        self.transaction.prepare_cached(update)?.execute(params![id, key, reason]).map(drop)
    }

    /// Adds what the event says of a run that is known, and says whether it is.
    fn go_on(&mut self, event: &RunEvent) -> rusqlite::Result<bool> {
        if event.first_seq > 0 && self.add(event, event.first_seq)? {
            return Ok(true);
        }
        let id = event.run.id.as_uuid().into_bytes();
        let select = format!("SELECT next_seq FROM {} WHERE id = ?1", self.name);
        let next_seq = self.transaction.prepare_cached(&select)?.query_row([id], |row| row.get(0)).optional()?;
        next_seq.map_or(Ok(false), |next_seq| self.add(event, next_seq).map(|_| true))
    }

    /// Adds the transitions from `next_seq` on, if that is where the stored ones end.
    fn add(&mut self, event: &RunEvent, next_seq: u32) -> rusqlite::Result<bool> {
        let stored = next_seq.saturating_sub(event.first_seq) as usize;
        let new = || event.transitions.iter().skip(stored);
        let Some(last) = new().last() else { return Ok(false) };
        pack(new(), &mut self.text);
        let in_row = next_seq < STATES_IN_ROW;
        let times = Times::of(new());
        let id = event.run.id.as_uuid().into_bytes();
        let changes = self.update.execute(params![
            id,
            next_seq,
            if in_row { &*self.text } else { "" },
            end_seq(event),
            event.run_count,
            last.name.as_str(),
            last.at.as_micros(),
            last.message,
            times.start,
            times.end,
            new().all(|transition| transition.name.kind().is_terminal()),
        ])?;
        if changes > 0 && !in_row {
            let insert = "INSERT INTO history (run, first_seq, states) VALUES (?1, ?2, ?3)";
            self.transaction.prepare_cached(insert)?.execute(params![id, next_seq, self.text])?;
        }
        if changes > 0 {
            self.looked(event)?;
        }
        Ok(changes > 0)
    }
}

/// When transitions first started a run, and when they ended it, in microseconds.
struct Times {
    start: Option<i64>,
    end: Option<i64>,
}

impl Times {
    fn of(transitions: impl Iterator<Item = Transition>) -> Self {
        let (mut start, mut end) = (None, None);
        for Transition { name, at, .. } in transitions {
            if name.kind() == StateType::Running {
                start.get_or_insert(at.as_micros());
            }
            // A run that is resumed has not ended any more.
            end = name.kind().is_terminal().then(|| end.unwrap_or(at.as_micros()));
        }
        Self { start, end }
    }
}

/// The numbers under which functions and processes are in the file.
#[derive(Debug, Default)]
struct Numbers {
    /// By the address of what is declared.
    functions: foldhash::HashMap<usize, i64>,
    /// By their addresses.
    processes: foldhash::HashMap<usize, i64>,
}

impl Numbers {
    fn function(&mut self, info: &RunInfo, transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
        let address = std::ptr::from_ref(info.def).addr();
        if let Some(number) = self.functions.get(&address) {
            return Ok(*number);
        }
        let values = params![info.key(), info.function(), info.version()];
        let select = "SELECT no FROM function WHERE key = ?1 AND name = ?2 AND version IS ?3";
        let number = match transaction.query_row(select, values, |row| row.get(0)).optional()? {
            Some(number) => number,
            None => {
                transaction.execute("INSERT INTO function (key, name, version) VALUES (?1, ?2, ?3)", values)?;
                transaction.last_insert_rowid()
            }
        };
        let OnCrash { hooks, budget } = info.on_crash();
        let update = "UPDATE function SET on_crashed = ?2, crash_budget = ?3
            WHERE no = ?1 AND (on_crashed <> ?2 OR crash_budget IS NOT ?3)";
        transaction.execute(update, params![number, hooks, budget])?;
        self.functions.insert(address, number);
        Ok(number)
    }

    fn process(&mut self, process: &'static Process, transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
        let address = std::ptr::from_ref(process).addr();
        if let Some(number) = self.processes.get(&address) {
            return Ok(*number);
        }
        let Process { host, pid, namespace, started, session } = process;
        let values = params![host, pid, namespace.cast_signed(), started.cast_signed(), session.cast_signed()];
        let insert = "INSERT INTO process (host, pid, namespace, started, session) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT DO NOTHING";
        transaction.execute(insert, values)?;
        let select = "SELECT no FROM process
            WHERE host = ?1 AND pid = ?2 AND namespace = ?3 AND started = ?4 AND session = ?5";
        let number = transaction.query_row(select, values, |row| row.get(0))?;
        self.processes.insert(address, number);
        Ok(number)
    }
}

/// The sequence number that follows the event's last transition.
fn end_seq(event: &RunEvent) -> u32 {
    event.first_seq.saturating_add(u32::try_from(event.transitions.len()).unwrap_or(u32::MAX))
}
