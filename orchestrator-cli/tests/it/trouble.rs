//! What there is no transcript of: databases that are not there, damaged or newer, and readers who leave early.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;

use rusqlite::Connection;

use super::program::Answer;
use super::world::{World, fetch, flow, went};

#[test]
fn commands_that_look_make_no_database() {
    let world = World::empty();
    for command in [
        &["runs", "ls"][..],
        &["runs", "show", "x"],
        &["tasks", "ls"],
        &["limits", "ls"],
        &["cache", "ls"],
        &["cache", "clear"],
    ] {
        let answer = world.ask(command);
        assert_eq!((answer.code, answer.out.as_str()), (Some(5), ""), "{command:?}");
        let path = world.database().display().to_string();
        assert_eq!(
            answer.err,
            format!(
                "error: cannot open the database {path}: there is none yet; the first run of a pipeline makes it. Another \
                 one is named by --database, ORCHESTRATOR_DATABASE_URL or ORCHESTRATOR_HOME\n"
            )
        );
    }
    assert_eq!(fs::read_dir(world.folder()).expect("a folder").count(), 0, "nothing was made");
}

#[test]
fn what_is_old_goes_though_one_of_it_has_started_what_goes_on() {
    use orchestrator_core::StateName::{Completed, Pending, Running};
    let world = World::empty();
    let ended = [(Pending, 0), (Running, 1), (Completed, 2)];
    let (gone, kept) = (flow(1, "calm-owl"), flow(2, "busy-owl"));
    let detached = fetch(3, &kept, 0);
    let goes_on = went(&detached, &[(Pending, 1), (Running, 2)], None, 1);
    world.give(&[went(&gone, &ended, None, 1), went(&kept, &ended, None, 1), goes_on]);
    let answer = world.ask(&["runs", "rm", "--older-than", "1s", "--yes"]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), "removed 1 flow run and 0 task runs\n"), "{}", answer.err);
    assert_eq!(answer.err, "left 1 flow run that did not end, or started others that did not\n");
    assert_eq!(world.json(&["runs", "ls"])[0]["name"], serde_json::json!("busy-owl"));
    let again = world.json(&["runs", "rm", "--older-than", "1s", "--yes"]);
    assert_eq!(again, serde_json::json!({ "flow_runs": 0, "task_runs": 0, "left": 1 }));
}

#[test]
fn a_database_of_a_newer_version_or_of_somebody_else_is_refused() {
    let world = World::new();
    let by_hand = |sql: &str| Connection::open(world.database()).expect("open").execute_batch(sql).expect("run SQL");
    by_hand("PRAGMA user_version = 99");
    let answer = world.ask(&["runs", "ls"]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(5), ""));
    assert!(answer.err.contains("it has format 99, written by a newer version of orchestrator"), "{}", answer.err);
    by_hand("PRAGMA application_id = 7");
    assert_eq!(world.ask(&["runs", "ls"]).code, Some(5));
    fs::write(world.database(), "not a database at all").expect("write a file");
    assert_eq!(world.ask(&["runs", "ls"]).code, Some(5));
}

