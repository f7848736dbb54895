//! What was counted, and how it is shown.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Stats;

/// How many files that could not be read are listed in the table.
const LISTED: usize = 10;

/// Sums by language, and what else there is to tell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    languages: BTreeMap<&'static str, Sums>,
    total: Sums,
    /// Hashes of the contents seen so far.
    contents: HashSet<[u8; 32]>,
    /// Files with the same content as another one.
    copies: Sums,
    unfinished: u64,
    pub(crate) links: usize,
    pub(crate) special: usize,
    pub(crate) unreadable: Vec<(PathBuf, String)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    files: u64,
    lines: u64,
    blank: u64,
    bytes: u64,
}

/// How the numbers came about.
pub(crate) struct Run {
    pub(crate) cached: usize,
    pub(crate) seconds: f64,
}

impl Sums {
    fn add(&mut self, stats: &Stats) {
        self.files += 1;
        self.lines += stats.lines;
        self.blank += stats.blank;
        self.bytes += stats.bytes;
    }

    fn json(self) -> Value {
        json!({ "files": self.files, "lines": self.lines, "blank": self.blank, "bytes": self.bytes })
    }
}

impl Report {
    pub(crate) fn add(&mut self, path: &Path, stats: &Stats) {
        self.languages.entry(language(path)).or_default().add(stats);
        self.total.add(stats);
        self.unfinished += u64::from(stats.unfinished);
        if stats.bytes > 0 && !self.contents.insert(stats.hash) {
            self.copies.add(stats);
        }
    }

    /// The languages, those with most lines first.
    fn ranked(&self) -> Vec<(&'static str, Sums)> {
        let mut ranked: Vec<_> = self.languages.iter().map(|(name, sums)| (*name, *sums)).collect();
        ranked.sort_by_key(|(_, sums)| std::cmp::Reverse((sums.lines, sums.bytes)));
        ranked
    }

    pub(crate) fn table(&self, run: &Run, top: usize) -> String {
        let mut text = String::new();
        let mut line = |cells: [&str; 5]| {
            let [name, files, lines, blank, bytes] = cells;
            let _ = writeln!(text, "{name:<16}{files:>10}{lines:>14}{blank:>12}{bytes:>18}");
        };
        let row = |sums: Sums| [sums.files, sums.lines, sums.blank, sums.bytes].map(grouped);
        line(["language", "files", "lines", "blank", "bytes"]);
        let ranked = self.ranked();
        let [listed, rest] = [&ranked[..top.min(ranked.len())], &ranked[top.min(ranked.len())..]];
        for (name, sums) in listed {
            let [files, lines, blank, bytes] = row(*sums);
            line([name, &files, &lines, &blank, &bytes]);
        }
        if !rest.is_empty() {
            line([&format!("... {} more", rest.len()), "", "", "", ""]);
        }
        let [files, lines, blank, bytes] = row(self.total);
        line(["total", &files, &lines, &blank, &bytes]);
        text.push('\n');
        text.push_str(&self.remarks());
        let read = self.total.files.saturating_sub(run.cached as u64);
        let (cached, read, seconds) = (grouped(run.cached as u64), grouped(read), run.seconds);
        let _ = writeln!(text, "files: {files}, of which {cached} from the cache and {read} read, in {seconds:.2} s");
        text
    }

    fn remarks(&self) -> String {
        let mut text = String::new();
        let mut say = |what: &str, count: u64, more: &str| {
            if count > 0 {
                let _ = writeln!(text, "{what}: {}{more}", grouped(count));
            }
        };
        say("without a newline at the end", self.unfinished, " (what follows the last one is not counted as a line)");
        say("copies of other files", self.copies.files, &format!(" ({} bytes)", grouped(self.copies.bytes)));
        say("symbolic links, not followed", self.links as u64, "");
        say("sockets, pipes and devices, left out", self.special as u64, "");
        say("could not be read", self.unreadable.len() as u64, "");
        for (path, reason) in self.unreadable.iter().take(LISTED) {
            let _ = writeln!(text, "  {}: {reason}", path.to_string_lossy().escape_debug());
        }
        if self.unreadable.len() > LISTED {
            text.push_str("  ... --json lists them all\n");
        }
        text
    }

    pub(crate) fn json(&self, run: &Run) -> Result<String, serde_json::Error> {
        let languages: BTreeMap<_, _> = self.languages.iter().map(|(name, sums)| (name, sums.json())).collect();
        let place = |(path, reason): &(PathBuf, String)| json!({ "path": path.to_string_lossy(), "reason": reason });
        let unreadable: Vec<_> = self.unreadable.iter().map(place).collect();
        let report = json!({
            "languages": languages,
            "total": self.total.json(),
            "copies": self.copies.json(),
            "unfinished": self.unfinished,
            "links": self.links,
            "special": self.special,
            "unreadable": unreadable,
            "cached": run.cached,
            "seconds": run.seconds,
        });
        Ok(serde_json::to_string_pretty(&report)? + "\n")
    }
}

/// The number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The language that a file is written in, by its extension.
fn language(path: &Path) -> &'static str {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref().unwrap_or_default() {
        "rs" => "Rust",
        "c" | "h" => "C",
        "cc" | "cpp" | "cxx" | "hh" | "hpp" | "hxx" => "C++",
        "s" | "asm" => "Assembly",
        "go" => "Go",
        "java" => "Java",
        "js" | "mjs" | "cjs" | "jsx" => "JavaScript",
        "ts" | "tsx" => "TypeScript",
        "py" | "pyi" => "Python",
        "pl" | "pm" => "Perl",
        "rb" => "Ruby",
        "sh" | "bash" | "zsh" | "fish" => "Shell",
        "sql" => "SQL",
        "html" | "htm" => "HTML",
        "css" | "scss" => "CSS",
        "xml" | "svg" => "XML",
        "json" => "JSON",
        "toml" | "lock" => "TOML",
        "yml" | "yaml" => "YAML",
        "md" | "markdown" => "Markdown",
        "rst" | "adoc" => "Other markup",
        "txt" => "Plain text",
        _ => "other",
    }
}
