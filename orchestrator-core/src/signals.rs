//! Ctrl-C and SIGTERM: the first one cancels the runs in order and lets them be recorded, the second one exits. Those that
//! come at once are one.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::engine::panics;
use crate::future::WaitState;
use crate::orchestrator::Inner;
use crate::recovery;
use crate::run::Stop;

/// The orchestrators of this process whose runs a signal cancels.
static WATCHED: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// The exit status of a program that a signal ended is 128 and the number of the signal, by convention.
const INTERRUPTED: i32 = 130;
#[cfg(unix)]
const TERMINATED: i32 = 143;

/// Signals that come so soon after one another are one request: `timeout` of GNU coreutils sends one to the program and one
/// to its process group.
const ONE_REQUEST: Duration = Duration::from_millis(50);

/// Whether a runtime watches for signals.
static WATCHING: AtomicBool = AtomicBool::new(false);

/// Lets another runtime watch once this one has ended.
struct Watching;

impl Drop for Watching {
    fn drop(&mut self) {
        WATCHING.store(false, Ordering::Release);
        outlive();
    }
}

/// Ends the process at a signal that comes while no runtime watches. Nothing else would: once anybody has watched for a signal,
/// the system does not end the process for it any more. And a program whose runtime ends may wait for long, as the runtime does
/// for the threads of sync bodies.
fn outlive() {
    static OUTLIVING: AtomicBool = AtomicBool::new(false);
    if OUTLIVING.swap(true, Ordering::AcqRel) {
        return;
    }
    // A system without a thread for it leaves signals without effect.
    on_a_thread(async {
        let mut signals = Signals::listen()?;
        loop {
            let (status, _) = signals.next().await?;
            if !WATCHING.load(Ordering::Acquire) {
                std::process::exit(status);
            }
        }
    });
}

/// Watches for signals on that runtime, once in a process, on behalf of this orchestrator as well.
pub(crate) fn watch(orchestrator: &Arc<Inner>, handle: &Handle) {
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    watched.retain(|known| known.strong_count() > 0);
    if !watched.iter().any(|known| known.as_ptr() == Arc::as_ptr(orchestrator)) {
        watched.push(Arc::downgrade(orchestrator));
    }
    drop(watched);
    if WATCHING.swap(true, Ordering::AcqRel) {
        return;
    }
    let watching = Watching;
    handle.spawn(async move {
        let _watching = watching;
        // How many orchestrators are ending because of a signal.
        let ending = Arc::new(AtomicUsize::new(0));
        let Some(mut listener) = Listener::new() else { return };
        while let Some((status, by)) = listener.next().await {
            let active = active();
            if ending.load(Ordering::SeqCst) > 0 || active.is_empty() {
                std::process::exit(status);
            }
            gather().await;
            listener.forget();
            tracing::warn!(target: "orchestrator", "interrupted: cancelling runs; once more to exit at once");
            for orchestrator in active {
                // What cannot be written by then is lost, and told; the other half is for what else waits for the store.
                orchestrator.journal.end_within(orchestrator.defaults.cancel_grace / 2);
                let still_ending = Ending::of(&ending);
                // Elsewhere: it may wait for the store, and meanwhile there may be another signal.
                tokio::spawn(async move {
                    // A program that goes on may call others by the time when these have ended.
                    let told = orchestrator.roots.active();
                    let cancelled = Arc::clone(&orchestrator);
                    let cancelling = tokio::task::spawn_blocking(move || {
                        recovery::interrupt(&cancelled);
                        cancelled.cancel_all(by);
                    });
                    let _ = cancelling.await;
                    for run in told {
                        WaitState::new(run).await;
                    }
                    // Such as the rollbacks that these have left behind.
                    orchestrator.holds.present_gone().await;
                    let goes_on = orchestrator.journal.goes_on();
                    drop(orchestrator);
                    goes_on.await;
                    drop(still_ending);
                });
            }
        }
    });
}

/// Lets those signals pass that are the same request: nobody listens meanwhile.
async fn gather() {
    let (gathered, over) = tokio::sync::oneshot::channel();
    // The runtime may have no timer, and its blocking pool may be full of bodies. Where there is no thread, it is over at once.
    let _ = std::thread::Builder::new().name("orchestrator-signals".to_owned()).spawn(move || {
        std::thread::sleep(ONE_REQUEST);
        let _ = gathered.send(());
    });
    let _ = over.await;
}

/// One orchestrator that ends, and may go on afterwards: until then a second signal ends the program.
struct Ending(Arc<AtomicUsize>);

impl Ending {
    fn of(ending: &Arc<AtomicUsize>) -> Self {
        ending.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(ending))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The watched orchestrators that have runs going on.
fn active() -> Vec<Arc<Inner>> {
    let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    watched.iter().filter_map(Weak::upgrade).filter(|orchestrator| !orchestrator.roots.is_idle()).collect()
}

/// Who hears of signals, from one to the next.
enum Listener {
    /// This runtime.
    Here,
    /// A thread with a runtime of its own: this one has no I/O.
    Elsewhere(mpsc::UnboundedReceiver<Heard>),
}

/// The exit status that goes with a signal, and its name.
type Heard = (i32, Stop);

impl Listener {
    fn new() -> Option<Self> {
        // Without the runtime's I/O this panics.
        match panics::catch(Signals::listen) {
            Ok(signals) => signals.map(|_| Self::Here),
            Err(_) => elsewhere().map(Self::Elsewhere),
        }
    }

    /// Waits for a signal; `None` if there will be none.
    async fn next(&mut self) -> Option<Heard> {
        match self {
            Self::Here => Signals::listen()?.next().await,
            Self::Elsewhere(heard) => heard.recv().await,
        }
    }

    /// Lets those signals pass that came since the last one was asked for.
    fn forget(&mut self) {
        if let Self::Elsewhere(heard) = self {
            while heard.try_recv().is_ok() {}
        }
    }
}

/// Listens on a thread until nobody wants to hear of it any more.
fn elsewhere() -> Option<mpsc::UnboundedReceiver<Heard>> {
    let (hears, heard) = mpsc::unbounded_channel();
    let listen = async move {
        let mut signals = Signals::listen()?;
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal?,
                () = hears.closed() => return None,
            };
            hears.send(signal).ok()?;
        }
    };
    on_a_thread(listen).then_some(heard)
}

/// Runs it on a thread with a runtime of its own, if the system has one for it.
fn on_a_thread(listen: impl Future<Output = Option<()>> + Send + 'static) -> bool {
    let run = || {
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
            runtime.block_on(listen);
        }
    };
    std::thread::Builder::new().name("orchestrator-signals".to_owned()).spawn(run).is_ok()
}

/// What listens for the signals that end a program.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// # Panics
    ///
    /// If the runtime has no I/O.
    fn listen() -> Option<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Some(Self {
            interrupt: signal(SignalKind::interrupt()).ok()?,
            terminate: signal(SignalKind::terminate()).ok()?,
        })
    }

    async fn next(&mut self) -> Option<Heard> {
        tokio::select! {
            received = self.interrupt.recv() => received.map(|()| (INTERRUPTED, Stop::CtrlC)),
            received = self.terminate.recv() => received.map(|()| (TERMINATED, Stop::Terminated)),
        }
    }
}

/// What listens for the signals that end a program.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Option<Self> {
        Some(Self)
    }

    async fn next(&mut self) -> Option<Heard> {
        tokio::signal::ctrl_c().await.is_ok().then_some((INTERRUPTED, Stop::CtrlC))
    }
}
