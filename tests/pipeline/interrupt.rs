//! Runs that are cancelled, interrupted or killed, and those who look on.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::program::Answer;
use super::world::{World, until};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("Ctrl-C cancels the run in order and ends the program with 130", interrupted),
    ("SIGTERM cancels the run in order and ends the program with 143", terminated),
    ("a signal ends the program though the body of a thread does not stop", deaf),
    ("a signal ends the program though a body that timed out goes on on its thread", outlived),
    ("two signals at once are one request", twice),
    ("a program whose run is cancelled by others ends though the body of a thread does not stop", deaf_to_others),
    ("a program whose flow has ended waits as long as the grace for a body that timed out", late),
    ("an async body that does not yield is named, and a second signal ends the program", spinning),
    ("a run of another process is cancelled, and ends its program with 3", cancelled),
    ("who cancels a run whose process is stopped is told for whom to wait", stopped),
    ("a paused run of another process is let on", paused),
    ("a run whose process was killed has crashed, and is resumed", killed),
    ("a flow that goes on by itself does so when it is run again, and for no other command", going_on),
    ("a run whose machine went away is told from others, and resumed or given up as soon as that is known", unseen),
    ("a limit that is in use is not removed unasked", limit_in_use),
    ("what runs is watched", watched),
];

/// The program, running a flow that does not end.
fn endless(world: &World) -> Child {
    begin(world, "endless")
}

fn begin(world: &World, flow: &str) -> Child {
    let begun = world.path("begun");
    let _ = std::fs::remove_file(&begun);
    let mut command = world.command(&["run", flow, "--param", &format!("begun={}", begun.display())]);
    command.env("ORCHESTRATOR_CANCEL_GRACE_SECS", "0.2");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the program");
    until(|| begun.exists());
    child
}

fn signal(child: &Child, name: &str) {
    let status = std::process::Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(status.expect("kill").success());
}

fn end(child: Child) -> Answer {
    child.wait_with_output().expect("the program ends").into()
}

fn interrupted() {
    let world = World::new();
    let child = endless(&world);
    signal(&child, "INT");
    let answer = end(child);
    assert_eq!((answer.code, answer.out.as_str()), (Some(130), ""), "{}", answer.err);
    assert_eq!(world.newest()["state"], json!("Cancelled"));
}

fn terminated() {
    let world = World::new();
    let child = endless(&world);
    signal(&child, "TERM");
    assert_eq!(end(child).code, Some(143));
    assert_eq!(world.newest()["state"], json!("Cancelled"));
}

fn deaf() {
    ends_without("deaf", "sleeps-0", &["Cancelled"]);
}

fn outlived() {
    ends_without("outlived", "oversleeps-0", &["Cancelled", "TimedOut"]);
}

/// A signal ends a program though that body does not stop, and the states of the task runs, the newest first, are stored.
fn ends_without(program: &str, body: &str, states: &[&str]) {
    let world = World::new();
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let child = begin(&world, program);
        signal(&child, name);
        let answer = end(child);
        assert_eq!((answer.code, answer.out.as_str()), (Some(code), ""), "{}", answer.err);
        let said = format!("warning: ending without the bodies that did not stop: those of '{body}'\n");
        assert!(answer.err.ends_with(&said), "{}", answer.err);
        assert_eq!(world.newest()["state"], json!("Cancelled"));
        let tasks = world.json(&["tasks", "ls", "--limit", &states.len().to_string()]);
        for (place, state) in states.iter().enumerate() {
            assert_eq!(tasks[place]["state"], json!(state), "it is stored");
        }
    }
}

/// As `timeout` of GNU coreutils sends them.
fn twice() {
    let world = World::new();
    let child = begin(&world, "deaf");
    let twice = format!("kill -s TERM {0}; sleep 0.005; kill -s TERM {0}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &twice]).status().expect("sh").success());
    assert_eq!(end(child).code, Some(143));
    assert_eq!(world.newest()["state"], json!("Cancelled"), "it is stored");
}

fn deaf_to_others() {
    let world = World::new();
    let child = begin(&world, "deaf");
    until(|| world.newest()["state"] == json!("Running"));
    let name = world.newest()["name"].as_str().expect("a name").to_owned();
    assert_eq!(world.json(&["runs", "cancel", &name])[0]["state"], json!("Cancelled"));
    let answer = end(child);
    assert_eq!((answer.code, answer.out.as_str()), (Some(3), ""), "{}", answer.err);
    let said = "warning: ending without the bodies that did not stop: those of 'sleeps-0'\n";
    assert!(answer.err.ends_with(said), "{}", answer.err);
}

fn late() {
    let world = World::new();
    let mut command = world.command(&["run", "late"]);
    command.env("ORCHESTRATOR_CANCEL_GRACE_SECS", "0.2");
    let answer: Answer = command.output().expect("run the program").into();
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), "7\n"), "{}", answer.err);
    let said = "waiting up to 200ms for the bodies that go on after their time: those of 'oversleeps-0'\n\
                warning: ending without the bodies that did not stop: those of 'oversleeps-0'\n";
    assert!(answer.err.ends_with(said), "{}", answer.err);
    assert_eq!(world.newest()["state"], json!("Completed"));
    // Nobody reads the result.
    let mut command = world.command(&["run", "late"]);
    command.env("ORCHESTRATOR_CANCEL_GRACE_SECS", "0.2").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run the program");
    drop(child.stdout.take());
    let answer = end(child);
    assert!(answer.code == Some(0) && answer.err.ends_with(said), "{}", answer.err);
}

