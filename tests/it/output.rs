//! What a person sees, and what is captured for the history.

use std::process::Command;
use std::sync::Arc;

use orchestrator::prelude::*;
use tokio::sync::Notify;
use tracing_subscriber::layer::SubscriberExt as _;

#[task(retries = 1)]
async fn part(n: u32) -> Result<u32, String> {
    tracing::info!(n, "working");
    tracing::debug!("a detail");
    if n == 2 { Err(format!("part {n} is missing")) } else { Ok(n) }
}

#[task]
async fn whole(parts: &[u32]) -> u32 {
    parts.iter().sum()
}

#[flow]
async fn assembly(parts: u32) -> Result<u32, TaskError> {
    whole(part::map(0..parts)).await
}

/// The program of the tests below, run in a process of its own.
#[tokio::test]
async fn child_assembles() {
    if std::env::var_os("OUTPUT_TEST").is_some() {
        let _ = assembly(3).await;
    }
}

fn printed(variables: &[(&str, &str)]) -> String {
    printed_by("output::child_assembles", variables)
}

fn printed_by(program: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", program, "--nocapture"]);
    command.env("OUTPUT_TEST", "1").env("ORCHESTRATOR_DATABASE_URL", "memory");
    command.env_remove("RUST_LOG").env_remove("ORCHESTRATOR_LOG").envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// Lines without their time, sorted where their order is open.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_once(" | ").map_or(line, |(_, rest)| rest).to_owned()).collect()
}

#[test]
fn one_line_for_each_event_worth_reading_and_a_summary() {
    let said = printed(&[]);
    let lines = lines(&said);
    let has =
        |start: &str, end: &str| lines.iter().filter(|line| line.starts_with(start) && line.contains(end)).count();
    assert_eq!(has("INFO  | Flow run '", "- Started: flow 'assembly'"), 1, "{said}");
    assert_eq!(has("INFO  | Task run 'part-0' - working n=0", ""), 1, "{said}");
    assert_eq!(has("INFO  | Task run 'part-0' - Finished in state Completed() in ", "s"), 1, "{said}");
    assert_eq!(has("WARN  | Task run 'part-2' - Attempt 1 of 2 failed: part 2 is missing", ""), 1, "{said}");
    assert_eq!(has("ERROR | Task run 'part-2' - Finished in state Failed(part 2 is missing) in ", ""), 1, "{said}");
    assert_eq!(has("WARN  | Task run 'whole-0' - Finished in state NotReady(because of 'part-2')", ""), 1, "{said}");
    let last = "- Finished in state Failed(task run 'part-2' failed: part 2 is missing) in ";
    assert_eq!(has("ERROR | Flow run '", last), 1, "{said}");
    assert_eq!(has("  cause", "task run 'part-2' failed: part 2 is missing"), 1, "{said}");
    assert_eq!(has("  task runs", "4: 2 Completed, 1 Failed, 1 NotReady"), 1, "{said}");
    assert_eq!(has("  slowest", "part-"), 1, "{said}");
    assert!(!said.contains("a detail"), "{said}");
    assert!(!said.contains('\u{1b}'), "no colour in a pipe: {said}");
}

const MANY: u32 = 500;

#[task]
async fn quick(n: u32) -> u32 {
    tracing::info!("quick {n}");
    n
}

fn says_the_end(run: &FlowRun, _: &State) {
    tracing::info!("the end of {}", run.flow_name);
}

#[flow(on_completion = says_the_end)]
async fn bustle() -> Result<Vec<TaskFuture<u32>>, TaskError> {
    let left: Vec<_> = (0..MANY).map(|n| quick(n).detach()).collect();
    for n in MANY..2 * MANY {
        quick(n).await?;
    }
    Ok(left)
}

#[flow]
async fn rush() -> Result<(), TaskError> {
    quick::map(2 * MANY..3 * MANY).await.map(drop)
}

/// The program of the test below, which ends as soon as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_bustles() {
    if std::env::var_os("OUTPUT_TEST").is_some() {
        for run in bustle().await.unwrap() {
            run.await.unwrap();
        }
        // Nothing else is said after these.
        rush().await.unwrap();
        std::process::exit(0);
    }
}

#[test]
fn a_program_that_ends_at_once_has_said_everything() {
    // With the lines of the flow itself, and with those of bodies alone.
    for filter in ["info", "off,it=info"] {
        let said = printed_by("output::child_bustles", &[("ORCHESTRATOR_LOG", filter)]);
        for n in 0..3 * MANY {
            let told = said.matches(&format!("- quick {n}\n")).count();
            assert_eq!(told, 1, "{filter}: quick {n}");
        }
        assert_eq!(said.matches("- the end of bustle\n").count(), 1, "{filter}");
        let ends = said.matches("- Finished in state Completed() in ").count() as u32;
        assert_eq!(ends, if filter == "info" { 3 * MANY + 2 } else { 0 }, "{filter}");
    }
}

