//! Pauses inside a flow: who waits, who goes on, and what the history says of it.

mod ends;
mod runs;
mod threads;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use orchestrator::prelude::*;
use orchestrator::{Error, FlowError, FlowRunId, FlowRunQuery, Observed, Observer};

use crate::door::{as_soon_as, states, tasks};

const RESUMED: [&str; 5] = ["Pending", "Running", "Paused", "Running", "Completed"];
const CANCELLED: [&str; 5] = ["Pending", "Running", "Paused", "Cancelling", "Cancelled"];

async fn until_state(id: FlowRunId, name: &str) -> FlowRun {
    as_soon_as(async || match Orchestrator::current().flow_run(id).await {
        Ok(run) if run.state.name == name => Ok(run),
        other => Err(other),
    })
    .await
}

async fn until_paused(id: FlowRunId) -> FlowRun {
    until_state(id, "Paused").await
}

async fn resume(id: FlowRunId) {
    Orchestrator::current().resume_paused(id, ()).await.unwrap();
}

/// Lets everything happen that needs no time.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[task]
async fn quick(n: u32) -> u32 {
    n
}

#[flow]
async fn pauses_once() -> Result<u32, Error> {
    pause_flow_run().message("are the numbers right?").await?;
    Ok(1)
}

#[orchestrator::test(start_paused = true)]
async fn a_flow_waits_until_it_is_resumed() {
    let run = pauses_once();
    let id = run.run_id();
    let paused = until_paused(id).await;
    let pause = paused.pause.unwrap();
    assert_eq!(paused.state.message.as_deref(), Some("are the numbers right?"));
    assert_eq!(pause.message.as_deref(), Some("are the numbers right?"));
    assert!(pause.since <= paused.state.timestamp);
    assert_eq!((pause.until.unwrap() - pause.since).num_seconds(), 3600);
    assert_eq!(pause.input_schema, None);
    resume(id).await;
    let going = Orchestrator::current().flow_run(id).await.unwrap();
    assert_ne!(going.state.name, "Paused");
    assert_eq!(run.await.unwrap(), 1);
    assert_eq!(states(id).await, RESUMED);
    let ended = Orchestrator::current().flow_run(id).await.unwrap();
    assert_eq!((ended.run_count, ended.pause), (1, None));
    let messages: Vec<_> =
        Orchestrator::current().states(id).await.unwrap().into_iter().map(|state| state.message).collect();
    assert_eq!(messages[3].as_deref(), Some("resumed"));
}

#[derive(serde::Deserialize, serde::Serialize, schemars::JsonSchema, Clone, Debug, PartialEq)]
struct Approval {
    approved: bool,
    note: Option<String>,
}

#[flow]
async fn asks() -> Result<Approval, Error> {
    pause_for_input::<Approval>().await
}

#[orchestrator::test(start_paused = true)]
async fn an_input_is_checked_before_anything_goes_on() {
    let orchestrator = Orchestrator::current();
    let run = asks();
    let id = run.run_id();
    let paused = until_paused(id).await;
    assert_eq!(paused.state.message.as_deref(), Some("waits for an input"));
    let schema = paused.pause.clone().unwrap().input_schema.unwrap();
    assert_eq!(schema["properties"]["approved"]["type"], "boolean");
    assert_eq!(schema["required"], serde_json::json!(["approved"]));

    let wrong = orchestrator.resume_paused(id, serde_json::json!({ "approved": "yes" })).await.unwrap_err();
    assert!(wrong.is_invalid_input());
    let name = &paused.name;
    assert_eq!(
        wrong.to_string(),
        format!(
            "flow run '{name}' does not go on with {{\"approved\":\"yes\"}}: invalid type: string \"yes\", expected a \
             boolean; it takes an object with `approved` (boolean), `note` (string, optional)"
        )
    );
    assert!(orchestrator.resume_paused(id, ()).await.unwrap_err().is_invalid_input());
    settle().await;
    assert_eq!(orchestrator.flow_run(id).await.unwrap(), paused);

    let approval = Approval { approved: true, note: Some("fine".to_owned()) };
    orchestrator.resume_paused(id, &approval).await.unwrap();
    assert_eq!(run.await.unwrap(), approval);
    assert_eq!(states(id).await, RESUMED);
}

#[orchestrator::test(start_paused = true)]
async fn a_pause_that_nobody_resumes_is_an_error() {
    #[flow]
    async fn patient() -> Result<(), TaskError> {
        pause_flow_run().timeout(Duration::from_secs(60)).await?;
        Ok(())
    }
    let run = patient();
    let id = run.run_id();
    let started = tokio::time::Instant::now();
    let error = run.await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 60);
    assert!(error.downcast_ref::<TaskError>().is_some_and(TaskError::is_timed_out));
    let name = Orchestrator::current().flow_run(id).await.unwrap().name;
    assert_eq!(error.to_string(), format!("flow run '{name}' failed: the pause was not resumed within 1m 00s"));
    assert_eq!(states(id).await, ["Pending", "Running", "Paused", "Running", "Failed"]);
    let messages = Orchestrator::current().states(id).await.unwrap();
    assert_eq!(messages[3].message.as_deref(), Some("the pause was not resumed within 1m 00s"));
}

