//! The parameters of a flow as they are typed: on the command line, in a file, or into standard input.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;

use orchestrator_core::FlowParameter;
use orchestrator_core::text::one_line;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::exit::Trouble;

/// The parameters of a flow as they were typed.
#[derive(Debug, Default)]
pub(super) struct Typed {
    /// `name=value`, each.
    pub(super) params: Vec<String>,
    /// A file with a JSON object; `-` for standard input.
    pub(super) file: Option<PathBuf>,
}

impl Typed {
    /// The parameters as a JSON object: those of the file, then those of the command line.
    pub(super) fn read(&self, flow: &str) -> Result<Map<String, Value>, Trouble> {
        let known = orchestrator_core::flows().find(|info| [info.key, info.name, info.function].contains(&flow));
        self.read_as(known.as_ref().map(|flow| flow.parameters.as_slice()).unwrap_or_default())
    }

    /// The same for a flow with these parameters.
    fn read_as(&self, of_flow: &[FlowParameter]) -> Result<Map<String, Value>, Trouble> {
        let mut parameters = match &self.file {
            None => Map::new(),
            Some(file) => from_file(file)?,
        };
        let mut given = Vec::new();
        for param in &self.params {
            let Some((name, text)) = param.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return Err(Trouble::usage(format!(
                    "--param was given '{}': expected NAME=VALUE, such as --param depth=3",
                    one_line(param)
                )));
            };
            if given.contains(&name) {
                return Err(Trouble::usage(format!("parameter `{}` is given twice with --param", one_line(name))));
            }
            given.push(name);
            let parameter = of_flow.iter().find(|parameter| parameter.name == name);
            parameters.insert(name.to_owned(), value(text, parameter));
        }
        Ok(parameters)
    }
}

fn from_file(file: &PathBuf) -> Result<Map<String, Value>, Trouble> {
    let (what, text) = if file.as_os_str() == "-" {
        let mut text = String::new();
        ("standard input".to_owned(), std::io::stdin().read_to_string(&mut text).map(|_| text))
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    let text = text.map_err(|error| Trouble::usage(format!("cannot read the parameters from {what}: {error}")))?;
    let wanted = "expected a JSON object, such as {\"depth\": 3}";
    match serde_json::from_str(&text) {
        Ok(Once(Value::Object(parameters))) => Ok(parameters),
        Ok(Once(other)) => Err(Trouble::usage(format!("{what} has {}: {wanted}", kind(&other)))),
        Err(error) if error.is_data() => Err(Trouble::usage(format!("{what} has {error}"))),
        Err(error) => Err(Trouble::usage(format!("{what} is no JSON: {error}; {wanted}"))),
    }
}

/// JSON in which no object has a name twice: of two values, nobody knows which was meant.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Self)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Once(value)) = values.next_element()? {
            all.push(value);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Once(value))) = fields.next_entry::<String, Once>()? {
            if all.contains_key(&name) {
                return Err(A::Error::custom(format_args!("`{}` twice", one_line(&name))));
            }
            all.insert(name, value);
        }
        Ok(Value::Object(all))
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What a typed value is: text where the parameter takes text, else JSON; and text again where that is no JSON, for whatever is
/// written as text, such as a date.
fn value(text: &str, parameter: Option<&FlowParameter>) -> Value {
    let as_text = || Value::String(text.to_owned());
    if parameter.is_some_and(takes_text) {
        return as_text();
    }
    serde_json::from_str(text).unwrap_or_else(|_| as_text())
}

/// Whether a parameter takes text and nothing else, an absent value aside.
fn takes_text(parameter: &FlowParameter) -> bool {
    if let Some(kind) = parameter.schema.as_ref().and_then(|schema| schema.get("type")) {
        let kinds = kind.as_array().map_or(std::slice::from_ref(kind), Vec::as_slice);
        return kinds.iter().all(|kind| kind == "string" || kind == "null")
            && kinds.iter().any(|kind| kind == "string");
    }
    let mut name = parameter.type_name.replace(' ', "");
    if let Some(inside) = name.strip_prefix("Option<").and_then(|rest| rest.strip_suffix('>')) {
        name = inside.to_owned();
    }
    let last = name.rsplit("::").next().unwrap_or(&name).trim_start_matches('&');
    ["String", "str", "PathBuf", "Path", "char"].contains(&last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inside| {
            prop_oneof![
                proptest::collection::vec(inside.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(".*", inside, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn typed(params: &[&str]) -> Typed {
        Typed { params: params.iter().copied().map(str::to_owned).collect(), file: None }
    }

    proptest! {
        #[test]
        fn whatever_is_typed_is_read_or_refused_with_a_sentence(params in proptest::collection::vec(".*", 0..4)) {
            let given = Typed { params: params.clone(), file: None };
            match given.read("no-such-flow") {
                Ok(read) => prop_assert_eq!(read.len(), params.len()),
                Err(trouble) => {
                    let said = trouble.said.expect("it is said what is wrong");
                    prop_assert!(said.contains("--param") && !said.contains('\n'), "{}", said);
                }
            }
        }

        #[test]
        fn json_is_read_as_what_it_is(value in json_value()) {
            let read = typed(&[&format!("x={value}")]).read("no-such-flow").expect("it is JSON");
            prop_assert_eq!(&read["x"], &value);
        }

        #[test]
        fn what_is_no_json_is_text(text in "[a-z][a-z =]*".prop_filter("is JSON", |text| {
            serde_json::from_str::<Value>(text).is_err()
        })) {
            let read = typed(&[&format!("x={text}")]).read("no-such-flow").expect("it has a name");
            prop_assert_eq!(&read["x"], &json!(text));
        }

        #[test]
        fn arguments_are_understood_or_refused(arguments in proptest::collection::vec(
            prop_oneof![
                Just("run".to_owned()), Just("runs".to_owned()), Just("rm".to_owned()), Just("--older-than".to_owned()),
                Just("--param".to_owned()), Just("limits".to_owned()), Just("set".to_owned()), Just("--".to_owned()), ".*",
            ],
            0..8,
        )) {
            for program in [crate::args::Program::Orchestrator, crate::args::Program::Pipeline] {
                let all = std::iter::once("program".to_owned()).chain(arguments.clone());
                let _ = crate::args::parse(program, all.map(Into::into));
            }
        }
    }
}
