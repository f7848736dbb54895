//! What those who wait are told: a sentence, and how they stand.

use std::sync::{Arc, Weak};

use smol_str::SmolStr;

use super::Table;
use super::limits::Said;
use super::requests::Request;
use crate::backend::LimitSetting;
use crate::clock::Timestamp;
use crate::run::Run;

/// How a request stands with one limit that keeps it waiting.
pub(in crate::concurrency) struct Standing {
    pub(in crate::concurrency) limit: SmolStr,
    pub(in crate::concurrency) wanted: u32,
    pub(in crate::concurrency) slots: u32,
    pub(in crate::concurrency) taken: u32,
    pub(in crate::concurrency) decay: Option<f64>,
    pub(in crate::concurrency) ahead: usize,
    /// Who holds how many slots, and since when.
    pub(in crate::concurrency) holders: Vec<(Option<Weak<Run>>, u32, Timestamp)>,
}

const A_SLOT: &str = "a slot";

const SLOTS: &str = " slots";

/// How [`Table::reason`] names a limit.
pub(crate) fn of_limit(name: &str) -> String {
    format!(" of limit '{name}'")
}

/// How many slots of a limit are waited for according to such a reason, if any.
pub(crate) fn waits_for(reason: &str, limit: &str) -> Option<u32> {
    let (before, _) = reason.split_once(&of_limit(limit))?;
    match before.strip_suffix(SLOTS) {
        Some(number) => number.rsplit(' ').next()?.parse().ok(),
        None => before.ends_with(A_SLOT).then_some(1),
    }
}

impl Table {
    /// Whether a limit that a request asks for has no slots at all.
    pub(in crate::concurrency) fn is_shut_out(&self, ticket: u64) -> bool {
        let closed = |setting: LimitSetting| setting.active && setting.slots == 0;
        self.requests[&ticket].wants.iter().any(|(limit, _)| closed(self.limits[*limit].setting))
    }

    /// What a request waits for, in a sentence.
    pub(in crate::concurrency) fn reason(&mut self, ticket: u64) -> Arc<str> {
        let request = &self.requests[&ticket];
        let &[(limit, wanted)] = &request.wants[..] else { return self.sentence(request).into() };
        let entry = &self.limits[limit];
        let (slots, taken) = (entry.setting.slots, entry.taken());
        if let Some(said) = &entry.said
            && entry.setting.active
            && (said.wanted, said.slots, said.taken) == (wanted, slots, taken)
        {
            return Arc::clone(&said.sentence);
        }
        let sentence: Arc<str> = self.sentence(request).into();
        let said = entry.setting.active.then(|| Said { wanted, slots, taken, sentence: Arc::clone(&sentence) });
        self.limits[limit].said = said;
        sentence
    }

    fn sentence(&self, request: &Request) -> String {
        let asked = request.wants.iter().map(|&(limit, slots)| (slots, &self.limits[limit]));
        let parts: Vec<_> = asked
            .filter(|(_, entry)| entry.setting.active)
            .map(|(slots, entry)| {
                let mut what = if slots == 1 { A_SLOT.to_owned() } else { format!("{slots}{SLOTS}") };
                what += &of_limit(&entry.name);
                match entry.setting.slots {
                    0 => format!("{what}, which has none"),
                    // How many others have taken, the store has not been asked yet.
                    slots if self.desk.is_some() && entry.taken() == 0 => format!("{what} ({slots} in all)"),
                    slots => format!("{what} ({} of {slots} taken)", entry.taken()),
                }
            })
            .collect();
        format!("waits for {}", parts.join(" and "))
    }

    /// How a request stands with each limit that it waits for; names at most so many holders of each.
    pub(in crate::concurrency) fn standings(
        &mut self,
        ticket: u64,
        most_holders: usize,
        now: Timestamp,
    ) -> Vec<Standing> {
        let Some(request) = self.requests.get(&ticket) else { return Vec::new() };
        let mut standings = Vec::new();
        for &(limit, wanted) in &request.wants {
            let entry = &mut self.limits[limit];
            entry.settle(now);
            let LimitSetting { slots, decay, active } = entry.setting;
            if !active {
                continue;
            }
            let mut holders: Vec<_> = entry.lasting_holders().collect();
            holders.sort_unstable_by_key(|holder| (holder.since, holder.order));
            let holders = holders.into_iter().take(most_holders);
            standings.push(Standing {
                limit: entry.name.clone(),
                wanted,
                slots,
                taken: entry.taken(),
                decay,
                ahead: entry.queue.range(..request.place).count(),
                holders: holders.map(|holder| (holder.run.clone(), holder.slots, holder.since)).collect(),
            });
        }
        standings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::SlotClass;
    use crate::concurrency::Wants;
    use crate::concurrency::table::Asked;

    #[test]
    fn all_who_wait_for_the_same_share_one_sentence() {
        let now = Timestamp::from_micros(0);
        let mut table = Table::default();
        let setting = LimitSetting { slots: 2, decay: None, active: true };
        drop(table.set("db", setting, now));
        let asked = |table: &Table, slots| {
            let mut wants = Wants::new();
            wants.add("db", slots);
            table.check(&wants).expect("there are so many")
        };
        let hold = |table: &mut Table| table.take_alone("db", 1, None, || None, now).expect("there is a slot");
        let (_first, second) = (hold(&mut table), hold(&mut table));
        let one = asked(&table, 1);
        let mut wait = |wants: &Asked| table.enqueue(wants.clone(), None, SlotClass::Ordinary, now);
        let tickets = [wait(&one), wait(&one)];
        let [a, b] = tickets.map(|ticket| table.reason(ticket));
        assert_eq!(&*a, "waits for a slot of limit 'db' (2 of 2 taken)");
        assert!(Arc::ptr_eq(&a, &b));
        assert!(table.release(&second).is_some_and(|outside| outside.wake.is_empty()));
        assert_eq!(&*table.reason(tickets[1]), "waits for a slot of limit 'db' (1 of 2 taken)");
        let wide = asked(&table, 2);
        let wide = table.enqueue(wide, None, SlotClass::Ordinary, now);
        assert_eq!(&*table.reason(wide), "waits for 2 slots of limit 'db' (1 of 2 taken)");
        drop(table.set("db", LimitSetting { slots: 0, ..setting }, now));
        assert_eq!(&*table.reason(wide), "waits for 2 slots of limit 'db', which has none");
    }

    #[test]
    fn what_a_run_waits_for_is_read_from_its_reason() {
        let reason = "waits for 3 slots of limit 'db' (1 of 4 taken) and a slot of limit 'x and y', which has none";
        let wanted = ["db", "x and y", "d", "x"].map(|limit| waits_for(reason, limit));
        assert_eq!(wanted, [Some(3), Some(1), None, None]);
        assert_eq!(waits_for("the flow runs at most 3 tasks at a time", "db"), None);
    }
}
