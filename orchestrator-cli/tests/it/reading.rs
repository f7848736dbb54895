//! Databases that whoever looks cannot write: because the file is somebody else's, the folder is, or the disk is full.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use orchestrator_core::StateName::{Completed, Pending, Running};
use orchestrator_core::backend::EventStore as _;
use orchestrator_core::backend::record::{Process, RunInfo};
use orchestrator_core::backend::sqlite::SqliteBackend;
use rusqlite::Connection;

use super::program::Answer;
use super::world::{World, events, fetch, flow, went};

/// The commands that look.
const LOOKS: &[&[&str]] = &[
    &["runs", "ls"],
    &["runs", "ls", "--state", "failed"],
    &["runs", "show", "brave-otter"],
    &["runs", "tree", "brave-otter"],
    &["runs", "logs", "brave-otter"],
    &["runs", "states", "33333333"],
    &["runs", "explain", "brave-otter"],
    &["tasks", "ls"],
    &["limits", "ls"],
    &["cache", "ls"],
    &["cache", "show", "2c"],
    &["db", "check"],
    &["db", "migrate"],
];

/// Somebody who owns nothing, if this test may say so; else its own user, who has to keep to permissions as well.
const STRANGER: u32 = 65534;

impl World {
    fn command_of_stranger(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        if fs::metadata(self.folder()).expect("the folder").uid() == 0 {
            command.uid(STRANGER).gid(STRANGER);
        }
        command
    }

    fn ask_stranger(&self, arguments: &[&str]) -> Answer {
        self.command_of_stranger(arguments).output().expect("run the program").into()
    }

    /// Says who may do what with the database and its folder.
    fn permit(&self, file: u32, folder: u32) {
        for entry in fs::read_dir(self.folder()).expect("the folder") {
            permit(&entry.expect("a file").path(), file);
        }
        permit(self.folder(), folder);
    }

    /// The database as it is while somebody writes, with or without the file in which its log is indexed.
    fn of_a_writer(with_index: bool) -> Self {
        let (here, copy) = (Self::empty(), Self::empty());
        let writer = SqliteBackend::open(here.database()).expect("open");
        writer.append(&events()).expect("store");
        for ending in ["", "-wal", "-shm"] {
            if ending != "-shm" || with_index {
                let name = format!("orchestrator.db{ending}");
                fs::copy(here.path(&name), copy.path(&name)).expect("copy");
            }
        }
        assert!(fs::metadata(copy.path("orchestrator.db-wal")).expect("a log").len() > 0);
        copy
    }

    /// All files with their content and when it was changed.
    fn files(&self) -> Vec<(String, SystemTime, Vec<u8>)> {
        let entries = fs::read_dir(self.folder()).expect("the folder");
        let mut files: Vec<_> = entries
            .map(|entry| {
                let entry = entry.expect("a file");
                let changed = entry.metadata().expect("its times").modified().expect("its time");
                (entry.file_name().into_string().expect("a name"), changed, fs::read(entry.path()).expect("read"))
            })
            .collect();
        files.sort();
        files
    }

    /// What the stranger sees is all that there is, and nothing is changed by looking.
    #[track_caller]
    fn shows_all(&self) {
        let before = self.files();
        let whole = World::new();
        for command in LOOKS {
            let (wanted, seen) = (whole.ask(command), self.ask_stranger(command));
            let out = seen.out.replace(&self.folder().display().to_string(), &whole.folder().display().to_string());
            // A run that goes on may take a minute longer by now.
            let wanted = if wanted.out == out { wanted } else { whole.ask(command) };
            assert_eq!((seen.code, out, seen.err.as_str()), (Some(0), wanted.out, &*wanted.err), "{command:?}");
        }
        assert!(self.files() == before, "looking changes nothing");
    }
}

fn permit(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("set permissions");
}

#[test]
fn looking_leaves_no_trace() {
    let world = World::new();
    let before = world.files();
    for command in LOOKS {
        world.ask(command);
    }
    assert!(world.files() == before);
}

#[test]
fn a_file_in_a_folder_where_nothing_may_be_written() {
    let world = World::new();
    world.permit(0o444, 0o555);
    world.shows_all();
    world.permit(0o644, 0o755);
}

#[test]
fn a_file_that_may_not_be_written_gets_no_company() {
    let world = World::new();
    world.permit(0o444, 0o777);
    world.shows_all();
}

