//! A run name with a field that is no parameter.
use orchestrator::prelude::*;

#[task(run_name = "fetch-{rep}")]
async fn misspelt(repo: String, page: u32) -> String {
    format!("{repo}{page}")
}

#[task(run_name = "fetch-{client}")]
async fn unknown(repo: String, page: u32) -> String {
    format!("{repo}{page}")
}

#[flow(run_name = "report-{day")]
async fn not_closed(day: String) -> String {
    day
}

fn main() {}
