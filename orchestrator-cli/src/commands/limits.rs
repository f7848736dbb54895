//! `limits ls`, `set` and `rm`.

use orchestrator_core::text::{self, one_line};
use orchestrator_core::{Limit, Orchestrator};

use crate::exit::Trouble;
use crate::json::LimitJson;
use crate::print::{self, Table};

pub(super) async fn list(orchestrator: &Orchestrator, json: bool) -> Result<(), Trouble> {
    let limits = orchestrator.limits().await?;
    if json {
        return print::json(&limits.into_iter().map(LimitJson::from).collect::<Vec<_>>());
    }
    if limits.is_empty() {
        print::note("no limits");
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "SLOTS", "HELD", "WAITING", "DECAY", "ACTIVE"]);
    for limit in limits {
        table.row([
            one_line(&limit.name),
            limit.slots.to_string(),
            limit.taken.to_string(),
            limit.waiting.to_string(),
            limit.slot_decay.map_or_else(|| "-".to_owned(), |decay| format!("{decay}/s")),
            if limit.active { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.print()
}

/// What a limit is to be.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) slots: u32,
    pub(super) decay: Option<f64>,
    pub(super) inactive: bool,
}

pub(super) async fn set(orchestrator: &Orchestrator, wanted: Wanted, json: bool) -> Result<(), Trouble> {
    let Wanted { name, slots, decay, inactive } = wanted;
    // What is not spoken of stays.
    let decay = match decay {
        Some(decay) => Some(decay).filter(|decay| *decay > 0.0),
        None => find(orchestrator.limits().await?, &name).and_then(|limit| limit.slot_decay),
    };
    let mut limit = orchestrator.limit(&name, slots);
    if let Some(decay) = decay {
        limit = limit.slot_decay(decay);
    }
    if inactive {
        limit = limit.inactive();
    }
    limit.await?;
    match find(orchestrator.limits().await?, &name) {
        Some(limit) if json => print::json(&LimitJson::from(limit)),
        limit => {
            let decay = limit.as_ref().and_then(|limit| limit.slot_decay);
            let back = decay.map(|decay| format!(", of which {decay} come back each second")).unwrap_or_default();
            let inactive = limit.is_some_and(|limit| !limit.active);
            let open = if inactive { "; it is not active, and lets everybody pass" } else { "" };
            let s = if slots == 1 { "" } else { "s" };
            print::out(&format!("limit '{}' has {slots} slot{s}{back}{open}\n", one_line(&name)))
        }
    }
}

fn find(limits: Vec<Limit>, name: &str) -> Option<Limit> {
    limits.into_iter().find(|limit| limit.name == name)
}

pub(super) async fn remove(orchestrator: &Orchestrator, name: &str, yes: bool, json: bool) -> Result<(), Trouble> {
    let limits = orchestrator.limits().await?;
    if let Some(used) = limits.iter().find(|limit| !yes && limit.name == name && (limit.taken > 0 || limit.waiting > 0))
    {
        return Err(Trouble::usage(format!(
            "limit '{}' is in use: {} of its slots are held, and {} requests wait, which would be refused; --yes removes \
             it all the same, and `limits set` changes it",
            one_line(name),
            used.taken,
            used.waiting
        )));
    }
    if orchestrator.remove_limit(name).await? {
        if json {
            return print::json(&serde_json::json!({ "removed": 1 }));
        }
        return print::out(&format!("limit '{}' is removed\n", one_line(name)));
    }
    let meant = text::nearest(name, limits.iter().map(|limit| limit.name.as_str()));
    let meant = meant.map(|near| format!("did you mean '{}'? ", one_line(near))).unwrap_or_default();
    let known: Vec<_> = limits.iter().map(|limit| one_line(&limit.name)).collect();
    let known = if known.is_empty() { "there are none".to_owned() } else { format!("known are {}", known.join(", ")) };
    Err(Trouble::not_found(format!("there is no limit '{}': {meant}{known}", one_line(name))))
}
