//! The queue for slots: nobody waits for what is free, and no limit is exceeded.

use shuttle::future::{JoinHandle, spawn};

use super::{Inside, call, explore_runs, pass};
use crate::concurrency::concurrency;
use crate::def::{Def, Rare, Want};
use crate::orchestrator::Orchestrator;

type Wanted = (&'static [&'static str], u32);

fn hold(orchestrator: &Orchestrator, (limits, slots): Wanted, inside: &Inside) -> JoinHandle<()> {
    let inside = inside.clone();
    spawn(orchestrator.scope(async move {
        let guard = concurrency(limits, slots).await.expect("there are so many slots");
        let entered = inside.enter(slots as usize);
        pass().await;
        drop(entered);
        drop(guard);
    }))
}

#[test]
fn a_freed_slot_reaches_a_waiter() {
    explore_runs(|orchestrator| async move {
        orchestrator.limit("a", 2).await.expect("a limit");
        let inside = Inside::default();
        for holder in [(); 4].map(|()| hold(&orchestrator, (&["a"], 1), &inside)) {
            holder.await.expect("it does not panic");
        }
        assert!(inside.most() <= 2);
    });
}

#[test]
fn a_waiter_that_goes_away_passes_its_turn_on() {
    explore_runs(|orchestrator| async move {
        orchestrator.limit("a", 1).await.expect("a limit");
        orchestrator.limit("b", 1).await.expect("a limit");
        let inside = Inside::default();
        let wanted: [Wanted; 4] = [(&["a"], 1), (&["a", "b"], 1), (&["b", "a"], 1), (&["a"], 1)];
        let holders = wanted.map(|wanted| hold(&orchestrator, wanted, &inside));
        // At any moment of their lives: before they wait, when they were just woken, while they hold slots.
        holders[1].abort();
        holders[2].abort();
        for (index, holder) in holders.into_iter().enumerate() {
            assert!(holder.await.is_ok() || [1, 2].contains(&index));
        }
        assert!(inside.most() <= 1);
    });
}

#[test]
fn several_limits_are_taken_together_in_any_order() {
    explore_runs(|orchestrator| async move {
        for (limit, slots) in [("a", 1), ("b", 1), ("c", 2)] {
            orchestrator.limit(limit, slots).await.expect("a limit");
        }
        let (inside_a, inside_c) = (Inside::default(), Inside::default());
        let holders = [
            hold(&orchestrator, (&["a", "b"], 1), &inside_a),
            hold(&orchestrator, (&["b", "a"], 1), &inside_a),
            hold(&orchestrator, (&["c", "a"], 1), &inside_a),
            hold(&orchestrator, (&["c"], 2), &inside_c),
            hold(&orchestrator, (&["b", "c"], 1), &inside_c),
        ];
        for holder in holders {
            holder.await.expect("it does not panic");
        }
        assert!(inside_a.most() <= 1 && inside_c.most() <= 2);
    });
}

#[test]
fn a_limit_that_grows_lets_the_next_ones_in() {
    explore_runs(|orchestrator| async move {
        orchestrator.limit("a", 0).await.expect("a limit");
        let inside = Inside::default();
        let holders = [(); 3].map(|()| hold(&orchestrator, (&["a"], 1), &inside));
        orchestrator.limit("a", 1).await.expect("a limit");
        orchestrator.limit("a", 2).await.expect("a limit");
        for holder in holders {
            holder.await.expect("it does not panic");
        }
        assert!(inside.most() <= 2);
    });
}

static LIMITED: Def = Def {
    rare: &Rare {
        concurrency: &[
            Want { limit: "a", slots: 1, declare: Some(1) },
            Want { limit: "b", slots: 1, declare: Some(2) },
        ],
        ..Rare::NONE
    },
    ..Def::task("limited", "interleavings::limited")
};

#[test]
fn runs_that_are_cancelled_give_their_slots_back() {
    explore_runs(|_| async {
        let inside = Inside::default();
        let runs: Vec<_> = (0..3)
            .map(|_| {
                let inside = inside.clone();
                call(&LIMITED, &[], move || {
                    let inside = inside.clone();
                    async move {
                        let _entered = inside.enter(1);
                        pass().await;
                        Ok(1)
                    }
                })
            })
            .collect();
        let cancelled = [runs[0].clone(), runs[1].clone()];
        let cancel = shuttle::thread::spawn(move || cancelled.iter().for_each(crate::TaskFuture::cancel));
        for run in &runs[..2] {
            let outcome = run.await;
            assert!(outcome.is_ok() || outcome.is_err_and(|error| error.is_cancelled()));
        }
        assert!(runs[2].clone().await.is_ok());
        cancel.join().expect("it does not panic");
        assert!(inside.most() <= 1);
    });
}
