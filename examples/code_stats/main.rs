//! Counts the files, lines and bytes of a folder by language, and reads only what changed since the last time.
//!
//! It shows one task run per file, tens of thousands of them; a cache key that is made of what identifies a file's
//! content; failures that are part of the result; and an orchestrator with options of its own.
//!
//! ```text
//! cargo run --release --example code_stats -- ~/.cargo/registry/src
//! cargo run --release --example code_stats -- ~/.cargo/registry/src   # again: every file comes from the cache
//! ```
//!
//! The same holds if the first one was killed half-way: what it had read is in the cache, but for what was on its way there in the
//! last moment.

mod report;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use clap::Parser;
use orchestrator::prelude::*;
use serde::{Deserialize, Serialize, Serializer};
use walkdir::WalkDir;

use crate::report::{Report, Run};

/// Counts files, lines and bytes by language, and remembers what it counted: the next time it reads only files with
/// another path, size or time of modification.
///
/// Every file counts, hidden ones too; symbolic links are not followed. A line ends with a newline, as for `wc -l`. What
/// cannot be read is reported at the end and is no failure.
#[derive(Debug, Parser)]
struct Args {
    /// The folder
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Leave out files and folders of this name; can be given several times
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// How many languages to list
    #[arg(long, value_name = "NUMBER", default_value = "15")]
    top: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Tell of each run; ORCHESTRATOR_LOG or RUST_LOG say more exactly what to tell
    #[arg(long)]
    verbose: bool,
}

/// A file as its folder describes it. This is what the cache key of [`measure`] is made of.
#[derive(Debug, Serialize)]
struct Entry {
    /// Names need not be Unicode, so the key has their bytes.
    #[serde(serialize_with = "bytes_of")]
    path: PathBuf,
    size: u64,
    modified_nanos: i128,
}

fn bytes_of<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(path.as_os_str().as_encoded_bytes())
}

/// What is in a folder.
#[derive(Debug, Default)]
struct Tree {
    files: Vec<Arc<Entry>>,
    links: usize,
    /// Sockets, pipes and devices.
    special: usize,
    /// Places that could not be looked at, and why.
    unreadable: Vec<(PathBuf, String)>,
}

/// What is in a file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Stats {
    bytes: u64,
    lines: u64,
    blank: u64,
    /// Whether there is something behind the last newline.
    unfinished: bool,
    hash: [u8; 32],
}

/// Lists the files of a folder.
#[task]
fn walk(root: &Path, skip: &[String]) -> anyhow::Result<Tree> {
    let root = root.canonicalize().with_context(|| format!("cannot read {}", root.display()))?;
    let mut tree = Tree::default();
    let skipped = |name: &std::ffi::OsStr| skip.iter().any(|skip| name == skip.as_str());
    let entries = WalkDir::new(root).into_iter();
    for entry in entries.filter_entry(|entry| entry.depth() == 0 || !skipped(entry.file_name())) {
        let described = entry.and_then(|entry| Ok((entry.metadata()?, entry.into_path())));
        match described {
            Ok((data, _)) if data.is_dir() => {}
            Ok((data, path)) if data.is_file() => {
                let modified_nanos = data.modified().map_or(0, since_1970);
                tree.files.push(Arc::new(Entry { path, size: data.len(), modified_nanos }));
            }
            Ok((data, _)) if data.is_symlink() => tree.links += 1,
            Ok(_) => tree.special += 1,
            Err(error) if error.depth() == 0 => return Err(error.into()),
            Err(error) => {
                let path = error.path().unwrap_or(Path::new("?")).to_owned();
                tree.unreadable.push((path, error.into_io_error().map_or_else(String::new, |error| error.to_string())));
            }
        }
    }
    Ok(tree)
}

/// Nanoseconds, negative for times before.
fn since_1970(time: SystemTime) -> i128 {
    let nanos = |duration: std::time::Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    time.duration_since(SystemTime::UNIX_EPOCH).map_or_else(|error| -nanos(error.duration()), nanos)
}

/// Reads a file, however large, in pieces.
#[task(cache_ttl = "90d")]
fn measure(entry: &Entry) -> io::Result<Stats> {
    let mut file = File::open(&entry.path)?;
    let mut buffer = vec![0; 1 << 16];
    let mut hasher = blake3::Hasher::new();
    let mut stats = Stats::default();
    let mut blank = true;
    loop {
        let piece = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(piece);
        stats.bytes += piece.len() as u64;
        for &byte in piece {
            if byte == b'\n' {
                stats.lines += 1;
                stats.blank += u64::from(blank);
                blank = true;
            } else if !byte.is_ascii_whitespace() {
                blank = false;
            }
        }
        stats.unfinished = !piece.ends_with(b"\n");
    }
    if stats.bytes != entry.size {
        // Whatever was read, it is not what the cache key describes.
        return Err(io::Error::other("its size changed in the meantime"));
    }
    stats.hash = *hasher.finalize().as_bytes();
    Ok(stats)
}

/// Adds up. It takes outcomes rather than values, so it runs although some files could not be read.
#[task]
fn summarize(tree: &Tree, outcomes: &[Result<Stats, TaskError>]) -> Report {
    let mut report = Report::default();
    (report.links, report.special) = (tree.links, tree.special);
    report.unreadable.clone_from(&tree.unreadable);
    for (entry, outcome) in tree.files.iter().zip(outcomes) {
        match outcome {
            Ok(stats) => report.add(&entry.path, stats),
            Err(error) => {
                let reason = error.downcast_ref::<io::Error>().map_or_else(|| error.to_string(), ToString::to_string);
                report.unreadable.push((entry.path.clone(), reason));
            }
        }
    }
    report
}

#[flow]
async fn code_stats(root: PathBuf, skip: Vec<String>) -> Result<Report, TaskError> {
    let tree = walk(root, skip).shared().await?;
    let outcomes = measure::map(tree.files.clone());
    summarize(tree, outcomes).await
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "code_stats: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    // A line for each of many thousand files is no use; the variables of the environment win over this.
    let orchestrator = Orchestrator::builder()
        .terminal(true)
        .log(if args.verbose { "info" } else { "warn" })
        .handle_signals(true)
        .build()
        .await;
    let orchestrator = orchestrator.map_err(anyhow::Error::msg)?;
    orchestrator.install();

    let begin = Instant::now();
    let flow = code_stats(args.path, args.skip);
    let id = flow.run_id();
    let report = flow.await.map_err(|error| anyhow::Error::msg(error.first_cause()))?;
    let seconds = begin.elapsed().as_secs_f64();

    let runs = orchestrator.task_runs(id).await?;
    let cached = runs.iter().filter(|run| run.state.name == "Cached").count();
    if orchestrator.lost_events() > 0 {
        let _ =
            writeln!(io::stderr(), "code_stats: not all could be remembered; the next run may read more than it must");
    }
    let run = Run { cached, seconds };
    let text = if args.json { report.json(&run)? } else { report.table(&run, args.top) };
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that has read enough, such as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write the report"),
        Ok(()) | Err(_) => Ok(()),
    }
}
