//! Whether a task costs the same in a flow of a thousand and in a flow of a million. Floor: the cheapest size.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::fan_out::{bare, fan_out};
use crate::measure::{Compared, Effort, PerOperation, median, runtime, time_bare, time_ours};
use crate::report::{Budget, Row, Unit};
use crate::sqlite;

const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let runtime = runtime();
    let sizes = if effort.quick { &SIZES[..3] } else { &SIZES };
    let rounds = if effort.quick { 1 } else { 15 };
    let spawned = |tasks| time_bare(&runtime, bare(tasks)).1;
    let called = |tasks| {
        let (sum, elapsed) = time_ours(&runtime, || fan_out(tasks));
        assert_eq!(sum.expect("it completes"), tasks * (tasks - 1) / 2);
        elapsed
    };
    let [floor, ours] = costs(sizes, rounds, &runtime, [&spawned, &called]);
    let mut rows: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(size, tasks)| {
            let (floor, ours) = (cost_of(size, &floor), cost_of(size, &ours));
            let name = format!("cost of one task of {}", Effort::name(*tasks));
            Row::absolute(name, Unit::Nanoseconds, Some(floor), ours, rounds, Budget::None)
        })
        .collect();
    rows.push(flat("dearest beside cheapest of these sizes", &ours, Budget::Ratio { allowed: 1.5, aim: 1.1 }));
    rows.push(flat("the same of bare spawn", &floor, Budget::None));
    let rounds = if effort.quick { 1 } else { 3 };
    let [stored] = costs(sizes, rounds, &runtime, [&|tasks| sqlite::fan_out_once(&runtime, tasks)]);
    rows.push(flat("the same with history in SQLite", &stored, Budget::Ratio { allowed: 1.5, aim: 1.1 }));
    let histories: Vec<_> = sizes.iter().map(|tasks| (*tasks, sqlite::History::of_fan_out(&runtime, *tasks))).collect();
    let write = |tasks| {
        let (_, history) = histories.iter().find(|(size, _)| *size == tasks).expect("one for each size");
        history.write_once()
    };
    let [bare] = costs(sizes, rounds, &runtime, [&write]);
    rows.push(flat("the same of bare rusqlite", &bare, Budget::None));
    rows
}

/// For each side its rounds, and in each of them the cost of one task for each size. The sides take turns.
fn costs<const SIDES: usize>(
    sizes: &[u64],
    rounds: usize,
    runtime: &Runtime,
    sides: [&dyn Fn(u64) -> Duration; SIDES],
) -> [Vec<Vec<f64>>; SIDES] {
    let cost = |tasks: u64, once: &dyn Fn(u64) -> Duration| {
        let times = (100_000 / tasks).max(1);
        // The runs of the last size are taken apart by the workers while nobody waits for them.
        runtime.block_on(runtime.spawn(tokio::task::yield_now())).expect("nothing panics");
        PerOperation::of((0..times).map(|_| once(tasks)).sum(), tasks * times).0
    };
    let mut costs = [const { Vec::new() }; SIDES];
    for round in 0..=rounds {
        let mut of_round = [const { Vec::new() }; SIDES];
        for tasks in sizes {
            for (of_side, once) in of_round.iter_mut().zip(sides) {
                of_side.push(cost(*tasks, once));
            }
        }
        // The first round does not count.
        if round > 0 {
            for (of_side, of_round) in costs.iter_mut().zip(of_round) {
                of_side.push(of_round);
            }
        }
    }
    costs
}

/// The median of a size's rounds.
fn cost_of(size: usize, costs: &[Vec<f64>]) -> f64 {
    median(&mut costs.iter().map(|round| round[size]).collect::<Vec<_>>())
}

/// The size that is the dearest by its median beside the one that is the cheapest. The dearest and the cheapest of each
/// round would be whichever the machine disturbed more and less just then: even of equal sizes one is the dearest.
fn flat(name: &str, costs: &[Vec<f64>], budget: Budget) -> Row {
    let mut sizes: Vec<_> = (0..costs[0].len()).map(|size| (cost_of(size, costs), size)).collect();
    sizes.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let ((_, cheapest), (_, dearest)) = (sizes[0], sizes[sizes.len() - 1]);
    let rounds: Vec<_> = costs.iter().map(|round| (round[cheapest], round[dearest])).collect();
    Row::compared(name, &Compared::of(&rounds), budget)
}
