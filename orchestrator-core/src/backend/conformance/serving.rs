//! Cases for stores that several processes share: limits, and who is given their slots.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::Case;
use super::ownership::{another, join, with};
use super::sample::{PROCESS, at, flow, task};
use crate::backend::{
    BackendErrorKind, LimitRecord, LimitSetting, OwnerNo, Shared, SlotClass, SlotPlace, SlotRequest, SlotTrade,
    SlotWait, StateBackend,
};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a limit is what it was set to last", settings),
    ("slots are given until none is left", a_few_slots),
    ("who waits is served by class and arrival", order),
    ("a wide request is not overtaken", wide),
    ("all slots of a request are given at once", several_limits),
    ("who is over gives back what it held or waited for", over),
    ("a trade may be made again", again),
    ("the class of a request can change", moved),
    ("slots of those that have ended are free", ended),
    ("nothing is given to one that has ended", fenced),
    ("slots come back by time", by_time),
    ("a limit that is not active keeps nobody waiting", inactive),
    ("who waits for a limit that is not there waits", unknown),
    ("those that an owner keeps back count as waiting", backlog),
    ("how a request stands is told", standing),
    ("the version changes with limits, slots and owners", version),
    ("threads never hold more than there are", threads),
];

/// Nobody waits.
const NONE: [u64; 0] = [];

const HELD: LimitSetting = LimitSetting { slots: 2, decay: None, active: true };

fn two(backend: &Arc<dyn StateBackend>, look: impl FnOnce(&dyn Shared, OwnerNo, OwnerNo)) {
    with(backend, |shared| look(shared, join(shared, &PROCESS), join(shared, another(7))));
}

fn ask(ticket: u64, since: i64, wants: &[(&str, u32)]) -> SlotRequest {
    SlotRequest {
        ticket,
        class: SlotClass::Ordinary,
        since: at(since),
        run: None,
        above: Vec::new(),
        wants: wants.iter().map(|(limit, slots)| (Arc::from(*limit), *slots)).collect(),
    }
}

/// Makes requests; gives those of the owner that wait.
fn asks(shared: &dyn Shared, owner: OwnerNo, asks: Vec<SlotRequest>) -> Vec<u64> {
    let trade = SlotTrade { asks, ..SlotTrade::default() };
    shared.trade(owner, &trade, at(100)).expect("ask for slots").waiting
}

fn ends(shared: &dyn Shared, owner: OwnerNo, over: &[u64]) -> Vec<u64> {
    let trade = SlotTrade { over: over.to_vec(), ..SlotTrade::default() };
    shared.trade(owner, &trade, at(100)).expect("give slots back").waiting
}

fn waiting(shared: &dyn Shared, owner: OwnerNo) -> Vec<u64> {
    shared.look(owner, at(100)).expect("look").waiting
}

fn limit(shared: &dyn Shared, name: &str) -> LimitRecord {
    let limits = shared.limits(at(100)).expect("list limits");
    limits.into_iter().find(|limit| limit.name == name).expect("the limit is there")
}

fn taken(shared: &dyn Shared, name: &str) -> (u32, usize) {
    let limit = limit(shared, name);
    (limit.taken, limit.waiting)
}

fn set(shared: &dyn Shared, name: &str, setting: LimitSetting) {
    shared.set_limit(name, setting, at(0)).expect("set a limit");
}

fn settings(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        assert!(shared.limits(at(0)).expect("list limits").is_empty());
        set(shared, "b", HELD);
        shared.declare_limit("b", LimitSetting { slots: 9, ..HELD }, at(0)).expect("declare what is there");
        shared.declare_limit("a", LimitSetting { slots: 9, ..HELD }, at(0)).expect("declare what is not there");
        let listed = |name: &str, setting| LimitRecord { name: name.to_owned(), setting, taken: 0, waiting: 0 };
        let a = listed("a", LimitSetting { slots: 9, ..HELD });
        assert_eq!(shared.limits(at(0)).expect("list limits"), [a.clone(), listed("b", HELD)]);
        let rate = LimitSetting { slots: 0, decay: Some(0.5), active: false };
        set(shared, "b", rate);
        assert_eq!(shared.limits(at(0)).expect("list limits"), [a.clone(), listed("b", rate)]);
        assert!(shared.remove_limit("b").expect("remove a limit"));
        assert!(!shared.remove_limit("b").expect("remove a limit that is not there"));
        assert_eq!(shared.limits(at(0)).expect("list limits"), [a]);
    });
}

