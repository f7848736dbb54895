//! `runs logs --follow`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use orchestrator_core::StateName::{Completed, Pending, Running};
use orchestrator_core::backend::record::Event;

use super::world::{World, fetch, flow, said, went};

#[test]
fn lines_come_as_they_are_stored_until_the_run_ends() {
    let world = World::new();
    let (heron, inside) = (flow(7, "calm-heron"), fetch(9, &flow(7, "calm-heron"), 0));
    world.give(&[went(&inside, &[(Pending, 61_000)], None, 0), said(&heron, 61_000, "INFO", "begun")]);
    let mut child = world
        .command(&["runs", "logs", "calm-heron", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("run the program");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().map(|line| line.expect("a line"));
    assert_eq!(next().as_deref(), Some("2026-01-31 12:01:01.000 INFO  calm-heron: begun"));
    world.give(&[said(&inside, 62_000, "WARN", "slow")]);
    assert_eq!(next().as_deref(), Some("2026-01-31 12:01:02.000 WARN  fetch-0: slow"));
    let mut last = went(&heron, &[(Pending, 60_000), (Running, 60_001), (Completed, 63_000)], None, 1);
    if let Event::Run(event) = &mut last {
        event.first_seq = 2;
        event.transitions = event.transitions.iter().skip(2).collect();
    }
    world.give(&[said(&heron, 62_900, "INFO", "done"), last]);
    assert_eq!(next().as_deref(), Some("2026-01-31 12:01:02.900 INFO  calm-heron: done"));
    assert_eq!(next(), None);
    assert!(child.wait().expect("it ends").success());
}
