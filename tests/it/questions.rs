//! A question finds every run that was submitted before it, however far that has come.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use futures::executor::block_on;
use orchestrator::prelude::*;
use orchestrator::{FlowRunId, FlowRunQuery, StateName, TaskRunId, TaskRunQuery};
use tokio::runtime::{Builder, Runtime};

fn runtime(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
}

/// Does `work` with history in memory and with history in a file, each on a runtime with one worker and with several.
fn everywhere<F: Future<Output = ()>>(work: impl Fn(Orchestrator, usize) -> F) {
    for workers in [1, 4] {
        let runtime = runtime(workers);
        runtime.block_on(work(Orchestrator::in_memory(), workers));
        let folder = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let orchestrator = Orchestrator::builder().home(folder.path()).build().await.unwrap();
            work(orchestrator.clone(), workers).await;
            orchestrator.shutdown().await.unwrap();
        });
    }
}

#[task]
async fn quick(n: usize) -> usize {
    n
}

#[flow]
async fn inner() -> Result<usize, TaskError> {
    quick(0).await
}

/// Asks in every way that there is, without giving the thread back; the names of the states that it was found in.
fn found(id: TaskRunId, flow: FlowRunId) -> Vec<String> {
    let orchestrator = Orchestrator::current();
    let run = block_on(orchestrator.task_run(id)).unwrap();
    assert_eq!((run.id, run.flow_run_id), (id, Some(flow)));
    let mut states = vec![run.state.name];
    let history = block_on(orchestrator.states(id)).unwrap();
    assert_eq!(history[0].name, "Pending");
    let is_it = |run: &TaskRun| run.id == id;
    let listed = block_on(orchestrator.task_runs(flow)).unwrap();
    states.push(listed.into_iter().find(is_it).unwrap().state.name);
    let sought = block_on(orchestrator.find_task_runs(&TaskRunQuery::new().of(flow))).unwrap();
    states.push(sought.into_iter().find(is_it).unwrap().state.name);
    assert_eq!(block_on(orchestrator.runs_called(&id.to_string(), 2)).unwrap(), [id.into()]);
    states
}

#[test]
fn a_run_is_found_right_after_its_call() {
    #[flow]
    async fn calls_and_asks(alone: bool) -> Result<usize, TaskError> {
        let flow = RunContext::current().flow_run_id().unwrap();
        let run = quick(1);
        let states = found(run.run_id(), flow);
        // On the only worker it cannot have begun.
        assert!(!alone || states == ["Pending"; 3], "{states:?}");
        let (subflow, again) = (inner(), quick(2));
        let orchestrator = Orchestrator::current();
        assert_eq!(block_on(orchestrator.flow_run(subflow.run_id())).unwrap().id, subflow.run_id());
        let flows = block_on(orchestrator.flow_runs(&FlowRunQuery::new())).unwrap();
        assert!(flows.iter().any(|run| run.id == subflow.run_id()), "{flows:?}");
        let counted = block_on(orchestrator.count_task_runs(flow)).unwrap();
        assert_eq!(counted.iter().map(|(_, runs)| runs).sum::<u64>(), 2, "{counted:?}");
        let detached = quick(3);
        let id = detached.run_id();
        detached.detach();
        found(id, flow);
        Ok(run.await? + again.await? + subflow.await.map_err(|error| error.to_string()).unwrap())
    }

    everywhere(async |orchestrator, workers| {
        let run = orchestrator.scope(async move { tokio::spawn(calls_and_asks(workers == 1).into_future()) }).await;
        assert_eq!(run.await.unwrap().unwrap(), 3);
    });
}

