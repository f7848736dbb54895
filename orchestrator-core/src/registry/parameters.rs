//! The parameters of a flow: what they are, and how they are read from JSON.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::Error as Missing;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde_json::{Map, Value};

use crate::body::{NOT_RECORDED, Probe};
use crate::engine::panics;
use crate::input::args::{self, Param};
use crate::suggest;

/// A value that is wrong is quoted up to so many characters.
const QUOTED: usize = 120;

/// A parameter of a flow.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FlowParameter {
    /// Its name.
    pub name: &'static str,
    /// Its Rust type, as written.
    pub type_name: &'static str,
    /// Whether it has to be given: an `Option` need not be.
    pub required: bool,
    /// Whether it is left out of the record, with `#[param(skip)]`: a flow with such a parameter is called in the program
    /// only.
    pub skipped: bool,
    /// The JSON Schema of its type, if that has one: if it is `schemars::JsonSchema`.
    pub schema: Option<Value>,
}

/// What is wrong with one parameter that a flow was given.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParameterError {
    /// The parameter's name, as given.
    pub parameter: String,
    /// What was given; `None` if it is missing.
    pub given: Option<Value>,
    /// The Rust type of the parameter, as written; `None` if there is no such parameter.
    pub expected: Option<&'static str>,
    /// The place inside the value that is wrong, such as `repos[2].name`; empty if it is the value as a whole.
    pub place: String,
    /// What is wrong, in words.
    pub said: String,
}

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parameter, given, expected, place, said } = self;
        match (given, expected) {
            (None, Some(expected)) => write!(f, "parameter `{parameter}` ({expected}) is missing"),
            (Some(given), Some(expected)) => {
                write!(f, "parameter `{parameter}` ({expected}) was given {}", quote(given))?;
                if !place.is_empty() {
                    write!(f, ", which is wrong at `{place}`")?;
                }
                write!(f, ": {said}")
            }
            (_, None) => write!(f, "there is no parameter `{parameter}`: {said}"),
        }
    }
}

fn quote(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// How a parameter is read from JSON.
pub struct Decoder<T> {
    decode: fn(&Value) -> Result<T, Misfit>,
    missing: fn() -> Option<T>,
    schema: Option<fn() -> Value>,
}

/// Why a value is not of the type.
struct Misfit {
    place: String,
    said: String,
}

impl<T> fmt::Debug for Decoder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder")
    }
}

struct Read<T>(PhantomData<T>);

impl<T: DeserializeOwned + 'static> Read<T> {
    const PLAIN: Decoder<T> = Decoder { decode, missing, schema: None };
}

impl<T: DeserializeOwned + schemars::JsonSchema + 'static> Read<T> {
    const WITH_SCHEMA: Decoder<T> = Decoder { decode, missing, schema: Some(|| schemars::schema_for!(T).to_value()) };
}

fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Misfit> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let place = error.path().to_string();
        let place = if place == "." { String::new() } else { place };
        Misfit { place, said: error.into_inner().to_string() }
    })
}

/// What the type is where nothing is given: `None`, if it is an `Option`.
fn missing<T: DeserializeOwned>() -> Option<T> {
    T::deserialize(Nothing).ok()
}

/// Is nothing: what a missing field is to serde.
struct Nothing;

impl<'de> Deserializer<'de> for Nothing {
    type Error = Missing;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Missing> {
        Err(Missing::custom("nothing was given"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Missing> {
        visitor.visit_none()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The decoder of a type that serde can read and that has a schema: method look-up finds this first.
pub trait ProbeSchema<T> {
    /// How to read the type.
    fn decoder(&self) -> Option<&'static Decoder<T>>;
}

impl<T: DeserializeOwned + schemars::JsonSchema + 'static> ProbeSchema<T> for &&Probe<T> {
    fn decoder(&self) -> Option<&'static Decoder<T>> {
        Some(&Read::<T>::WITH_SCHEMA)
    }
}

/// The decoder of a type that serde can read.
pub trait ProbeDecode<T> {
    /// How to read the type.
    fn decoder(&self) -> Option<&'static Decoder<T>>;
}

impl<T: DeserializeOwned + 'static> ProbeDecode<T> for &Probe<T> {
    fn decoder(&self) -> Option<&'static Decoder<T>> {
        Some(&Read::<T>::PLAIN)
    }
}

/// The decoder of any other type: none.
pub trait ProbeDecodeFallback<T> {
    /// How to read the type.
    fn decoder(&self) -> Option<&'static Decoder<T>>;
}

impl<T> ProbeDecodeFallback<T> for Probe<T> {
    fn decoder(&self) -> Option<&'static Decoder<T>> {
        None
    }
}

