//! `run`, `resume`, `runs rerun`, `flows`.

use std::fs;
#[cfg(unix)]
use std::process::Command;

use serde_json::{Value, json};

use super::world::World;
use crate::program::Answer;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a flow is run by its name or its function's, and its result is printed", run_by_name),
    ("the id of the run is told, and is in the history", told),
    ("parameters come from the command line, a file, and standard input", sources),
    ("text is text, and anything else is JSON", typed),
    ("a bad parameter is refused before a run exists", refused),
    ("an unknown flow is not found", unknown),
    ("what is wrong with the database or a variable is told, whoever names it, and nothing is run", misled),
    ("a run that fails ends with 1", fails),
    #[cfg(unix)]
    ("a run whose history is lost ends as it would, with a warning", unrecorded),
    ("a run is resumed under its id, and what it kept is not computed again", resumed),
    ("a run is run again with its parameters", rerun),
    ("the flows are listed with their parameters", listed),
];

fn run_by_name() {
    let world = World::new();
    assert_eq!(world.tell(&["run", "greet", "--param", "name=Ada"]), "hello Ada\n");
    assert_eq!(world.json(&["run", "warm-welcome", "--param", "name=Ada"]), json!("hello Ada"));
    assert_eq!(world.json(&["run", "total", "--param", "numbers=[1, 2, 3]"]), json!({ "count": 3, "sum": 6 }));
    assert_eq!(world.tell(&["run", "total", "--param", "numbers=[]"]), "{\n  \"count\": 0,\n  \"sum\": 0\n}\n");
    assert_eq!((world.tell(&["run", "nothing"]), world.json(&["run", "nothing"])), (String::new(), json!(null)));
    for (more, printed) in [(&[][..], ""), (&["--json"], "null\n")] {
        let answer = world.ask(&[&["run", "opaque"], more].concat());
        assert_eq!((answer.code, answer.out.as_str()), (Some(0), printed), "{}", answer.err);
        assert!(answer.err.contains("the result cannot be written as JSON, and is not shown\n"), "{}", answer.err);
    }
}

fn told() {
    let world = World::new();
    let answer = world.ask(&["run", "total", "--param", "numbers=[5]"]);
    let run = world.newest();
    let id = run["id"].as_str().expect("an id");
    assert!(answer.err.contains(id), "{}", answer.err);
    assert_eq!((&run["state"], &run["parameters"]), (&json!("Completed"), &json!({ "numbers": [5] })));
    let tree = world.json(&["runs", "tree", id]);
    assert_eq!(tree["children"][0]["task_name"], json!("add"));
    let logs = world.json(&["runs", "logs", id]);
    assert_eq!(logs[0]["message"], json!("adding count=1"));
}

fn sources() {
    let world = World::new();
    let file = world.path("parameters.json");
    fs::write(&file, r#"{"name": "Ada", "times": 2}"#).expect("write a file");
    let file = file.to_str().expect("a path");
    assert_eq!(world.tell(&["run", "greet", "--params", file]), "hello Ada, hello Ada\n");
    assert_eq!(world.tell(&["run", "greet", "--params", file, "--param", "times=1"]), "hello Ada\n");
    let answer = world.ask_with(&["run", "greet", "--params", "-"], r#"{"name": "Grace"}"#);
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), "hello Grace\n"), "{}", answer.err);
}

fn typed() {
    let world = World::new();
    for (text, greeted) in [("7", "7"), ("null", "null"), ("\"x\"", "\"x\""), ("a=b", "a=b"), ("", "")] {
        let name = format!("name={text}");
        assert_eq!(world.tell(&["run", "greet", "--param", &name]), format!("hello {greeted}\n"));
    }
    assert_eq!(world.tell(&["run", "greet", "--param", "name=A", "--param", "times=null"]), "hello A\n");
    // An enum is written as text, and so it may be typed.
    assert_eq!(world.tell(&["run", "greet", "--param", "name=A", "--param", "mood=Sad"]), "oh, A\n");
    assert_eq!(world.tell(&["run", "greet", "--param", "name=A", "--param", "mood=\"Sad\""]), "oh, A\n");
}

