//! Lists as JSON, and the things that transcripts cannot show.

use std::process::Stdio;

use orchestrator_core::StateName;
use orchestrator_core::backend::record::RunInfo;
use serde_json::json;

use super::program::Answer;
use super::world::{World, fetch, flow, flow_id, task_id, went};

#[test]
fn lists_are_arrays_even_if_they_are_empty() {
    let world = World::new();
    for command in [&["runs", "ls", "--flow", "x"][..], &["tasks", "ls", "--name", "x"], &["limits", "ls"]] {
        assert_eq!(world.json(command), json!([]), "{command:?}");
    }
    assert_eq!(world.json(&["cache", "ls", "--task", "x"]), json!([]));
    let ids: Vec<_> = world
        .json(&["runs", "ls", "--all"])
        .as_array()
        .expect("an array")
        .iter()
        .map(|run| run["id"].clone())
        .collect();
    assert_eq!(ids, [8, 7, 5, 1].map(|n| json!(flow_id(n).to_string())), "newest first");
    assert_eq!(world.json(&["tasks", "ls", "--limit", "1"])[0]["id"], json!(task_id(6).to_string()));
}

#[test]
fn what_is_old_is_removed_on_demand() {
    let world = World::new();
    let ids = |arguments: &[&str]| world.json(arguments).as_array().expect("an array").len();
    assert_eq!((ids(&["runs", "ls", "--all"]), ids(&["tasks", "ls"])), (4, 4));
    let found = world.json(&["db", "prune", "--older-than", "1d", "--dry-run"]);
    assert_eq!(found, json!({ "flow_runs": 2, "task_runs": 4, "cached": 1, "dry_run": true, "policy": "1d" }));
    assert_eq!((ids(&["runs", "ls", "--all"]), ids(&["tasks", "ls"])), (4, 4), "nothing was removed");
    let removed = world.json(&["db", "prune"]);
    assert_eq!(removed, json!({ "flow_runs": 2, "task_runs": 4, "cached": 1, "dry_run": false, "policy": "30d" }));
    assert_eq!((ids(&["runs", "ls", "--all"]), ids(&["tasks", "ls"])), (2, 0), "what has not ended stays");
    assert_eq!(world.tell(&["db", "check"]), "nothing is wrong\n");
    let mut keeps_all = world.command(&["db", "prune"]);
    let refused: Answer = keeps_all.env("ORCHESTRATOR_RETENTION", "off").output().expect("run the program").into();
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("the policy in force keeps everything"), "{refused:?}");
}

#[test]
fn the_policy_in_force_and_the_size_of_results_are_told() {
    let world = World::new();
    std::fs::create_dir_all(world.path("results/a")).expect("a folder");
    for (name, bytes) in [("results/a/one", 1000), ("results/a/two", 24)] {
        std::fs::write(world.path(name), vec![0; bytes]).expect("an object");
    }
    let mut command = world.command(&["db", "info", "--json"]);
    let output = command.env("ORCHESTRATOR_RETENTION", "1 week,100 runs").output().expect("run the program");
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&info["retention"], &info["last_pruned"]), (&json!("7d,100 runs"), &json!(null)));
    assert_eq!((&info["results"]["objects"], &info["results"]["bytes"]), (&json!(2), &json!(1024)));
    let told = world.tell(&["db", "info"]);
    let folder = world.path("results").display().to_string();
    assert!(told.contains(&format!("  large results  1.00 KiB in 2 objects, {folder}\n")), "{told}");
    assert!(told.contains("  retention      30d\n"), "{told}");
}

#[test]
fn a_run_that_goes_on_has_taken_some_time_already() {
    let world = World::new();
    let run = world.json(&["runs", "show", "calm-heron"]);
    assert!(run["duration_secs"].as_f64().expect("a number") > 1e6, "{run}");
    assert_eq!(run["end_time"], json!(null));
}

#[test]
fn of_very_many_runs_that_are_waited_for_the_first_are_named() {
    let world = World::empty();
    let pending = [(StateName::Pending, 0)];
    let outer = flow(1, "merry-wren");
    let parts: Vec<_> = (0..12).map(|n| fetch(10 + u128::from(n), &outer, n)).collect();
    let done = [(StateName::Pending, 0), (StateName::Completed, 5)];
    world.give(
        &parts.iter().map(|run| went(run, if run.index < 1 { &done } else { &pending }, None, 0)).collect::<Vec<_>>(),
    );
    let total =
        RunInfo { upstream: parts.iter().map(|run| run.id).collect::<Vec<_>>().into(), ..fetch(30, &outer, 12) };
    world.give(&[went(&total, &pending, None, 0)]);
    let why = world.json(&["runs", "explain", "fetch-12"]);
    let names: Vec<_> = why["runs"].as_array().expect("runs").iter().map(|run| run["name"].clone()).collect();
    assert_eq!(names, (1..=10).map(|n| json!(format!("fetch-{n}"))).collect::<Vec<_>>());
    assert_eq!((&why["why"], &why["runs_count"]), (&json!("upstream"), &json!(11)));
    let sentence = why["sentence"].as_str().expect("a sentence");
    let begins =
        "task run 'fetch-12' waits for 'fetch-1' (Pending), 'fetch-2' (Pending), 'fetch-3' (Pending) and 8 more";
    assert!(sentence.starts_with(begins), "{sentence}");
}

