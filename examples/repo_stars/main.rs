//! How many stars have these repositories? Asked over HTTP, politely and not more often than once a day.
//!
//! It shows a `map` over a list, retries with growing delays, a limit of requests at the same time, a limit of requests
//! per second, a cache that outlives the process, and a task that runs although some of its inputs failed.
//!
//! ```text
//! cargo run --example repo_stars -- --demo              # against a server that misbehaves on purpose
//! cargo run --example repo_stars -- --demo              # again: all from the cache, no request
//! cargo run --example repo_stars -- --demo --refresh --rate 50 --connections 12   # too fast for it: 429, tried again
//! cargo run --example repo_stars -- tokio-rs/tokio serde-rs/serde
//! ```

mod demo;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use orchestrator::prelude::*;
use serde::Deserialize;

/// Lists repositories by their stars, as GitHub's API counts them. Answers are cached for a day.
#[derive(Debug, Parser)]
struct Args {
    /// The repositories, each as OWNER/NAME
    #[arg(value_name = "OWNER/NAME", value_parser = repository, default_values = REPOSITORIES, hide_default_value = true)]
    repositories: Vec<String>,
    /// A server with the shape of GitHub's API; for GitHub itself, a token in GITHUB_TOKEN allows more requests
    #[arg(long, value_name = "URL", value_parser = base_url, default_value = "https://api.github.com")]
    base_url: String,
    /// Ask a server inside this program that makes its numbers up: it is slow, often fails, and insists on its limit
    #[arg(long, conflicts_with = "base_url")]
    demo: bool,
    /// At most that many requests at the same time
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), default_value = "4")]
    connections: u32,
    /// At most that many requests a second
    #[arg(long, value_name = "NUMBER", value_parser = rate, default_value = "5")]
    rate: f64,
    /// Ask again for what the cache has
    #[arg(long)]
    refresh: bool,
}

const REPOSITORIES: [&str; 12] = [
    "rust-lang/rust",
    "tokio-rs/tokio",
    "serde-rs/serde",
    "clap-rs/clap",
    "hyperium/hyper",
    "tokio-rs/axum",
    "BurntSushi/ripgrep",
    "rayon-rs/rayon",
    "crossbeam-rs/crossbeam",
    "dtolnay/anyhow",
    "launchbadge/sqlx",
    "rust-lang/cargo",
];

fn repository(text: &str) -> anyhow::Result<String> {
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let is_pair = text.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name));
    ensure!(is_pair, "expected OWNER/NAME, as in rust-lang/rust");
    Ok(text.to_owned())
}

fn base_url(text: &str) -> anyhow::Result<String> {
    ensure!(text.starts_with("http://") || text.starts_with("https://"), "expected http://HOST or https://HOST");
    Ok(text.trim_end_matches('/').to_owned())
}

fn rate(text: &str) -> anyhow::Result<f64> {
    match text.parse() {
        Ok(rate) if (0.001..=10_000.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => bail!("expected a number from 0.001 to 10000"),
    }
}

/// Where to ask, and how.
#[derive(Debug)]
struct Api {
    agent: ureq::Agent,
    base_url: String,
    token: Option<String>,
}

impl Api {
    fn new(base_url: String) -> Self {
        let mut config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20)));
        if base_url.starts_with("http://127.0.0.1") {
            config = config.proxy(None); // no proxy leads to this machine
        }
        let token = std::env::var("GITHUB_TOKEN").ok().filter(|token| !token.is_empty());
        Self { agent: config.build().into(), base_url, token }
    }
}

#[derive(Deserialize)]
struct Repository {
    stargazers_count: u64,
}

/// Asks for one repository. The cache key is made of `source` and `repository`: the connection must not be part of it.
#[task(
    run_name = "stars of {repository}",
    retries = 4,
    retry_delay_secs = exponential(0.5, 30),
    retry_jitter = 0.3,
    retry_if = is_temporary,
    cache_ttl = "1d",
    concurrency = ["connections", "requests"],
)]
fn fetch_stars(#[cache(skip)] api: &Api, source: &str, repository: &str) -> Result<u64, ureq::Error> {
    let mut request = api.agent.get(format!("{}/repos/{repository}", api.base_url));
    if let Some(token) = &api.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    tracing::debug!("asking {source} for {repository}");
    let found: Repository = request.call()?.body_mut().read_json()?;
    Ok(found.stargazers_count)
}

/// Whether asking again may help: not if the server understood the question and said no.
fn is_temporary(error: &ureq::Error) -> bool {
    if let ureq::Error::StatusCode(status) = error {
        return *status == 429 || *status >= 500;
    }
    !matches!(error, ureq::Error::BadUri(_) | ureq::Error::Json(_))
}

/// What was found out, most stars first, and what was not.
#[derive(Debug, Clone)]
struct Ranking {
    stars: Vec<(u64, String)>,
    failures: Vec<String>,
}

/// Takes the outcomes rather than the numbers, so it runs although some of them are failures.
#[task]
fn rank(repositories: &[String], outcomes: &[Result<u64, TaskError>]) -> Ranking {
    let mut ranking = Ranking { stars: Vec::new(), failures: Vec::new() };
    for (repository, outcome) in repositories.iter().zip(outcomes) {
        match outcome {
            Ok(stars) => ranking.stars.push((*stars, repository.clone())),
            Err(error) => ranking.failures.push(error.to_string()),
        }
    }
    ranking.stars.sort_by(|a, b| b.cmp(a));
    ranking
}

#[flow]
async fn repo_stars(
    #[param(skip)] api: Arc<Api>,
    source: String,
    repositories: Vec<String>,
    refresh: bool,
) -> Result<Ranking, TaskError> {
    let fetch = fetch_stars::configure().refresh_cache(refresh);
    let outcomes = fetch.submit_map(unmapped(api), unmapped(source), repositories.clone());
    rank(repositories, outcomes).await
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "repo_stars: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let demo = if args.demo { Some(demo::Server::start().await.context("cannot start the server")?) } else { None };
    let (base_url, source) = match &demo {
        Some(server) => (server.base_url(), "demo".to_owned()), // its port is another one each time
        None => (args.base_url.clone(), args.base_url),
    };

    let orchestrator = Orchestrator::current();
    orchestrator.limit("connections", args.connections).await?;
    // One slot that comes back that often: an even pace, without a burst at the start.
    orchestrator.limit("requests", 1).slot_decay(args.rate).await?;

    let run = repo_stars(Arc::new(Api::new(base_url)), source, args.repositories, args.refresh);
    let id = run.run_id();
    let ranking = run.await.map_err(|error| anyhow::Error::msg(error.first_cause()))?;

    let runs = orchestrator.task_runs(id).await?;
    let cached = runs.iter().filter(|run| run.state.name == "Cached").count();
    let mut text = String::new();
    for (stars, repository) in &ranking.stars {
        writeln!(text, "{stars:>8}  {repository}")?;
    }
    let all = ranking.stars.len() + ranking.failures.len();
    writeln!(text, "{cached} of {all} results came from the cache")?;
    if let Some(server) = demo {
        writeln!(text, "{}", server.report())?;
    }
    show(&text).context("cannot write to the standard output")?;
    match &ranking.failures[..] {
        [] => Ok(()),
        [first, ..] => bail!("could not find out {} of the numbers; {first}", ranking.failures.len()),
    }
}

/// Prints the text; a reader that has read enough, such as `head`, is no error.
fn show(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}