#[test]
fn a_file_that_a_process_has_left_when_it_was_killed() {
    for with_index in [true, false] {
        let world = World::of_a_writer(with_index);
        for folder in [0o555, 0o777] {
            world.permit(0o444, folder);
            world.shows_all();
        }
        world.permit(0o644, 0o755);
    }
}

#[test]
fn a_folder_where_nothing_may_be_made_beside_a_file_that_may_be_written() {
    let world = World::new();
    world.permit(0o666, 0o555);
    world.shows_all();
    world.permit(0o644, 0o755);
}

/// Says when it is dropped that all is over.
struct Last<'a>(&'a AtomicBool);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn somebody_else_writes_all_the_time() {
    let world = World::new();
    permit(world.folder(), 0o555);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let last = Last(&over);
        scope.spawn(|| {
            let mut n = 1_000;
            while !over.load(Ordering::Relaxed) {
                // Files come and go with the last connection.
                let writer = SqliteBackend::open(world.database()).expect("open");
                for _ in 0..100 {
                    n += 1;
                    let run = fetch(n, &flow(1, "brave-otter"), 7);
                    writer
                        .append(&[went(&run, &[(Pending, 5), (Running, 6), (Completed, 9)], None, 1)])
                        .expect("store");
                }
            }
        });
        for _ in 0..10 {
            for command in [&["runs", "ls"][..], &["runs", "show", "brave-otter"], &["db", "check"]] {
                let answer = world.ask_stranger(command);
                assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{command:?}: {answer:?}");
            }
        }
        drop(last);
    });
    permit(world.folder(), 0o755);
}

#[test]
fn a_flow_run_that_has_completed_is_not_said_to_be_resumed_by_another_program() {
    let world = World::new();
    world.give(&[went(&flow(31, "done-finch"), &[(Pending, 5), (Running, 6), (Completed, 9)], None, 1)]);
    let answer = world.ask(&["runs", "resume", "done-finch"]);
    let said = "error: flow run 'done-finch' has completed: there is nothing to resume\n";
    assert_eq!((answer.code, answer.err.as_str()), (Some(2), said), "{answer:?}");
}

/// A process of this machine that is no more.
static GONE: LazyLock<Process> = LazyLock::new(|| {
    let read = |path: &str| fs::read_to_string(path).expect("what the system tells").trim().to_owned();
    let link = fs::read_link("/proc/self/ns/pid").expect("a namespace");
    let namespace = link.to_str().and_then(|link| link.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok());
    let namespace = namespace.expect("its number");
    Process { host: read("/proc/sys/kernel/hostname"), pid: 4_000_000_000, namespace, started: 7, session: 1 }
});

#[test]
fn runs_of_a_process_that_is_gone_are_shown_as_crashed() {
    let world = World::new();
    let finch = RunInfo { process: &GONE, ..flow(11, "lost-finch") };
    let inside = RunInfo { process: &GONE, ..fetch(12, &finch, 0) };
    let long: Vec<_> = (0..40).map(|n| (Running, n)).collect();
    world.give(&[went(&finch, &[(Pending, 5), (Running, 9)], None, 1), went(&inside, &long, None, 1)]);
    world.permit(0o444, 0o555);
    let before = world.files();
    let tell = |command: &[&str]| {
        let answer = world.ask_stranger(command);
        assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{command:?}");
        answer.out
    };
    assert!(tell(&["runs", "ls", "--state", "crashed"]).contains("lost-finch"));
    assert!(!tell(&["runs", "ls", "--state", "running"]).contains("lost-finch"));
    let gone = "its process 4000000000 on";
    for command in
        [&["runs", "explain", "lost-finch"][..], &["runs", "show", &"c".repeat(8)], &["runs", "states", "lost-finch"]]
    {
        let out = tell(command);
        assert!(out.contains(gone) && out.contains("Crashed"), "{command:?}: {out}");
    }
    assert!(tell(&["runs", "states", &"c".repeat(8)]).trim_end().ends_with("went away"));
    assert!(tell(&["runs", "show", "lost-finch"]).contains("1: 1 Crashed"));
    assert!(world.files() == before, "looking changes nothing");
    world.permit(0o644, 0o755);
    assert_eq!(world.json(&["runs", "show", "lost-finch"])["state"], "Crashed");
    let by_hand = Connection::open(world.database()).expect("open");
    let state: String = by_hand
        .query_row("SELECT state FROM flow_run WHERE given_name = 'lost-finch'", [], |row| row.get(0))
        .expect("the run");
    assert_eq!(state, "Crashed", "who may write does");
}