fn spinning() {
    let world = World::new();
    let mut child = begin(&world, "spinning");
    signal(&child, "TERM");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map(|line| line.expect("a line"));
    let said = "'spins-0' was cancelled 200ms ago, and has not stopped since";
    assert!(lines.any(|line| line.contains(said)));
    signal(&child, "TERM");
    assert_eq!(end(child).code, Some(143));
}

fn cancelled() {
    let world = World::new();
    let child = endless(&world);
    until(|| world.newest()["state"] == json!("Running"));
    let name = world.newest()["name"].as_str().expect("a name").to_owned();
    let ended = world.json(&["runs", "cancel", &name]);
    assert_eq!((ended[0]["name"].as_str(), &ended[0]["state"]), (Some(&*name), &json!("Cancelled")));
    let answer = end(child);
    assert_eq!((answer.code, answer.out.as_str()), (Some(3), ""), "{}", answer.err);
    let again = world.ask(&["runs", "cancel", &name]);
    assert_eq!(again.code, Some(2));
    assert_eq!(again.err, format!("error: flow run '{name}' is not active: it has ended as Cancelled\n"));
}

fn stopped() {
    let world = World::new();
    let child = endless(&world);
    until(|| world.newest()["state"] == json!("Running"));
    let name = world.newest()["name"].as_str().expect("a name").to_owned();
    signal(&child, "STOP");
    let mut cancel = world.command(&["runs", "cancel", &name]);
    let mut cancel = cancel.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the program");
    let mut said = BufReader::new(cancel.stderr.take().expect("a pipe")).lines();
    let said = said.next().expect("it says something").expect("a line");
    let begins = format!("waiting until flow run '{name}' has ended; it belongs to process {} on ", child.id());
    assert!(said.starts_with(&begins), "{said}");
    assert!(said.contains(", which is stopped and counts as gone if it does not go on until "), "{said}");
    signal(&child, "CONT");
    let answer = end(cancel);
    assert_eq!((answer.code, answer.out), (Some(0), format!("flow run '{name}' has ended as Cancelled\n")));
    assert_eq!(end(child).code, Some(3));
}

fn paused() {
    let world = World::new();
    let mut command = world.command(&["run", "approval"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the program");
    until(|| world.newest()["state"] == json!("Paused"));
    let name = world.newest()["name"].as_str().expect("a name").to_owned();
    for (input, said) in [
        ("yes", "--input was given 'yes': expected JSON"),
        ("7", "does not go on with 7: invalid type: integer `7`, expected a string"),
    ] {
        let answer = world.ask(&["runs", "resume", &name, "--input", input]);
        assert_eq!((answer.code, answer.out.as_str()), (Some(2), ""), "{}", answer.err);
        assert!(answer.err.contains(said), "{}", answer.err);
    }
    let input = ["runs", "resume", &name, "--input", "\"yes\""];
    assert_eq!(world.tell(&input), format!("flow run '{name}' goes on\n"));
    let answer = end(child);
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), "yes\n"), "{}", answer.err);
    let answer = world.ask(&input);
    assert_eq!(answer.code, Some(2));
    assert!(answer.err.contains("is Completed: only one that is Paused takes --input"), "{}", answer.err);
}

fn killed() {
    let world = World::new();
    let child = endless(&world);
    until(|| world.newest()["state"] == json!("Running"));
    signal(&child, "KILL");
    end(child);
    until(|| world.newest()["state"] == json!("Crashed"));
    assert_eq!(world.json(&["tasks", "ls"])[0]["state"], json!("Crashed"));
    assert_eq!(world.json(&["db", "check"]), json!([]));
}

