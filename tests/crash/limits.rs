//! One limit, many processes, some of which are killed and some suspended: never more holders than it has slots, and
//! never two who compute the same result.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use orchestrator::prelude::*;

use crate::child::{self, Role};

const SLOTS: usize = 3;
const PROCESSES: usize = 4;
const LEASE: Duration = Duration::from_millis(1000);
/// A process that is suspended for so long keeps its lease.
const SHORT: Duration = Duration::from_millis(100);

fn note(folder: &Path, file: &str, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join(file)).expect("a file for notes");
    file.write_all(format!("{line}\n").as_bytes()).expect("it can be written");
}

fn lines(folder: &Path, file: &str) -> Vec<String> {
    std::fs::read_to_string(folder.join(file)).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn lock_file(folder: &Path, name: &str) -> File {
    OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(name)).expect("a lock's file")
}

/// The processes that hold these locks, as the system knows them.
fn holders(folder: &Path, locks: &[String]) -> Vec<String> {
    let inode = |name: &String| format!(":{}", lock_file(folder, name).metadata().expect("it is there").ino());
    let inodes: Vec<_> = locks.iter().map(inode).collect();
    let locks = std::fs::read_to_string("/proc/locks").expect("the system tells of its locks");
    let words = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // 1: FLOCK ADVISORY WRITE 708 00:32:1234 0 EOF
    words
        .filter(|words| {
            words.len() > 5 && words[1] == "FLOCK" && inodes.iter().any(|inode| words[5].ends_with(&**inode))
        })
        .map(|words| words[4].to_owned())
        .collect()
}

fn is_dead(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // 708 (a name) S …
    stat.rsplit(')').next().is_none_or(|rest| matches!(rest.trim_start().chars().next(), None | Some('Z' | 'X')))
}

/// Takes one of these locks, which the system takes back from a process that dies. If none is free, there is one holder
/// too many, unless one of them was suspended, perhaps for longer than its lease: it has its lock, and has lost what it held.
fn lock_one(folder: &Path, what: &str, locks: &[String]) -> Option<File> {
    let lock = locks.iter().map(|name| lock_file(folder, name)).find(|file| file.try_lock().is_ok());
    if lock.is_none() {
        let (holders, suspended) = (holders(folder, locks), lines(folder, "suspended"));
        let me = std::process::id().to_string();
        let live = holders.iter().filter(|holder| !suspended.contains(holder)).count();
        // The system takes the locks of a process that was killed a moment after it shows it as dead.
        if live >= locks.len() && !suspended.contains(&me) && !holders.iter().any(|holder| is_dead(holder)) {
            note(folder, "exceeded", &format!("{what}: {me} beside {holders:?}"));
        }
    }
    lock
}

#[task(concurrency = "shared")]
async fn held(n: u64) -> u64 {
    let folder = child::folder().expect("only the child process calls this");
    let _lock = lock_one(&folder, "slots", &(0..SLOTS).map(|n| format!("lock-{n}")).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_micros(500 + (n % 5) * 400)).await;
    note(&folder, "done", "1");
    n
}

/// All processes want the same at about the same time.
#[task(cache_ttl = "1h")]
async fn computed(key: u64) -> u64 {
    let folder = child::folder().expect("only the child process calls this");
    let _lock = lock_one(&folder, "key", &[format!("key-{key}")]);
    tokio::time::sleep(Duration::from_micros(500 + (key % 5) * 400)).await;
    note(&folder, "computed", &key.to_string());
    key
}