fn a_few_slots(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        set(shared, "a", HELD);
        assert_eq!(
            asks(shared, one, vec![ask(1, 1, &[("a", 1)]), ask(2, 2, &[("a", 1)]), ask(3, 3, &[("a", 1)])]),
            [3]
        );
        assert_eq!(asks(shared, other, vec![ask(1, 4, &[("a", 1)])]), [1]);
        assert_eq!(taken(shared, "a"), (2, 2));
        let news = shared.look(other, at(100)).expect("look");
        assert_eq!(news.limits, [("a".to_owned(), HELD, Some(2))]);
        assert_eq!(news.due, None);
        assert_eq!(ends(shared, one, &[2]), NONE, "the third is served");
        assert_eq!(waiting(shared, other), [1]);
        assert_eq!(ends(shared, one, &[1, 3]), NONE);
        assert_eq!(waiting(shared, other), NONE);
        assert_eq!(taken(shared, "a"), (1, 0));
    });
}

fn order(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        set(shared, "a", LimitSetting { slots: 1, ..HELD });
        assert_eq!(asks(shared, one, vec![ask(1, 0, &[("a", 1)])]), NONE);
        let classed = |ask: SlotRequest, class| SlotRequest { class, ..ask };
        asks(shared, one, vec![ask(2, 50, &[("a", 1)]), classed(ask(3, 90, &[("a", 1)]), SlotClass::Nested)]);
        asks(shared, other, vec![ask(1, 40, &[("a", 1)]), classed(ask(2, 91, &[("a", 1)]), SlotClass::First)]);
        asks(shared, other, vec![classed(ask(3, 80, &[("a", 1)]), SlotClass::Nested), ask(4, 50, &[("a", 1)])]);
        let mut served = Vec::new();
        let mut holder = (one, 1);
        loop {
            ends(shared, holder.0, &[holder.1]);
            let left: BTreeSet<_> = [one, other]
                .into_iter()
                .flat_map(|owner| waiting(shared, owner).into_iter().map(move |ticket| (owner, ticket)))
                .collect();
            let all = [(one, 2), (one, 3), (other, 1), (other, 2), (other, 3), (other, 4)];
            let Some(next) = all.into_iter().find(|next| !left.contains(next) && !served.contains(next)) else { break };
            served.push(next);
            holder = next;
        }
        assert_eq!(served, [(other, 2), (other, 3), (one, 3), (other, 1), (one, 2), (other, 4)]);
    });
}

fn wide(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        set(shared, "a", HELD);
        assert_eq!(asks(shared, one, vec![ask(1, 1, &[("a", 1)])]), NONE);
        assert_eq!(asks(shared, one, vec![ask(2, 2, &[("a", 2)])]), [2]);
        assert_eq!(asks(shared, other, vec![ask(1, 3, &[("a", 1)])]), [1], "one is free, but not for who came later");
        assert_eq!(ends(shared, one, &[1]), NONE);
        assert_eq!(waiting(shared, other), [1]);
        ends(shared, one, &[2]);
        assert_eq!(waiting(shared, other), NONE);
    });
}

fn several_limits(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        set(shared, "a", LimitSetting { slots: 1, ..HELD });
        set(shared, "b", LimitSetting { slots: 1, ..HELD });
        assert_eq!(asks(shared, one, vec![ask(1, 1, &[("b", 1)])]), NONE);
        assert_eq!(asks(shared, one, vec![ask(2, 2, &[("a", 1), ("b", 1)])]), [2]);
        assert_eq!(taken(shared, "a"), (0, 1), "none is taken as long as not all are free");
        assert_eq!(asks(shared, other, vec![ask(1, 3, &[("a", 1)])]), [1], "nobody overtakes");
        assert_eq!(ends(shared, one, &[1]), NONE);
        assert_eq!((taken(shared, "a"), taken(shared, "b")), ((1, 1), (1, 0)));
        ends(shared, one, &[2]);
        assert_eq!(waiting(shared, other), NONE);
        assert_eq!((taken(shared, "a"), taken(shared, "b")), ((1, 0), (0, 0)));
    });
}