fn refused() {
    let world = World::new();
    let file = world.path("array.json");
    fs::write(&file, "[1]").expect("write a file");
    let file = file.to_str().expect("a path");
    let written = |name: &str, text: &str| {
        fs::write(world.path(name), text).expect("write a file");
        world.path(name).display().to_string()
    };
    let twice = &*written("twice.json", r#"{"name": "A", "times": 1, "name": "B"}"#);
    let inside = &*written("inside.json", r#"{"name": {"times": 1, "times": 2}}"#);
    for (arguments, said) in [
        (&["--param", "times=many", "--param", "name=A"][..], &["`times`", "\"many\"", "Option<u32>"][..]),
        (&["--param", "times=-1", "--param", "name=A"], &["`times`", "-1", "u32"]),
        (&[], &["`name`", "String", "missing"]),
        (&["--param", "nam=A"], &["`nam`", "name"]),
        (&["--param", "name=A", "--param", "mood=Angry"], &["`mood`", "Angry", "Happy", "Sad"]),
        (&["--param", "name"], &["'name'", "NAME=VALUE"]),
        (&["--param", "name=A", "--param", "name=B"], &["`name`", "twice"]),
        (&["--params", file], &["array.json has an array", "JSON object"]),
        (&["--params", "nowhere.json"], &["nowhere.json"]),
        (&["--params", twice], &["twice.json has `name` twice"]),
        (&["--params", inside], &["inside.json has `times` twice"]),
        (&["--params", "."], &["cannot read the parameters from ."]),
    ] {
        let answer = world.ask(&[&["run", "greet"], arguments].concat());
        assert_eq!((answer.code, answer.out.as_str()), (Some(2), ""), "{arguments:?}: {}", answer.err);
        for part in said {
            assert!(answer.err.contains(part), "{arguments:?}: '{part}' is not in: {}", answer.err);
        }
    }
    let listed = world.ask(&["runs", "ls", "--json"]);
    assert!(listed.code == Some(5) || listed.out == "[]\n", "there is no run: {listed:?}");
}

fn unknown() {
    let answer = World::new().ask(&["run", "gret"]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(4), ""));
    assert!(
        answer.err.contains("there is no flow 'gret'") && answer.err.contains("did you mean 'greet'"),
        "{}",
        answer.err
    );
}

fn misled() {
    let world = World::new();
    fs::write(world.path("other.db"), "not a database at all").expect("write a file");
    let other = format!("sqlite:{}", world.path("other.db").display());
    let run = ["run", "greet", "--param", "name=Ada"];
    let refused = |given: &[&str], variables: &[(&str, &str)], code: i32, said: &str| {
        let answer: Answer =
            world.command(&[given, &run].concat()).envs(variables.iter().copied()).output().expect("run it").into();
        assert_eq!((answer.code, answer.out.as_str()), (Some(code), ""), "{given:?} {variables:?}: {}", answer.err);
        assert!(
            answer.err.starts_with("error: ") && answer.err.contains(said),
            "{given:?} {variables:?}: {}",
            answer.err
        );
    };
    for strict in ["false", "true"] {
        let strict = ("ORCHESTRATOR_STRICT", strict);
        refused(&["--database", "sqlte:x"], &[strict], 2, "'sqlte:x' is not a database URL");
        refused(&[], &[strict, ("ORCHESTRATOR_DATABASE_URL", "sqlte:x")], 2, "ORCHESTRATOR_DATABASE_URL: 'sqlte:x'");
        refused(&["--database", &other], &[strict], 5, "other.db");
        refused(&[], &[strict, ("ORCHESTRATOR_DATABASE_URL", &other)], 5, "other.db");
        refused(&[], &[strict, ("ORCHESTRATOR_RETENTION", "banana")], 2, "ORCHESTRATOR_RETENTION is 'banana'");
        refused(&[], &[strict, ("ORCHESTRATOR_RESULTS", "ftp://x")], 2, "ORCHESTRATOR_RESULTS: 'ftp://x'");
    }
    assert!(!world.database().exists(), "nothing was made");
    let memory = world.command(&run).env("ORCHESTRATOR_DATABASE_URL", "memory").output().expect("run it");
    assert_eq!(String::from_utf8_lossy(&memory.stdout), "hello Ada\n", "that is nothing wrong");
}

fn fails() {
    let world = World::new();
    let folder = format!("folder={}", world.folder().display());
    let answer = world.ask(&["run", "fragile", "--param", &folder]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""), "{}", answer.err);
    assert!(answer.err.contains("error: ") && answer.err.contains("it is not allowed"), "{}", answer.err);
}

