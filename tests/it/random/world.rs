//! What the bodies and hooks of one program see and count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use orchestrator::TaskRunId;
use orchestrator::prelude::*;

use super::program::{Kind, Made, NARROW, Program, Within};

/// What happened to a task, in the order of all that happened in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// A hook on each attempt.
    Running,
    Body,
    /// The hooks on the end.
    Completed,
    Failed,
    Cancelled,
    Crashed,
    /// The hooks on the end of its transaction.
    Commit,
    Undo,
}

impl What {
    pub(crate) const ENDS: [Self; 4] = [Self::Completed, Self::Failed, Self::Cancelled, Self::Crashed];
}

pub(crate) struct World {
    pub(crate) id: u64,
    /// How long a delay or timeout is.
    pub(crate) unit: Duration,
    program: Program,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    log: Vec<(usize, What)>,
    /// Who is inside: of each limit, of each part, and on threads.
    inside: HashMap<Place, usize>,
    /// How many there may be.
    most: HashMap<Place, usize>,
    wrong: Vec<String>,
    runs: HashMap<usize, TaskFuture<Made>>,
    /// The transactions by their first task, and whether they were committed.
    transactions: HashMap<usize, bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Limit(usize),
    Tag,
    Subflow(usize),
    Threads,
}

static WORLDS: LazyLock<Mutex<HashMap<u64, Arc<World>>>> = LazyLock::new(Mutex::default);
static TASKS: LazyLock<Mutex<HashMap<TaskRunId, Made>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn world(id: u64) -> Arc<World> {
    Arc::clone(&WORLDS.lock().unwrap()[&id])
}

impl World {
    pub(crate) fn new(program: Program, unit: Duration, threads: usize) -> Arc<Self> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut state = State::default();
        state.most.insert(Place::Threads, threads);
        for part in 0..program.len() {
            state.most.insert(Place::Subflow(part), NARROW);
        }
        let world = Arc::new(Self { id, unit, program, state: Mutex::new(state) });
        WORLDS.lock().unwrap().insert(id, Arc::clone(&world));
        world
    }

    /// A limit has that many slots from now on; those that are held stay.
    pub(crate) fn allow(&self, place: Place, most: usize) {
        let mut state = self.state.lock().unwrap();
        let allowed = state.most.entry(place).or_insert(0);
        *allowed = most.max(*allowed);
    }

    pub(crate) fn submitted(&self, index: usize, run: &TaskFuture<Made>) {
        TASKS.lock().unwrap().insert(run.run_id(), Made { world: self.id, index });
        self.state.lock().unwrap().runs.insert(index, run.clone());
    }

    pub(crate) fn transaction_ended(&self, first: usize, committed: bool) {
        self.state.lock().unwrap().transactions.insert(first, committed);
    }

    /// The run of a task, if it was submitted.
    pub(crate) fn run(&self, index: usize) -> Option<TaskFuture<Made>> {
        self.state.lock().unwrap().runs.get(&index).cloned()
    }

    /// Whether the transaction that begins with a task was committed, if it came to its end.
    pub(crate) fn transaction(&self, first: usize) -> Option<bool> {
        self.state.lock().unwrap().transactions.get(&first).copied()
    }

    /// All that happened, in order.
    pub(crate) fn log(&self) -> Vec<(usize, What)> {
        self.state.lock().unwrap().log.clone()
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let left =
            state.inside.iter().filter(|(_, inside)| **inside > 0).map(|(place, _)| format!("left in {place:?}"));
        state.wrong.iter().cloned().chain(left).collect()
    }

    fn note(&self, index: usize, what: What) {
        self.state.lock().unwrap().log.push((index, what));
    }

    fn places(&self, index: usize) -> Vec<Place> {
        let mut first = 0;
        for (number, part) in self.program.iter().enumerate() {
            let Some(node) = part.nodes.get(index - first) else {
                first += part.nodes.len();
                continue;
            };
            let mut places: Vec<_> = node.limits.iter().map(|limit| Place::Limit(*limit)).collect();
            places.extend(node.tagged.then_some(Place::Tag));
            places.extend((part.within == Within::Subflow).then_some(Place::Subflow(number)));
            places.extend((node.kind == Kind::Sync).then_some(Place::Threads));
            return places;
        }
        unreachable!("task {index} is in the program")
    }

    /// Counts a body in, until what comes back is dropped.
    pub(crate) fn enter(self: &Arc<Self>, index: usize) -> Inside {
        self.note(index, What::Body);
        let places = self.places(index);
        let mut state = self.state.lock().unwrap();
        for place in &places {
            let now = state.inside.entry(*place).or_insert(0);
            *now += 1;
            let (now, most) = (*now, state.most.get(place).copied().unwrap_or(0));
            if now > most {
                state.wrong.push(format!("{now} bodies are in {place:?}, which has room for {most}"));
            }
        }
        drop(state);
        Inside { world: Arc::clone(self), places }
    }
}

/// A body that is counted.
pub(crate) struct Inside {
    world: Arc<World>,
    places: Vec<Place>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut state = self.world.state.lock().unwrap();
        for place in &self.places {
            *state.inside.get_mut(place).unwrap() -= 1;
        }
    }
}

/// Keeps the world of a program where its bodies find it.
pub(crate) struct Kept(pub(crate) Arc<World>);

impl Drop for Kept {
    fn drop(&mut self) {
        WORLDS.lock().unwrap().remove(&self.0.id);
        TASKS.lock().unwrap().retain(|_, made| made.world != self.0.id);
        // The runs refer to the orchestrator.
        self.0.state.lock().unwrap().runs.clear();
    }
}

/// Hooks that put down what they are called for. They are async, because those that are not have threads of their own.
pub(crate) mod hooks {
    use super::*;

    fn note(run: &TaskRun, what: What) {
        // The first hook may be called before the call that submitted the run has come back.
        let made = loop {
            match TASKS.lock().unwrap().get(&run.id) {
                Some(made) => break *made,
                None => std::thread::yield_now(),
            }
        };
        world(made.world).note(made.index, what);
    }

    pub(crate) async fn running(run: &TaskRun, _: &State) {
        note(run, What::Running);
    }

    pub(crate) async fn completed(run: &TaskRun, _: &State) {
        note(run, What::Completed);
    }

    pub(crate) async fn failed(run: &TaskRun, _: &State) {
        note(run, What::Failed);
    }

    pub(crate) async fn cancelled(run: &TaskRun, _: &State) {
        note(run, What::Cancelled);
    }

    pub(crate) async fn crashed(run: &TaskRun, _: &State) {
        note(run, What::Crashed);
    }

    type State = orchestrator::State;
}

/// Hooks on the end of a transaction.
pub(crate) mod undoing {
    use super::*;

    pub(crate) async fn commit(made: &Made) {
        world(made.world).note(made.index, What::Commit);
    }

    pub(crate) async fn undo(made: &Made) {
        tokio::task::yield_now().await;
        world(made.world).note(made.index, What::Undo);
    }
}
