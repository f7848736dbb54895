//! Transcripts of sessions, which are played again and compared: `transcripts/*.txt`, and the sessions in `docs/cli.md`.
//!
//! A line `$ orchestrator …` is a command; what it prints to standard output and standard error follows, then its exit
//! code unless that is 0. `BLESS=1 cargo test -p orchestrator-cli` writes what is printed now; read it before you commit it.

use std::fs;
use std::path::{Path, PathBuf};

use super::world::World;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The words of a command line; single quotes keep words together.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (n, part) in line.split('\'').enumerate() {
        if n % 2 == 1 { words.push(part) } else { words.extend(part.split_whitespace()) }
    }
    words
}

/// The same session as it goes now.
fn play(world: &World, session: &str) -> String {
    let mut text = String::new();
    for line in session.lines().filter(|line| line.starts_with("$ ")) {
        let arguments = words(line.strip_prefix("$ orchestrator").expect("sessions are of this program"));
        let answer = world.ask(&arguments);
        text += &format!("{line}\n{}{}", answer.out, answer.err);
        match answer.code {
            Some(0) => {}
            code => {
                text += &format!("[exit {}]\n", code.map_or_else(|| "by a signal".to_owned(), |code| code.to_string()))
            }
        }
        text.push('\n');
    }
    text = text.replace(&world.folder().display().to_string(), "~/.local/share/orchestrator");
    text.trim_end().to_owned() + "\n"
}

/// Compares what a file says with what is so, or writes it.
fn compare(path: &Path, found: &str) -> Result<(), String> {
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == found {
        return Ok(());
    }
    if std::env::var_os("BLESS").is_some() {
        return fs::write(path, found).map_err(|error| format!("cannot write {}: {error}", path.display()));
    }
    let differing = expected.lines().zip(found.lines()).position(|(a, b)| a != b);
    let line = differing.unwrap_or_else(|| expected.lines().count().min(found.lines().count())) + 1;
    Err(format!("{} differs from line {line} on; it is now:\n{found}", path.display()))
}

#[test]
fn sessions_go_as_they_are_written_down() {
    let mut files: Vec<PathBuf> = fs::read_dir(here("tests/it/transcripts"))
        .expect("the folder of transcripts")
        .map(|entry| entry.expect("a transcript").path())
        .collect();
    files.sort();
    let differences: Vec<String> = files
        .iter()
        .filter_map(|path| {
            let session = fs::read_to_string(path).expect("a transcript");
            compare(path, &play(&World::new(), &session)).err()
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn sessions_in_the_documentation_are_real() {
    const BEGIN: &str = "```console\n$ orchestrator";
    let path = here("../docs/cli.md");
    let page = fs::read_to_string(&path).expect("the page about the command line");
    let mut found = String::new();
    let mut rest = page.as_str();
    let world = World::new();
    while let Some(start) = rest.find(BEGIN) {
        let (before, session) = rest.split_at(start + "```console\n".len());
        let end = session.find("```").expect("a session ends");
        found = found + before + &play(&world, &session[..end]);
        rest = &session[end..];
    }
    found += rest;
    compare(&path, &found).unwrap_or_else(|difference| panic!("{difference}"));
}