#[test]
fn what_a_variable_says_is_refused_with_its_name_and_what_would_be_right() {
    const WHOLE: &str = "a whole number from 0 up";
    const TIME: &str = "a time such as `30s`, `15m` or `7d`, or a number of seconds";
    const YES_OR_NO: &str = "`true` or `false`";
    let world = World::new();
    for (name, values, right) in [
        ("RETRIES", &["-1", "1.5", "many"][..], WHOLE),
        ("RETRY_DELAY_SECS", &["soon", "-1", "inf", "nan"], TIME),
        ("RETRY_JITTER", &["-0.5", "nan", "half"], "a number from 0 up"),
        (
            "TASK_TIMEOUT_SECS",
            &["0", "0s", "-1", "1x"],
            "a time of more than 0 such as `30s`, `15m` or `7d`, or a number of seconds",
        ),
        ("REFRESH_CACHE", &["yes"], YES_OR_NO),
        ("PERSIST", &["1"], YES_OR_NO),
        ("BLOCKING_THREADS", &["0", "all"], "a whole number from 1 up"),
        ("CANCEL_GRACE_SECS", &["-1"], TIME),
        ("STRICT", &["on"], YES_OR_NO),
        (
            "LEASE_SECS",
            &["0.05", "50ms", "0", "-3"],
            "a time of at least 100ms such as `30s`, `15m` or `7d`, or a number of seconds",
        ),
        ("RESUME_CRASHED", &["never"], YES_OR_NO),
        (
            "RETENTION",
            &["30", "runs", "-1d"],
            "an age such as `30d` or `12h`, a number of runs such as `10000 runs`, both as in `30d,10000 runs`, or `off`",
        ),
    ] {
        let name = format!("ORCHESTRATOR_{name}");
        for value in values {
            let answer: Answer = world.command(&["runs", "ls"]).env(&name, value).output().expect("run it").into();
            assert_eq!((answer.code, answer.out.as_str()), (Some(2), ""), "{name} {value}");
            assert_eq!(answer.err, format!("error: {name} is '{value}': expected {right}\n"));
        }
    }
    for nothing in ["0", "0d", "0 runs", "30d,0 runs"] {
        let answer: Answer =
            world.command(&["runs", "ls"]).env("ORCHESTRATOR_RETENTION", nothing).output().expect("run it").into();
        let right = "expected at least `1s` or `1 run`, `off` to keep everything, or nothing at all for `30d`";
        let said = format!("ORCHESTRATOR_RETENTION is '{nothing}': that keeps no history at all; {right}");
        assert_eq!((answer.code, answer.err), (Some(2), format!("error: {said}\n")));
    }
    let mut command = world.command(&["runs", "ls"]);
    let answer: Answer = command.env("ORCHESTRATOR_DATABASE_URL", "oracle:x").output().expect("run it").into();
    let said = "ORCHESTRATOR_DATABASE_URL: 'oracle:x' is not a database URL: expected `memory` or `sqlite:PATH`";
    assert_eq!((answer.code, answer.err), (Some(2), format!("error: {said}\n")));
}

#[test]
fn where_there_can_be_no_database_it_is_said_why() {
    let world = World::new();
    let (file, folder) = (world.database(), world.path("folder"));
    fs::create_dir(&folder).expect("a folder");
    let inside = file.join("deep/x.db");
    let path = |path: &std::path::Path| path.display().to_string();
    let url = |of: &std::path::Path| format!("sqlite:{}", path(of));
    let is_file = format!("{} is a file, not a folder", path(&file));
    for (database, code, looking, making) in [
        (
            url(&folder),
            5,
            format!("cannot open the database {}: it is a folder, not a file", path(&folder)),
            format!("cannot open the database {}: it is a folder, not a file", path(&folder)),
        ),
        (
            url(&inside),
            5,
            format!("cannot open the database {}: {is_file}", path(&inside)),
            format!("cannot create the folder {} for the database: {is_file}", path(&file.join("deep"))),
        ),
        (
            "history.db".to_owned(),
            2,
            "'history.db' is not a database URL: expected `memory` or `sqlite:PATH`; is `sqlite:history.db` meant?"
                .to_owned(),
            "'history.db' is not a database URL: expected `memory` or `sqlite:PATH`; is `sqlite:history.db` meant?"
                .to_owned(),
        ),
        (
            "sqlite::memory:".to_owned(),
            2,
            "'sqlite::memory:' is not a database URL: expected `memory` or `sqlite:PATH`; is `memory` meant?".to_owned(),
            "'sqlite::memory:' is not a database URL: expected `memory` or `sqlite:PATH`; is `memory` meant?".to_owned(),
        ),
        (
            "sqlite://x.db?mode=rwc".to_owned(),
            2,
            "the database URL 'sqlite://x.db?mode=rwc' has parameters, which there are none of: expected `memory` or `sqlite:PATH`"
                .to_owned(),
            "the database URL 'sqlite://x.db?mode=rwc' has parameters, which there are none of: expected `memory` or `sqlite:PATH`"
                .to_owned(),
        ),
        (
            "memry".to_owned(),
            2,
            "'memry' is not a database URL: expected `memory` or `sqlite:PATH`; is `memory` meant?".to_owned(),
            "'memry' is not a database URL: expected `memory` or `sqlite:PATH`; is `memory` meant?".to_owned(),
        ),
        (
            String::new(),
            2,
            "'' is not a database URL: expected `memory` or `sqlite:PATH`".to_owned(),
            "'' is not a database URL: expected `memory` or `sqlite:PATH`".to_owned(),
        ),
    ] {
        for (command, said) in [(&["runs", "ls"][..], looking), (&["limits", "set", "db", "3"], making)] {
            let answer = world.ask(&[&["--database", &database], command].concat());
            assert_eq!((answer.code, answer.out.as_str()), (Some(code), ""), "{command:?} {database}: {}", answer.err);
            assert_eq!(answer.err, format!("error: {said}\n"), "{command:?}");
        }
    }
}

