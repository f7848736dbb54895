//! What runs, as it is seen: `runs logs --follow`, `watch`, and `runs explain` of flows that wait for others.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use orchestrator_core::StateName::{AwaitingConcurrencySlot, Completed, Pending, Running};
use orchestrator_core::backend::record::{Event, RunInfo};
use serde_json::{Value, json};

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

/// A flow run that waits for two others, one of which has a task run that waits.
fn with_subflows() -> World {
    let world = World::empty();
    let month = flow(1, "month-end");
    let inside = |n, name| RunInfo { parent: Some(month.id), flow_run: month.id.as_flow(), ..flow(n, name) };
    let (first, second) = (inside(2, "first-bill"), inside(3, "second-bill"));
    let charge = fetch(4, &first, 0);
    let running = |run: &RunInfo, at| went(run, &[(Pending, at), (Running, at + 1)], None, 1);
    world.give(&[
        running(&month, 0),
        running(&first, 10),
        running(&second, 20),
        went(&charge, &[(Pending, 30), (AwaitingConcurrencySlot, 31)], Some("waits for a slot of limit 'x'"), 0),
    ]);
    world
}

#[test]
fn a_flow_that_waits_for_subflows_is_explained_by_them() {
    let world = with_subflows();
    let said = world.tell(&["runs", "explain", "month-end"]);
    let subflows = "2 of its subflows have not ended, such as 'first-bill', which has been running attempt 1 since";
    assert!(said.contains(subflows) && said.contains("(1 of its task runs waits: 'fetch-0', which"), "{said}");
    let told = world.json(&["runs", "explain", "month-end"]);
    assert_eq!((&told["why"], &told["tasks"]), (&json!("running"), &Value::Null));
    let flows = &told["flows"];
    assert_eq!(
        (&flows["count"], &flows["example"]["name"], &flows["why"]),
        (&json!(2), &json!("first-bill"), &json!("running"))
    );
    assert_eq!((&flows["tasks"]["waiting"], &flows["flows"]), (&json!(1), &Value::Null));
}

#[test]
fn a_flow_that_waits_for_subflows_is_watched_with_their_number() {
    let world = with_subflows();
    let first_lines = |arguments: &[&str], count| {
        let mut child = world.command(arguments).stdout(Stdio::piped()).spawn().expect("run the program");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let lines: Vec<_> = lines.take(count).map(|line| line.expect("a line")).collect();
        child.kill().expect("it goes on until it is stopped");
        child.wait().expect("it ends");
        lines
    };
    let lines = first_lines(&["watch"], 3);
    assert!(lines[0].ends_with("month-end (github-stars) Running: 2 subflows go on"), "{lines:?}");
    assert!(lines[1].ends_with("first-bill (github-stars) Running: 1 AwaitingConcurrencySlot"), "{lines:?}");
    assert!(lines[2].ends_with("second-bill (github-stars) Running: no task runs yet"), "{lines:?}");
    let seen: Value = serde_json::from_str(&first_lines(&["watch", "--json"], 1)[0]).expect("JSON");
    let subflows = seen["flow_runs"].as_array().expect("a list").iter().map(|run| run["subflows"].clone());
    assert_eq!(subflows.collect::<Vec<_>>(), [json!(2), json!(0), json!(0)]);
}
