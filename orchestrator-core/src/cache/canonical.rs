//! The canonical encoding of arguments: equal values give equal bytes, different ones different bytes.
//!
//! Every value carries a tag, so that `1`, `1.0` and `"1"` differ; entries of maps are sorted by their encoded keys,
//! so that the order of a hash map does not matter; integers are written by value, so that widening a parameter's
//! type keeps its keys. A `HashSet` is a sequence to serde and keeps its order: use a `BTreeSet` in keys.

use std::fmt;

use serde::Serialize;
use serde::ser::{self, Serializer};

/// Appends the canonical form of `value` to `out`.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    value.serialize(Canonical { out })
}

/// Why a value has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncodeError(pub(crate) String);

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EncodeError {}

impl ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

#[repr(u8)]
enum Tag {
    Unit,
    None,
    Some,
    False,
    True,
    Int,
    BigInt,
    HugeInt,
    Float,
    Char,
    Text,
    Bytes,
    Sequence,
    Map,
    Struct,
    Variant,
    End,
}

struct Canonical<'a> {
    out: &'a mut Vec<u8>,
}

impl Canonical<'_> {
    fn tag(&mut self, tag: Tag) {
        self.out.push(tag as u8);
    }

    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.out.extend_from_slice(text.as_bytes());
    }
}

impl<'a> Serializer for Canonical<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Entries<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    fn serialize_bool(mut self, v: bool) -> Result<(), EncodeError> {
        self.tag(if v { Tag::True } else { Tag::False });
        Ok(())
    }

    fn serialize_i8(self, v: i8) -> Result<(), EncodeError> {
        self.serialize_i64(v.into())
    }

    fn serialize_i16(self, v: i16) -> Result<(), EncodeError> {
        self.serialize_i64(v.into())
    }

    fn serialize_i32(self, v: i32) -> Result<(), EncodeError> {
        self.serialize_i64(v.into())
    }

    fn serialize_i64(mut self, v: i64) -> Result<(), EncodeError> {
        self.tag(Tag::Int);
        self.out.extend_from_slice(&v.to_le_bytes());
        Ok(())
    }

    fn serialize_i128(mut self, v: i128) -> Result<(), EncodeError> {
        if let Ok(v) = i64::try_from(v) {
            return self.serialize_i64(v);
        }
        self.tag(Tag::BigInt);
        self.out.extend_from_slice(&v.to_le_bytes());
        Ok(())
    }

    fn serialize_u8(self, v: u8) -> Result<(), EncodeError> {
        self.serialize_i64(v.into())
    }

    fn serialize_u16(self, v: u16) -> Result<(), EncodeError> {
        self.serialize_i64(v.into())
    }

    fn serialize_u32(self, v: u32) -> Result<(), EncodeError> {
        self.serialize_i64(v.into())
    }

    fn serialize_u64(self, v: u64) -> Result<(), EncodeError> {
        self.serialize_i128(v.into())
    }

    fn serialize_u128(mut self, v: u128) -> Result<(), EncodeError> {
        if let Ok(v) = i128::try_from(v) {
            return self.serialize_i128(v);
        }
        self.tag(Tag::HugeInt);
        self.out.extend_from_slice(&v.to_le_bytes());
        Ok(())
    }

    fn serialize_f32(self, v: f32) -> Result<(), EncodeError> {
        self.serialize_f64(v.into())
    }

    fn serialize_f64(mut self, v: f64) -> Result<(), EncodeError> {
        if v.is_nan() {
            return Err(EncodeError("NaN equals nothing, not even itself, and cannot be part of a cache key".into()));
        }
        self.tag(Tag::Float);
        self.out.extend_from_slice(&v.to_bits().to_le_bytes());
        Ok(())
    }

    fn serialize_char(mut self, v: char) -> Result<(), EncodeError> {
        self.tag(Tag::Char);
        self.out.extend_from_slice(&u32::from(v).to_le_bytes());
        Ok(())
    }

    fn serialize_str(mut self, v: &str) -> Result<(), EncodeError> {
        self.tag(Tag::Text);
        self.text(v);
        Ok(())
    }

    fn serialize_bytes(mut self, v: &[u8]) -> Result<(), EncodeError> {
        self.tag(Tag::Bytes);
        self.out.extend_from_slice(&(v.len() as u64).to_le_bytes());
        self.out.extend_from_slice(v);
        Ok(())
    }

    fn serialize_none(mut self) -> Result<(), EncodeError> {
        self.tag(Tag::None);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), EncodeError> {
        self.tag(Tag::Some);
        value.serialize(self)
    }

    fn serialize_unit(mut self) -> Result<(), EncodeError> {
        self.tag(Tag::Unit);
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), EncodeError> {
        self.tag(Tag::Variant);
        self.text(variant);
        self.tag(Tag::Unit);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.tag(Tag::Variant);
        self.text(variant);
        value.serialize(self)
    }

    fn serialize_seq(mut self, _len: Option<usize>) -> Result<Compound<'a>, EncodeError> {
        self.tag(Tag::Sequence);
        Ok(Compound { out: self.out })
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'a>, EncodeError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Compound<'a>, EncodeError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'a>, EncodeError> {
        self.tag(Tag::Variant);
        self.text(variant);
        self.serialize_seq(Some(len))
    }

    fn serialize_map(mut self, _len: Option<usize>) -> Result<Entries<'a>, EncodeError> {
        self.tag(Tag::Map);
        Ok(Entries { out: self.out, entries: Vec::new(), key: None })
    }

    fn serialize_struct(mut self, _name: &'static str, _len: usize) -> Result<Compound<'a>, EncodeError> {
        self.tag(Tag::Struct);
        Ok(Compound { out: self.out })
    }

    fn serialize_struct_variant(
        mut self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'a>, EncodeError> {
        self.tag(Tag::Variant);
        self.text(variant);
        self.serialize_struct(name, len)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Elements or fields one after the other, closed by an end tag.
struct Compound<'a> {
    out: &'a mut Vec<u8>,
}

impl Compound<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(Canonical { out: self.out })
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), EncodeError> {
        Canonical { out: self.out }.text(name);
        self.element(value)
    }

    fn close(self) -> Result<(), EncodeError> {
        self.out.push(Tag::End as u8);
        Ok(())
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident),* $(,)?) => {$(
        impl ser::$trait for Compound<'_> {
            type Ok = ();
            type Error = EncodeError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
                self.element(value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.close()
            }
        }
    )*};
}