/// A file that the library of that format wrote.
fn older(format: u32) -> World {
    let world = World::empty();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
    fs::copy(format!("{golden}/format_{format}.db"), world.database()).expect("copy the file");
    world
}

#[test]
fn looking_leaves_a_file_of_an_older_format_as_it_is() {
    for format in [1, 2] {
        let world = older(format);
        let before = fs::read(world.database()).expect("read the file");
        let runs = world.json(&["runs", "ls", "--all", "--limit", "1000"]);
        let runs = runs.as_array().expect("an array");
        assert!(!runs.is_empty());
        for run in runs {
            let id = run["id"].as_str().expect("an id");
            for command in ["show", "tree", "states", "logs", "explain"] {
                world.json(&["runs", command, id]);
            }
        }
        for command in [&["tasks", "ls"][..], &["limits", "ls"], &["cache", "ls"]] {
            world.json(command);
        }
        assert_eq!(world.json(&["db", "check"]), serde_json::json!([]));
        let info = world.json(&["db", "info"]);
        assert_eq!((&info["format"], &info["present_format"]), (&serde_json::json!(format), &serde_json::json!(3)));
        let said = world.tell(&["db", "info"]);
        assert!(said.contains(&format!("{format}, which is not the present one, 3: `db migrate` brings it")), "{said}");
        assert!(fs::read(world.database()).expect("read the file") == before, "nothing was written");
        assert_eq!(fs::read_dir(world.folder()).expect("a folder").count(), 1, "no file was made beside it");
    }
}

#[test]
fn a_file_of_an_older_format_is_changed_after_db_migrate() {
    let world = older(2);
    let before = fs::read(world.database()).expect("read the file");
    for command in [&["runs", "rm", "--older-than", "0s", "--state", "failed", "--yes"][..], &["db", "compact"]] {
        let answer = world.ask(command);
        assert_eq!((answer.code, answer.out.as_str()), (Some(5), ""), "{command:?}: {}", answer.err);
        let said = "it has format 2, and nothing is written into it before it is brought to format 3: `orchestrator db migrate`";
        assert!(answer.err.contains(said), "{command:?}: {}", answer.err);
    }
    assert!(fs::read(world.database()).expect("read the file") == before, "nothing was written");
    assert_eq!(world.json(&["db", "migrate"]), serde_json::json!({ "format": 3, "migrated_from": 2 }));
    assert_eq!(world.json(&["db", "migrate"]), serde_json::json!({ "format": 3, "migrated_from": null }));
    world.tell(&["runs", "rm", "--older-than", "0s", "--state", "failed", "--yes"]);
    assert_eq!(world.tell(&["db", "check"]), "nothing is wrong\n");
}

#[test]
fn an_error_is_an_object_on_the_last_line_for_those_who_want_json() {
    let world = World::new();
    for (command, code, said) in [
        (&["runs", "show", "nobody"][..], 4, "there is no run 'nobody'"),
        (&["runs", "ls", "--limit", "-1"], 2, "invalid value '-1' for '--limit <N>'"),
        (&["rums"], 2, "unrecognized subcommand 'rums'"),
        (&["runs", "cancel", "brave-otter"], 2, "brave-otter"),
        (&["runs", "ls", "--database", "sqlite:/nowhere/at/all.db"], 5, "there is none yet"),
    ] {
        let answer = world.ask(&[command, &["--json"]].concat());
        assert_eq!(answer.code, Some(code), "{command:?}: {}", answer.err);
        let line = answer.err.lines().last().expect("a line");
        let error: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(error["error"]["exit_code"], code);
        let message = error["error"]["message"].as_str().expect("a message");
        assert!(message.contains(said) && !message.contains("error:") && !message.contains("Usage"), "{message}");
    }
}

