//! Runs that are to begin again: when those do that wait for another attempt, whether flow runs that crashed go on by
//! themselves, and what their attempts called.

use orchestrator_core::StateName::{AwaitingRetry, Cached, Completed, Crashed, Pending, Retrying, Running};
use orchestrator_core::Transition;
use orchestrator_core::backend::record::{Event, RunEvent, RunInfo};
use serde_json::json;

use super::world::{World, at, fetch, flow, flow_id, went};

/// A run of a flow that goes on by itself `budget` times in a row, did so once, and has crashed again.
fn crashed(world: &World, n: u128, name: &str, budget: u32) -> RunInfo {
    // Of a flow of its own: what a crash may cost is known of flows, not of runs.
    let key = if budget == 1 { "etl::once" } else { "etl::often" };
    let run = flow(n, name)
        .declared(|def| (def.name, def.key) = ("etl", key))
        .with_options(|more| more.crash_budget = Some(budget));
    let states = [(Pending, 0), (Running, 10), (Crashed, 1_000), (Running, 2_000), (Crashed, 3_000)];
    world.give(&[went(&run, &states, Some("its process 4711 on machine went away"), 2)]);
    let by_hand = rusqlite::Connection::open(world.database()).expect("open");
    let id = flow_id(n).as_uuid().into_bytes();
    assert_eq!(by_hand.execute("UPDATE flow_run SET resumed = 1 WHERE id = ?1", [id]).expect("update"), 1);
    run
}

#[test]
fn it_is_told_whether_a_run_goes_on_by_itself() {
    let world = World::empty();
    crashed(&world, 1, "merry-wren", 3);
    crashed(&world, 2, "tired-wren", 1);
    let goes_on = "goes on by itself when its program is started, unless its flow was renamed or takes other parameters since: 1 of 3 times in a row are used";
    let used_up = "does not go on by itself any more: its crash_budget of 1 time in a row is used up";
    for (run, on_crash, exhausted, budget) in [("merry-wren", goes_on, false, 3), ("tired-wren", used_up, true, 1)] {
        let shown = world.tell(&["runs", "show", run]);
        assert!(shown.contains(&format!("\n  on crash  {on_crash}\n")), "{shown}");
        let said = format!("flow run '{run}' ended as Crashed: its process 4711 on machine went away; it {on_crash}\n");
        assert_eq!(world.tell(&["runs", "explain", run]), said);
        let json = serde_json::json!({ "used": 1, "budget": budget, "exhausted": exhausted });
        assert_eq!(world.json(&["runs", "show", run])["on_crash"], json);
        assert_eq!(world.json(&["runs", "explain", run])["on_crash"], json);
    }
}

#[test]
fn the_time_until_somebody_found_a_crash_is_not_what_the_run_took() {
    let world = World::empty();
    let hours = 9 * 3_600_000;
    let wren = flow(1, "merry-wren");
    let crashes = |run: &RunInfo, start: i64| {
        went(run, &[(Pending, 0), (Running, start), (Crashed, hours)], Some("its process went away"), 1)
    };
    world.give(&[crashes(&wren, 10), crashes(&fetch(2, &wren, 0), 500), crashes(&fetch(3, &wren, 1), 12_000)]);
    let by_hand = rusqlite::Connection::open(world.database()).expect("open");
    let tell = |heard: i64| {
        let values = [at(heard).as_micros(), at(hours).as_micros()];
        by_hand
            .execute("UPDATE process SET heard = ?1, ended = ?2, why = 'its process went away'", values)
            .expect("update");
    };
    let shown = |run: &str| {
        let duration = world.json(&["runs", "show", run])["duration_secs"].clone();
        (world.tell(&["runs", "show", run]), duration)
    };
    tell(11_510);
    let (text, json) = shown("merry-wren");
    let said = "  last seen  2026-01-31 12:00:12.000\n  ended      2026-01-31 21:00:00.000, when it was found to have crashed\n";
    assert!(text.contains(said) && text.contains("  duration   >= 11.99s\n"), "{text}");
    assert_eq!(json, 11.99);
    let (text, json) = shown("fetch-0");
    assert!(text.contains("  duration   >= 11.01s\n"), "{text}");
    assert_eq!(json, 11.01);
    // Of this one nothing is known after its beginning.
    let (text, json) = shown("fetch-1");
    assert!(!text.contains("duration"), "{text}");
    assert_eq!(json, serde_json::Value::Null);
    assert_eq!(world.json(&["runs", "show", "fetch-1"])["last_seen"], "2026-01-31T12:00:12Z");
    tell(20_010);
    assert!(world.tell(&["runs", "ls"]).trim_end().ends_with("  >= 20s"));
    assert!(
        world.tell(&["runs", "tree", "merry-wren"]).starts_with("merry-wren (flow github-stars)  Crashed  >= 20s ")
    );
    let tasks = world.tell(&["tasks", "ls"]);
    assert!(tasks.contains("  >= 8.01s\n") && tasks.contains("  >= 19.51s\n"), "{tasks}");
}

