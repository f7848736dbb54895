//! Single flight: of those who want one key, one computes it at a time, and the others miss nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Inside, call, explore_runs, pass};
use crate::TaskFuture;
use crate::def::{Def, Rare};

static CACHED: Def =
    Def { rare: &Rare { has_cache_key: true, ..Rare::NONE }, ..Def::task("cached", "interleavings::cached") };

/// What the bodies that computed the key did.
#[derive(Clone, Default)]
struct Computed {
    inside: Inside,
    calls: Arc<AtomicU32>,
    completed: Arc<AtomicU32>,
}

impl Computed {
    /// Asks for the key; of the bodies that compute it, the first `failures` fail.
    fn ask(&self, failures: u32) -> TaskFuture<u32> {
        let this = self.clone();
        call(&CACHED, &[], move || {
            let this = this.clone();
            async move {
                let _entered = this.inside.enter(1);
                let number = this.calls.fetch_add(1, Ordering::Relaxed);
                pass().await;
                if number < failures {
                    return Err("asked to fail");
                }
                this.completed.fetch_add(1, Ordering::Relaxed);
                Ok(number)
            }
        })
    }
}

#[test]
fn one_computes_and_the_others_take_its_result() {
    explore_runs(|_| async {
        let computed = Computed::default();
        for run in [(); 3].map(|()| computed.ask(0)) {
            assert_eq!(run.await.expect("it completes"), 0);
        }
        assert_eq!(computed.calls.load(Ordering::Relaxed), 1, "nobody misses the result");
        assert_eq!(computed.inside.most(), 1);
    });
}

#[test]
fn the_next_one_takes_over_when_the_first_fails() {
    explore_runs(|_| async {
        let computed = Computed::default();
        let mut failed = 0;
        for run in [(); 3].map(|()| computed.ask(1)) {
            failed += u32::from(run.await.is_err());
        }
        assert_eq!(failed, 1);
        assert_eq!(computed.calls.load(Ordering::Relaxed), 2);
        assert_eq!(computed.inside.most(), 1);
    });
}

#[test]
fn the_next_one_takes_over_when_any_is_cancelled() {
    explore_runs(|_| async {
        let computed = Computed::default();
        let runs = [(); 3].map(|()| computed.ask(0));
        let cancelled = [runs[0].clone(), runs[1].clone()];
        let cancel = shuttle::thread::spawn(move || cancelled.iter().for_each(TaskFuture::cancel));
        for run in &runs[..2] {
            let outcome = run.await;
            assert!(outcome.is_ok() || outcome.is_err_and(|error| error.is_cancelled()));
        }
        assert!(runs[2].clone().await.is_ok());
        cancel.join().expect("it does not panic");
        assert_eq!(computed.inside.most(), 1);
        assert_eq!(computed.completed.load(Ordering::Relaxed), 1, "nobody misses the result");
    });
}
