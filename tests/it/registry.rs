//! Flows that are called by name, with parameters in JSON.

use std::path::{Path, PathBuf};

use orchestrator::prelude::*;
use orchestrator::schemars::JsonSchema;
use orchestrator::{FlowInfo, flows};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::door::states;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Repository {
    name: String,
    stars: u32,
}

/// Knows nothing of schemas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Plain {
    day: u8,
}

/// Reports on repositories.
#[flow(name = "repository-report", version = "3")]
async fn report_repositories(
    repos: &[Repository],
    title: &str,
    top: Option<u32>,
    folder: &Path,
    plain: Plain,
) -> Result<(String, PathBuf), TaskError> {
    let names: Vec<_> = repos.iter().map(|repo| format!("{}:{}", repo.name, repo.stars)).collect();
    Ok((format!("{title} {top:?} {} {}", plain.day, names.join(",")), folder.to_owned()))
}

#[flow]
async fn takes_nothing_at_all() -> u32 {
    7
}

#[flow]
async fn takes_what_is_not_recorded(#[param(skip)] client: std::sync::Arc<Plain>, n: u32) -> u32 {
    u32::from(client.day) + n
}

mod first {
    #[orchestrator::flow]
    pub(super) async fn twice_here() {}
}

mod second {
    #[orchestrator::flow]
    pub(super) async fn twice_here() {}
}

fn parameters() -> Value {
    json!({"repos": [{"name": "a", "stars": 1}], "title": "All", "folder": "/x", "plain": {"day": 3}})
}

#[orchestrator::test]
async fn by_function_by_name_and_by_key() {
    let orchestrator = Orchestrator::current();
    for name in ["report_repositories", "repository-report", "it::registry::report_repositories"] {
        let started = orchestrator.run_flow(name, parameters()).unwrap();
        let run = (&started).await.unwrap();
        assert_eq!((run.id, &run.name), (started.run_id(), &started.name()));
        assert_eq!((run.flow_name.as_str(), run.state.name.as_str()), ("repository-report", "Completed"));
        assert_eq!(started.result(), Some(json!(["All None 3 a:1", "/x"])));
        assert_eq!(states(&started).await, ["Pending", "Running", "Completed"]);
    }
    let nothing = orchestrator.run_flow("takes_nothing_at_all", Value::Null).unwrap();
    assert_eq!(nothing.result(), None, "it has not ended");
    assert_eq!(nothing.wait().await.name, "Completed");
    assert_eq!(nothing.result(), Some(json!(7)));
}

#[orchestrator::test]
async fn what_is_recorded_is_what_was_given() {
    let orchestrator = Orchestrator::current();
    let run = orchestrator.run_flow("repository-report", parameters()).unwrap().await.unwrap();
    let mut expected = parameters();
    expected["top"] = Value::Null;
    assert_eq!(orchestrator.flow_run(run.id).await.unwrap().parameters, expected);
}

#[orchestrator::test]
async fn wrong_parameters_are_told_at_once_and_make_no_run() {
    let orchestrator = Orchestrator::current();
    let wrong =
        json!({"repos": [{"name": "a", "stars": 1}, {"name": "b", "stars": -1}], "titel": "x", "plain": 5, "top": "x"});
    let error = orchestrator.run_flow("report_repositories", wrong).unwrap_err();
    assert!(error.is_invalid_input());
    let errors = error.as_parameters().unwrap();
    let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "parameter `repos` ([Repository]) was given [{\"name\":\"a\",\"stars\":1},{\"name\":\"b\",\"stars\":-1}], \
             which is wrong at `[1].stars`: invalid value: integer `-1`, expected u32",
            "parameter `title` (str) is missing",
            "parameter `top` (Option<u32>) was given \"x\": invalid type: string \"x\", expected u32",
            "parameter `folder` (Path) is missing",
            "parameter `plain` (Plain) was given 5: invalid type: integer `5`, expected struct Plain",
            "there is no parameter `titel`: did you mean `title`?",
        ]
    );
    assert_eq!(
        error.to_string(),
        format!("flow 'repository-report' cannot be called with these parameters: {}", told.join("; "))
    );
    assert_eq!((errors[0].parameter.as_str(), errors[0].place.as_str()), ("repos", "[1].stars"));
    assert_eq!((errors[1].given.as_ref(), errors[1].expected), (None, Some("str")));
    let none = orchestrator.run_flow("takes_nothing_at_all", json!({"n": 1})).unwrap_err();
    assert!(none.to_string().ends_with("there is no parameter `n`: the flow takes none"), "{none}");
    let list = orchestrator.run_flow("takes_nothing_at_all", json!([1])).unwrap_err();
    assert_eq!(
        list.to_string(),
        "the parameters of flow 'takes_nothing_at_all' are a JSON object, such as {\"name\": 1}, and not [1]"
    );
    assert!(orchestrator.flow_runs(&orchestrator::FlowRunQuery::new()).await.unwrap().is_empty());
}

