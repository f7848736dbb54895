//! A program whose command line is orchestrator's: its flows are run by name, and its history is looked at with the same program.
//!
//! ```text
//! cargo run --example pipeline -- run word-count --param 'texts=["to be or not", "to be"]' --json
//! cargo run --example pipeline -- flows
//! cargo run --example pipeline -- runs ls
//! ```

use std::collections::BTreeMap;
use std::process::ExitCode;

use orchestrator::prelude::*;

/// How often each word occurs in a text.
#[task(retries = 2)]
fn count(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    counts
}

#[task]
fn merge(all: &[BTreeMap<String, u64>], at_least: u64) -> BTreeMap<String, u64> {
    let mut merged = BTreeMap::new();
    for (word, count) in all.iter().flatten() {
        *merged.entry(word.clone()).or_default() += count;
    }
    merged.retain(|_, count| *count >= at_least);
    merged
}

/// Counts the words of texts.
#[flow(name = "word-count")]
async fn word_count(texts: Vec<String>, at_least: Option<u64>) -> Result<BTreeMap<String, u64>, TaskError> {
    merge(count::map(texts), at_least.unwrap_or(1)).await
}

#[tokio::main]
async fn main() -> ExitCode {
    orchestrator::cli().await
}
