//! How something is timed beside its floor: in turns, so that what disturbs the machine disturbs both.

use std::time::{Duration, Instant};

use orchestrator::Orchestrator;
use tokio::runtime::Runtime;

/// How much time is spent on each comparison.
pub(crate) struct Effort {
    pub(crate) quick: bool,
    least_rounds: usize,
    most_rounds: usize,
    time: Duration,
}

impl Effort {
    pub(crate) const fn new(quick: bool) -> Self {
        if quick {
            Self { quick, least_rounds: 3, most_rounds: 5, time: Duration::from_millis(150) }
        } else {
            Self { quick, least_rounds: 9, most_rounds: 101, time: Duration::from_secs(4) }
        }
    }

    /// `full`, or in a smoke run something smaller.
    pub(crate) fn size(&self, full: u64) -> u64 {
        if self.quick { (full / 10).clamp(1_000.min(full), 10_000) } else { full }
    }

    /// How a size is written in the name of a row.
    pub(crate) fn name(size: u64) -> String {
        match size {
            1_000_000.. if size.is_multiple_of(1_000_000) => format!("{}M", size / 1_000_000),
            1_000.. if size.is_multiple_of(1_000) => format!("{}k", size / 1_000),
            _ => size.to_string(),
        }
    }

    /// Times `ours` and its `floor` in turns, after one round that does not count. Each does its work once and gives
    /// the time that one of its operations took.
    pub(crate) fn compare(
        &self,
        mut floor: impl FnMut() -> PerOperation,
        mut ours: impl FnMut() -> PerOperation,
    ) -> Compared {
        let mut rounds = Vec::new();
        floor();
        ours();
        let start = Instant::now();
        while rounds.len() < self.least_rounds || (start.elapsed() < self.time && rounds.len() < self.most_rounds) {
            // Whoever goes second finds caches and allocator as the other one left them.
            let (PerOperation(floor), PerOperation(ours)) = if rounds.len().is_multiple_of(2) {
                let floor = floor();
                (floor, ours())
            } else {
                let ours = ours();
                (floor(), ours)
            };
            rounds.push((floor, ours));
        }
        Compared::of(&rounds)
    }
}

/// Nanoseconds that one operation took.
#[derive(Clone, Copy)]
pub(crate) struct PerOperation(pub(crate) f64);

impl PerOperation {
    #[expect(clippy::cast_precision_loss, reason = "fewer operations than a float counts exactly")]
    pub(crate) fn of(elapsed: Duration, operations: u64) -> Self {
        Self(elapsed.as_secs_f64() * 1e9 / operations as f64)
    }
}

/// Medians over all rounds of a comparison.
pub(crate) struct Compared {
    pub(crate) floor: f64,
    pub(crate) ours: f64,
    /// The median of the ratios, which is not the ratio of the medians.
    pub(crate) ratio: f64,
    /// The first and third quartile of the ratios.
    pub(crate) spread: (f64, f64),
    pub(crate) rounds: usize,
}

impl Compared {
    /// Of the costs of the floor and of ours in each round.
    pub(crate) fn of(rounds: &[(f64, f64)]) -> Self {
        let (mut floors, mut all_ours): (Vec<_>, Vec<_>) = rounds.iter().copied().unzip();
        let mut ratios: Vec<_> = rounds.iter().map(|(floor, ours)| ours / floor).collect();
        Self {
            floor: median(&mut floors),
            ours: median(&mut all_ours),
            ratio: median(&mut ratios),
            spread: (quantile(&ratios, 0.25), quantile(&ratios, 0.75)),
            rounds: rounds.len(),
        }
    }
}

/// The middle value; sorts the values.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    quantile(values, 0.5)
}

/// The value below which that share of the sorted values lies.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a short list"
    )]
    let place = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[place]
}

/// The runtime that both sides are given.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Times a future on a worker of the runtime, where the body of a flow runs as well.
pub(crate) fn time_bare<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = T> + Send + 'static,
) -> (T, Duration) {
    let start = Instant::now();
    let value = runtime.block_on(runtime.spawn(work)).expect("the work does not panic");
    (value, start.elapsed())
}

/// Times what `call` submits, under an orchestrator that keeps its history in memory and that nobody used before.
pub(crate) fn time_ours<T, F: Future<Output = T>>(runtime: &Runtime, call: impl FnOnce() -> F) -> (T, Duration) {
    time_under(&Orchestrator::in_memory(), runtime, call)
}

/// Has done what `call` submits, and ends the process before anything is taken apart: nothing of that is to be counted.
pub(crate) fn count_under<T, E, F>(runtime: &Runtime, call: impl FnOnce() -> F)
where
    E: std::fmt::Debug,
    F: Future<Output = Result<T, E>>,
{
    let orchestrator = Orchestrator::in_memory();
    time_under(&orchestrator, runtime, call).0.expect("it completes");
    std::process::exit(0);
}

/// Times what `call` submits, under that orchestrator.
pub(crate) fn time_under<T, F: Future<Output = T>>(
    orchestrator: &Orchestrator,
    runtime: &Runtime,
    call: impl FnOnce() -> F,
) -> (T, Duration) {
    let start = Instant::now();
    let value = runtime.block_on(orchestrator.scope(async { call().await }));
    (value, start.elapsed())
}