fn going_on() {
    let world = World::new();
    let begun = world.path("begun");
    let parameter = format!("begun={}", begun.display());
    let command = ["run", "patient", "--param", &parameter];
    let child = world.command(&command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the program");
    until(|| begun.exists() && world.newest()["state"] == json!("Running"));
    signal(&child, "KILL");
    end(child);
    until(|| world.newest()["state"] == json!("Crashed"));
    let states = |world: &World| world.json(&["runs", "states", world.newest()["id"].as_str().expect("an id")]);
    let before = states(&world);
    // One that is refused, and one of another flow: neither stirs what crashed.
    assert_eq!(world.ask(&["run", "patient", "--param", "begun=7", "--param", "n=1"]).code, Some(2));
    world.tell(&["run", "nothing"]);
    let crashed = world.json(&["runs", "ls", "--state", "crashed"]);
    assert_eq!(crashed.as_array().map(Vec::len), Some(1));
    let id = crashed[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(world.json(&["runs", "states", &id]), before);
    std::fs::write(world.path("go"), "").expect("write a file");
    world.tell(&command);
    assert_eq!(world.json(&["runs", "show", &id])["state"], json!("Completed"));
    assert_eq!(world.json(&["runs", "ls"]).as_array().map(Vec::len), Some(2), "the call was that run");
}

/// A world in which a run had begun on another machine, which nobody has heard of for a while; gives its name and id.
fn silent() -> (World, String, String) {
    let world = World::new();
    let begun = world.path("begun");
    let mut command = world.command(&["run", "patient", "--param", &format!("begun={}", begun.display())]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the program");
    until(|| begun.exists() && world.newest()["state"] == json!("Running"));
    let newest = world.newest();
    signal(&child, "KILL");
    end(child);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    let seconds = |ago: u64| i64::try_from((now - ago) * 1_000_000).expect("a time");
    let update = "UPDATE process SET host = 'elsewhere', heard = ?1, lease_until = ?2 WHERE ended IS NULL";
    let by_hand = rusqlite::Connection::open(world.database()).expect("open the database");
    assert_eq!(by_hand.execute(update, [seconds(90), seconds(60)]).expect("update"), 1);
    let text = |of: &str| newest[of].as_str().expect("a text").to_owned();
    (world, text("name"), text("id"))
}

fn unseen() {
    let (world, name, _) = silent();
    let mut cancel = world.command(&["runs", "cancel", &name]);
    let cancel = cancel.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the program");

    let (other, other_name, id) = silent();
    let listed = other.ask(&["runs", "ls"]);
    assert!(listed.err.starts_with(&format!("'{other_name}' is Running in process ")), "{}", listed.err);
    let said = " on elsewhere, which has not been heard of since ";
    assert!(listed.err.contains(said) && listed.err.contains("(its lease is over since "), "{}", listed.err);
    let shown = other.tell(&["runs", "show", &id]);
    assert!(shown.contains("its process has not been heard of since "), "{shown}");
    let explained = other.tell(&["runs", "explain", &id]);
    assert!(explained.contains(said), "{explained}");
    for silent in [&other.json(&["runs", "ls"])[0]["silent"], &other.json(&["runs", "show", &id])["silent"]] {
        assert!(silent["heard"].is_string() && silent["lease_over"].is_string(), "{silent}");
    }
    assert!(other.json(&["runs", "explain", &id])["lease_over"].is_string());
    std::fs::write(other.path("go"), "").expect("write a file");
    let resumed = other.ask(&["resume", "--last"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.err);
    assert!(resumed.err.contains(said) && resumed.err.contains("Waiting to know whether that is gone"), "{resumed:?}");
    assert_eq!(other.json(&["runs", "show", &id])["state"], json!("Completed"));
    assert_eq!(other.json(&["runs", "ls"]).as_array().map(Vec::len), Some(1));

    let answer = end(cancel);
    assert_eq!((answer.code, answer.out.as_str()), (Some(2), ""), "{}", answer.err);
    assert!(answer.err.contains(said) && answer.err.contains("Whether that is gone is known in "), "{}", answer.err);
    let over = format!("flow run '{name}' is not active: it has ended as Crashed: its process ");
    assert!(answer.err.contains(&over), "{}", answer.err);
}

fn limit_in_use() {
    let world = World::new();
    world.tell(&["limits", "set", "db", "1"]);
    let begun = world.path("begun");
    let mut command = world.command(&["run", "holding", "--param", &format!("begun={}", begun.display())]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the program");
    until(|| begun.exists());
    let answer = world.ask(&["limits", "rm", "db"]);
    assert_eq!(answer.code, Some(2));
    assert!(
        answer.err.contains("limit 'db' is in use: 1 of its slots are held, and 0 requests wait"),
        "{}",
        answer.err
    );
    world.tell(&["limits", "rm", "db", "--yes"]);
    signal(&child, "INT");
    end(child);
}

fn watched() {
    let world = World::new();
    world.tell(&["limits", "set", "db", "2"]);
    let child = endless(&world);
    let mut watcher = world.command(&["watch", "--json"]).stdout(Stdio::piped()).spawn().expect("run the program");
    let mut lines = BufReader::new(watcher.stdout.take().expect("a pipe")).lines();
    let mut until_seen = |is_so: &dyn Fn(&Value) -> bool| {
        let seen = lines.by_ref().map(|line| line.expect("a line"));
        let mut seen = seen.map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
        seen.find(is_so).expect("it is seen")
    };
    let seen = until_seen(&|now| now["flow_runs"][0]["task_runs"]["Running"] == json!(1));
    assert_eq!(seen["flow_runs"][0]["flow_name"], json!("endless"));
    assert_eq!(seen["limits"][0]["name"], json!("db"));
    signal(&child, "INT");
    end(child);
    until_seen(&|now| now["flow_runs"] == json!([]));
    // Not an interrupt, which a program that was started in the background may have been told to ignore.
    signal(&watcher, "TERM");
    watcher.wait().expect("the program ends");
}