elements!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
);

macro_rules! fields {
    ($($trait:ident),* $(,)?) => {$(
        impl ser::$trait for Compound<'_> {
            type Ok = ();
            type Error = EncodeError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), EncodeError> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.close()
            }
        }
    )*};
}

fields!(SerializeStruct, SerializeStructVariant);

/// The entries of a map, collected so that they can be sorted.
struct Entries<'a> {
    out: &'a mut Vec<u8>,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    key: Option<Vec<u8>>,
}

impl ser::SerializeMap for Entries<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        let mut bytes = Vec::new();
        encode(key, &mut bytes)?;
        self.key = Some(bytes);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let mut bytes = Vec::new();
        encode(value, &mut bytes)?;
        let key = self.key.take().ok_or_else(|| EncodeError("a map gave a value without a key".into()))?;
        self.entries.push((key, bytes));
        Ok(())
    }

    fn end(mut self) -> Result<(), EncodeError> {
        self.entries.sort_unstable();
        for (key, value) in self.entries {
            self.out.extend_from_slice(&key);
            self.out.extend_from_slice(&value);
        }
        self.out.push(Tag::End as u8);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    fn bytes<T: Serialize>(value: T) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&value, &mut out).expect("encodable");
        out
    }

    #[derive(Serialize)]
    enum Shape {
        Dot,
        Circle(f64),
        Box { wide: u8, high: u8 },
    }

    #[test]
    fn values_that_differ_do_not_collide() {
        let all = [
            bytes(1),
            bytes(1.0),
            bytes("1"),
            bytes('1'),
            bytes(true),
            bytes(()),
            bytes(Some(1)),
            bytes(Some(Some(1))),
            bytes(None::<u8>),
            bytes([1]),
            bytes([1, 1]),
            bytes([[1], [1]]),
            bytes(["ab", "c"]),
            bytes(["a", "bc"]),
            bytes(u64::MAX),
            bytes(u128::MAX),
            bytes(-1),
            bytes(0.0),
            bytes(-0.0),
            bytes(Shape::Dot),
            bytes("Dot"),
            bytes(Shape::Circle(1.0)),
            bytes(Shape::Box { wide: 1, high: 2 }),
            bytes(BTreeMap::from([(1, 2)])),
        ];
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert_eq!(i == j, a == b, "values {i} and {j}");
            }
        }
    }

    #[test]
    fn nan_is_refused_and_widening_keeps_the_key() {
        assert!(encode(&f64::NAN, &mut Vec::new()).expect_err("NaN").to_string().contains("NaN"));
        assert_eq!(bytes(7_u8), bytes(7_i64));
        assert_eq!(bytes(7_u128), bytes(7_u8));
        assert_eq!(bytes(0.5_f32), bytes(0.5_f64));
    }

    proptest! {
        #[test]
        fn the_order_of_a_map_does_not_matter(entries: BTreeMap<(i8, bool), Vec<u16>>) {
            let shuffled: HashMap<_, _> = entries.clone().into_iter().collect();
            prop_assert_eq!(bytes(entries), bytes(shuffled));
        }

        #[test]
        fn equal_bytes_mean_equal_values(a: Vec<(String, Option<i32>)>, b: Vec<(String, Option<i32>)>) {
            prop_assert_eq!(a == b, bytes(&a) == bytes(&b));
        }
    }
}
