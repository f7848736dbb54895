//! A database with a million task runs: how long a program takes from its start to its first task, and to have listed the
//! newest runs.

use std::path::Path;
use std::time::Instant;

use orchestrator::Orchestrator;
use rusqlite::{Connection, Statement, params};

use crate::measure::{Effort, median, runtime};
use crate::report::{Budget, Row, Unit};
use crate::{child, start};

/// Says to a child that it is the command line.
pub(crate) const COMMAND_LINE: &str = "BUDGET_COMMAND_LINE";

/// Task runs in each flow run.
const INSIDE: u64 = 50;

/// Microseconds from the beginning of one flow run to that of the next.
const APART: i64 = 60_000_000;

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let tasks = effort.size(1_000_000);
    let home = tempfile::tempdir().expect("a folder for a database");
    make(home.path(), tasks / INSIDE);
    let rounds = if effort.quick { 3 } else { 31 };
    let mut listed: Vec<f64> = (0..rounds).map(|_| list(home.path())).collect();
    let mut started: Vec<f64> = (0..rounds).map(|_| start::first_task("start", home.path())).collect();
    let row = |name: &str, ours, allowed, aim| {
        let name = format!("{name}, {} task runs", Effort::name(tasks));
        Row::absolute(name, Unit::Milliseconds, None, ours, rounds, Budget::Absolute { allowed, aim })
    };
    vec![
        row("process start to the end of `runs ls`", median(&mut listed), 50.0, 20.0),
        row("process start to first task", median(&mut started), 100.0, 20.0),
    ]
}

/// From the start of the command line to its end.
fn list(home: &Path) -> f64 {
    let start = Instant::now();
    let mut command = child::program(home);
    command.args(["runs", "ls"]).env(COMMAND_LINE, "1");
    let output = command.output().expect("this program can be started");
    let elapsed = start.elapsed();
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert!(output.status.success() && lines == 21, "{}", String::from_utf8_lossy(&output.stderr));
    elapsed.as_secs_f64() * 1e3
}

/// Fills a database with flow runs that have ended, the last of them just now.
fn make(home: &Path, flows: u64) {
    runtime().block_on(async {
        let orchestrator = Orchestrator::builder().home(home).build().await.expect("make a database");
        orchestrator.shutdown().await.expect("close it");
    });
    let mut file = Connection::open(home.join("orchestrator.db")).expect("open the database");
    let transaction = file.transaction().expect("begin to write");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970").as_micros();
    let first = i64::try_from(now).expect("it is before 294247") - i64::try_from(flows).expect("few") * APART;
    let process: i64 = transaction
        .query_row(
            "INSERT INTO process (host, pid, namespace, started, session, lease_until, ended)
            VALUES ('elsewhere', 1, 1, 1, 0, 0, 0) RETURNING no",
            [],
            |row| row.get(0),
        )
        .expect("enter a process");
    let mut function =
        transaction.prepare("INSERT INTO function (key, name) VALUES (?1, ?2) RETURNING no").expect("SQL");
    let mut functions = |kind: &str| -> Vec<i64> {
        let names = (0..10).map(|n| format!("{kind}-{n}"));
        names.map(|name| function.query_row([&name, &name], |row| row.get(0)).expect("enter a function")).collect()
    };
    let (flow_functions, task_functions) = (functions("flow"), functions("task"));
    let insert = |table: &str| {
        format!(
            "INSERT INTO {table} (id, function, given_name, number, parent, flow_run, process, created, states, next_seq,
                run_count, state, state_at, start_time, end_time)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 3, 1, ?10, ?8 + 900, ?8 + 9, ?8 + 900)"
        )
    };
    let mut flow_run = transaction.prepare(&insert("flow_run")).expect("SQL");
    let mut task_run = transaction.prepare(&insert("task_run")).expect("SQL");
    for flow in 0..flows {
        let at = first + i64::try_from(flow).expect("few") * APART;
        let id = id(at, flow);
        let state = if flow % 50 == 0 { "Failed" } else { "Completed" };
        let name = format!("name-{flow}");
        let add = |statement: &mut Statement<'_>, values: &[&dyn rusqlite::ToSql]| {
            statement.execute(values).expect("enter a run");
        };
        let history = history(at, state);
        let f = flow_functions[(flow % 10) as usize];
        add(
            &mut flow_run,
            params![id, f, name, flow.cast_signed(), None::<i64>, None::<i64>, process, at, history, state],
        );
        let parent = [b"f".as_slice(), &id].concat();
        for task in 0..INSIDE {
            let state = if task == 0 { state } else { "Completed" };
            let (at, function) = (at + 1 + task.cast_signed(), task_functions[(task % 10) as usize]);
            let own = self::id(at, flow * INSIDE + task);
            let history = self::history(at, state);
            let no_name = None::<i64>;
            add(
                &mut task_run,
                params![own, function, no_name, task.cast_signed(), parent, id, process, at, history, state],
            );
        }
    }
    drop((function, flow_run, task_run));
    transaction.commit().expect("write");
}

fn history(at: i64, state: &str) -> String {
    format!("[\"Pending\",{at}]\n[\"Running\",{}]\n[\"{state}\",{}]\n", at + 9, at + 900)
}

/// An id as a run of that time has it.
fn id(at: i64, number: u64) -> [u8; 16] {
    let millis = u128::from(at.unsigned_abs() / 1000);
    let rest = u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0x3fff_ffff_ffff_ffff);
    (millis << 80 | 7 << 76 | 2 << 62 | rest).to_be_bytes()
}