#[test]
fn the_database_is_named_by_the_option_or_the_environment() {
    let (world, elsewhere) = (World::new(), World::empty());
    let url = format!("sqlite:{}", world.database().display());
    let listed = world.tell(&["runs", "ls", "--json", "--state", "failed"]);
    assert_eq!(elsewhere.tell(&["--database", &url, "runs", "ls", "--json", "--state", "failed"]), listed);
    assert_eq!(elsewhere.tell(&["runs", "ls", "--json", "--state", "failed", "--database", &url]), listed);
    let output = elsewhere
        .command(&["runs", "ls", "--json", "--state", "failed"])
        .env("ORCHESTRATOR_DATABASE_URL", &url)
        .output();
    assert_eq!(String::from_utf8(output.expect("run the program").stdout).expect("UTF-8"), listed);
}

#[test]
fn a_list_that_goes_on_says_so_unless_it_was_said_how_much_is_wanted() {
    let world = World::new();
    let otter = flow(100, "long");
    let states = [(orchestrator_core::StateName::Completed, 100)];
    let runs: Vec<_> = (0..25).map(|n| fetch(200 + u128::from(n), &otter, n)).collect();
    world.give(&[went(&otter, &states, None, 1)]);
    world.give(&runs.iter().map(|run| went(run, &states, None, 1)).collect::<Vec<_>>());
    let list = ["tasks", "ls", "--flow-run", "long"];
    let said = "there are more than these 20: --limit says how many to list";
    let answer = world.ask(&list);
    assert_eq!((answer.out.lines().count(), answer.err), (1 + 20, format!("{said}\n")));
    let answer = world.ask(&[&list[..], &["--json"]].concat());
    assert_eq!(answer.err, format!("{{\"warning\":{{\"message\":\"{said}\"}}}}\n"));
    let listed: Vec<serde_json::Value> = serde_json::from_str(&answer.out).expect("JSON");
    assert_eq!(listed.len(), 20);
    for (limit, count) in [("3", 3), ("25", 25), ("30", 25)] {
        let answer = world.ask(&[&list[..], &["--limit", limit]].concat());
        assert_eq!((answer.out.lines().count(), answer.err.as_str()), (1 + count, ""));
    }
}

#[test]
fn a_reader_who_leaves_early_is_no_trouble() {
    let world = World::new();
    let otter = flow(100, "long");
    let runs: Vec<_> = (0..5_000).map(|n| fetch(200 + u128::from(n), &otter, n)).collect();
    let states = [(orchestrator_core::StateName::Completed, 100)];
    world.give(&runs.iter().map(|run| went(run, &states, None, 1)).collect::<Vec<_>>());
    // Of what is checked the code is known before it is printed: these runs are of a flow run that is not there.
    for (command, code) in [(&["tasks", "ls", "--limit", "5000"][..], 0), (&["db", "check"], 1)] {
        let mut child =
            world.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the program");
        let mut first = [0; 10];
        let mut out = child.stdout.take().expect("a pipe");
        out.read_exact(&mut first).expect("the first bytes");
        drop(out);
        let output = child.wait_with_output().expect("the program ends");
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(code), ""));
    }
}

#[test]
fn what_is_damaged_is_told_with_what_to_do() {
    const PAGE: usize = 4096;
    let world = World::new();
    // What is in the log comes into the file.
    world.tell(&["db", "migrate"]);
    let mut bytes = fs::read(world.database()).expect("read the file");
    let name = b"brave-otter";
    let at = bytes.windows(name.len()).rposition(|part| part == name).expect("the name is in the file");
    bytes[at / PAGE * PAGE..][..PAGE].fill(0xaa);
    fs::write(world.database(), bytes).expect("write the file");
    let answer = world.ask(&["db", "check"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.out.starts_with("SQLite "), "{answer:?}");
    assert!(answer.err.contains("the file is damaged") && answer.err.contains(".recover"), "{answer:?}");
    let json = world.ask(&["db", "check", "--json"]);
    assert_eq!((json.code, json.err.as_str()), (Some(1), ""));
    assert!(json.out.contains("\"what\": \"SQLite "), "{json:?}");
}
