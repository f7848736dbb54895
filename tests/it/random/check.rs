//! What must hold of every program, and of those without cancellations.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use orchestrator::FlowRunId;
use orchestrator::prelude::*;

use super::model::{Expected, model};
use super::program::{Node, Program, Within};
use super::world::{What, World};
use crate::door::states;

/// How often each thing happened to a task, and where in the log it did.
struct Log(HashMap<(usize, What), Vec<usize>>);

impl Log {
    fn of(world: &World) -> Self {
        let mut places: HashMap<_, Vec<usize>> = HashMap::new();
        for (place, entry) in world.log().into_iter().enumerate() {
            places.entry(entry).or_default().push(place);
        }
        Self(places)
    }

    fn all(&self, index: usize, what: What) -> &[usize] {
        self.0.get(&(index, what)).map_or(&[], Vec::as_slice)
    }

    fn count(&self, index: usize, what: What) -> usize {
        self.all(index, what).len()
    }
}

/// Every state that a task of any program was in.
static STATES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Checks that the programs were of many kinds.
pub(crate) fn saw_all_states() {
    let seen = STATES.lock().unwrap().clone();
    let all = [
        "AwaitingConcurrencySlot",
        "AwaitingRetry",
        "Cached",
        "Cancelled",
        "Cancelling",
        "Completed",
        "Failed",
        "NotReady",
        "Pending",
        "Retrying",
        "RolledBack",
        "Running",
        "TimedOut",
    ];
    assert!(seen.iter().eq(all), "{seen:?}");
}

/// Checks that as many sync bodies as ever can be on threads at the same time.
pub(crate) async fn threads_came_back(threads: usize) {
    #[task]
    fn meet(present: Arc<AtomicUsize>, all: usize) -> bool {
        present.fetch_add(1, Ordering::SeqCst);
        let patience = Instant::now() + Duration::from_secs(20);
        while present.load(Ordering::SeqCst) < all && Instant::now() < patience {
            std::thread::yield_now();
        }
        present.load(Ordering::SeqCst) == all
    }
    let present = Arc::new(AtomicUsize::new(0));
    let all: Vec<_> = (0..threads).map(|_| meet(Arc::clone(&present), threads)).collect();
    assert_eq!(orchestrator::join_all(all).await.unwrap(), vec![true; threads]);
}

/// Checks what holds whatever happened; gives the state and run count of each task that was submitted.
pub(crate) async fn invariants(world: &World, parts: &Program, id: FlowRunId) -> Vec<Option<TaskRun>> {
    let orchestrator = Orchestrator::current();
    assert_eq!(world.wrong(), [""; 0]);
    for limit in orchestrator.limits().await.unwrap() {
        assert_eq!((limit.taken, limit.waiting), (0, 0), "{limit:?}");
    }
    let flow = orchestrator.flow_run(id).await.unwrap();
    assert!(flow.state.is_terminal() && flow.state.kind != StateType::Crashed, "{flow:?}");
    assert_eq!(states(id).await.last(), Some(&flow.state.name));
    let log = Log::of(world);
    let mut nodes: Vec<(Within, &Node)> = Vec::new();
    for part in parts {
        nodes.extend(part.nodes.iter().map(|node| (part.within, node)));
    }
    let mut runs = Vec::new();
    for (index, (within, node)) in nodes.into_iter().enumerate() {
        let Some(run) = world.run(index) else {
            runs.push(None);
            continue;
        };
        let run = orchestrator.task_run(run.run_id()).await.unwrap();
        // `states` checks that timestamps increase and that no terminal state is left.
        let seen = states(run.id).await;
        assert!(run.state.is_terminal() && seen.last() == Some(&run.state.name), "{run:?} {seen:?}");
        assert!(run.run_count <= node.retries + 1, "{run:?}");
        assert_eq!(run.upstream.len(), node.takes.len());
        STATES.lock().unwrap().extend(seen);
        told(&log, index, &run);
        undone_or_committed(&log, index, &run, within);
        after_its_inputs(&log, index, node);
        runs.push(Some(run));
    }
    runs
}

