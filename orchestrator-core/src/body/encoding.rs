//! How arguments are written, into cache keys and into the record.

use serde::Serialize;

use super::Probe;
use crate::cache::canonical::{self, EncodeError};

/// How values of a type are written into a cache key or a record; `None`: the type is not `Serialize`.
pub struct Encoders<T>(Option<Writers<T>>);

struct Writers<T> {
    canonical: fn(&T, &mut Vec<u8>) -> Result<(), EncodeError>,
    json: fn(&T) -> Result<serde_json::Value, serde_json::Error>,
}

impl<T> std::fmt::Debug for Encoders<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoders")
    }
}

impl<T> Encoders<T> {
    const NONE: Self = Self(None);

    pub(crate) fn to_json(&self, value: &T) -> Option<Result<serde_json::Value, serde_json::Error>> {
        Some((self.0.as_ref()?.json)(value))
    }
}

impl<T: Serialize> Encoders<T> {
    const SERDE: Self = Self(Some(Writers {
        canonical: |value, out| canonical::encode(value, out),
        json: |value| serde_json::to_value(value),
    }));
}

/// Whether and how values of a type are written.
pub enum Encoding<T: 'static> {
    /// They are left out.
    LeftOut,
    /// With these, if their type is `Serialize`.
    With(&'static Encoders<T>),
}

impl<T> Clone for Encoding<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Encoding<T> {}

impl<T> std::fmt::Debug for Encoding<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LeftOut => "Encoding::LeftOut",
            Self::With(_) => "Encoding::With",
        })
    }
}

impl<T: Serialize + 'static> Probe<T> {
    /// A type that is `Serialize` is written so: this constant shadows the trait's.
    pub const ENCODING: Encoding<T> = Encoding::With(&Encoders::SERDE);
}

/// The answer for types that are not `Serialize`.
pub trait ProbeEncoding<T: 'static> {
    /// How values are written.
    const ENCODING: Encoding<T> = Encoding::With(&Encoders::NONE);
}

impl<T: 'static> ProbeEncoding<T> for Probe<T> {}

/// Writes the arguments of one run, for one of two purposes.
#[derive(Debug)]
pub struct ArgEncoder<'a> {
    purpose: Purpose<'a>,
    /// Whether the arguments after one that cannot be encoded are written.
    goes_on: bool,
    error: Option<ArgError>,
}

#[derive(Debug)]
enum Purpose<'a> {
    /// The canonical form, but for the arguments named.
    Key { out: &'a mut Vec<u8>, exclude: &'a [&'a str] },
    /// A JSON object.
    Record { out: &'a mut serde_json::Map<String, serde_json::Value> },
}

impl<'a> ArgEncoder<'a> {
    pub(crate) fn key(out: &'a mut Vec<u8>, exclude: &'a [&'a str]) -> Self {
        Self { purpose: Purpose::Key { out, exclude }, goes_on: false, error: None }
    }

    /// A mark stands for each argument that cannot be encoded.
    pub(crate) fn identity(out: &'a mut Vec<u8>) -> Self {
        Self { purpose: Purpose::Key { out, exclude: &[] }, goes_on: true, error: None }
    }

    pub(crate) fn record(out: &'a mut serde_json::Map<String, serde_json::Value>) -> Self {
        Self { purpose: Purpose::Record { out }, goes_on: false, error: None }
    }

    /// Writes one argument.
    pub(crate) fn arg<T>(&mut self, name: &str, encoding: Encoding<T>, value: &T) {
        let encoders = match encoding {
            Encoding::LeftOut => return,
            Encoding::With(encoders) => encoders.0.as_ref(),
        };
        if self.error.is_some() && !self.goes_on {
            return;
        }
        let outcome = match (&mut self.purpose, encoders) {
            (Purpose::Key { exclude, .. }, _) if exclude.contains(&name) => Ok(()),
            (Purpose::Key { out, .. }, Some(encoders)) => {
                out.extend_from_slice(&(name.len() as u64).to_le_bytes());
                out.extend_from_slice(name.as_bytes());
                let before = out.len();
                (encoders.canonical)(value, out).inspect_err(|_| {
                    out.truncate(before);
                    out.push(NOT_ENCODED);
                })
            }
            (Purpose::Record { out }, Some(encoders)) => {
                let value = (encoders.json)(value).unwrap_or_else(|error| format!("{NOT_RECORDED}{error}>").into());
                out.insert(name.to_owned(), value);
                Ok(())
            }
            (Purpose::Key { out, .. }, None) => {
                out.push(NOT_ENCODED);
                Err(EncodeError(format!("its type {} is not Serialize", std::any::type_name::<T>())))
            }
            (Purpose::Record { out }, None) => {
                out.insert(name.to_owned(), format!("<{}>", std::any::type_name::<T>()).into());
                Ok(())
            }
        };
        if let Err(error) = outcome {
            self.error.get_or_insert(ArgError { argument: Some(name.to_owned()), why: error.0 });
        }
    }

    pub(crate) fn finish(self) -> Result<(), ArgError> {
        self.error.map_or(Ok(()), Err)
    }
}

/// How a note begins that is recorded in the place of a parameter.
pub(crate) const NOT_RECORDED: &str = "<not recorded: ";

/// In the place of an argument: no tag of the canonical form is like it.
const NOT_ENCODED: u8 = u8::MAX;

/// Why arguments cannot be encoded.
#[derive(Debug)]
pub(crate) struct ArgError {
    /// Which one it is; `None` if the user's code panicked.
    pub(crate) argument: Option<String>,
    pub(crate) why: String,
}

impl std::fmt::Display for ArgError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.argument {
            Some(argument) => write!(f, "argument `{argument}` cannot be encoded: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}