fn over(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        set(shared, "a", HELD);
        asks(shared, one, vec![ask(1, 1, &[("a", 2)]), ask(2, 2, &[("a", 1)])]);
        asks(shared, other, vec![ask(2, 3, &[("a", 1)])]);
        assert_eq!(ends(shared, one, &[2]), NONE);
        assert_eq!(taken(shared, "a"), (2, 1), "the numbers of others are theirs");
        assert_eq!(ends(shared, one, &[1, 1, 77]), NONE);
        assert_eq!(taken(shared, "a"), (1, 0));
        // What is over is free for what is asked for in the same trade.
        let trade = SlotTrade { over: vec![2], asks: vec![ask(3, 4, &[("a", 2)])], ..SlotTrade::default() };
        assert_eq!(shared.trade(other, &trade, at(100)).expect("trade").waiting, NONE);
    });
}

fn again(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, _| {
        set(shared, "a", HELD);
        for _ in 0..2 {
            assert_eq!(asks(shared, one, vec![ask(1, 1, &[("a", 2)]), ask(2, 2, &[("a", 1)])]), [2]);
            assert_eq!(taken(shared, "a"), (2, 1));
        }
    });
}

fn moved(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        set(shared, "a", HELD);
        asks(shared, one, vec![ask(1, 1, &[("a", 2)])]);
        asks(shared, one, vec![ask(2, 2, &[("a", 2)])]);
        asks(shared, other, vec![ask(1, 3, &[("a", 2)])]);
        let above = vec![flow(0).id, task(1).id];
        let moved = vec![(1, SlotClass::Nested, above), (9, SlotClass::First, Vec::new())];
        let trade = SlotTrade { moved, ..SlotTrade::default() };
        assert_eq!(shared.trade(other, &trade, at(100)).expect("move").waiting, [1]);
        assert_eq!(ends(shared, one, &[1]), [2]);
        assert_eq!(waiting(shared, other), NONE);
    });
}

fn ended(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        set(shared, "a", HELD);
        asks(shared, one, vec![ask(1, 1, &[("a", 2)]), ask(2, 2, &[("a", 2)])]);
        asks(shared, other, vec![ask(1, 3, &[("a", 2)])]);
        shared.leave(one, at(5)).expect("leave");
        assert_eq!(taken(shared, "a"), (0, 1));
        let news = shared.look(other, at(100)).expect("look");
        assert_eq!((news.waiting, news.due), (vec![1], Some(Duration::ZERO)), "a trade would serve it");
        assert_eq!(ends(shared, other, &[]), NONE);
        assert_eq!(taken(shared, "a"), (2, 0));
    });
}

fn fenced(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, _| {
        set(shared, "a", HELD);
        shared.leave(one, at(5)).expect("leave");
        let trade = SlotTrade { asks: vec![ask(1, 1, &[("a", 1)])], ..SlotTrade::default() };
        let refused = shared.trade(one, &trade, at(100)).expect_err("it has left");
        assert_eq!(refused.kind(), BackendErrorKind::Fenced);
        assert_eq!(shared.look(one, at(100)).expect_err("it has left").kind(), BackendErrorKind::Fenced);
        assert_eq!(taken(shared, "a"), (0, 0));
    });
}

