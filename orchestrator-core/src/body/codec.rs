//! How results are stored and read back.

use std::any::Any;
use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Erased, Probe};
use crate::backend::record::EncodedValue;

/// What the runtime knows of the type of results: there is one for all functions that give that type.
#[derive(Debug)]
pub struct ResultType {
    is: fn(&Erased) -> bool,
    /// How they are stored, if they can be.
    codec: Option<Codec>,
}

impl ResultType {
    pub(crate) const fn codec(&'static self) -> Option<&'static Codec> {
        self.codec.as_ref()
    }

    /// Whether a value is of this type.
    pub(crate) fn has(&self, value: &Erased) -> bool {
        (self.is)(value)
    }
}

fn is<T: 'static>(value: &Erased) -> bool {
    value.is::<T>()
}

/// Values that are nested deeper are not read: the stack of a thread has an end. JSON has the same limit.
const DEEPEST: usize = 128;

/// The stored form of results: MessagePack with named fields.
const FORMAT: &str = "msgpack/1";

type EncodeUpTo = fn(&(dyn Any + Send + Sync), usize) -> Result<Option<Vec<u8>>, String>;

/// How results of one type are stored and read back.
#[derive(Debug)]
pub struct Codec {
    type_name: fn() -> &'static str,
    /// `None`: it would be larger than that.
    encode: EncodeUpTo,
    decode: fn(&[u8]) -> Result<Erased, String>,
}

/// Why a stored value is not what was looked for.
#[derive(Debug)]
pub(crate) enum DecodeError {
    OtherFormat(String),
    OtherType(String),
    Unreadable(String),
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherFormat(found) => write!(f, "it is stored as {found}, which this version does not read"),
            Self::OtherType(found) => write!(f, "it is of type {found}"),
            Self::Unreadable(why) => write!(f, "it could not be read: {why}"),
        }
    }
}

impl Codec {
    /// The value as bytes.
    pub(crate) fn encode(&self, value: &(dyn Any + Send + Sync)) -> Result<EncodedValue, String> {
        self.encode_up_to(value, usize::MAX).map(|encoded| encoded.expect("no value is larger than that"))
    }

    /// The value as bytes; `None` if there are more than so many.
    pub(crate) fn encode_up_to(
        &self,
        value: &(dyn Any + Send + Sync),
        most: usize,
    ) -> Result<Option<EncodedValue>, String> {
        let encoded = |bytes: Vec<u8>| EncodedValue {
            format: Cow::Borrowed(FORMAT),
            type_name: Cow::Borrowed((self.type_name)()),
            bytes: bytes.into(),
        };
        Ok((self.encode)(value, most)?.map(encoded))
    }

    /// Whether what was stored is what this codec reads.
    pub(crate) fn check(&self, format: &str, type_name: &str) -> Result<(), DecodeError> {
        if format != FORMAT {
            return Err(DecodeError::OtherFormat(format.to_owned()));
        }
        if type_name != (self.type_name)() {
            return Err(DecodeError::OtherType(type_name.to_owned()));
        }
        Ok(())
    }

    /// The value that was stored, if it is of this type and intact.
    pub(crate) fn decode(&self, value: &EncodedValue) -> Result<Erased, DecodeError> {
        self.check(&value.format, &value.type_name)?;
        (self.decode)(&value.bytes).map_err(DecodeError::Unreadable)
    }
}

