//! Options whose effect only a process of its own can show: variables, what is printed, signals.

use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use orchestrator::prelude::*;
use orchestrator::{OrchestratorBuilder, TokioClock};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::door::Calls;

#[task]
async fn failing() -> Result<(), String> {
    Err("no".into())
}

#[task]
async fn endless() {
    println!("\nsaid: begun");
    std::future::pending::<()>().await;
}

/// A program of one of the tests below, in a process with those variables.
fn program(name: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("environment::{name}"), "--nocapture"]);
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("ORCHESTRATOR_") || name == "RUST_LOG") {
            command.env_remove(variable);
        }
    }
    command.env("ENVIRONMENT_TEST", "1").env("ORCHESTRATOR_DATABASE_URL", "memory").envs(variables.iter().copied());
    command
}

/// Whether this is the process of a program; its parent runs it by name.
fn is_program() -> bool {
    std::env::var_os("ENVIRONMENT_TEST").is_some()
}

/// What a program said, and what was printed for people.
fn run(name: &str, variables: &[(&str, &str)]) -> (Vec<String>, String) {
    let output = program(name, variables).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{out}\n{err}");
    (out.lines().filter_map(|line| line.strip_prefix("said: ")).map(str::to_owned).collect(), err)
}

async fn under<R>(builder: OrchestratorBuilder, program: impl Future<Output = R>) -> R {
    builder.build().await.unwrap().scope(program).await
}

#[tokio::test(start_paused = true)]
async fn program_that_fails() {
    if !is_program() {
        return;
    }
    under(Orchestrator::builder().clock(TokioClock::new()), async {
        for _ in 0..8 {
            let start = Instant::now();
            failing().await.unwrap_err();
            println!("\nsaid: {}", start.elapsed().as_millis());
        }
    })
    .await;
}

#[test]
fn variables_say_how_long_to_wait_before_a_retry() {
    let waits = |variables: &[_]| -> Vec<u32> {
        run("program_that_fails", variables).0.iter().map(|millis| millis.parse().unwrap()).collect()
    };
    let delay = [("ORCHESTRATOR_RETRIES", "2"), ("ORCHESTRATOR_RETRY_DELAY_SECS", "1.5")];
    assert_eq!(waits(&delay[..1]), [0; 8]);
    assert_eq!(waits(&delay), [3000; 8]);
    assert_eq!(waits(&[delay[0], ("ORCHESTRATOR_RETRY_DELAY_SECS", "1500ms")]), [3000; 8]);
    let spread = waits(&[delay[0], delay[1], ("ORCHESTRATOR_RETRY_JITTER", "0.5")]);
    assert!(spread.iter().all(|millis| (1880..=4510).contains(millis)), "{spread:?}");
    assert!(spread.iter().any(|millis| *millis != spread[0]), "{spread:?}");
}

#[tokio::test(start_paused = true)]
async fn program_that_does_not_end() {
    if !is_program() {
        return;
    }
    under(Orchestrator::builder().clock(TokioClock::new()), async {
        let start = Instant::now();
        let outcome = tokio::time::timeout(Duration::from_secs(100), endless()).await;
        let timed_out = outcome.is_ok_and(|ended| ended.unwrap_err().is_timed_out());
        println!("\nsaid: {timed_out} after {}", start.elapsed().as_secs());
    })
    .await;
}

#[test]
fn a_variable_limits_the_time_of_an_attempt() {
    let said = |variables| run("program_that_does_not_end", variables).0.pop().unwrap();
    assert_eq!(said(&[("ORCHESTRATOR_TASK_TIMEOUT_SECS", "2.5")]), "true after 2");
    assert_eq!(said(&[("ORCHESTRATOR_TASK_TIMEOUT_SECS", "1m")]), "true after 60");
    assert_eq!(said(&[]), "false after 100");
}

#[tokio::test]
async fn program_that_asks_the_cache() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn cached() -> usize {
        CALLS.one()
    }
    #[task(cache_ttl = "1h", refresh_cache = false)]
    async fn never_refreshed() -> usize {
        CALLS.one()
    }
    if !is_program() {
        return;
    }
    under(Orchestrator::builder(), async {
        for _ in 0..2 {
            println!("\nsaid: {} {}", cached().await.unwrap(), never_refreshed().await.unwrap());
        }
    })
    .await;
}

#[test]
fn a_variable_refreshes_the_cache_where_a_task_says_nothing() {
    let said = |variables| run("program_that_asks_the_cache", variables).0;
    assert_eq!(said(&[]), ["1 2", "1 2"]);
    assert_eq!(said(&[("ORCHESTRATOR_REFRESH_CACHE", "true")]), ["1 2", "3 2"]);
}