fn by_time(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        // One comes back each 10 microseconds.
        set(shared, "a", LimitSetting { slots: 2, decay: Some(100_000.0), active: true });
        let all = vec![ask(1, 1, &[("a", 1)]), ask(2, 2, &[("a", 1)]), ask(3, 3, &[("a", 1)])];
        let trade = |asks, over, now| SlotTrade { asks, over, ..SlotTrade::default() }.at(shared, one, now);
        let news = trade(all, Vec::new(), 100);
        assert_eq!((news.waiting, news.due), (vec![3], Some(Duration::from_micros(10))));
        assert_eq!(asks(shared, other, vec![ask(1, 4, &[("a", 1)])]), [1]);
        assert_eq!(trade(Vec::new(), vec![1, 2], 109).waiting, [3], "what is given back does not come back earlier");
        let news = shared.look(other, at(104)).expect("look");
        assert_eq!((news.waiting, news.due), (vec![1], Some(Duration::from_micros(6))));
        assert_eq!(shared.look(other, at(110)).expect("look").due, Some(Duration::ZERO));
        assert_eq!(trade(Vec::new(), Vec::new(), 110).waiting, NONE);
        assert_eq!(shared.limits(at(115)).expect("list limits")[0].taken, 2);
        assert_eq!(shared.limits(at(125)).expect("list limits")[0].taken, 1);
        assert_eq!(shared.limits(at(130)).expect("list limits")[0].taken, 0);
        let news = SlotTrade::default().at(shared, other, 1_000);
        assert_eq!((news.waiting, news.due), (Vec::new(), None));
        let burst = vec![ask(10, 1, &[("a", 1)]), ask(11, 1, &[("a", 1)]), ask(12, 1, &[("a", 1)])];
        assert_eq!(trade(burst, Vec::new(), 1_000).waiting, [11, 12], "no more at once than there are slots");
    });
}

impl SlotTrade {
    fn at(self, shared: &dyn Shared, owner: OwnerNo, now: i64) -> crate::backend::SlotNews {
        shared.trade(owner, &self, at(now)).expect("trade")
    }
}

fn inactive(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        set(shared, "a", HELD);
        asks(shared, one, vec![ask(1, 1, &[("a", 2)]), ask(2, 2, &[("a", 2)])]);
        set(shared, "a", LimitSetting { active: false, ..HELD });
        assert_eq!(shared.look(other, at(100)).expect("look").due, Some(Duration::ZERO));
        assert_eq!(asks(shared, other, vec![ask(1, 3, &[("a", 5)])]), NONE);
        assert_eq!(waiting(shared, one), NONE);
        assert_eq!(taken(shared, "a"), (9, 0), "who holds what is remembered");
        set(shared, "a", HELD);
        assert_eq!(asks(shared, other, vec![ask(2, 4, &[("a", 1)])]), [2]);
        // Who waits for another limit keeps nobody from one that is open.
        set(shared, "b", LimitSetting { active: false, ..HELD });
        assert_eq!(asks(shared, other, vec![ask(3, 5, &[("b", 1), ("a", 1)]), ask(4, 6, &[("b", 1)])]), [2, 3]);
    });
}

fn unknown(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, _| {
        assert_eq!(asks(shared, one, vec![ask(1, 1, &[("a", 1)])]), [1]);
        set(shared, "a", HELD);
        assert_eq!(ends(shared, one, &[]), NONE);
        assert!(shared.remove_limit("a").expect("remove a limit"));
        set(shared, "a", HELD);
        assert_eq!(taken(shared, "a"), (1, 0), "what is held of it counts again");
    });
}

fn backlog(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        set(shared, "a", HELD);
        asks(shared, one, vec![ask(1, 1, &[("a", 2)]), ask(2, 1, &[("a", 2)])]);
        let say = |owner, waiting| {
            let backlog = vec![(Arc::from("a"), waiting)];
            SlotTrade { backlog, ..SlotTrade::default() }.at(shared, owner, 100);
            limit(shared, "a").waiting
        };
        assert_eq!((say(one, 5), say(other, 2), say(one, 3)), (6, 8, 6));
        shared.leave(one, at(5)).expect("leave");
        assert_eq!(limit(shared, "a").waiting, 2);
    });
}