#[test]
fn it_is_told_when_the_next_attempt_begins() {
    let world = World::empty();
    let run = fetch(2, &flow(1, "merry-wren"), 0);
    world.give(&[went(&run, &[(Pending, 0), (Running, 10)], None, 1)]);
    let waits = Transition {
        message: Some("attempt 1 of 2 failed: no route; the next starts in 1h 30m".into()),
        scheduled: Some(at(5_400_470)),
        ..Transition::new(AwaitingRetry, at(400))
    };
    let transitions = [waits].into_iter().collect();
    world.give(&[Event::Run(RunEvent { run, first_seq: 2, transitions, run_count: 1, cache: None })]);
    let next = "2026-01-31T13:30:00.470Z";
    let shown = world.tell(&["runs", "show", "fetch-0"]);
    assert!(shown.contains("\n  next attempt  2026-01-31 13:30:00.470\n"), "{shown}");
    assert_eq!(world.json(&["runs", "show", "fetch-0"])["state_scheduled_time"], next);
    assert_eq!(world.json(&["tasks", "ls"])[0]["state_scheduled_time"], next);
    let states = world.json(&["runs", "states", "fetch-0"]);
    assert_eq!([0, 1, 2].map(|n| states[n]["scheduled_time"].as_str()), [None, None, Some(next)]);
    // That is over, and what has become of it the store does not tell.
    assert_eq!(world.json(&["runs", "explain", "fetch-0"])["why"], "elsewhere");

    let run = fetch(3, &flow(1, "merry-wren"), 1);
    let waits = Transition { scheduled: Some(at(36_500 * 86_400_000)), ..Transition::new(AwaitingRetry, at(400)) };
    let transitions = [waits].into_iter().collect();
    world.give(&[Event::Run(RunEvent { run, first_seq: 0, transitions, run_count: 1, cache: None })]);
    let why = world.json(&["runs", "explain", "fetch-1"]);
    let next = "2126-01-07T12:00:00Z";
    assert_eq!((&why["why"], &why["at"], &why["attempt"]), (&json!("retry_at"), &json!(next), &json!(2)));
    let sentence =
        "task run 'fetch-1' waits until 2126-01-07 12:00:00 before attempt 2; it belongs to process 4711 on machine";
    assert_eq!(why["sentence"], sentence);
}

