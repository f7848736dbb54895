//! `db info`, `migrate`, `compact`, `check`.

use chrono::{DateTime, Utc};
use indicatif::HumanBytes;
use orchestrator_core::backend::record::FORMAT_VERSION;
use orchestrator_core::results::ResultsInfo;
use orchestrator_core::text::one_line;
use orchestrator_core::{Orchestrator, Retention, StoreInfo, Timestamp};
use serde::Serialize;

use crate::args::Globals;
use crate::exit::{self, Trouble};
use crate::print::{self, Facts, Table};
use crate::{store, time};

#[derive(Serialize)]
struct InfoJson {
    location: String,
    format: u32,
    /// What `db migrate` brings it to.
    present_format: u32,
    file_bytes: u64,
    wal_bytes: u64,
    free_bytes: u64,
    flow_runs: u64,
    task_runs: u64,
    oldest_run: Option<DateTime<Utc>>,
    newest_run: Option<DateTime<Utc>>,
    /// How long history is kept.
    retention: String,
    /// When that was last applied from beginning to end.
    last_pruned: Option<DateTime<Utc>>,
    /// Where large results are kept.
    results: ResultsJson,
    tables: Vec<TableJson>,
    /// The processes that use it, as far as is known.
    processes: Vec<ProcessJson>,
}

#[derive(Serialize)]
struct ResultsJson {
    location: String,
    /// Null where finding out would take long.
    objects: Option<u64>,
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct TableJson {
    name: String,
    rows: u64,
    /// Null where finding out would take long.
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct ProcessJson {
    host: String,
    pid: u32,
}

impl InfoJson {
    fn new(info: StoreInfo, results: ResultsInfo, retention: Retention) -> Self {
        let ResultsInfo { location, objects, bytes, .. } = results;
        let time = |time: Option<Timestamp>| time.map(Timestamp::to_datetime);
        let tables =
            info.tables.into_iter().map(|table| TableJson { name: table.name, rows: table.rows, bytes: table.bytes });
        let processes = info.processes.into_iter().map(|process| ProcessJson { host: process.host, pid: process.pid });
        Self {
            location: info.location,
            format: info.format,
            present_format: FORMAT_VERSION,
            file_bytes: info.file_bytes,
            wal_bytes: info.wal_bytes,
            free_bytes: info.free_bytes,
            flow_runs: info.flow_runs,
            task_runs: info.task_runs,
            oldest_run: time(info.oldest_run),
            newest_run: time(info.newest_run),
            retention: retention.to_string(),
            last_pruned: time(info.last_pruned),
            results: ResultsJson { location, objects, bytes },
            tables: tables.collect(),
            processes: processes.collect(),
        }
    }
}

pub(super) async fn info(orchestrator: &Orchestrator, json: bool) -> Result<(), Trouble> {
    let info = orchestrator.store_info().await?;
    let (results, retention) = (orchestrator.results_info().await?, orchestrator.retention());
    if json {
        return print::json(&InfoJson::new(info, results, retention));
    }
    let mut facts = Facts::default();
    let older = match info.format {
        FORMAT_VERSION => String::new(),
        _ => format!(", which is not the present one, {FORMAT_VERSION}: `db migrate` brings it there"),
    };
    facts.add("format", format!("{}{older}", info.format));
    facts.add("file", HumanBytes(info.file_bytes).to_string());
    facts.add("log", HumanBytes(info.wal_bytes).to_string());
    facts.add("not used", HumanBytes(info.free_bytes).to_string());
    facts.add("flow runs", info.flow_runs.to_string());
    facts.add("task runs", info.task_runs.to_string());
    if let (Some(oldest), Some(newest)) = (info.oldest_run, info.newest_run) {
        facts.add("runs from", time::local(oldest.to_datetime()));
        facts.add("to", time::local(newest.to_datetime()));
    }
    let pruned = info.last_pruned.map(|pruned| format!("; last applied {}", time::local(pruned.to_datetime())));
    facts.add("retention", format!("{retention}{}", pruned.unwrap_or_default()));
    let size = results.objects.zip(results.bytes).map_or_else(
        || "in a store that is not counted".to_owned(),
        |(objects, bytes)| format!("{} in {objects} objects", HumanBytes(bytes)),
    );
    facts.add("large results", format!("{size}, {}", one_line(&results.location)));
    if !info.processes.is_empty() {
        let processes = info.processes.iter().map(|process| format!("{} on {}", process.pid, one_line(&process.host)));
        facts.add("used by", processes.collect::<Vec<_>>().join("\n"));
    }
    let mut table = Table::new(&["TABLE", "ROWS", "SIZE"]);
    for of in &info.tables {
        let size = of.bytes.map_or_else(|| "-".to_owned(), |bytes| HumanBytes(bytes).to_string());
        table.row([of.name.clone(), of.rows.to_string(), size]);
    }
    print::out(&format!("database {}\n{}\n{}", one_line(&info.location), facts.text(), table.text(print::width())))
}

#[derive(Serialize)]
struct MigratedJson {
    format: u32,
    /// The format that it had, if it was another one.
    migrated_from: Option<u32>,
}

pub(super) async fn migrate(globals: &Globals) -> Result<(), Trouble> {
    let json = globals.json;
    let looker = store::look(globals).await?;
    let mut info = looker.store_info().await?;
    if info.format != FORMAT_VERSION {
        // Opening it to write does it.
        let opened = store::change(globals).await?;
        info = opened.store_info().await?;
        opened.shutdown().await?;
    }
    let StoreInfo { location, format, migrated_from, .. } = info;
    if json {
        return print::json(&MigratedJson { format, migrated_from });
    }
    let location = one_line(&location);
    print::out(&match migrated_from {
        Some(before) => format!("the database {location} had format {before}, and has format {format} now\n"),
        None => format!("the database {location} has format {format}, which is the present one\n"),
    })
}

#[derive(Serialize)]
struct CompactedJson {
    bytes_before: u64,
    bytes_after: u64,
}

pub(super) async fn compact(orchestrator: &Orchestrator, json: bool) -> Result<(), Trouble> {
    let compacted = orchestrator.compact_store().await?;
    let (bytes_before, bytes_after) = (compacted.bytes_before, compacted.bytes_after);
    if json {
        return print::json(&CompactedJson { bytes_before, bytes_after });
    }
    print::out(&format!("{} before, {} now\n", HumanBytes(bytes_before), HumanBytes(bytes_after)))
}

#[derive(Serialize)]
struct FindingJson {
    run_id: Option<String>,
    what: String,
}

pub(super) async fn check(orchestrator: &Orchestrator, json: bool) -> Result<u8, Trouble> {
    let findings = orchestrator.check_store().await?;
    let code = if findings.is_empty() { exit::SUCCESS } else { exit::FAILED };
    if json {
        let findings = findings
            .into_iter()
            .map(|finding| FindingJson { run_id: finding.run.map(|run| run.to_string()), what: finding.what });
        return exit::printed(code, print::json(&findings.collect::<Vec<_>>()));
    }
    if findings.is_empty() {
        return exit::printed(code, print::out("nothing is wrong\n"));
    }
    let lines = findings.iter().map(|finding| one_line(&finding.to_string()) + "\n");
    let printed = print::out(&lines.collect::<String>());
    if findings.iter().any(|finding| finding.is_damage) {
        print::note(DAMAGED);
    }
    exit::printed(code, printed)
}

/// What to do about it.
const DAMAGED: &str = "the file is damaged. End the programs that use it and keep a copy of it, with its -wal; \
    `sqlite3 FILE .recover | sqlite3 NEW` saves what can be read. Where there is no file, the next program makes an empty one";