/// The same command where no file may become larger than some hundred KiB.
#[cfg(unix)]
fn in_little_room(command: &Command) -> Command {
    let mut limited = Command::new("/bin/sh");
    // The signal would end the program; without it a write fails.
    limited.args(["-c", "trap '' XFSZ && ulimit -f 512 && exec \"$@\"", "sh"]);
    limited.env_clear().arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

#[cfg(unix)]
fn unrecorded() {
    let world = World::new();
    world.tell(&["run", "nothing"]);
    let numbers = vec!["1000000"; 300_000].join(",");
    fs::write(world.path("many.json"), format!("{{\"numbers\": [{numbers}]}}")).expect("write a file");
    let file = world.path("many.json").display().to_string();
    let run = |more: &[&str]| -> Answer {
        let command = world.command(&[&["run", "total", "--params", &file], more].concat());
        in_little_room(&command).output().expect("run it").into()
    };
    let sum = json!({ "count": 300_000, "sum": 300_000_000_000_i64 });
    let told = run(&[]);
    assert_eq!((told.code, serde_json::from_str(&told.out).ok()), (Some(0), Some(sum.clone())), "{}", told.err);
    let said = told.err.lines().find(|line| line.starts_with("warning: ")).unwrap_or_else(|| panic!("{}", told.err));
    assert!(said.starts_with("warning: cannot store ") && said.contains(" events: "), "{said}");
    assert!(told.err.contains("history is being lost: "), "{}", told.err);
    let told = run(&["--json"]);
    assert_eq!((told.code, serde_json::from_str(&told.out).ok()), (Some(0), Some(sum)), "{}", told.err);
    let last: Value = serde_json::from_str(told.err.lines().last().expect("a line")).expect("JSON");
    let said = last["warning"]["message"].as_str().unwrap_or_default();
    assert!(said.starts_with("cannot store ") && said.contains(" events: "), "{last}");
    assert_eq!(world.newest()["flow_name"], json!("nothing"), "the others are not in the history");
}

fn resumed() {
    let world = World::new();
    let folder = format!("folder={}", world.folder().display());
    assert_eq!(world.ask(&["run", "fragile", "--param", &folder]).code, Some(1));
    let failed = world.newest();
    let id = failed["id"].as_str().expect("an id");
    assert_eq!(world.ask(&["resume", "--last"]).code, Some(1), "it fails again");
    fs::write(world.path("allowed"), "").expect("write a file");
    assert_eq!(world.tell(&["resume", &id[24..]]), "7\n");
    let marks = fs::read_to_string(world.path("marks")).expect("the marks");
    assert_eq!(marks, "once\nbreaks\nbreaks\nbreaks\n", "what completed and was kept is not called again");
    let run = world.newest();
    assert_eq!((&run["id"], &run["state"], &run["run_count"]), (&failed["id"], &json!("Completed"), &json!(3)));

    let again = world.ask(&["runs", "resume", id]);
    assert_eq!((again.code, again.out.as_str()), (Some(2), ""), "{}", again.err);
    assert!(again.err.contains("has completed: there is nothing to resume"), "{}", again.err);
    assert_eq!(world.ask(&["resume", "--last"]).code, Some(4), "there is none any more");
    let which = world.ask(&["resume"]);
    assert_eq!(which.code, Some(2));
    assert!(which.err.contains("resume which run? Say its ID, or --last for the newest"), "{}", which.err);
}

fn rerun() {
    let world = World::new();
    world.tell(&["run", "greet", "--param", "name=Ada", "--param", "times=2"]);
    let first = world.newest();
    let name = first["name"].as_str().expect("a name");
    assert_eq!(world.tell(&["runs", "rerun", name]), "hello Ada, hello Ada\n");
    let second = world.newest();
    assert_ne!(first["id"], second["id"]);
    assert_eq!(first["parameters"], second["parameters"]);
}

fn listed() {
    let world = World::new();
    let flows = world.json(&["flows"]);
    let greet = flows.as_array().expect("an array").iter().find(|flow| flow["function"] == "greet").expect("the flow");
    assert_eq!((&greet["name"], &greet["version"]), (&json!("warm-welcome"), &json!("3")));
    assert_eq!(greet["parameters"][0]["name"], json!("name"));
    assert_eq!(greet["parameters"][0]["schema"]["type"], json!("string"));
    assert_eq!(
        (&greet["parameters"][0]["required"], &greet["parameters"][1]["required"]),
        (&json!(true), &json!(false))
    );
    let text = world.tell(&["flows"]);
    let expected = "warm-welcome (pipeline::flows::greet, version 3)\n  Greets somebody.\n  As often as wanted.\n  \
        --param name=<String>\n  --param times=<Option<u32>>  (may be left out)\n";
    assert!(text.contains(expected), "{text}");
    assert!(!world.path("orchestrator.db").exists(), "nothing was made");
}
