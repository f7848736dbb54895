//! `db prune`.

use std::time::Duration;

use orchestrator_core::{Orchestrator, Removed, Retention};
use serde::Serialize;

use super::remove::several;
use crate::exit::Trouble;
use crate::{ask, print};

/// What is to be removed.
pub(super) struct Wanted {
    pub(super) older_than: Option<Duration>,
    pub(super) keep: Option<u64>,
    pub(super) dry_run: bool,
    /// Whether nobody is to be asked.
    pub(super) yes: bool,
}

#[derive(Debug, Serialize)]
struct PrunedJson {
    flow_runs: u64,
    task_runs: u64,
    cached: u64,
    dry_run: bool,
    /// What was applied.
    policy: String,
}

pub(super) async fn prune(orchestrator: &Orchestrator, wanted: Wanted, json: bool) -> Result<(), Trouble> {
    let in_force = orchestrator.retention();
    let mut policy = Retention::off();
    if let Some(age) = wanted.older_than {
        policy = policy.age(age);
    }
    if let Some(runs) = wanted.keep {
        policy = policy.runs(runs);
    }
    let named = !policy.is_off();
    let policy = if named { policy } else { in_force };
    if policy.is_off() {
        return Err(Trouble::usage("the policy in force keeps everything: say --older-than TIME or --keep N"));
    }
    if wanted.dry_run {
        let found = orchestrator.preview_retention(policy).await?;
        return tell(&found, &policy, true, json);
    }
    if named && !wanted.yes {
        let found = orchestrator.preview_retention(policy).await?;
        if found.is_nothing() {
            return tell(&found, &policy, false, json);
        }
        ask::remove(&counted(&found), ", with all that is kept of them")?;
    }
    match orchestrator.apply_retention(policy).await? {
        Some(removed) => tell(&removed, &policy, false, json),
        None => Err(Trouble::usage("another process is removing old runs at the moment: try again in a minute")),
    }
}

fn tell(removed: &Removed, policy: &Retention, dry_run: bool, json: bool) -> Result<(), Trouble> {
    let Removed { flow_runs, task_runs, cached, .. } = *removed;
    if json {
        return print::json(&PrunedJson { flow_runs, task_runs, cached, dry_run, policy: policy.to_string() });
    }
    let doing = if dry_run { "would remove" } else { "removed" };
    print::out(&format!("{doing} {} (policy: {policy})\n", counted(removed)))
}

/// `2 flow runs, 4 task runs and 1 cached result that has expired`
fn counted(removed: &Removed) -> String {
    let (flows, tasks) = (several(removed.flow_runs, "flow run"), several(removed.task_runs, "task run"));
    let expired = if removed.cached == 1 { "that has expired" } else { "that have expired" };
    format!("{flows}, {tasks} and {} {expired}", several(removed.cached, "cached result"))
}