/// Bytes that do not become more than that.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
    over: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.over |= bytes.len() > self.most - self.bytes.len();
        if self.over {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Stored<T>(PhantomData<T>);

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Stored<T> {
    const TYPE: ResultType = ResultType { is: is::<T>, codec: Some(Self::CODEC) };

    const CODEC: Codec = Codec {
        type_name: std::any::type_name::<T>,
        encode: |value, most| {
            let value = value.downcast_ref::<T>().ok_or("the result is of another type")?;
            let mut bounded = Bounded { bytes: Vec::with_capacity(128.min(most)), most, over: false };
            match rmp_serde::encode::write_named(&mut bounded, value) {
                _ if bounded.over => Ok(None),
                Ok(()) => Ok(Some(bounded.bytes)),
                Err(error) => Err(error.to_string()),
            }
        },
        decode: |bytes| {
            let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
            reader.set_max_depth(DEEPEST);
            let value = T::deserialize(&mut reader).map_err(|error| error.to_string())?;
            Ok(Arc::new(value))
        },
    };
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Probe<T> {
    /// A type that serde can write and read is stored so: this constant shadows the trait's.
    pub const RESULT: &'static ResultType = &Stored::<T>::TYPE;
}

/// The answer for any other type.
pub trait ProbeResult {
    /// How the type is stored: not at all.
    const RESULT: &'static ResultType;
}

impl<T: 'static> ProbeResult for Probe<T> {
    const RESULT: &'static ResultType = Unstored::<T>::RESULT;
}

/// A type of results of which it is known that they cannot be stored.
#[derive(Debug)]
pub struct Unstored<T>(PhantomData<fn(&T)>);

impl<T: 'static> Unstored<T> {
    /// What is known of it.
    pub const RESULT: &'static ResultType = &ResultType { is: is::<T>, codec: None };
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Shape {
        name: String,
        sides: Vec<Option<f64>>,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    enum Kind {
        Round,
        Other { words: BTreeMap<String, (u8, char)> },
        Nested(Box<Shape>),
    }

    fn stored(bytes: Vec<u8>, codec: &Codec) -> EncodedValue {
        EncodedValue { format: FORMAT.into(), type_name: (codec.type_name)().into(), bytes: bytes.into() }
    }

    fn read<T: Serialize + DeserializeOwned + Send + Sync + 'static>(bytes: &[u8]) {
        let codec = &Stored::<T>::CODEC;
        if let Ok(value) = codec.decode(&stored(bytes.to_vec(), codec)) {
            codec.encode(&*value).expect("what was read can be written");
        }
    }

    fn read_all(bytes: &[u8]) {
        read::<()>(bytes);
        read::<u64>(bytes);
        read::<Option<i8>>(bytes);
        read::<String>(bytes);
        read::<Vec<String>>(bytes);
        read::<HashMap<u32, Vec<u8>>>(bytes);
        read::<Shape>(bytes);
        read::<serde_json::Value>(bytes);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
        }

        #[test]
        fn so_are_values_that_were_changed(
            words in prop::collection::btree_map(".{0,5}", any::<(u8, char)>(), 0..4),
            sides in prop::collection::vec(any::<Option<f64>>(), 0..4),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<Option<prop::sample::Index>>(),
        ) {
            let inner = Shape { name: "inner".to_owned(), sides: sides.clone(), kind: Kind::Round };
            let kind = if words.len() % 2 == 0 { Kind::Other { words } } else { Kind::Nested(Box::new(inner)) };
            let codec = &Stored::<Shape>::CODEC;
            let encoded = codec.encode(&Shape { name: "outer".to_owned(), sides, kind }).expect("it is encoded");
            let mut bytes = encoded.bytes.to_vec();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
            read_all(&bytes);
        }
    }

    #[test]
    fn lengths_that_lie_and_deep_nesting_are_refused() {
        // Says that four billion items follow.
        for head in [0xdb, 0xc6, 0xdd, 0xdf] {
            read_all(&[head, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        }
        // Lists in lists.
        read_all(&vec![0x91; 1_000_000]);
    }

    #[test]
    fn a_value_is_bounded_to_the_byte() {
        let codec = &Stored::<String>::CODEC;
        let value = "12345".to_owned();
        let whole = codec.encode(&value).expect("it is encoded").bytes.len();
        assert!(codec.encode_up_to(&value, whole).expect("it is encoded").is_some());
        assert!(codec.encode_up_to(&value, whole - 1).expect("it is encoded").is_none());
        assert!(codec.encode_up_to(&value, 0).expect("it is encoded").is_none());
    }
}