#[test]
fn levels_and_silence_are_respected() {
    assert!(printed(&[("ORCHESTRATOR_LOG", "debug")]).contains("a detail"));
    assert!(printed(&[("RUST_LOG", "debug")]).contains("a detail"));
    let warnings = printed(&[("RUST_LOG", "debug"), ("ORCHESTRATOR_LOG", "warn")]);
    assert!(!warnings.contains("INFO") && warnings.contains("ERROR") && !warnings.contains("slowest"), "{warnings}");
    assert_eq!(printed(&[("ORCHESTRATOR_LOG", "off")]), "");
    assert!(printed(&[("CLICOLOR_FORCE", "1")]).contains('\u{1b}'));
    let wrong = printed(&[("ORCHESTRATOR_LOG", "a=b=c")]);
    assert!(wrong.contains("ORCHESTRATOR_LOG") && wrong.contains("Finished"), "{wrong}");
}

#[test]
fn variables_that_are_not_understood_are_told() {
    let said = printed(&[("ORCHESTRATOR_RETRIES", "many")]);
    assert!(said.contains("ORCHESTRATOR_RETRIES is 'many': expected a whole number"), "{said}");
    let said = printed(&[("ORCHESTRATOR_RETRYS", "3")]);
    assert!(
        said.contains("ORCHESTRATOR_RETRYS means nothing to orchestrator: is ORCHESTRATOR_RETRIES meant?"),
        "{said}"
    );
    // The second is near to a variable of the tests of this repository.
    for name in ["ORCHESTRATOR_COLOUR", "ORCHESTRATOR_TEST_SED"] {
        let said = printed(&[(name, "3")]);
        assert!(said.contains(&format!("{name} means nothing to orchestrator: is it misspelt?")), "{said}");
    }
    let retried = printed(&[("ORCHESTRATOR_RETRIES", "3")]);
    assert!(retried.contains("Attempt 1 of 2"), "the attribute wins: {retried}");
}

#[orchestrator::test]
async fn lines_of_a_body_are_kept_with_its_run() {
    let subscriber = tracing_subscriber::registry().with(orchestrator::capture_layer());
    let _guard = tracing::subscriber::set_default(subscriber);
    let run = part(7);
    (&run).await.unwrap();
    tracing::info!("outside of any run");
    let logs = Orchestrator::current().logs(run.run_id()).await.unwrap();
    let shown: Vec<_> = logs.iter().map(|line| (line.level.as_str(), line.message.as_str())).collect();
    assert_eq!(shown, [("INFO", "working n=7")]);
    assert_eq!(logs[0].target, "it::output");
}

#[orchestrator::test]
async fn lines_of_tasks_that_go_on_are_among_those_of_their_flow() {
    #[task]
    async fn says_and_waits(said: Arc<Notify>, until: Arc<Notify>) {
        tracing::info!("from the task");
        said.notify_one();
        until.notified().await;
    }

    #[flow]
    async fn says_more() -> Result<(), TaskError> {
        let (said, until) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let task = says_and_waits(Arc::clone(&said), Arc::clone(&until));
        said.notified().await;
        tracing::info!("from the flow");
        let flow = RunContext::current().flow_run_id().unwrap();
        let lines = Orchestrator::current().logs_after(flow, 0, usize::MAX).await.unwrap();
        let said: Vec<_> = lines.iter().map(|(_, line)| line.message.as_str()).collect();
        assert_eq!(said, ["from the task", "from the flow"]);
        until.notify_one();
        task.await
    }

    let subscriber = tracing_subscriber::registry().with(orchestrator::capture_layer());
    let _guard = tracing::subscriber::set_default(subscriber);
    says_more().await.unwrap();
}

#[test]
fn a_variable_that_is_not_understood_leaves_the_others_in_force() {
    let said = printed(&[("ORCHESTRATOR_RETRIES", "many"), ("ORCHESTRATOR_BLOCKING_THREADS", "0")]);
    assert!(
        said.contains("ORCHESTRATOR_RETRIES is 'many'") && said.contains("ORCHESTRATOR_BLOCKING_THREADS is '0'"),
        "{said}"
    );
    assert!(!said.contains("WARN  | orchestrator"), "the history is still in memory: {said}");
}
