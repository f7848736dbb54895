//! Killed at random moments until it completes: what was stored stays, and all is as if nothing had happened.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orchestrator::FlowRunQuery;
use orchestrator::prelude::*;

use crate::child::{self, Role};
use crate::pipeline::{BY_ITSELF, EQUAL, LARGE, SECOND};
use crate::witness;

/// A process lives so long on average before it is killed; longer if that is not enough to get on.
const LIFE: Duration = Duration::from_millis(30);
/// Kills in one pipeline; then it is left in peace, so that short lives alone do not decide how many there are.
const ENOUGH: usize = 40;

const ROLE: &str = "pipeline::runs_in_a_process_of_its_own";

#[tokio::test]
async fn a_pipeline_that_is_killed_again_and_again_completes_as_if_nothing_had_happened() {
    let wanted = usize::try_from(child::number("ORCHESTRATOR_TEST_KILLS").unwrap_or(40)).unwrap();
    let first = child::seed();
    let begin = Instant::now();
    let (mut kills, mut pipelines) = (0, 0);
    while kills < wanted {
        kills += survives(first + pipelines, (first + pipelines).is_multiple_of(3)).await;
        pipelines += 1;
    }
    let took = begin.elapsed();
    println!(
        "{pipelines} pipelines were killed {kills} times in {took:.1?}: {:.0} a minute",
        60.0 * kills as f64 / took.as_secs_f64()
    );
}

/// Kills the pipeline of that seed until it completes, and looks at what is left; says how often it was killed. It is
/// resumed, or goes on by itself.
async fn survives(seed: u64, by_itself: bool) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pipeline = vec![("CRASH_TEST_PIPELINE", seed.to_string())];
    pipeline.extend(by_itself.then(|| (BY_ITSELF, "1".to_owned())));
    let mut second = pipeline.clone();
    second.push((SECOND, "1".to_owned()));
    let (mut kills, mut interruptions, mut life, mut completed) = (0, 0, LIFE, 0);
    while !folder.join("result").exists() || kills == 0 {
        // Now and then two processes want to go on with it.
        let mut other = (random.u8(..4) == 0).then(|| Role::start(ROLE, folder, &second));
        if by_itself && let Some(other) = other.take() {
            // The other one would be asked for a run of its own. If it ends before it is killed, it leaves the run that it
            // went on with as crashed as well.
            match other.kill_after(life.mul_f64(2.0 * random.f64())) {
                true => kills += 1,
                false => interruptions += 1,
            }
            continue;
        }
        let first = Role::start(ROLE, folder, &pipeline);
        if kills >= ENOUGH {
            drop(other);
            assert!(first.end_within(Duration::from_secs(60)).success(), "seed {seed}: {}", child::said(folder));
            break;
        }
        kills += usize::from(first.kill_after(life.mul_f64(2.0 * random.f64())));
        kills += usize::from(other.is_some_and(|other| other.kill_after(life.mul_f64(random.f64()))));
        let now = witness::read(folder).values().filter(|work| work.completed.is_some()).count();
        life = if now > completed { LIFE } else { life.mul_f64(1.3) };
        completed = now;
    }
    let how = if by_itself { "by itself" } else { "resumed" };
    println!("ORCHESTRATOR_TEST_SEED={seed}: {kills} kills, {how}");
    // The result is there, and perhaps the process was killed before the pipeline had ended.
    assert!(
        Role::start(ROLE, folder, &pipeline).end_within(Duration::from_secs(60)).success(),
        "{}",
        child::said(folder)
    );

    is_as_if_undisturbed(folder, seed, kills + interruptions).await;
    bodies_ran_no_more_than_they_had_to(folder, seed);
    let said = child::said(folder);
    assert!(!said.contains("locked") && !said.contains("busy"), "seed {seed}: {said}");
    kills
}

/// The pipeline has completed in the folder, and nothing tells it from one that was left alone but that it was stopped at
/// most so often.
pub(crate) async fn is_as_if_undisturbed(folder: &Path, seed: u64, stops: usize) {
    let undisturbed = tempfile::tempdir().unwrap();
    let undisturbed = undisturbed.path();
    let alone = Role::start(ROLE, undisturbed, &[("CRASH_TEST_PIPELINE", seed.to_string())]);
    assert!(alone.end_within(Duration::from_secs(60)).success(), "seed {seed}: {}", child::said(undisturbed));
    assert_eq!(witness::published(folder), witness::published(undisturbed), "seed {seed}");
    assert_eq!(results(folder), results(undisturbed), "seed {seed}");
    history_is_whole(folder, seed, stops).await;
}

/// The digest of every persisted result, in an order that does not depend on when it came.
fn results(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let connection = rusqlite::Connection::open(folder.join("home/orchestrator.db")).unwrap();
    let select =
        "SELECT type_name, digest FROM result JOIN encoding ON encoding.no = encoding ORDER BY type_name, digest";
    let mut select = connection.prepare(select).unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(|row| row.unwrap()).collect()
}

fn bodies_ran_no_more_than_they_had_to(folder: &Path, seed: u64) {
    let work = witness::read(folder);
    assert!(work.len() > 200, "seed {seed}: {} pieces of work", work.len());
    for (what, work) in work {
        let mut processes = work.began.clone();
        processes.sort_unstable();
        processes.dedup();
        let most = if what.starts_with("equal") { EQUAL } else { 1 };
        for process in processes {
            let began = work.began.iter().filter(|begun| **begun == process).count();
            assert!(began as u64 <= most, "seed {seed}: {what} began {began} times in one process");
        }
        let Some(completed) = work.completed else { continue };
        assert_eq!(completed, work.began.len(), "seed {seed}: {what} completed and began again: {:?}", work.began);
    }
}

async fn history_is_whole(folder: &Path, seed: u64, stops: usize) {
    let orchestrator = Orchestrator::builder().home(folder.join("home")).build().await.unwrap();
    let runs = orchestrator.flow_runs(&FlowRunQuery::new().flow("everything")).await.unwrap();
    let begun: Vec<_> = runs.iter().filter(|run| run.start_time.is_some()).collect();
    let [run] = begun[..] else { panic!("seed {seed}: one run, not {}", begun.len()) };
    assert_eq!(run.state.kind, StateType::Completed, "seed {seed}");
    let states = orchestrator.states(run.id).await.unwrap();
    let crashed: Vec<_> = states.iter().filter(|state| state.kind == StateType::Crashed).collect();
    assert!(crashed.len() <= stops, "seed {seed}: stopped {stops} times: {crashed:#?}");
    for below in orchestrator.flow_runs(&FlowRunQuery::new().limit(10_000)).await.unwrap() {
        assert!(below.state.is_terminal(), "seed {seed}: {below:?}");
        for task in orchestrator.task_runs(below.id).await.unwrap() {
            assert!(task.state.is_terminal(), "seed {seed}: {task:?}");
        }
    }
    for limit in orchestrator.limits().await.unwrap() {
        assert_eq!((limit.taken, limit.waiting), (0, 0), "seed {seed}: {limit:?}");
    }
    assert_eq!(orchestrator.check_store().await.unwrap(), [], "seed {seed}");
    // Objects that a killed process had made and not recorded, or not written to their end, are deleted in the background.
    let deadline = Instant::now() + Duration::from_secs(60);
    while objects(folder).len() != LARGE as usize && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let found = objects(folder);
    assert_eq!(found.len(), LARGE as usize, "seed {seed}: objects for {LARGE} large results: {found:#?}");
    orchestrator.shutdown().await.unwrap();
}

/// The files in the folder of results.
fn objects(folder: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(folder.join("home/results")).into_iter().flatten();
    files.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}