#[tokio::test]
async fn program_with_a_store_of_results() {
    if !is_program() {
        return;
    }
    println!("\nsaid: {}", Orchestrator::builder().build().await.unwrap_err());
    // One that nobody makes has to come about.
    println!("\nsaid: {}", failing().await.unwrap_err());
}

#[test]
fn a_store_of_results_that_is_refused_is_told_with_its_variable() {
    let (said, printed) = run("program_with_a_store_of_results", &[("ORCHESTRATOR_RESULTS", "ftp://x/y")]);
    assert!(said[0].starts_with("ORCHESTRATOR_RESULTS: 'ftp://x/y' "), "{}", said[0]);
    assert_eq!(said[1], "task run 'failing-0' failed: no");
    assert!(printed.contains(&format!("{}; large results are kept beside the database", said[0])), "{printed}");
}

#[tokio::test]
async fn program_with_a_body_that_does_not_look() {
    static BEGUN: Notify = Notify::const_new();
    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    #[task]
    fn stubborn() {
        BEGUN.notify_one();
        drop(GATE.1.wait_while(GATE.0.lock().unwrap(), |open| !*open).unwrap());
    }
    if !is_program() {
        return;
    }
    under(Orchestrator::builder().terminal(true), async {
        let run = stubborn();
        BEGUN.notified().await;
        run.cancel();
        println!("\nsaid: {}", run.wait().await.name);
    })
    .await;
    *GATE.0.lock().unwrap() = true;
    GATE.1.notify_all();
}

#[test]
fn a_variable_says_how_long_a_cancelled_body_is_waited_for() {
    let (said, printed) = run("program_with_a_body_that_does_not_look", &[("ORCHESTRATOR_CANCEL_GRACE_SECS", "0.02")]);
    assert_eq!(said, ["Cancelled"]);
    assert!(printed.contains("'stubborn-0' did not stop within 20ms of its cancellation"), "{printed}");
}

/// The bodies end when its standard input does.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn program_with_bodies_that_do_not_end() {
    static BEGUN: Notify = Notify::const_new();
    fn block() {
        BEGUN.notify_one();
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    }
    #[task]
    async fn computes() {
        block();
    }
    #[task]
    fn sleeps() {
        block();
    }
    #[task]
    async fn waits(n: usize) {
        let _ = n;
        std::future::pending::<()>().await;
    }
    #[flow(timeout_secs = 0.5)]
    async fn hurried() -> Result<(), TaskError> {
        computes().await
    }
    if !is_program() {
        return;
    }
    under(Orchestrator::builder().terminal(true), async {
        let state = match std::env::var("HOW").unwrap().as_str() {
            "timeout" => hurried().wait().await,
            how => {
                let mut run = if how == "shutdown of a thread" { sleeps() } else { computes() };
                BEGUN.notified().await;
                if how == "cancel" {
                    run.cancel();
                } else if how == "cancel of many" {
                    let mut others: Vec<_> = (0..100).map(waits).collect();
                    others.push(run);
                    others.iter().for_each(|run| run.cancel());
                    run = others.pop().unwrap();
                    orchestrator::join_all(others).await.unwrap_err();
                } else {
                    Orchestrator::current().shutdown().await.unwrap();
                }
                run.wait().await
            }
        };
        println!("\nsaid: {}", state.name);
    })
    .await;
}

#[test]
fn bodies_that_do_not_end_are_named_however_they_were_cancelled() {
    use std::io::{BufRead as _, BufReader};
    let unyielding = "'computes-0' was cancelled 20ms ago, and has not stopped since";
    for (how, told, state) in [
        // A result that is given stands.
        ("shutdown", unyielding, "Completed"),
        ("cancel", unyielding, "Completed"),
        ("cancel of many", unyielding, "Completed"),
        ("timeout", unyielding, "TimedOut"),
        ("shutdown of a thread", "'sleeps-0' did not stop within 20ms of its cancellation", "Cancelled"),
    ] {
        let variables = [("HOW", how), ("ORCHESTRATOR_CANCEL_GRACE_SECS", "0.02")];
        let mut command = program("program_with_bodies_that_do_not_end", &variables);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut printed = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
        // The bodies end when that is told, or much later, if it is not.
        let (is_told, waits) = std::sync::mpsc::channel::<()>();
        let stdin = process.stdin.take();
        let keeper = std::thread::spawn(move || {
            let _ = waits.recv_timeout(Duration::from_secs(20));
            drop(stdin);
        });
        let found = printed.any(|line| line.contains(told));
        drop(is_told);
        keeper.join().unwrap();
        assert!(found, "{how}");
        let rest = std::thread::spawn(|| printed.count());
        let output = process.wait_with_output().unwrap();
        rest.join().unwrap();
        assert!(output.status.success(), "{how}");
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(out.lines().any(|line| line == format!("said: {state}")), "{how}: {out}");
    }
}