/// Goes over the parameters of a flow: describes them, or reads their values.
#[derive(Debug)]
pub struct ParamReader<'a> {
    purpose: Purpose<'a>,
}

#[derive(Debug)]
enum Purpose<'a> {
    Describe(Vec<FlowParameter>),
    Read { given: &'a Map<String, Value>, known: Vec<&'static str>, errors: Vec<ParameterError> },
}

impl<'a> ParamReader<'a> {
    pub(super) const fn describe() -> Self {
        Self { purpose: Purpose::Describe(Vec::new()) }
    }

    pub(super) const fn read(given: &'a Map<String, Value>) -> Self {
        Self { purpose: Purpose::Read { given, known: Vec::new(), errors: Vec::new() } }
    }

    /// A parameter that is part of the record.
    pub fn arg<P: Param>(
        &mut self,
        name: &'static str,
        type_name: &'static str,
        decoder: Option<&'static Decoder<P::Value>>,
    ) -> Option<P> {
        let (given, known, errors) = match &mut self.purpose {
            Purpose::Describe(parameters) => {
                let required = decoder.is_none_or(|decoder| !matches!(panics::catch(decoder.missing), Ok(Some(_))));
                let schema = decoder.and_then(|decoder| panics::catch(decoder.schema?).ok());
                parameters.push(FlowParameter { name, type_name, required, skipped: false, schema });
                return None;
            }
            Purpose::Read { given, known, errors } => (given, known, errors),
        };
        known.push(name);
        let decoder = decoder?;
        let given = given.get(name);
        let read = match given {
            Some(Value::String(note)) if note.starts_with(NOT_RECORDED) => {
                Err(Misfit { place: String::new(), said: "its value could not be recorded".to_owned() })
            }
            Some(value) => panics::catch(|| (decoder.decode)(value))
                .unwrap_or_else(|said| Err(Misfit { place: String::new(), said: format!("reading it {said}") })),
            None => panics::catch(decoder.missing)
                .ok()
                .flatten()
                .ok_or_else(|| Misfit { place: String::new(), said: "it is missing".to_owned() }),
        };
        match read {
            Ok(value) => Some(args::held(value)),
            Err(Misfit { place, said }) => {
                let (parameter, given) = (name.to_owned(), given.cloned());
                errors.push(ParameterError { parameter, given, expected: Some(type_name), place, said });
                None
            }
        }
    }

    /// A parameter that is not part of the record, and cannot be read.
    pub fn skipped<P>(&mut self, name: &'static str, type_name: &'static str) -> Option<P> {
        if let Purpose::Describe(parameters) = &mut self.purpose {
            parameters.push(FlowParameter { name, type_name, required: true, skipped: true, schema: None });
        }
        None
    }

    /// The parameters that were gone over.
    pub(super) fn described(self) -> Vec<FlowParameter> {
        match self.purpose {
            Purpose::Describe(parameters) => parameters,
            Purpose::Read { .. } => Vec::new(),
        }
    }

    /// What is wrong with the values that were read, and with those that nobody asked for.
    pub(super) fn errors(self) -> Vec<ParameterError> {
        let Purpose::Read { given, known, mut errors } = self.purpose else { return Vec::new() };
        for (name, value) in given.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            let said = match suggest::nearest(name, known.iter().copied()) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None if known.is_empty() => "the flow takes none".to_owned(),
                None => {
                    let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                    format!("the parameters are {}", known.join(", "))
                }
            };
            let (parameter, given) = (name.clone(), Some(value.clone()));
            errors.push(ParameterError { parameter, given, expected: None, place: String::new(), said });
        }
        errors
    }
}