#[test]
fn however_many_there_are() {
    const MANY: usize = 5000;

    #[flow]
    async fn calls_many() -> Result<usize, TaskError> {
        let flow = RunContext::current().flow_run_id().unwrap();
        let runs: Vec<_> = (0..MANY).map(quick).collect();
        let orchestrator = Orchestrator::current();
        let known = block_on(orchestrator.task_runs(flow)).unwrap();
        assert!(known.iter().map(|run| run.id).eq(runs.iter().map(|run| run.run_id())), "{} runs", known.len());
        for run in runs {
            run.await?;
        }
        let ended = orchestrator.count_task_runs(flow).await.unwrap();
        assert_eq!(ended, [(StateName::Completed, MANY as u64)]);
        Ok(known.len())
    }

    everywhere(async |orchestrator, _| {
        let run = orchestrator.scope(async { tokio::spawn(calls_many().into_future()) }).await;
        assert_eq!(run.await.unwrap().unwrap(), MANY);
    });
}

#[test]
fn a_body_that_keeps_its_thread_from_the_start_is_running() {
    type Channels = (Sender<()>, Receiver<()>);
    static CHANNELS: Mutex<Option<Channels>> = Mutex::new(None);

    #[task(retries = 1)]
    async fn busy() -> Result<u32, String> {
        let channels = CHANNELS.lock().unwrap();
        let (begun, over) = channels.as_ref().unwrap();
        begun.send(()).unwrap();
        over.recv().unwrap();
        if RunContext::current().attempt() == 1 { Err("the first attempt fails".to_owned()) } else { Ok(1) }
    }

    #[flow]
    async fn keeps_a_thread() -> Result<u32, TaskError> {
        busy().await
    }

    everywhere(async |orchestrator, _| {
        let (begun, has_begun) = channel();
        let (end, over) = channel();
        *CHANNELS.lock().unwrap() = Some((begun, over));
        let flow = orchestrator.scope(async { keeps_a_thread() }).await;
        for expected in [&["Pending", "Running"][..], &["Pending", "Running", "Retrying"]] {
            has_begun.recv().unwrap();
            let runs = orchestrator.task_runs(flow.run_id()).await.unwrap();
            assert_eq!(runs.iter().map(|run| &*run.state.name).collect::<Vec<_>>(), expected[expected.len() - 1..]);
            let run = orchestrator.task_run(runs[0].id).await.unwrap();
            assert_eq!(run.state.name, expected[expected.len() - 1]);
            let states = orchestrator.states(run.id).await.unwrap();
            assert_eq!(states.iter().map(|state| &*state.name).collect::<Vec<_>>(), expected);
            end.send(()).unwrap();
        }
        let id = flow.run_id();
        assert_eq!(flow.await.unwrap(), 1);
        let run = orchestrator.task_runs(id).await.unwrap().remove(0);
        let states = orchestrator.states(run.id).await.unwrap();
        let names: Vec<&str> = states.iter().map(|state| &*state.name).collect();
        assert_eq!(names, ["Pending", "Running", "Retrying", "Completed"]);
    });
}

#[test]
fn a_run_that_ends_while_it_is_asked_for_is_found() {
    static SENDER: Mutex<Option<tokio::sync::mpsc::UnboundedSender<TaskRunId>>> = Mutex::new(None);

    #[flow]
    async fn submits_many() -> Result<(), TaskError> {
        let ids = SENDER.lock().unwrap().take().unwrap();
        for n in 0..2_000 {
            let run = quick(n);
            ids.send(run.run_id()).unwrap();
            if n % 16 == 0 {
                run.await?;
            }
        }
        Ok(())
    }

    runtime(4).block_on(async {
        let orchestrator = Orchestrator::in_memory();
        let (sender, mut ids) = tokio::sync::mpsc::unbounded_channel();
        *SENDER.lock().unwrap() = Some(sender);
        let asks = tokio::spawn({
            let orchestrator = orchestrator.clone();
            async move {
                while let Some(id) = ids.recv().await {
                    assert_eq!(orchestrator.task_run(id).await.unwrap().id, id);
                    assert_eq!(orchestrator.states(id).await.unwrap()[0].name, "Pending");
                }
            }
        });
        orchestrator.scope(async { submits_many().await }).await.unwrap();
        asks.await.unwrap();
    });
}
