//! The flows of the program.

use std::path::PathBuf;
use std::time::Duration;

use orchestrator::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Mood {
    Happy,
    Sad,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sum {
    count: usize,
    sum: i64,
}

/// Greets somebody.
///
/// As often as wanted.
#[flow(name = "warm-welcome", version = "3")]
pub(crate) async fn greet(name: String, times: Option<u32>, mood: Option<Mood>) -> String {
    let greeting = match mood {
        Some(Mood::Sad) => "oh, ",
        Some(Mood::Happy) | None => "hello ",
    };
    vec![format!("{greeting}{name}"); times.unwrap_or(1) as usize].join(", ")
}

#[task]
async fn add(numbers: Vec<i64>) -> Sum {
    tracing::info!(count = numbers.len(), "adding");
    Sum { count: numbers.len(), sum: numbers.iter().sum() }
}

#[flow]
pub(crate) async fn total(numbers: Vec<i64>) -> Result<Sum, TaskError> {
    add(numbers).await
}

#[flow]
pub(crate) async fn nothing() {}

/// Cannot be written as JSON.
#[derive(Debug, Clone)]
pub(crate) struct Opaque;

#[flow]
pub(crate) async fn opaque() -> Opaque {
    Opaque
}

#[task(persist)]
async fn once(marks: PathBuf) -> Result<usize, std::io::Error> {
    mark(&marks, "once")
}

#[task]
async fn breaks(marks: PathBuf, allowed: PathBuf, _after: usize) -> Result<usize, String> {
    mark(&marks, "breaks").map_err(|error| error.to_string())?;
    if allowed.exists() { Ok(7) } else { Err("it is not allowed".to_owned()) }
}

/// Fails as long as there is no file `allowed` in the folder; leaves a line in `marks` for each body that is called.
#[flow]
pub(crate) async fn fragile(folder: PathBuf) -> Result<usize, TaskError> {
    let first = once(folder.join("marks"));
    breaks(folder.join("marks"), folder.join("allowed"), first).await
}

/// Asks somebody, and gives the answer.
#[flow]
pub(crate) async fn approval() -> Result<String, orchestrator::Error> {
    pause_for_input::<String>().message("release it?").await
}

/// Goes on for ever; makes a file when it begins.
#[flow]
pub(crate) async fn endless(begun: PathBuf) -> Result<(), TaskError> {
    forever(begun).await
}

/// The same on a thread, and does not look whether it is to end.
#[flow]
pub(crate) async fn deaf(begun: PathBuf) -> Result<(), TaskError> {
    sleeps(begun).await
}

#[task]
fn sleeps(begun: PathBuf) {
    std::fs::write(begun, "").expect("write a file");
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Waits for ever after the body of a thread has outlived its time, and goes on.
#[flow]
pub(crate) async fn outlived(begun: PathBuf) -> Result<(), TaskError> {
    let timed_out = oversleeps().await.is_err_and(|error| error.is_timed_out());
    assert!(timed_out, "nothing stops it");
    forever(begun).await
}

/// Completes though the body of a thread has outlived its time.
#[flow]
pub(crate) async fn late() -> Result<u32, TaskError> {
    let timed_out = oversleeps().await.is_err_and(|error| error.is_timed_out());
    assert!(timed_out, "nothing stops it");
    Ok(7)
}

#[task(timeout_secs = 0.5)]
fn oversleeps() {
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// The same in an async body that never yields.
#[flow]
pub(crate) async fn spinning(begun: PathBuf) -> Result<(), TaskError> {
    spins(begun).await
}

#[task]
async fn spins(begun: PathBuf) {
    std::fs::write(begun, "").expect("write a file");
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Goes on by itself after a crash; ends when there is a file `go` beside the one that it makes.
#[flow(persist, on_crash = "resume")]
pub(crate) async fn patient(begun: PathBuf) -> Result<(), TaskError> {
    until_told(begun).await
}

#[task]
async fn until_told(begun: PathBuf) {
    std::fs::write(&begun, "").expect("write a file");
    while !begun.with_file_name("go").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Holds a slot for ever.
#[flow]
pub(crate) async fn holding(begun: PathBuf) -> Result<(), TaskError> {
    holds(begun).await
}

#[task(concurrency = "db")]
async fn holds(begun: PathBuf) {
    forever::body(begun).await;
}

#[task]
async fn forever(begun: PathBuf) {
    std::fs::write(begun, "").expect("write a file");
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

fn mark(marks: &std::path::Path, what: &str) -> Result<usize, std::io::Error> {
    let before = std::fs::read_to_string(marks).unwrap_or_default();
    std::fs::write(marks, before + what + "\n").map(|()| 1)
}

#[task(cache_ttl = "1h")]
async fn square(n: u64) -> u64 {
    n * n
}

#[flow]
pub(crate) async fn cached(n: u64) -> Result<u64, TaskError> {
    square(n).await
}