#[orchestrator::test(start_paused = true)]
async fn the_time_of_a_pause_is_up_even_if_nobody_polls_it() {
    #[flow]
    async fn lets_go_of_its_pause() -> Result<(u32, bool), TaskError> {
        let mut pause = std::pin::pin!(pause_flow_run().timeout(Duration::from_secs(60)));
        assert!(pause.as_mut().now_or_never().is_none());
        // Does not start before the pause is over.
        let n = quick(5).await?;
        Ok((n, pause.await.unwrap_err().is_timed_out()))
    }
    let started = tokio::time::Instant::now();
    let run = lets_go_of_its_pause();
    let id = run.run_id();
    let ended = tokio::time::timeout(Duration::from_secs(3600), run).await;
    assert_eq!(ended.expect("the pause ends by itself").unwrap(), (5, true));
    assert_eq!(started.elapsed().as_secs(), 60);
    assert_eq!(states(id).await, RESUMED);
    let messages = Orchestrator::current().states(id).await.unwrap();
    assert_eq!(messages[3].message.as_deref(), Some("the pause was not resumed within 1m 00s"));
}

#[orchestrator::test(start_paused = true)]
async fn a_pause_can_last_for_ever() {
    #[flow]
    async fn forever() -> Result<(), Error> {
        pause_flow_run().timeout(Duration::MAX).await
    }
    let run = forever();
    let id = run.run_id();
    assert_eq!(until_paused(id).await.pause.unwrap().until, None);
    tokio::time::sleep(Duration::from_secs(1_000_000)).await;
    resume(id).await;
    run.await.unwrap();
}

#[orchestrator::test(start_paused = true)]
async fn there_is_nothing_to_pause_outside_of_a_flow() {
    #[task]
    async fn alone() -> Result<(), Error> {
        pause_flow_run().await
    }
    let error = pause_flow_run().await.unwrap_err();
    assert!(error.is_not_paused());
    assert_eq!(error.to_string(), "there is nothing to pause: the code is not part of a flow run");
    let error = alone().await.unwrap_err();
    assert!(error.to_string().ends_with("task run 'alone-0' is not part of a flow run"), "{error}");
}

#[orchestrator::test(start_paused = true)]
async fn what_cannot_be_resumed_is_told_apart() {
    let orchestrator = Orchestrator::current();
    let unknown = FlowRunId::new(orchestrator::Timestamp::from_micros(1));
    assert!(orchestrator.resume_paused(unknown, ()).await.unwrap_err().is_not_found());

    let task = quick(1);
    let error = orchestrator.resume_paused(&task, ()).await.unwrap_err();
    assert!(error.is_not_paused() && error.to_string().contains("is a task run"), "{error}");
    task.await.unwrap();

    #[flow]
    async fn busy() {
        std::future::pending::<()>().await;
    }
    let run = busy();
    let name = until_state(run.run_id(), "Running").await.name;
    let error = orchestrator.resume_paused(run.run_id(), ()).await.unwrap_err();
    assert!(error.is_not_paused());
    assert_eq!(error.to_string(), format!("flow run '{name}' is not paused: it is Running"));
    run.cancel();
    run.wait().await;
    let error = orchestrator.resume_paused(run.run_id(), ()).await.unwrap_err();
    assert!(error.is_not_paused());
    assert_eq!(error.to_string(), format!("flow run '{name}' is not paused: it has ended as Cancelled"));

    let run = pauses_once();
    let name = until_paused(run.run_id()).await.name;
    let error = orchestrator.resume_paused(run.run_id(), 3).await.unwrap_err();
    assert!(error.is_invalid_input());
    assert_eq!(error.to_string(), format!("flow run '{name}' takes no input to go on, and was given 3"));
    orchestrator.resume_paused(run.run_id(), serde_json::Value::Null).await.unwrap();
    run.await.unwrap();

    #[derive(schemars::JsonSchema)]
    struct Panics;
    impl<'de> serde::Deserialize<'de> for Panics {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("no input will do")
        }
    }
    #[flow]
    async fn picky() -> Result<(), Error> {
        pause_for_input::<Panics>().await.map(drop)
    }
    let run = picky();
    until_paused(run.run_id()).await;
    let error = orchestrator.resume_paused(run.run_id(), 1).await.unwrap_err();
    assert!(error.is_invalid_input() && error.to_string().contains("panicked: no input will do"), "{error}");
    assert_eq!(run.state().name, "Paused");
    run.cancel();
}

#[orchestrator::test(start_paused = true)]
async fn errors_of_runs_pass_through_as_they_were() {
    #[task]
    async fn fails() -> Result<(), String> {
        Err("no luck".to_owned())
    }
    #[flow]
    async fn passes_on() -> Result<(), FlowError> {
        let inner: Result<(), Error> = fails().await.map_err(Error::from);
        Ok(inner?)
    }
    let error = passes_on().await.unwrap_err();
    assert_eq!(error.first_cause().run_name(), "fails-0");
}