#[orchestrator::test]
async fn a_name_has_to_mean_one_flow() {
    let orchestrator = Orchestrator::current();
    let run = |name: &str| orchestrator.run_flow(name, Value::Null).unwrap_err();
    let unknown = run("repositroy-report");
    assert!(unknown.is_not_found());
    assert!(
        unknown.to_string().starts_with(
            "there is no flow 'repositroy-report': did you mean 'repository-report'? the flows of this program are "
        ),
        "{unknown}"
    );
    let several = run("twice_here").to_string();
    assert!(
        several.starts_with("'twice_here' is the name of 2 flows: say which by its full name, one of "),
        "{several}"
    );
    assert!(several.contains("'it::registry::first::twice_here'"), "{several}");
    orchestrator.run_flow("it::registry::second::twice_here", Value::Null).unwrap().await.unwrap();
    let skipped = run("takes_what_is_not_recorded").to_string();
    assert!(
        skipped
            .contains("its parameter `client` (std::sync::Arc<Plain>) is left out of the record with `#[param(skip)]`"),
        "{skipped}"
    );
}

#[test]
fn what_there_is_to_call() {
    let of = |name: &str| -> FlowInfo { flows().find(|flow| flow.function == name).unwrap() };
    let report = of("report_repositories");
    assert_eq!((report.name, report.version), ("repository-report", Some("3")));
    assert_eq!((report.key, report.description), ("it::registry::report_repositories", "Reports on repositories."));
    let told: Vec<_> = report
        .parameters
        .iter()
        .map(|parameter| (parameter.name, parameter.type_name, parameter.required, parameter.schema.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            ("repos", "[Repository]", true, true),
            ("title", "str", true, true),
            ("top", "Option<u32>", false, true),
            ("folder", "Path", true, true),
            ("plain", "Plain", true, false),
        ]
    );
    assert_eq!(report.parameters[1].schema.as_ref().unwrap()["type"], "string");
    assert_eq!(report.not_callable(), None);
    let skipping = of("takes_what_is_not_recorded");
    assert!(skipping.parameters[0].skipped && !skipping.parameters[1].skipped);
    assert!(skipping.not_callable().is_some());
    let names: Vec<_> = flows().map(|flow| flow.name).collect();
    assert!(names.is_sorted());
}

#[test]
fn any_json_is_taken_or_refused() {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 24, 5, |inside| {
        let name = prop_oneof![Just("name".to_owned()), Just("stars".to_owned()), Just("day".to_owned()), ".*"];
        prop_oneof![
            proptest::collection::vec(inside.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name, inside, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    const NAMES: &[&str] = &["repos", "title", "top", "folder", "plain", "other"];
    let object = proptest::collection::btree_map(proptest::sample::select(NAMES), value.clone(), 0..6)
        .prop_map(|map| Value::Object(map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let orchestrator = Orchestrator::in_memory();
    proptest!(ProptestConfig::with_cases(500), |(given in prop_oneof![object, value])| {
        let _inside = runtime.enter();
        match orchestrator.run_flow("repository-report", given) {
            Ok(started) => drop(runtime.block_on(started.wait())),
            Err(error) => {
                prop_assert!(error.is_invalid_input(), "{}", error);
                prop_assert!(error.to_string().contains("repository-report"), "{}", error);
            }
        }
    });
}
