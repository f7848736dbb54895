//! Requests that cannot be served, because those who hold the slots wait for them.
//!
//! A run gives its slots back only after every run that it started has ended. So a holder is stuck while a run beneath
//! it waits for slots, and a waiting run is stuck for ever if it could not be served even when everybody who is not
//! stuck had given back everything. This is the classical reduction of a resource allocation graph (Holt, 1972).
//!
//! The order of the queues can be part of such a knot, too: the first waits for slots that are given back only when the
//! second has been served. There the order gives way, since nobody has to be refused.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};

use super::table::{Beneath, Holder, LimitNo, Request, Table};
use crate::backend::SlotClass;
use crate::run::Run;

/// What becomes of a request that waits.
pub(super) enum Outlook {
    /// It is served when its turn comes.
    Open,
    /// Its turn would never come: it may be served before these.
    Knotted(BTreeSet<u64>),
    /// It can never be served; says who holds what along the cycle.
    Never(String),
}

/// Looks at a request of a run beneath a holder: no other can keep somebody waiting.
pub(super) fn look(table: &Table, ticket: u64) -> Outlook {
    // The common case is cheap, however many wait.
    if !table.may_be_stuck() {
        return Outlook::Open;
    }
    let mut waiting: Vec<&Request> = table
        .requests
        .values()
        .map(|request| &**request)
        .filter(|request| request.place.0 != SlotClass::Ordinary)
        .collect();
    waiting.sort_unstable_by_key(|request| request.place);
    let mut beneath = table.beneath.clone();
    let knotted = reduce(table, waiting, &mut beneath, Order::Kept);
    let tickets: BTreeSet<u64> = knotted.iter().map(|request| request.place.1).collect();
    if !tickets.contains(&ticket) {
        return Outlook::Open;
    }
    let stuck: BTreeSet<u64> =
        reduce(table, knotted, &mut beneath, Order::Waived).iter().map(|request| request.place.1).collect();
    // Whose ancestors hold nothing any more keeps nobody waiting: others give way.
    if stuck.contains(&ticket) && Table::class(table.requests[&ticket].run.as_ref()) == SlotClass::Nested {
        Outlook::Never(tell(table, ticket, &stuck))
    } else {
        Outlook::Knotted(tickets)
    }
}

/// Whether a request has to wait for those before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Kept,
    Waived,
}

/// Takes away, again and again, whoever could be served; gives back the rest. Requests stand in the order of their
/// places, and `beneath` counts those that are left.
fn reduce<'a>(table: &Table, mut left: Vec<&'a Request>, beneath: &mut Beneath, order: Order) -> Vec<&'a Request> {
    loop {
        let mut kept = Kept::new(table, beneath);
        let mut closed: HashSet<LimitNo> = HashSet::new();
        let (free, stuck): (Vec<&Request>, Vec<&Request>) = left.into_iter().partition(|request| {
            let turn = order == Order::Waived || request.wants.iter().all(|(limit, _)| !closed.contains(limit));
            let free = turn && kept.leaves_room_for(request);
            if !free {
                closed.extend(request.wants.iter().map(|(limit, _)| *limit).filter(|limit| table.is_active(*limit)));
            }
            free
        });
        free.iter().filter_map(|request| request.run.as_ref()).for_each(|run| beneath.remove(run));
        left = stuck;
        if free.is_empty() || left.is_empty() {
            return left;
        }
    }
}

/// How many slots of each limit are held by runs beneath which somebody waits.
struct Kept<'a> {
    table: &'a Table,
    beneath: &'a Beneath,
    slots: HashMap<LimitNo, u32>,
}

impl<'a> Kept<'a> {
    fn new(table: &'a Table, beneath: &'a Beneath) -> Self {
        Self { table, beneath, slots: HashMap::new() }
    }

    /// Whether the request can be served as soon as everybody else has given back what they hold.
    fn leaves_room_for(&mut self, request: &Request) -> bool {
        request.wants.iter().all(|&(limit, wanted)| {
            // Whoever waits for a limit that was removed is refused.
            let Some(setting) = self.table.setting_of(limit) else { return true };
            // A limit of no slots waits for whoever opens it, and one that is not active for nobody.
            !setting.active || setting.slots == 0 || self.of(limit).saturating_add(wanted) <= setting.slots
        })
    }

    fn of(&mut self, limit: LimitNo) -> u32 {
        if let Some(known) = self.slots.get(&limit) {
            return *known;
        }
        let waits = |holder: &&Holder| holder.run.as_ref().is_some_and(|run| self.beneath.any(run.as_ptr()));
        let kept = self.table.holders(limit).filter(waits).map(|holder| holder.slots).fold(0, u32::saturating_add);
        self.slots.insert(limit, kept);
        kept
    }
}

fn name(run: Option<&Arc<Run>>) -> String {
    run.map_or_else(|| "code outside of any run".to_owned(), |run| format!("'{}'", run.name()))
}

/// Follows the cycle from one request to the next.
fn tell(table: &Table, ticket: u64, stuck: &BTreeSet<u64>) -> String {
    let mut steps = Vec::new();
    let mut seen = HashSet::new();
    let mut current = ticket;
    while seen.insert(current) {
        let request = &table.requests[&current];
        // The shortest story first: a holder above the waiter itself.
        let waiters = || std::iter::once(current).chain(stuck.iter().copied());
        let next = request.wants.iter().find_map(|(limit, _)| {
            let holders: Vec<_> = table.holders(*limit).filter_map(|holder| holder.run.as_ref()).collect();
            waiters().find_map(|waiter| {
                holder_above(&table.requests[&waiter], &holders).map(|run| (&table.limits[*limit].name, run, waiter))
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

/// The run of one of the holders, if the request was made beneath it or in its own body.
fn holder_above<'a>(request: &'a Request, holders: &[&Weak<Run>]) -> Option<&'a Arc<Run>> {
    let run = request.run.as_ref()?;
    run.lineage().find(|ancestor| holders.iter().any(|holder| holder.as_ptr() == Arc::as_ptr(ancestor)))
}