#[test]
fn the_tasks_of_a_flow_run_are_told_by_what_they_wait_for() {
    use StateName::{AwaitingConcurrencySlot, AwaitingRetry, Pending, Running};
    let world = World::empty();
    let outer = flow(1, "merry-wren");
    let run = |n: u32| fetch(10 + u128::from(n), &outer, n);
    let after = |n: u32| RunInfo { upstream: [run(0).id].into(), ..run(n) };
    let mut events = vec![
        went(&outer, &[(Pending, 0), (Running, 1)], None, 1),
        went(&run(0), &[(Pending, 2), (Running, 3)], None, 1),
        went(&run(1), &[(Pending, 2), (AwaitingRetry, 4)], Some("no route"), 1),
    ];
    events.extend((2..5).map(|n| went(&after(n), &[(Pending, 2)], None, 0)));
    let said = "waits for 2 slots of limit 'db' (3 of 3 taken)";
    events.extend((5..260).map(|n| went(&run(n), &[(Pending, 2), (AwaitingConcurrencySlot, 5)], Some(said), 0)));
    world.give(&events);
    world.tell(&["limits", "set", "db", "3"]);
    let told = world.json(&["runs", "explain", "merry-wren"]);
    let tasks = &told["tasks"];
    assert_eq!((&tasks["running"], &tasks["waiting"]), (&json!(1), &json!(259)));
    let reasons: Vec<_> = tasks["reasons"].as_array().expect("reasons").iter().collect();
    let brief = |reason: &serde_json::Value| {
        json!([reason["why"], reason["count"], reason["example"]["name"], reason["example"]["state"]])
    };
    let brief: Vec<_> = reasons.iter().map(|reason| brief(reason)).collect();
    assert_eq!(
        brief,
        [
            // The newest hundred are looked at.
            json!(["slots", 100, "fetch-160", "AwaitingConcurrencySlot"]),
            json!(["upstream", 3, "fetch-2", "Pending"]),
            json!(["elsewhere", 1, "fetch-1", "AwaitingRetry"]),
        ]
    );
    let limit = &reasons[0]["limits"][0];
    assert_eq!((&limit["limit"], &limit["wanted"], &limit["slots"]), (&json!("db"), &json!(2), &json!(3)));
    assert_eq!(reasons[1]["runs"][0]["name"], json!("fetch-0"));
    let sentence = world.tell(&["runs", "explain", "merry-wren"]);
    let begins =
        ". 1 of its task runs is running, and 259 wait: 100 like 'fetch-160', which waits for 2 slots of limit 'db'";
    assert!(sentence.contains(begins) && sentence.ends_with("; 155 more\n"), "{sentence}");
}

#[test]
fn foreign_text_does_not_reach_the_terminal_as_it_is() {
    let world = World::new();
    for command in [&["runs", "ls"][..], &["runs", "show", "88888888"], &["runs", "logs", "fetch-1"]] {
        let text = world.tell(command);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
    assert!(world.tell(&["runs", "ls"]).contains("odd\\x1b[2Jname"));
    assert_eq!(world.json(&["runs", "show", "88888888"])["name"], json!("odd\u{1b}[2Jname"), "JSON has it as it is");
}

#[test]
fn colours_are_for_terminals_and_for_those_who_force_them() {
    let world = World::new();
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = world.command(&["runs", "ls"]);
        let output =
            command.envs(variables.iter().copied()).stderr(Stdio::inherit()).output().expect("run the program");
        String::from_utf8(output.stdout).expect("UTF-8").contains("\u{1b}[31mFailed")
    };
    assert!(!coloured(&[]), "a pipe is no terminal");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
}

#[test]
fn a_state_is_asked_for_by_its_type_or_by_its_name_alone() {
    let world = World::empty();
    let flow = flow(1, "calm-heron");
    let ended = |n, state| went(&fetch(n, &flow, 0), &[(StateName::Pending, 2_000), (state, 2_300)], None, 1);
    world.give(&[ended(2, StateName::Cached), ended(3, StateName::Completed)]);
    let listed = |state: &str| -> Vec<String> {
        let runs = world.json(&["tasks", "ls", "--state", state]);
        let runs = runs.as_array().expect("a list").iter();
        runs.map(|run| run["state"].as_str().expect("a name").to_owned()).collect()
    };
    for (asked, mut found) in [
        ("completed", vec!["Completed", "Cached"]),
        ("Completed", vec!["Completed", "Cached"]),
        ("name:completed", vec!["Completed"]),
        ("NAME:Completed", vec!["Completed"]),
        ("cACHED", vec!["Cached"]),
        ("name:running", vec![]),
    ] {
        let mut listed = listed(asked);
        listed.sort();
        found.sort_unstable();
        assert_eq!(listed, found, "{asked}");
    }
    let answer = world.ask(&["tasks", "ls", "--state", "name:cached"]);
    assert!(answer.code == Some(2) && answer.err.contains("Cached"), "{}", answer.err);
}

#[test]
fn a_script_for_every_shell() {
    let world = World::empty();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = world.tell(&["completions", shell]);
        assert!(script.contains("orchestrator") && script.contains("explain"), "{shell}: {script}");
    }
}