#[test]
fn what_earlier_attempts_called_is_folded() {
    let world = World::empty();
    let wren = crashed(&world, 1, "merry-wren", 3);
    let task = |n: u128, index: u32, state, at: i64| went(&fetch(n, &wren, index), &[(Pending, at), state], None, 1);
    let inner = RunInfo { parent: Some(wren.id), flow_run: wren.id.as_flow(), ..flow(6, "inner-wren") };
    let inner_states =
        [(Pending, 2_020), (Running, 2_030), (AwaitingRetry, 2_100), (Retrying, 2_200), (Completed, 2_400)];
    world.give(&[
        task(2, 0, (Completed, 400), 20),
        task(3, 1, (Crashed, 1_000), 30),
        task(4, 0, (Cached, 2_011), 2_010),
        task(5, 1, (Crashed, 3_000), 2_012),
        went(&inner, &inner_states, None, 2),
        went(&fetch(7, &inner, 0), &[(Pending, 2_040), (Running, 2_041), (Completed, 2_050)], None, 1),
        went(&fetch(8, &inner, 1), &[(Pending, 2_240), (Running, 2_241), (Completed, 2_250)], None, 1),
    ]);
    let shown = world.tell(&["runs", "show", "merry-wren"]);
    assert!(shown.contains("of which at least 1s lay between an end and a resume"), "{shown}");
    let tree = world.tell(&["runs", "tree", "merry-wren"]);
    let lines = |tree: &str| tree.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        lines(&tree),
        [
            "merry-wren (flow etl)  Crashed  2.99s  11111111",
            "├─ attempt 1  Crashed  1 Completed, 1 Crashed",
            "├─ fetch-0  Cached  44444444",
            "├─ fetch-1  Crashed  55555555",
            "└─ inner-wren (flow github-stars)  Completed  370ms  66666666",
            "   ├─ attempt 1  1 Completed",
            "   └─ fetch-1  Completed  9ms  88888888",
        ]
    );
    let all = world.tell(&["runs", "tree", "merry-wren", "--all"]);
    assert_eq!(
        lines(&all),
        [
            "merry-wren (flow etl)  Crashed  2.99s  11111111",
            "├─ attempt 1  Crashed  1 Completed, 1 Crashed",
            "│  ├─ fetch-0  Completed  22222222",
            "│  └─ fetch-1  Crashed  33333333",
            "└─ attempt 2  1 Cached, 1 Completed, 1 Crashed",
            "   ├─ fetch-0  Cached  44444444",
            "   ├─ fetch-1  Crashed  55555555",
            "   └─ inner-wren (flow github-stars)  Completed  370ms  66666666",
            "      ├─ attempt 1  1 Completed",
            "      │  └─ fetch-0  Completed  9ms  77777777",
            "      └─ attempt 2  1 Completed",
            "         └─ fetch-1  Completed  9ms  88888888",
        ]
    );
    let json = world.json(&["runs", "tree", "merry-wren"]);
    let attempts: Vec<_> =
        json["children"].as_array().expect("children").iter().map(|run| run["attempt"].clone()).collect();
    assert_eq!(attempts, [1, 1, 2, 2, 2]);
    assert_eq!(json.get("attempt"), None, "nothing called the root");
}

#[test]
fn runs_that_other_runs_called_are_listed_if_wanted() {
    let world = World::new();
    let names = |arguments: &[&str]| {
        let runs = world.json(arguments);
        let names =
            runs.as_array().expect("an array").iter().map(|run| run["name"].as_str().expect("a name").to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&["runs", "ls"]), ["odd\u{1b}[2Jname", "calm-heron", "brave-otter"]);
    assert_eq!(names(&["runs", "ls", "--all"]), ["odd\u{1b}[2Jname", "calm-heron", "quiet-crane", "brave-otter"]);
    let none = world.ask(&["runs", "ls", "--state", "completed"]);
    assert_eq!(none.err, "no flow runs but those that other runs called: see --all\n");
    let as_json = world.ask(&["runs", "ls", "--state", "completed", "--json"]);
    assert_eq!((as_json.code, as_json.out.as_str(), as_json.err), (Some(0), "[]\n", none.err));
    assert_eq!(names(&["runs", "ls", "--state", "completed", "--all"]), ["quiet-crane"]);
}
