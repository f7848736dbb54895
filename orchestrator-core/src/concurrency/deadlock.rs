//! Requests that can never be served, because those who hold the slots wait for them.
//!
//! A run gives its slots back only after every run that it started has ended. So a holder is stuck while a run beneath
//! it waits for slots, and a waiting run is stuck for ever if it could not be served even when everybody who is not
//! stuck had given back everything. This is the classical reduction of a resource allocation graph (Holt, 1972).

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use super::table::{Holder, Request, Table};
use crate::run::Run;

/// Why the request can never be served, if it cannot: names who holds what along the cycle.
pub(super) fn explain(table: &Table, ticket: u64) -> Option<String> {
    let mut stuck: HashSet<u64> =
        table.requests.iter().filter(|(_, request)| may_be_stuck(request)).map(|(ticket, _)| *ticket).collect();
    loop {
        let free: Vec<u64> =
            stuck.iter().copied().filter(|ticket| can_be_served(table, &table.requests[ticket], &stuck)).collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|ticket| {
            stuck.remove(ticket);
        });
    }
    stuck.contains(&ticket).then(|| tell(table, ticket, &stuck))
}

/// Only a run beneath a holder can keep somebody waiting. Asked anew each time: bodies take slots as they go on.
fn may_be_stuck(request: &Request) -> bool {
    request.run.as_ref().is_some_and(Table::holds_above)
}

fn can_be_served(table: &Table, request: &Request, stuck: &HashSet<u64>) -> bool {
    request.wants.iter().all(|(name, slots)| {
        let (size, holders) = table.holders(name);
        let kept: u32 = holders.filter(|holder| is_stuck(table, holder, stuck)).map(|holder| holder.slots).sum();
        size == 0 || kept.saturating_add(slots) <= size
    })
}

fn is_stuck(table: &Table, holder: &Holder, stuck: &HashSet<u64>) -> bool {
    holder.run.as_ref().and_then(Weak::upgrade).is_some_and(|run| waiter_beneath(table, &run, stuck).is_some())
}

/// A stuck request of a run beneath `above`, or of its own body.
fn waiter_beneath(table: &Table, above: &Arc<Run>, stuck: &HashSet<u64>) -> Option<u64> {
    stuck.iter().copied().find(|ticket| {
        let run = table.requests[ticket].run.as_ref();
        run.is_some_and(|run| run.lineage().any(|ancestor| Arc::ptr_eq(ancestor, above)))
    })
}

fn name(run: Option<&Arc<Run>>) -> String {
    run.map_or_else(|| "code outside of any run".to_owned(), |run| format!("'{}'", run.name()))
}

/// Follows the cycle from one request to the next.
fn tell(table: &Table, ticket: u64, stuck: &HashSet<u64>) -> String {
    let mut steps = Vec::new();
    let mut seen = HashSet::new();
    let mut current = ticket;
    while seen.insert(current) {
        let request = &table.requests[&current];
        let next = request.wants.iter().find_map(|(limit, _)| {
            let (_, holders) = table.holders(limit);
            let mut holders: Vec<&Holder> = holders.collect();
            // The shortest story first: a holder above the waiter itself.
            holders.sort_by_key(|holder| !is_above(holder, request));
            holders.into_iter().find_map(|holder| {
                let run = holder.run.as_ref()?.upgrade()?;
                waiter_beneath(table, &run, stuck).map(|waiter| {
                    let waiter = if is_above(holder, request) { current } else { waiter };
                    (limit, run, waiter)
                })
            })
        });
        let Some((limit, holder, waiter)) = next else { break };
        steps.push(format!(
            "{} waits for limit '{limit}', held by '{}', which waits for {}",
            name(request.run.as_ref()),
            holder.name(),
            name(table.requests[&waiter].run.as_ref()),
        ));
        current = waiter;
    }
    format!("it would wait for ever in a cycle of slots: {}", steps.join("; "))
}

fn is_above(holder: &Holder, request: &Request) -> bool {
    match (&holder.run, &request.run) {
        (Some(holder), Some(waiter)) => waiter.lineage().any(|ancestor| Arc::as_ptr(ancestor) == holder.as_ptr()),
        _ => false,
    }
}