#[tokio::test(start_paused = true)]
async fn program_with_bodies_that_overrun() {
    #[task(timeout_secs = 0.5)]
    async fn computes(millis: u64) {
        // The clock goes on, and the body does not yield.
        let _ = tokio::time::advance(Duration::from_millis(millis)).now_or_never();
    }
    #[task(timeout_secs = 0.5)]
    async fn yields() {
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    if !is_program() {
        return;
    }
    under(Orchestrator::builder().clock(TokioClock::new()).terminal(true), async {
        for millis in [400, 510, 4000] {
            println!("\nsaid: {}", computes(millis).wait().await.name);
        }
        println!("\nsaid: {}", yields().wait().await.name);
    })
    .await;
}

#[test]
fn a_body_that_did_not_yield_is_named_when_it_has_overrun_its_timeout() {
    let (said, printed) = run("program_with_bodies_that_overrun", &[]);
    assert_eq!(said, ["Completed", "Completed", "Completed", "TimedOut"]);
    let told: Vec<_> = printed.lines().filter(|line| line.contains("could not be stopped")).collect();
    let [told] = told[..] else { panic!("{printed}") };
    let expected = "Task run 'computes-2' took 4s, its timeout is 500ms; it could not be stopped, as it did not yield";
    assert!(told.contains("WARN") && told.contains(expected), "{told}");
}

#[tokio::test]
async fn program_that_prints() {
    if !is_program() {
        return;
    }
    let builder = Orchestrator::builder().terminal(std::env::var_os("QUIET").is_none());
    let builder = if std::env::var_os("SAYS_WARN").is_some() { builder.log("warn") } else { builder };
    under(builder, async {
        failing().await.unwrap_err();
        tracing::info!(target: "program", "all is said");
    })
    .await;
}

#[test]
fn the_builder_says_what_is_printed_where_the_environment_says_nothing() {
    let printed = |variables| run("program_that_prints", variables).1;
    let all = printed(&[]);
    assert!(all.contains("ERROR | Task run 'failing-0'") && all.contains("all is said"), "{all}");
    let little = printed(&[("SAYS_WARN", "1")]);
    assert!(little.contains("ERROR | Task run 'failing-0'") && !little.contains("all is said"), "{little}");
    let told = printed(&[("SAYS_WARN", "1"), ("ORCHESTRATOR_LOG", "info")]);
    assert!(told.contains("all is said"), "the environment wins: {told}");
    assert_eq!(printed(&[("QUIET", "1")]), "");
}

#[task(timeout_secs = 0.05)]
fn never() {
    loop {
        std::thread::park();
    }
}

/// Waits at its end for the thread of a body, as every runtime of tokio's does.
#[test]
fn program_whose_runtime_does_not_end() {
    if !is_program() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(under(Orchestrator::builder().handle_signals(true), async {
        assert!(never().await.unwrap_err().to_string().contains("timed out"));
    }));
    println!("\nsaid: over");
    drop(runtime);
}

#[cfg(unix)]
#[test]
fn a_program_that_waits_for_a_thread_at_its_end_can_be_ended() {
    use std::io::{BufRead as _, BufReader};
    for (signal, status) in [("-INT", 130), ("-TERM", 143)] {
        let mut command = program("program_whose_runtime_does_not_end", &[]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line == "said: over").unwrap();
        // One that comes while the runtime is about to end may be lost with it.
        let began = std::time::Instant::now();
        let ended = loop {
            if let Some(ended) = process.try_wait().unwrap() {
                break ended;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it does not end");
            Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap();
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(ended.code(), Some(status));
    }
}

#[tokio::test]
async fn program_that_is_interrupted() {
    if !is_program() {
        return;
    }
    let handles = std::env::var("HANDLES").unwrap() == "true";
    under(Orchestrator::builder().handle_signals(handles), async {
        println!("\nsaid: {}", endless().await.unwrap_err());
    })
    .await;
}

#[cfg(unix)]
#[test]
fn signals_are_handled_if_the_builder_says_so() {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::ExitStatusExt as _;
    const SIGINT: i32 = 2;
    const SIGTERM: i32 = 15;
    for (handles, signal, by) in [(true, SIGTERM, "SIGTERM"), (true, SIGINT, "Ctrl-C"), (false, SIGTERM, "nobody")] {
        let mut command = program("program_that_is_interrupted", &[("HANDLES", &handles.to_string())]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line == "said: begun").unwrap();
        assert!(
            Command::new("kill").args([format!("-{signal}"), process.id().to_string()]).status().unwrap().success()
        );
        let said = lines.find(|line| line.starts_with("said: "));
        let status = process.wait().unwrap();
        if handles {
            assert_eq!(said.unwrap(), format!("said: task run 'endless-0' was cancelled: by {by}"));
            assert!(status.success(), "{status}");
        } else {
            assert_eq!(said, None);
            assert_eq!(status.signal(), Some(signal), "{status}");
        }
    }
}
