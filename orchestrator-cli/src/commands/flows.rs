//! `flows`: the flows of this program.

use orchestrator_core::FlowInfo;
use serde::Serialize;
use serde_json::Value;

use crate::exit::Trouble;
use crate::print;

#[derive(Serialize)]
struct FlowJson {
    name: &'static str,
    function: &'static str,
    key: &'static str,
    description: &'static str,
    version: Option<&'static str>,
    /// Why it cannot be run by name; null if it can.
    not_callable: Option<String>,
    parameters: Vec<ParameterJson>,
}

#[derive(Serialize)]
struct ParameterJson {
    name: &'static str,
    /// The Rust type, as written.
    r#type: &'static str,
    required: bool,
    /// Whether nothing but a call in the program can give it.
    skipped: bool,
    /// The JSON Schema of the type, if it has one.
    schema: Option<Value>,
}

impl From<FlowInfo> for FlowJson {
    fn from(flow: FlowInfo) -> Self {
        let not_callable = flow.not_callable();
        let FlowInfo { name, function, key, description, version, parameters, .. } = flow;
        let parameters = parameters.into_iter().map(|parameter| ParameterJson {
            name: parameter.name,
            r#type: parameter.type_name,
            required: parameter.required,
            skipped: parameter.skipped,
            schema: parameter.schema,
        });
        Self { name, function, key, description, version, not_callable, parameters: parameters.collect() }
    }
}

pub(super) fn list(json: bool) -> Result<(), Trouble> {
    let flows = orchestrator_core::flows();
    if json {
        return print::json(&flows.map(FlowJson::from).collect::<Vec<_>>());
    }
    let text = flows.map(|flow| shown(&flow)).collect::<Vec<_>>().join("\n");
    if text.is_empty() {
        print::note("this program has no flows");
        return Ok(());
    }
    print::out(&text)
}

fn shown(flow: &FlowInfo) -> String {
    let version = flow.version.map(|version| format!(", version {version}")).unwrap_or_default();
    let mut text = format!("{} {}\n", flow.name, print::dim(format!("({}{version})", flow.key)));
    for line in flow.description.trim().lines() {
        text += &format!("  {}\n", line.trim_end());
    }
    for parameter in &flow.parameters {
        let note = match (parameter.skipped, parameter.required) {
            (true, _) => "  (only a call in the program can give it)",
            (false, false) => "  (may be left out)",
            (false, true) => "",
        };
        text += &format!("  --param {}=<{}>{note}\n", parameter.name, parameter.type_name);
    }
    text
}