/// A small file system without any room, for those who may mount one.
#[cfg(target_os = "linux")]
struct FullDisk(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl FullDisk {
    fn over(world: &World) -> Option<Self> {
        let bytes = fs::read(world.database()).expect("the database");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(world.folder()).stderr(std::process::Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            return None;
        }
        let disk = Self(world.folder().to_owned());
        fs::write(world.database(), bytes).expect("there is room for it");
        let error = fs::write(world.path("filling"), vec![0; 4 << 20]).expect_err("all room is taken");
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        Some(disk)
    }
}

#[cfg(target_os = "linux")]
impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
#[expect(clippy::print_stdout, reason = "whoever reads the test's output is told that it was skipped")]
fn a_full_disk_can_be_looked_at_and_is_left_whole() {
    let world = World::new();
    let Some(_disk) = FullDisk::over(&world) else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    world.shows_all();
    let compacted = world.ask(&["db", "compact"]).err;
    assert!(
        compacted.ends_with("no space is left: it needs some room to do so; the file is as it was\n"),
        "{compacted}"
    );
    let before = fs::read(world.database()).expect("the database");
    for command in [&["db", "compact"][..], &["runs", "rm", "brave-otter", "--yes"], &["cache", "rm", "2c"]] {
        let answer = world.ask(command);
        assert_eq!((answer.code, answer.out.as_str()), (Some(5), ""), "{command:?}: {answer:?}");
        assert!(answer.err.contains(": no space is left: "), "{command:?}: {answer:?}");
    }
    assert!(fs::read(world.database()).expect("the database") == before, "what failed has changed nothing");
    assert_eq!(world.tell(&["db", "check"]), "nothing is wrong\n");
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let world = World::new();
    world.permit(0o444, 0o555);
    let before = world.files();
    for command in [
        &["runs", "rm", "brave-otter", "--yes"][..],
        &["runs", "cancel", "calm-heron"],
        &["cache", "rm", "2c"],
        &["limits", "set", "db", "4"],
        &["db", "compact"],
    ] {
        let answer = world.ask_stranger(command);
        assert_eq!((answer.code, answer.out.as_str()), (Some(5), ""), "{command:?}: {answer:?}");
        assert!(answer.err.ends_with("it may only be read\n"), "{command:?}: {answer:?}");
    }
    assert!(world.files() == before);
    world.permit(0o644, 0o755);
}

#[test]
fn a_file_of_an_older_format_that_may_only_be_read() {
    let world = World::empty();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/format_2.db"), world.database()).expect("copy");
    world.permit(0o444, 0o555);
    let before = world.files();
    let answer = world.ask_stranger(&["runs", "ls"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    assert!(answer.out.contains("Paused"), "{}", answer.out);
    let answer = world.ask_stranger(&["db", "migrate"]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(5), ""));
    let said = "it has format 2 and is to be brought to format 3 first, but it may only be read";
    assert!(answer.err.contains(said), "{}", answer.err);
    assert!(world.files() == before);
    world.permit(0o644, 0o755);
}

#[test]
fn what_is_no_database_that_can_be_read_is_named() {
    let world = World::new();
    let says = |wanted: &str| {
        let answer = world.ask_stranger(&["runs", "ls"]);
        assert_eq!((answer.code, answer.out.as_str()), (Some(5), ""), "{answer:?}");
        assert!(answer.err.contains(wanted), "{wanted}: {}", answer.err);
    };
    permit(world.folder(), 0o755);
    permit(&world.database(), 0o000);
    says("Permission denied");
    permit(&world.database(), 0o644);
    permit(world.folder(), 0o000);
    says("Permission denied");
    permit(world.folder(), 0o755);
    let by_hand = |sql: &str| Connection::open(world.database()).expect("open").execute_batch(sql).expect("run SQL");
    by_hand("PRAGMA user_version = 99");
    world.permit(0o444, 0o555);
    says("it has format 99, written by a newer version of orchestrator");
    world.permit(0o644, 0o755);
    fs::write(world.database(), "not a database at all, whatever its name says").expect("write");
    world.permit(0o444, 0o555);
    says("its content is damaged, or it is no database of ours");
    world.permit(0o644, 0o755);
    fs::write(world.database(), "").expect("write");
    says("there is none yet");
    fs::remove_file(world.database()).expect("remove");
    fs::create_dir(world.database()).expect("a folder");
    says("it is a folder, not a file");
}
