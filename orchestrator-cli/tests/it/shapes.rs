//! Lists as JSON, and the things that transcripts cannot show.

use std::process::Stdio;

use serde_json::json;

use super::world::{World, flow_id, task_id};

#[test]
fn lists_are_arrays_even_if_they_are_empty() {
    let world = World::new();
    for command in [&["runs", "ls", "--flow", "x"][..], &["tasks", "ls", "--name", "x"], &["limits", "ls"]] {
        assert_eq!(world.json(command), json!([]), "{command:?}");
    }
    assert_eq!(world.json(&["cache", "ls", "--task", "x"]), json!([]));
    let ids: Vec<_> =
        world.json(&["runs", "ls"]).as_array().expect("an array").iter().map(|run| run["id"].clone()).collect();
    assert_eq!(ids, [8, 7, 5, 1].map(|n| json!(flow_id(n).to_string())), "newest first");
    assert_eq!(world.json(&["tasks", "ls", "--limit", "1"])[0]["id"], json!(task_id(6).to_string()));
}

#[test]
fn a_run_that_goes_on_has_taken_some_time_already() {
    let world = World::new();
    let run = world.json(&["runs", "show", "calm-heron"]);
    assert!(run["duration_secs"].as_f64().expect("a number") > 1e6, "{run}");
    assert_eq!(run["end_time"], json!(null));
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
fn a_script_for_every_shell() {
    let world = World::empty();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = world.tell(&["completions", shell]);
        assert!(script.contains("orchestrator") && script.contains("explain"), "{shell}: {script}");
    }
}
