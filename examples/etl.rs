//! Extract, transform, load: the classic pipeline in three tasks.
//!
//! It shows how passing one task's future to the next makes the dependency, how large values are handed on by
//! reference, without a copy, how a task is retried only where that can help, and how log lines of a body end up in
//! the run's history.
//!
//! ```text
//! cargo run --example etl                               # the table of elements that ships with the examples
//! cargo run --example etl -- https://example.org/elements.csv clean.csv
//! ```

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use orchestrator::prelude::*;

/// Reads a CSV table, converts one of its columns, drops the rows where that is impossible, and writes the rest.
///
/// The table needs a column `melting_k`, a temperature in kelvin; a column `melting_c` in degrees Celsius is added.
#[derive(Debug, Parser)]
struct Args {
    /// The table to read: a file, or an address that starts with http:// or https://
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/elements.csv"))]
    input: String,
    /// The file to write; it appears only once it is complete
    #[arg(default_value = "target/elements.csv")]
    output: PathBuf,
}

/// A table that is ready to be written, and what was left out of it.
#[derive(Debug)]
struct Cleaned {
    csv: Vec<u8>,
    rows: usize,
    dropped: usize,
}

/// Reads the whole table. Only what went wrong on the network is tried again: a missing file stays missing.
#[task(retries = 3, retry_delay_secs = exponential(0.5, 8), retry_if = is_temporary)]
fn extract(source: &str) -> anyhow::Result<Vec<u8>> {
    if !source.starts_with("http://") && !source.starts_with("https://") {
        return fs::read(source).with_context(|| format!("cannot read {source}"));
    }
    let request = ureq::get(source).config().timeout_global(Some(Duration::from_mins(1))).build();
    let mut response = request.call().with_context(|| format!("cannot get {source}"))?;
    let body = response.body_mut().with_config().limit(1 << 30).read_to_vec();
    body.with_context(|| format!("cannot get all of {source}"))
}

fn is_temporary(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(ureq::Error::StatusCode(status)) => *status == 429 || *status >= 500,
        Some(ureq::Error::BadUri(_)) | None => false,
        Some(_) => true,
    }
}

/// Adds the column and drops bad rows. It borrows the table from the result of `extract`.
#[task]
fn transform(table: &[u8]) -> anyhow::Result<Cleaned> {
    /// How many bad rows are told one by one.
    const TOLD: usize = 5;

    let mut reader = csv::Reader::from_reader(table);
    let mut header = reader.headers().context("the table has no readable header")?.clone();
    let Some(kelvin) = header.iter().position(|name| name == "melting_k") else {
        bail!("the table has no column `melting_k`; its columns are {:?}", header.iter().collect::<Vec<_>>());
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    header.push_field("melting_c");
    writer.write_record(&header)?;

    let (mut rows, mut dropped) = (0, 0);
    for record in reader.records() {
        match record.map_err(anyhow::Error::from).and_then(|record| with_celsius(record, kelvin)) {
            Ok(record) => {
                writer.write_record(&record)?;
                rows += 1;
            }
            Err(reason) => {
                dropped += 1;
                if dropped <= TOLD {
                    tracing::warn!("dropped a row: {reason:#}");
                }
            }
        }
    }
    if dropped > TOLD {
        tracing::warn!("dropped {} more rows", dropped - TOLD);
    }
    Ok(Cleaned { csv: writer.into_inner()?, rows, dropped })
}

fn with_celsius(mut record: csv::StringRecord, kelvin: usize) -> anyhow::Result<csv::StringRecord> {
    let text = record.get(kelvin).unwrap_or_default().trim();
    let line = record.position().map_or(0, csv::Position::line);
    ensure!(!text.is_empty(), "line {line}: melting_k is empty");
    let kelvin: f64 = text.parse().with_context(|| format!("line {line}: melting_k is '{text}'"))?;
    ensure!(kelvin.is_finite() && kelvin >= 0.0, "line {line}: melting_k is {kelvin}, which is no temperature");
    record.push_field(&format!("{:.2}", kelvin - 273.15));
    Ok(record)
}

/// Writes the table beside its place and moves it there, so that nobody ever sees a part of it.
#[task]
fn load(table: &Cleaned, output: &Path) -> anyhow::Result<()> {
    let is_replaceable = output.is_file() || output.symlink_metadata().is_err();
    ensure!(is_replaceable, "cannot write {}: something that is no file is there", output.display());
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let mut options = tempfile::Builder::new();
    #[cfg(unix)]
    options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less what the umask takes
    let mut file = options.tempfile_in(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    file.write_all(&table.csv)?;
    file.as_file().sync_all()?;
    file.persist(output).with_context(|| format!("cannot write {}", output.display()))?;
    Ok(())
}

/// Gives the number of rows that were written and dropped.
#[flow]
async fn etl(input: String, output: PathBuf) -> anyhow::Result<(usize, usize)> {
    let table = extract(input);
    let cleaned = transform(table);
    load(&cleaned, output).await?;
    let cleaned = cleaned.shared().await?;
    Ok((cleaned.rows, cleaned.dropped))
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { input, output } = Args::parse();
    // Neither line is worth a panic when nobody reads it any more, as in `etl | head`.
    match etl(input, output.clone()).await {
        Ok((rows, dropped)) => {
            let _ = writeln!(io::stdout(), "wrote {rows} rows to {}, dropped {dropped}", output.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "etl: {}", error.first_cause());
            ExitCode::FAILURE
        }
    }
}
