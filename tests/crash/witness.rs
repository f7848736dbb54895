//! Files that outlive the processes: what bodies did, a line each, and what the pipeline gave.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static WITNESS: OnceLock<(PathBuf, File)> = OnceLock::new();

/// From now on this process writes to the witness in the folder.
pub(crate) fn open(folder: &Path) {
    let file = OpenOptions::new().create(true).append(true).open(folder.join("witness.txt")).expect("a witness");
    WITNESS.set((folder.to_owned(), file)).expect("it is opened once");
}

/// One line, in one piece: it is there even if the process is killed right afterwards. A process that has no witness is
/// not disturbed.
pub(crate) fn write(line: &str) {
    let Some((_, file)) = WITNESS.get() else { return };
    let mut file = file;
    file.write_all(format!("{} {line}\n", std::process::id()).as_bytes()).expect("the witness can write");
}

/// Leaves the pipeline's result, in one piece or not at all.
pub(crate) fn publish(result: &str) {
    let Some((folder, _)) = WITNESS.get() else { return };
    std::fs::write(folder.join("result.part"), result).expect("the result can be written");
    std::fs::rename(folder.join("result.part"), folder.join("result")).expect("it can be renamed");
}

pub(crate) fn published(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("result")).expect("the pipeline has left its result")
}

/// What there is to know of one piece of work.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// The processes in which its body began.
    pub(crate) began: Vec<u32>,
    /// How often its body had begun when a process first said that it has completed, where processes tell.
    pub(crate) completed: Option<usize>,
}

/// Reads what the bodies did.
pub(crate) fn read(folder: &Path) -> BTreeMap<String, Work> {
    let text = std::fs::read_to_string(folder.join("witness.txt")).unwrap_or_default();
    let mut all: BTreeMap<String, Work> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.splitn(3, ' ').collect();
        let [process, did, what] = words[..] else { panic!("the witness does not say '{line}'") };
        let work = all.entry(what.to_owned()).or_default();
        match did {
            "began" => work.began.push(process.parse().expect("the number of a process")),
            "completed" => _ = work.completed.get_or_insert(work.began.len()),
            other => panic!("the witness does not say '{other}'"),
        }
    }
    all
}