#[flow]
async fn many(time: u64) -> Result<usize, TaskError> {
    let computed = computed::map((0..20).map(|n| time / 200 * 20 + n).collect::<Vec<_>>());
    Ok(held::map(0..100_u64).await?.len() + computed.await?.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_slots_in_a_process_of_its_own() {
    let Some(folder) = child::folder() else { return };
    let orchestrator = Orchestrator::builder().build().await.unwrap();
    while !folder.join("enough").exists() {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        if let Err(error) = orchestrator.scope(async { many(u64::try_from(time).unwrap()).await }).await {
            note(&folder, "fenced", &format!("{} {error}", std::process::id()));
            return;
        }
    }
    // One that was suspended for too long is told so here at the latest.
    if let Err(error) = orchestrator.shutdown().await {
        note(&folder, "fenced", &format!("{} {error}", std::process::id()));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_limit_is_never_exceeded_though_processes_are_killed_and_suspended() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let seed = child::seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let orchestrator = Orchestrator::builder().home(folder.join("home")).build().await.unwrap();
    orchestrator.limit("shared", u32::try_from(SLOTS).unwrap()).await.unwrap();
    let lease = [("ORCHESTRATOR_LEASE_SECS", LEASE.as_secs_f64().to_string())];
    let start = || Role::start("limits::holds_slots_in_a_process_of_its_own", folder, &lease);
    let begin = Instant::now();
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| start()).collect();
    let (mut killed, mut paused, mut suspended) = (0, 0, Vec::new());
    while begin.elapsed() < Duration::from_secs(8) {
        std::thread::sleep(Duration::from_millis(random.u64(50..300)));
        let chosen = random.usize(..processes.len());
        match random.u8(..4) {
            0 => {
                // On a machine that is busy it may be late with its heartbeat already.
                note(folder, "suspended", &processes[chosen].id().to_string());
                processes[chosen].suspend(true);
                std::thread::sleep(SHORT.mul_f64(random.f64()));
                processes[chosen].suspend(false);
                paused += 1;
                continue;
            }
            1 if suspended.len() < 6 => {
                let chosen = processes.swap_remove(chosen);
                note(folder, "suspended", &chosen.id().to_string());
                chosen.suspend(true);
                suspended.push((chosen, Instant::now()));
            }
            _ => {
                processes.swap_remove(chosen).kill();
                killed += 1;
            }
        }
        processes.push(start());
        // Some wake up while the others go on.
        if let Some(awake) = suspended.iter().position(|(_, since)| since.elapsed() > LEASE * 2) {
            let (awake, _) = suspended.remove(awake);
            awake.suspend(false);
            processes.push(awake);
        }
    }
    for (process, _) in &suspended {
        process.suspend(false);
    }
    std::fs::write(folder.join("enough"), "").unwrap();
    let took = begin.elapsed();
    for process in processes.into_iter().chain(suspended.into_iter().map(|(process, _)| process)) {
        let status = process.end_within(Duration::from_secs(20));
        assert!(status.success(), "seed {seed}: {status}: {}", child::said(folder));
    }
    let done = lines(folder, "done").len();
    println!(
        "{done} bodies in {took:.1?} under one limit of {SLOTS} slots: {:.0} a second; {killed} processes were killed, {paused} \
         suspended for a moment, {} for longer than their lease, of which {} were told so",
        done as f64 / took.as_secs_f64(),
        lines(folder, "suspended").len() - paused,
        lines(folder, "fenced").len(),
    );
    assert_eq!(lines(folder, "exceeded"), Vec::<String>::new(), "seed {seed}");
    let mut keys = lines(folder, "computed");
    let computed = keys.len();
    keys.sort_unstable();
    keys.dedup();
    // Whoever was killed, or lost its lease, in between of computing a result and storing it.
    let again = computed - keys.len();
    println!("{} results were computed once for all processes, {again} of them again", keys.len());
    assert!(again <= 20 * (killed + lines(folder, "suspended").len()), "seed {seed}");
    assert!(done > 100, "seed {seed}: {done}");
    let limits = orchestrator.limits().await.unwrap();
    let left: Vec<_> = limits.iter().map(|limit| (&*limit.name, limit.taken, limit.waiting)).collect();
    assert_eq!(left, [("shared", 0, 0)], "seed {seed}");
    assert_eq!(orchestrator.check_store().await.unwrap(), [], "seed {seed}");
    orchestrator.shutdown().await.unwrap();
}
