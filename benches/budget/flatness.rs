//! Whether a task costs the same in a flow of a thousand and in a flow of a million. Floor: the cheapest size.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::fan_out::{bare, fan_out};
use crate::measure::{Effort, PerOperation, median, quantile, runtime, time_bare, time_ours};
use crate::report::{Budget, Row, Unit};
use crate::sqlite;

const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let runtime = runtime();
    let sizes = if effort.quick { &SIZES[..3] } else { &SIZES };
    let rounds = if effort.quick { 1 } else { 5 };
    let ours = costs(sizes, rounds, &runtime, &|tasks| {
        let (sum, elapsed) = time_ours(&runtime, || fan_out(tasks));
        assert_eq!(sum.expect("it completes"), tasks * (tasks - 1) / 2);
        elapsed
    });
    let floor = costs(sizes, rounds, &runtime, &|tasks| time_bare(&runtime, bare(tasks)).1);
    let mut rows: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(place, size)| {
            let of = |costs: &[Vec<f64>]| median(&mut costs.iter().map(|round| round[place]).collect::<Vec<_>>());
            Row::absolute(
                format!("cost of one task of {}", Effort::name(*size)),
                Unit::Nanoseconds,
                Some(of(&floor)),
                of(&ours),
                rounds,
                Budget::None,
            )
        })
        .collect();
    rows.push(flat("dearest beside cheapest of these sizes", &ours, Budget::Ratio { allowed: 1.5, aim: 1.1 }));
    rows.push(flat("the same of bare spawn", &floor, Budget::None));
    let rounds = if effort.quick { 1 } else { 2 };
    let stored = costs(sizes, rounds, &runtime, &|tasks| sqlite::fan_out_once(&runtime, tasks));
    rows.push(flat("the same with history in SQLite", &stored, Budget::Ratio { allowed: 1.5, aim: 1.1 }));
    let histories: Vec<_> = sizes.iter().map(|tasks| (*tasks, sqlite::History::of_fan_out(&runtime, *tasks))).collect();
    let bare = costs(sizes, 1, &runtime, &|tasks| {
        let (_, history) = histories.iter().find(|(size, _)| *size == tasks).expect("one for each size");
        history.write_once()
    });
    rows.push(flat("the same of bare rusqlite", &bare, Budget::None));
    rows
}

/// The cost of one task in each round, for each size.
fn costs(sizes: &[u64], rounds: usize, runtime: &Runtime, once: &dyn Fn(u64) -> Duration) -> Vec<Vec<f64>> {
    let round = || {
        let cost = |tasks: &u64| {
            let times = (100_000 / tasks).max(1);
            // The runs of the last size are taken apart by the workers while nobody waits for them.
            runtime.block_on(runtime.spawn(tokio::task::yield_now())).expect("nothing panics");
            PerOperation::of((0..times).map(|_| once(*tasks)).sum(), tasks * times).0
        };
        sizes.iter().map(cost).collect()
    };
    let _: Vec<f64> = round();
    (0..rounds).map(|_| round()).collect()
}

fn flat(name: &str, costs: &[Vec<f64>], budget: Budget) -> Row {
    let mut ends: Vec<_> = costs
        .iter()
        .map(|round| {
            let mut round = round.clone();
            round.sort_unstable_by(f64::total_cmp);
            (round[0], round[round.len() - 1])
        })
        .collect();
    let mut ratios: Vec<_> = ends.iter().map(|(low, high)| high / low).collect();
    let ratio = median(&mut ratios);
    ends.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let compared = crate::measure::Compared {
        floor: median(&mut ends.iter().map(|ends| ends.0).collect::<Vec<_>>()),
        ours: median(&mut ends.iter().map(|ends| ends.1).collect::<Vec<_>>()),
        ratio,
        spread: (quantile(&ratios, 0.25), quantile(&ratios, 0.75)),
        rounds: costs.len(),
    };
    Row::compared(name, &compared, budget)
}
