//! Arguments that several runs take.

use std::sync::Arc;

use shuttle::sync::atomic::{AtomicBool, Ordering};

use super::{TASK, call, explore_runs};
use crate::error::TaskError;
use crate::future::TaskFuture;
use crate::input::{Collect, Input};
use crate::run::Run;

/// Put together from the result of one run.
struct Of(TaskFuture<u32>);

impl Collect<u32> for Of {
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        visit(&self.0.run());
    }

    fn collect(self: Box<Self>) -> Result<u32, TaskError> {
        Ok(0)
    }
}

/// Whether anything is waited for.
fn waits(input: &Input<u32>) -> bool {
    let mut found = false;
    input.visit(&mut |_| {
        // Another thread may look now.
        AtomicBool::new(false).load(Ordering::Relaxed);
        found = true;
    });
    found
}

#[test]
fn what_others_look_at_meanwhile_is_not_taken_as_ready() {
    explore_runs(|_| async {
        let upstream = call(&TASK, &[], || async { Ok(1) });
        let shared = Input::collect(Of(upstream.clone())).share();
        let other = shared.another();
        let looks = shuttle::thread::spawn(move || waits(&other));
        assert!(waits(&shared), "nobody has put it together");
        assert!(looks.join().expect("it does not panic"), "nobody has put it together");
        upstream.await.expect("it completes");
    });
}
