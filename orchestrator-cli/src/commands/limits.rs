//! `limits ls`.

use orchestrator_core::Orchestrator;
use orchestrator_core::text::one_line;

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
