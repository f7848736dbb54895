//! Ctrl-C and SIGTERM: the first one cancels the runs in order and lets them be recorded, the second one exits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;

use crate::orchestrator::Inner;

/// The exit status of a program that a signal ended, by convention 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

/// Watches for signals on that runtime, once in a process.
pub(crate) fn watch(orchestrator: &Arc<Inner>, handle: &Handle) {
    static WATCHING: AtomicBool = AtomicBool::new(false);
    if WATCHING.swap(true, Ordering::AcqRel) {
        return;
    }
    let orchestrator = Arc::downgrade(orchestrator);
    handle.spawn(async move {
        /// Lets another runtime watch once this one has ended.
        struct Unwatch;
        impl Drop for Unwatch {
            fn drop(&mut self) {
                WATCHING.store(false, Ordering::Release);
            }
        }
        let _unwatch = Unwatch;
        let mut told = false;
        loop {
            if !signal().await {
                return;
            }
            let active = orchestrator.upgrade().filter(|orchestrator| !orchestrator.roots.is_idle());
            match active {
                Some(orchestrator) if !told => {
                    told = true;
                    tracing::warn!(target: "orchestrator", "interrupted: cancelling runs; once more to exit at once");
                    orchestrator.cancel_all();
                }
                Some(_) | None => std::process::exit(INTERRUPTED),
            }
        }
    });
}

/// Waits for a signal; `false` if signals cannot be watched here.
async fn signal() -> bool {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return false };
        tokio::select! {
            outcome = tokio::signal::ctrl_c() => outcome.is_ok(),
            received = terminate.recv() => received.is_some(),
        }
    }
    #[cfg(not(unix))]
    {
        tokio::signal::ctrl_c().await.is_ok()
    }
}
