//! `cache ls`, `show`, `rm`, `clear`.

use chrono::Utc;
use indicatif::HumanBytes;
use orchestrator_core::text::one_line;
use orchestrator_core::{CacheEntry, CacheQuery, Orchestrator};
use serde::Serialize;

use crate::exit::{self, Trouble};
use crate::find::short;
use crate::json::CacheJson;
use crate::print::{self, Facts, Limit, Table};
use crate::{ask, time};

/// A message names so many of the results that could be meant.
const NAMED: usize = 10;

pub(super) async fn list(
    orchestrator: &Orchestrator,
    task: Option<&str>,
    limit: Option<usize>,
    json: bool,
) -> Result<(), Trouble> {
    let mut limit = Limit::new(limit);
    let mut query = CacheQuery::new().limit(limit.wanted());
    if let Some(task) = task {
        query = query.task_key(task);
    }
    let mut entries = orchestrator.cache_entries(&query).await?;
    limit.apply(&mut entries);
    if json {
        print::json(&entries.into_iter().map(CacheJson::from).collect::<Vec<_>>())?;
        limit.tell(json);
        return Ok(());
    }
    if entries.is_empty() {
        print::note("no cached results");
        return Ok(());
    }
    let mut table = Table::new(&["KEY", "TASK", "RUN", "SIZE", "CREATED", "EXPIRES"]);
    for entry in entries {
        table.row([
            entry.key.to_string()[..12].to_owned(),
            one_line(&entry.task_key),
            short(entry.run),
            size(&entry),
            time::local(entry.created),
            expiry(&entry),
        ]);
    }
    table.print()?;
    limit.tell(json);
    Ok(())
}

pub(super) async fn show(orchestrator: &Orchestrator, key: &str, json: bool) -> Result<(), Trouble> {
    let entry = one(orchestrator, key).await?;
    if json {
        return print::json(&CacheJson::from(entry));
    }
    let mut facts = Facts::default();
    facts.add("task", one_line(&entry.task_key));
    facts.add(
        "run",
        match orchestrator.task_run(entry.run).await {
            Ok(run) => format!("{}  {}", entry.run, one_line(&run.name)),
            Err(error) if error.is_not_found() => entry.run.to_string(),
            Err(error) => return Err(error.into()),
        },
    );
    facts.add("size", size(&entry));
    if let Some(type_name) = &entry.type_name {
        facts.add("type", one_line(type_name));
    }
    if let Some(format) = &entry.format {
        facts.add("format", one_line(format));
    }
    facts.add("created", time::exact(entry.created));
    facts.add("expires", expiry(&entry));
    print::out(&format!("cached result {}\n{}", entry.key, facts.text()))
}

#[derive(Serialize)]
struct Removed {
    removed: u64,
}

pub(super) async fn remove(orchestrator: &Orchestrator, keys: &[String], json: bool) -> Result<(), Trouble> {
    let mut found = Vec::new();
    for key in keys {
        found.push(one(orchestrator, key).await?.key);
    }
    removed(orchestrator.remove_cached(&found).await?, json)
}

pub(super) async fn clear(
    orchestrator: &Orchestrator,
    task: Option<&str>,
    yes: bool,
    json: bool,
) -> Result<(), Trouble> {
    if !yes {
        let mut query = CacheQuery::new().limit(usize::MAX);
        if let Some(task) = task {
            query = query.task_key(task);
        }
        match orchestrator.cache_entries(&query).await?.len() {
            0 => {}
            1 => ask::remove("1 cached result", "")?,
            count => ask::remove(&format!("{count} cached results"), "")?,
        }
    }
    removed(orchestrator.clear_cache(task).await?, json)
}

fn removed(removed: u64, json: bool) -> Result<(), Trouble> {
    if json {
        return print::json(&Removed { removed });
    }
    print::out(&format!("{removed} cached {} removed\n", if removed == 1 { "result" } else { "results" }))
}

/// The result whose key is, or begins with, these digits.
async fn one(orchestrator: &Orchestrator, key: &str) -> Result<CacheEntry, Trouble> {
    let mut found = orchestrator.cache_entries(&CacheQuery::new().prefix(key).limit(NAMED + 1)).await?;
    let key = one_line(key);
    match (found.len(), found.pop()) {
        (1, Some(entry)) => Ok(entry),
        (_, None) => Err(Trouble::not_found(format!(
            "nothing is cached under '{key}': expected a key or its beginning, see `cache ls`"
        ))),
        (_, Some(last)) => {
            let mut said = format!("'{key}' may be any of several keys; say more of it:");
            for entry in found.iter().chain([&last]).take(NAMED) {
                said += &format!("\n  {}  {}, run {}", entry.key, one_line(&entry.task_key), short(entry.run));
            }
            if found.len() >= NAMED {
                said += "\n  and others";
            }
            Err(Trouble::new(exit::NOT_FOUND, said))
        }
    }
}

fn size(entry: &CacheEntry) -> String {
    entry.bytes.map_or_else(|| "-".to_owned(), |bytes| HumanBytes(bytes).to_string())
}

fn expiry(entry: &CacheEntry) -> String {
    match entry.expires {
        None => "never".to_owned(),
        Some(expires) if expires <= Utc::now() => format!("{}, expired", time::local(expires)),
        Some(expires) => time::local(expires),
    }
}
