//! A disk that is full for a while: the process says so and comes to an end; with room again the pipeline goes on with
//! what was stored.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use orchestrator::prelude::*;

use crate::child::{self, Role};
use crate::kills::is_as_if_undisturbed;
use crate::{pipeline, witness};

const LITTLE_ROOM: &str = "full::runs_where_there_is_little_room";

/// The process that finds the disk full at some time, which must not keep it from coming to an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_where_there_is_little_room() {
    let Some(folder) = child::folder() else { return };
    let seed = child::number("CRASH_TEST_PIPELINE").unwrap();
    witness::open(&folder);
    let said = match tells(seed).await {
        Ok(lost) => format!("completed, {lost} events were lost"),
        Err(error) => error.to_string(),
    };
    std::fs::write(folder.join("said"), said).unwrap();
}

async fn tells(seed: u64) -> anyhow::Result<u64> {
    let orchestrator = Orchestrator::builder().build().await?;
    orchestrator.limit("narrow", 4).await?;
    let ended = orchestrator.scope(async { pipeline::everything(seed).await }).await;
    let left = orchestrator.shutdown().await;
    // What is lost at the very end counts, too. There may be room for all that happened and none to leave the store.
    let lost = orchestrator.lost_events();
    assert!(left.is_err() || lost == 0, "whoever loses {lost} events says so");
    ended?;
    Ok(lost)
}

/// Runs the pipeline in a process with little room, then in one with enough; gives what the first one had to say.
async fn recovers(seed: u64, folder: &Path, little: Command, strict: bool, more_room: impl FnOnce()) -> String {
    let mut settings = vec![("CRASH_TEST_PIPELINE", seed.to_string())];
    if strict {
        settings.push(("ORCHESTRATOR_STRICT", "true".to_owned()));
    }
    let first = Role::start_as(little, LITTLE_ROOM, folder, &settings);
    let status = first.end_within(Duration::from_secs(60));
    assert!(status.success(), "{status}: {}", child::said(folder));
    let said = std::fs::read_to_string(folder.join("said")).unwrap();
    more_room();
    let again = Role::start("pipeline::runs_in_a_process_of_its_own", folder, &settings);
    let status = again.end_within(Duration::from_secs(60));
    assert!(status.success(), "after '{said}': {}", child::said(folder));
    is_as_if_undisturbed(folder, seed, 1).await;
    said
}

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

#[cfg(unix)]
#[tokio::test]
async fn a_limit_to_the_size_of_files_is_survived() {
    let seed = child::seed();
    for (n, kibibytes) in (0..).zip([60, 160, 300, 500, 800]) {
        let folder = tempfile::tempdir().unwrap();
        // The signal would end the process before anything is told of it.
        let mut limited = Command::new("bash");
        limited.args(["-c", &format!("trap '' XFSZ; ulimit -f {kibibytes}; exec \"$0\" \"$@\"")]).arg(this_program());
        let said = recovers(seed + n, folder.path(), limited, n % 2 == 1, || ()).await;
        println!("files of {kibibytes} KiB at most: {said}");
    }
}

/// A small file system, for those who may mount one.
#[cfg(target_os = "linux")]
struct Disk(PathBuf);

#[cfg(target_os = "linux")]
impl Disk {
    fn mount(place: &Path, kibibytes: u32) -> Option<Self> {
        std::fs::create_dir(place).unwrap();
        let disk = Self(place.to_owned());
        disk.option(&format!("size={kibibytes}k")).then_some(disk)
    }

    fn option(&self, option: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", option, "none"]).arg(&self.0).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    }
}

#[cfg(target_os = "linux")]
impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_survived() {
    let seed = child::seed();
    for (n, kibibytes) in (0..).zip([60, 250, 450, 700, 1000, 1300]) {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = Disk::mount(&folder.path().join("home"), kibibytes) else {
            println!("skipped: nothing can be mounted here");
            return;
        };
        let more_room = || assert!(disk.option("remount,size=64m"));
        let said = recovers(seed + n, folder.path(), Command::new(this_program()), n % 2 == 1, more_room).await;
        println!("a disk of {kibibytes} KiB: {said}");
    }
}
