//! What the program has of `orchestrator`.

use serde_json::json;

use super::world::World;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("the program looks at its history as orchestrator does", looks),
    ("the help bears the name of the program", help),
    ("limits are set before there is any run", limits),
    ("cached results are listed and removed", cache),
    ("runs are removed", removed),
    ("the database is looked after", database),
    ("the database may be named on the command line", named),
];

fn looks() {
    let world = World::new();
    world.tell(&["run", "total", "--param", "numbers=[1]"]);
    let (run, tasks) = (world.newest(), world.json(&["tasks", "ls"]));
    assert_eq!((run["flow_name"].clone(), tasks[0]["task_name"].clone()), (json!("total"), json!("add")));
    let states = world.json(&["runs", "states", run["id"].as_str().expect("an id")]);
    let names: Vec<_> = states.as_array().expect("an array").iter().map(|state| state["state"].clone()).collect();
    assert_eq!(names, ["Pending", "Running", "Completed"]);
    let answer = world.ask(&["runs", "ls", "--json"]);
    assert_eq!(answer.err, "", "nothing is said of the program itself");
}

fn help() {
    let world = World::new();
    let help = world.tell(&["run", "--help"]);
    assert!(help.contains(" run github-stars --param") && !help.contains("{name}"), "{help}");
    let all = world.tell(&["--help"]);
    for command in ["run", "resume", "flows", "runs", "tasks", "limits", "cache", "db", "watch", "completions"] {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not in: {all}");
    }
    assert_eq!(world.ask(&[]).code, Some(2));
}

fn limits() {
    let world = World::new();
    assert_eq!(world.tell(&["limits", "set", "db", "4"]), "limit 'db' has 4 slots\n");
    world.tell(&["limits", "set", "api", "10", "--decay", "2.5"]);
    world.tell(&["limits", "set", "off", "1", "--inactive"]);
    let listed = world.json(&["limits", "ls"]);
    let expected = json!([
        { "name": "api", "slots": 10, "held": 0, "waiting": 0, "decay": 2.5, "active": true },
        { "name": "db", "slots": 4, "held": 0, "waiting": 0, "decay": null, "active": true },
        { "name": "off", "slots": 1, "held": 0, "waiting": 0, "decay": null, "active": false },
    ]);
    assert_eq!(listed, expected);
    assert_eq!(world.json(&["limits", "rm", "api"]), json!({ "removed": 1 }));
    let answer = world.ask(&["limits", "rm", "api"]);
    assert_eq!(answer.code, Some(4));
    assert_eq!(answer.err, "error: there is no limit 'api': known are db, off\n");
    assert_eq!(world.ask(&["limits", "set", "x", "1", "--decay", "-1"]).code, Some(2));
}

fn cache() {
    let world = World::new();
    world.tell(&["run", "cached", "--param", "n=3"]);
    world.tell(&["run", "cached", "--param", "n=4"]);
    let listed = world.json(&["cache", "ls"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert_eq!(listed[0]["task_key"], json!("pipeline::flows::square"));
    let key = listed[0]["key"].as_str().expect("a key");
    assert_eq!(world.tell(&["cache", "rm", &key[..12]]), "1 cached result removed\n");
    assert_eq!(world.ask(&["cache", "rm", key]).code, Some(4));
    assert_eq!(world.json(&["cache", "clear", "--yes", "--task", "pipeline::flows::square"]), json!({ "removed": 1 }));
    let runs = |world: &World| world.json(&["tasks", "ls", "--name", "square", "--state", "completed"]);
    world.tell(&["run", "cached", "--param", "n=3"]);
    assert_eq!(runs(&world)[0]["state"], json!("Completed"), "it was computed again");
}

fn removed() {
    let world = World::new();
    for n in 0..3 {
        world.tell(&["run", "total", "--param", &format!("numbers=[{n}]")]);
    }
    let id = world.newest()["id"].as_str().expect("an id").to_owned();
    let refused = world.ask(&["runs", "rm", &id]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""));
    assert!(refused.err.contains("say --yes"), "{}", refused.err);
    assert_eq!(world.tell(&["runs", "rm", &id, "--yes"]), "removed 1 flow run and 1 task run\n");
    assert_eq!(world.ask(&["runs", "show", &id]).code, Some(4));
    assert_eq!(
        world.json(&["runs", "rm", "--older-than", "1h", "--yes"]),
        json!({ "flow_runs": 0, "task_runs": 0, "left": 0 })
    );
    let removed = world.json(&["runs", "rm", "--older-than", "0s", "--state", "completed", "--yes"]);
    assert_eq!(removed, json!({ "flow_runs": 2, "task_runs": 2, "left": 0 }));
    assert_eq!(world.json(&["runs", "ls"]), json!([]));
}

fn database() {
    let world = World::new();
    world.tell(&["run", "total", "--param", "numbers=[1]"]);
    let info = world.json(&["db", "info"]);
    assert_eq!((&info["flow_runs"], &info["task_runs"]), (&json!(1), &json!(1)));
    assert!(info["file_bytes"].as_u64().expect("a size") > 0);
    assert!(world.tell(&["db", "info"]).contains("task_run"));
    assert!(world.tell(&["db", "migrate"]).contains("which is the present one"));
    assert_eq!(
        (world.tell(&["db", "check"]), world.json(&["db", "check"])),
        ("nothing is wrong\n".to_owned(), json!([]))
    );
    assert!(world.json(&["db", "compact"])["bytes_after"].as_u64().expect("a size") > 0);
    assert_eq!(World::new().ask(&["db", "info"]).code, Some(5));
}

fn named() {
    let world = World::new();
    let url = format!("sqlite:{}", world.path("elsewhere.db").display());
    assert_eq!(world.tell(&["--database", &url, "run", "greet", "--param", "name=A"]), "hello A\n");
    assert_eq!(world.json(&["--database", &url, "runs", "ls"]).as_array().map(Vec::len), Some(1));
    assert_eq!(world.ask(&["runs", "ls"]).code, Some(5), "there is no other");
    let answer = world.ask(&["--database", "sqlite:/proc/no/such.db", "run", "greet", "--param", "name=A"]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(5), ""), "{}", answer.err);
}
