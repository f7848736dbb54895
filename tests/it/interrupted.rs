//! Programs that are told to end while another process holds the database.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use orchestrator::prelude::*;

use crate::process::{Process, command, is_child};

#[task]
async fn endless() {
    println!("began");
    std::future::pending().await
}

#[tokio::test]
async fn child_that_runs_until_it_is_told_to_end() {
    if !is_child() {
        return;
    }
    #[flow]
    async fn waits() -> Result<(), TaskError> {
        endless().await
    }
    println!("ended {}", waits().await.unwrap_err());
}

#[cfg(unix)]
#[test]
fn an_interrupted_program_ends_though_another_process_holds_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("stderr.txt");
    let mut command = command("interrupted::child_that_runs_until_it_is_told_to_end", folder.path());
    command.env("ORCHESTRATOR_CANCEL_GRACE_SECS", "1");
    command.stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
    let mut child = Process::start(&mut command);
    child.says("began");
    let holder = rusqlite::Connection::open(folder.path().join("orchestrator.db")).unwrap();
    holder.busy_timeout(Duration::from_secs(20)).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begin = Instant::now();
    child.signal("-INT");
    let said = child.says("ended ");
    assert!(said.contains("cancelled") || said.contains("Ctrl-C"), "{said}");
    child.rest();
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    println!("it took {:?}", begin.elapsed());
    let said = std::fs::read_to_string(log).unwrap();
    for part in ["does not wait any longer", "events were not written", "orchestrator.db"] {
        assert!(said.contains(part), "{said}");
    }
    holder.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn child_whose_runtime_has_no_drivers() {
    if !is_child() {
        return;
    }
    /// Once a signal would not end the program by itself.
    #[task]
    async fn endless_then() {
        let caught = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() & 0b10 != 0
        };
        while !caught() {
            tokio::task::yield_now().await;
        }
        println!("began");
        std::future::pending().await
    }
    #[flow]
    async fn waits() -> Result<(), TaskError> {
        endless_then().await
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    println!("ended {}", runtime.block_on(async { waits().await }).unwrap_err());
}

#[cfg(target_os = "linux")]
#[test]
fn a_program_whose_runtime_has_no_drivers_is_interrupted_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("stderr.txt");
    let mut command = command("interrupted::child_whose_runtime_has_no_drivers", folder.path());
    command.stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
    let mut child = Process::start(&mut command);
    child.says("began");
    // Those that come at once are one.
    child.signal_twice("INT");
    let said = child.says("ended ");
    assert!(said.contains("Ctrl-C"), "{said}");
    child.rest();
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("Cancelled") && !said.contains("panicked"), "{said}");
}

#[tokio::test]
async fn child_that_goes_on_after_it_was_told_to_end() {
    if !is_child() {
        return;
    }
    #[flow]
    async fn waits() -> Result<(), TaskError> {
        endless().await
    }
    #[flow]
    async fn follows() {
        println!("follows");
        let locked = std::path::Path::new(&std::env::var_os("ORCHESTRATOR_HOME").unwrap()).join("locked");
        while !locked.exists() {
            tokio::task::yield_now().await;
        }
    }
    waits().await.unwrap_err();
    println!("ended");
    follows().await.unwrap();
    println!("lost {}", Orchestrator::current().lost_events());
}

/// The store is waited for again, as by a program that was told nothing.
#[cfg(unix)]
#[test]
fn a_program_that_survives_a_signal_loses_nothing_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("interrupted::child_that_goes_on_after_it_was_told_to_end", folder.path());
    command.env("ORCHESTRATOR_CANCEL_GRACE_SECS", "1");
    let mut child = Process::start(&mut command);
    child.says("began");
    let begin = Instant::now();
    child.signal("-INT");
    child.says("ended");
    child.says("follows");
    let holder = rusqlite::Connection::open(folder.path().join("orchestrator.db")).unwrap();
    holder.busy_timeout(Duration::from_secs(20)).unwrap();
    // The store is waited for again when it has all that was pushed until then, which the beginning of `follows` may be part of.
    let begun = "SELECT count(*) FROM flow_run";
    while holder.query_row(begun, [], |row| row.get::<_, u32>(0)).unwrap() < 2 {
        std::thread::sleep(Duration::from_millis(20));
    }
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::fs::write(folder.path().join("locked"), "").unwrap();
    // Longer than it waits for others, and than it would have been waited for after the signal.
    while begin.elapsed() < Duration::from_secs(7) {
        std::thread::sleep(Duration::from_millis(20));
    }
    holder.execute_batch("ROLLBACK").unwrap();
    assert_eq!(child.says("lost "), "0");
    child.rest();
}

#[tokio::test]
async fn child_that_does_other_things_after_it_was_told_to_end() {
    if !is_child() {
        return;
    }
    #[flow]
    async fn waits() -> Result<(), TaskError> {
        endless().await
    }
    waits().await.unwrap_err();
    println!("ended");
    std::future::pending().await
}

/// Whatever is left of the end of its runs: the second signal finds none to cancel.
#[cfg(unix)]
#[test]
fn a_program_that_survived_a_signal_is_ended_by_the_next() {
    for (signal, status) in [("-INT", 130), ("-TERM", 143)] {
        let folder = tempfile::tempdir().unwrap();
        let test = "interrupted::child_that_does_other_things_after_it_was_told_to_end";
        let mut child = Process::start(&mut command(test, folder.path()));
        child.says("began");
        child.signal("-INT");
        child.says("ended");
        child.signal(signal);
        assert_eq!(child.status(), Some(status));
    }
}

#[tokio::test]
async fn child_whose_rollback_hangs() {
    if !is_child() {
        return;
    }
    async fn hangs(_: &()) {
        println!("rolls back");
        std::future::pending().await
    }
    #[task(on_rollback = hangs)]
    async fn step() {}
    #[task]
    async fn fails() -> Result<(), String> {
        Err("no".to_owned())
    }
    let outcome: Result<(), TaskError> = transaction(async {
        step().await?;
        fails().await
    })
    .await;
    println!("ended {outcome:?}");
}

/// No run is left to cancel, but what is left has not ended either.
#[cfg(unix)]
#[test]
fn a_program_whose_rollback_hangs_is_ended_by_the_second_signal() {
    let folder = tempfile::tempdir().unwrap();
    let (said, stderr) = std::io::pipe().unwrap();
    let mut command = command("interrupted::child_whose_rollback_hangs", folder.path());
    let mut child = Process::start(command.stderr(stderr));
    // Or the pipe would not end with the child.
    drop(command);
    child.says("rolls back");
    child.signal("-INT");
    let mut said = BufReader::new(said).lines().map(Result::unwrap).filter(|line| line.contains("once more to exit"));
    said.next().expect("the first signal is told");
    child.signal("-INT");
    assert_eq!(said.next(), None, "it is no first one again");
    assert_eq!(child.status(), Some(130));
}