/// What was undone together was undone in the reverse order of its completion. Not to be asked of a program on several
/// threads, where the hooks that say what completed may come in another order.
pub(crate) fn undone_in_reverse(world: &World, parts: &Program) {
    let log = Log::of(world);
    let mut first = 0;
    for part in parts {
        let undone = (first..first + part.nodes.len()).filter_map(|index| {
            let undone = log.all(index, What::Undo).first()?;
            Some((*undone, log.all(index, What::Completed)[0]))
        });
        let mut undone: Vec<_> = undone.collect();
        undone.sort_unstable();
        assert!(undone.is_sorted_by(|one, next| one.1 > next.1), "{undone:?}");
        first += part.nodes.len();
    }
}

/// The hooks say what the states say.
fn told(log: &Log, index: usize, run: &TaskRun) {
    let (attempts, told) = (run.run_count as usize, log.count(index, What::Running));
    let cancelled = run.state.kind == StateType::Cancelled;
    // A cancellation may come between the state and the hook, and between the hook and the body.
    assert!(told == attempts || cancelled && told + 1 == attempts, "{told} of {attempts}: {run:?}");
    let bodies = log.count(index, What::Body);
    assert!(bodies == attempts || cancelled && bodies < attempts, "{bodies} of {attempts}: {run:?}");
    let expected = match (run.state.kind, &*run.state.name) {
        (_, "NotReady") => None,
        (StateType::Completed, _) => Some(What::Completed),
        (StateType::Failed, _) => Some(What::Failed),
        (StateType::Cancelled, _) => Some(What::Cancelled),
        _ => panic!("no end: {run:?}"),
    };
    for end in What::ENDS {
        assert_eq!(log.count(index, end), usize::from(expected == Some(end)), "{end:?} {run:?}");
    }
}

/// What a run did is committed once, or undone once if it completed, and never both.
fn undone_or_committed(log: &Log, index: usize, run: &TaskRun, within: Within) {
    let (commits, undone) = (log.count(index, What::Commit), log.count(index, What::Undo));
    let expected = match &*run.state.name {
        "Completed" => (1, 0),
        "RolledBack" => (0, 1),
        // Whoever computed the result has hooks of its own.
        _ => (0, 0),
    };
    assert_eq!((commits, undone), expected, "{run:?}");
    assert!(undone == 0 || matches!(within, Within::Transaction { .. } | Within::Careless), "{run:?}");
}

/// No body starts before its inputs have ended.
fn after_its_inputs(log: &Log, index: usize, node: &Node) {
    let Some(start) = log.all(index, What::Running).first().or(log.all(index, What::Body).first()) else { return };
    for taken in &node.takes {
        let ends = What::ENDS.iter().flat_map(|end| log.all(*taken, *end));
        let bodies = log.all(*taken, What::Body);
        assert!(ends.chain(bodies).all(|end| end < start), "task {index} began before the end of task {taken}");
    }
}

/// Checks that a program without cancellations ended as the model says.
pub(crate) fn as_the_model_says(
    world: &World,
    parts: &Program,
    runs: &[Option<TaskRun>],
    outcome: &Result<(), orchestrator::FlowError>,
) {
    let model = model(parts);
    let nodes: Vec<_> = parts.iter().flat_map(|part| &part.nodes).collect();
    assert_eq!(runs.len(), nodes.len());
    for ((run, node), expected) in runs.iter().zip(&nodes).zip(&model.ends) {
        let run = run.as_ref().expect("every call was made");
        let from_cache = run.state.name == "Cached" && node.cached.is_some();
        let completes = matches!(expected, Expected::Completed | Expected::RolledBack);
        assert!(run.state.name == format!("{expected:?}") || completes && from_cache, "{expected:?} {run:?}");
        let attempts = match expected {
            Expected::NotReady => 0,
            _ if from_cache => 0,
            Expected::Completed | Expected::RolledBack | Expected::Failed | Expected::TimedOut => {
                node.failures.min(node.retries) + 1
            }
        };
        assert_eq!(run.run_count, attempts, "{node:?}");
    }
    assert_eq!(outcome.is_err(), model.flow_fails, "{outcome:?}");
    let mut first = 0;
    for part in parts {
        let undone = model.ends[first..][..part.nodes.len()].contains(&Expected::RolledBack);
        if let Some(committed) = world.transaction(first) {
            assert!(!(committed && undone), "the transaction of task {first} says that it was committed");
        }
        first += part.nodes.len();
    }
}
