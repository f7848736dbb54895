//! Pauses, resuming and their timers on many threads, runtimes and processes.

use super::*;

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_body_can_pause_and_is_told_of_its_cancellation() {
    #[flow]
    fn sync_flow() -> Result<(), Error> {
        futures::executor::block_on(pause_flow_run())
    }
    let (resumed, cancelled) = (sync_flow(), sync_flow());
    for run in [resumed.run_id(), cancelled.run_id()] {
        until_paused(run).await;
    }
    resume(resumed.run_id()).await;
    (&resumed).await.unwrap();
    assert_eq!(states(resumed.run_id()).await, RESUMED);
    cancelled.cancel();
    // Its thread comes back at once: otherwise this would take the whole grace.
    assert!((&cancelled).await.unwrap_err().is_cancelled());
    assert_eq!(states(cancelled.run_id()).await, CANCELLED);
}

#[orchestrator::test(start_paused = true)]
async fn a_pause_is_resumed_or_times_out_but_not_both() {
    #[flow]
    async fn limited() -> Result<bool, Error> {
        match pause_flow_run().timeout(Duration::from_secs(10)).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_timed_out() => Ok(false),
            Err(error) => Err(error),
        }
    }
    let orchestrator = Orchestrator::current();
    let mut seen = [0, 0];
    for round in 0..40 {
        let run = limited();
        let id = run.run_id();
        until_paused(id).await;
        // Both timers fire at the same moment; who was there first differs.
        let late = Duration::from_secs(10) - Duration::from_millis(round % 3);
        tokio::time::sleep(late).await;
        let accepted = orchestrator.resume_paused(id, ()).await;
        assert!(accepted.as_ref().err().is_none_or(Error::is_not_paused));
        assert_eq!(run.await.unwrap(), accepted.is_ok());
        assert_eq!(states(id).await, RESUMED);
        seen[usize::from(accepted.is_ok())] += 1;
    }
    assert!(seen[1] > 0, "{seen:?}");
}

#[test]
fn a_pause_is_resumed_from_another_runtime() {
    let orchestrator = Orchestrator::in_memory();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let resumer = std::thread::spawn({
        let orchestrator = orchestrator.clone();
        move || {
            let id: FlowRunId = receive.recv().unwrap();
            runtime().block_on(async {
                while let Err(error) = orchestrator.resume_paused(id, ()).await {
                    assert!(error.is_not_paused() || error.is_not_found(), "{error}");
                }
            });
        }
    });
    runtime().block_on(orchestrator.scope(async {
        let run = pauses_once();
        send.send(run.run_id()).unwrap();
        assert_eq!((&run).await.unwrap(), 1);
        assert_eq!(states(run.run_id()).await, RESUMED);
    }));
    resumer.join().unwrap();
}

/// Notes the states of flow runs as they are shown.
#[derive(Debug, Default)]
struct Watcher(Mutex<Vec<(orchestrator::RunId, String)>>);

impl Observer for Watcher {
    fn on_transition(&self, event: &Observed<'_>) {
        self.0.lock().unwrap().push((event.run.id, event.transition.name.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_pauses_from_many_threads_are_all_over_in_the_end() {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    #[task(retries = 1, timeout_secs = 60)]
    async fn asks_a_little(n: u32) -> Result<u32, Error> {
        STARTED.fetch_add(1, Ordering::SeqCst);
        for round in 0..4 {
            match (n + round) % 4 {
                0 => pause_flow_run().await?,
                1 => drop(pause_flow_run().timeout(Duration::from_micros(50)).await),
                2 => drop(pause_flow_run().now_or_never()),
                _ => tokio::task::yield_now().await,
            }
        }
        quick(n).await.map_err(Error::from)
    }
    #[flow]
    async fn crowd(n: u32) -> Result<u32, Error> {
        let all = asks_a_little::map(0..n);
        let own = pause_flow_run();
        let (all, own) = tokio::join!(all, own);
        own?;
        Ok(all?.into_iter().sum())
    }
    let watcher = Arc::new(Watcher::default());
    let orchestrator = Orchestrator::builder().database_url("memory").observer(watcher.clone()).build().await.unwrap();
    orchestrator
        .scope(async {
            for _ in 0..10 {
                let run = crowd(40);
                let id = run.run_id();
                let resumers: Vec<_> = (0..2)
                    .map(|_| {
                        let (orchestrator, run) = (orchestrator.clone(), run.clone());
                        tokio::spawn(async move {
                            while !run.state().is_terminal() {
                                let resumed = orchestrator.resume_paused(id, ()).await;
                                assert!(
                                    resumed.err().is_none_or(|error| error.is_not_paused() || error.is_not_found())
                                );
                                tokio::task::yield_now().await;
                            }
                        })
                    })
                    .collect();
                assert_eq!(run.await.unwrap(), (0..40).sum::<u32>());
                for resumer in resumers {
                    resumer.await.unwrap();
                }
                let history = states(id).await;
                assert_eq!(history.last().unwrap(), "Completed");
                let shown = watcher.0.lock().unwrap();
                let shown = shown.iter().filter(|(run, _)| *run == id.into());
                // The first state is not shown.
                assert!(shown.map(|(_, name)| name).eq(&history[1..]), "{history:?}");
            }
        })
        .await;
    assert_eq!(STARTED.load(Ordering::SeqCst), 400);
}

/// The program of the test below, run in a process of its own.
#[tokio::test]
async fn child_asks() {
    if std::env::var_os("PAUSE_TEST").is_none() {
        return;
    }
    let first = pauses_once();
    until_paused(first.run_id()).await;
    resume(first.run_id()).await;
    first.await.unwrap();
    let second = asks();
    until_paused(second.run_id()).await;
    println!("\nready");
    let _ = second.await;
}

#[cfg(unix)]
#[tokio::test]
async fn another_process_sees_what_is_asked_and_what_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let open = || async { Orchestrator::builder().home(folder.path()).build().await.unwrap() };
    let child = || -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "pause::threads::child_asks", "--nocapture", "--test-threads=1"]);
        command.env("PAUSE_TEST", "1").env("ORCHESTRATOR_HOME", folder.path());
        command.env_remove("RUST_LOG").env_remove("ORCHESTRATOR_LOG");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line == "ready").unwrap();
        child
    };
    let query = FlowRunQuery::new().flow("asks");
    for (signal, end) in [("TERM", "Cancelled"), ("KILL", "Crashed")] {
        let process = child();
        let pid = process.id();
        let orchestrator = open().await;
        let run = orchestrator.flow_runs(&query.clone().state(StateType::Paused)).await.unwrap().remove(0);
        let schema = run.pause.unwrap().input_schema.unwrap();
        assert_eq!(schema["properties"]["approved"]["type"], "boolean");
        let error = orchestrator.resume_paused(run.id, ()).await.unwrap_err();
        assert!(error.is_invalid_input(), "{error}");
        assert!(Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap().success());
        let said = String::from_utf8(process.wait_with_output().unwrap().stderr).unwrap();
        let asked = format!(
            "- Paused: waits for an input; `resume_paused`, or `runs resume` at the command line, lets flow run {} go on within 1h 00m",
            run.id
        );
        for line in ["WARN ", "- Paused: are the numbers right?; `", "INFO ", "- Goes on: resumed", &asked] {
            assert!(said.contains(line), "{line}: {said}");
        }
        let ended = open().await.flow_run(run.id).await.unwrap();
        assert_eq!((&*ended.state.name, ended.pause), (end, None));
    }
}