fn standing(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        set(shared, "a", LimitSetting { slots: 3, ..HELD });
        let run = task(1).id;
        let named = SlotRequest { run: Some((run, Arc::from("load-1"))), ..ask(1, 1, &[("a", 2)]) };
        asks(shared, one, vec![named]);
        asks(shared, other, vec![ask(1, 2, &[("a", 1)]), ask(2, 3, &[("a", 1)])]);
        let place = SlotPlace { class: SlotClass::Ordinary, since: at(7), owner: one, ticket: 9 };
        let told = shared.standing("a", place, 9, at(100)).expect("ask").expect("it is there");
        assert_eq!((told.taken, told.ahead, told.setting.slots, told.holders.len()), (3, 1, 3, 2));
        let first = &told.holders[0];
        assert_eq!((first.owner, first.ticket, first.slots, first.since), (one, 1, 2, at(100)));
        assert_eq!((&first.run, &first.process), (&Some((run, "load-1".to_owned())), &*PROCESS));
        assert_eq!((&told.holders[1].run, &told.holders[1].process), (&None, another(7)));
        assert_eq!(shared.standing("a", place, 1, at(100)).expect("ask").map(|told| told.holders.len()), Some(1));
        assert_eq!(shared.standing("b", place, 1, at(100)).expect("ask"), None);
        assert_eq!(told.kept_back, 0);
        for (owner, waiting) in [(one, 5), (other, 2)] {
            let backlog = vec![(Arc::from("a"), waiting)];
            SlotTrade { backlog, ..SlotTrade::default() }.at(shared, owner, 100);
        }
        let told = shared.standing("a", place, 9, at(100)).expect("ask").expect("it is there");
        assert_eq!(told.kept_back, 2, "by others");

        let later = task(2).id;
        let waits = SlotRequest { run: Some((later, Arc::from("load-2"))), ..ask(3, 4, &[("a", 1)]) };
        assert_eq!(asks(shared, one, vec![waits]), [3]);
        let place = SlotPlace { class: SlotClass::Ordinary, since: at(4), owner: one, ticket: 3 };
        let found = shared.waits_of(later).expect("ask");
        assert_eq!(found, [SlotWait { limit: "a".to_owned(), slots: 1, place }]);
        assert_eq!(shared.waits_of(run).expect("ask"), [], "it holds its slots");
        shared.leave(one, at(5)).expect("leave");
        assert_eq!(shared.waits_of(later).expect("ask"), [], "it has ended");
    });
}

fn version(backend: &Arc<dyn StateBackend>) {
    two(backend, |shared, one, other| {
        let mut before = shared.version().expect("ask for the version");
        let mut changed = |what: &str| {
            let now = shared.version().expect("ask for the version");
            assert_ne!(now, before, "{what}");
            assert_eq!(shared.version().expect("ask for the version"), now);
            before = now;
        };
        shared.declare_limit("a", HELD, at(0)).expect("declare a limit");
        changed("a limit is created");
        set(shared, "a", LimitSetting { slots: 1, ..HELD });
        changed("a limit is set");
        asks(shared, one, vec![ask(1, 1, &[("a", 1)])]);
        changed("slots are taken");
        asks(shared, other, vec![ask(1, 2, &[("a", 1)])]);
        changed("a request waits");
        let moved = vec![(1, SlotClass::Nested, Vec::new())];
        shared.trade(other, &SlotTrade { moved, ..SlotTrade::default() }, at(100)).expect("move a request");
        changed("a request has another class");
        ends(shared, other, &[1]);
        changed("a request is given up");
        ends(shared, one, &[1]);
        changed("slots are given back");
        shared.remove_limit("a").expect("remove a limit");
        changed("a limit is removed");
        shared.leave(one, at(5)).expect("leave");
        changed("an owner leaves");
        let gone = shared.owner(other).expect("look for an owner").expect("an owner that joined is known");
        shared.expel(&gone, at(5), "it is gone").expect("end an owner");
        changed("an owner is gone");
    });
}

fn threads(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        set(shared, "a", HELD);
        let owners: Vec<_> = (0..4).map(|session| join(shared, another(session))).collect();
        thread::scope(|scope| {
            for owner in owners {
                scope.spawn(move || {
                    with(backend, |shared| {
                        for ticket in 0..25 {
                            let mut left = asks(shared, owner, vec![ask(ticket, 1, &[("a", 1)])]);
                            while !left.is_empty() {
                                thread::yield_now();
                                left = waiting(shared, owner);
                            }
                            assert!(taken(shared, "a").0 <= 2, "more are taken than there are");
                            ends(shared, owner, &[ticket]);
                        }
                    })
                });
            }
        });
        assert_eq!(taken(shared, "a"), (0, 0));
    });
}
