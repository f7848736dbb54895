//! What types have to be able to do for what is asked of a function; the messages say it where they are not.

use std::error::Error as StdError;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// An error that a body can give.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a task or flow",
    label = "not an error, or not one that is `Send + Sync`",
    note = "it may be a type that is `std::error::Error + Send + Sync`, a `Box<dyn std::error::Error + Send + Sync>`, an `anyhow::Error`, or a `String`"
)]
pub trait IntoBodyError: Into<Box<dyn StdError + Send + Sync>> + 'static {}
#[diagnostic::do_not_recommend]
impl<E: Into<Box<dyn StdError + Send + Sync>> + 'static> IntoBodyError for E {}

/// A type that can be part of a cache key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "not `Serialize`",
    note = "derive `serde::Serialize` for it, or leave the argument out of the key with `#[cache(skip)]`"
)]
pub trait CacheInput {}
impl<T: Serialize> CacheInput for T {}

/// A type that can be kept in the cache.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in the cache",
    label = "not `Serialize + DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or do not ask for caching"
)]
pub trait CacheOutput {}
impl<T: Serialize + DeserializeOwned> CacheOutput for T {}

/// A type that can be persisted.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be persisted",
    label = "not `Serialize + DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or leave out `persist`: the task then runs again when its flow is retried"
)]
pub trait PersistOutput {}
impl<T: Serialize + DeserializeOwned> PersistOutput for T {}

/// A type that can be recorded as a flow's parameter.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be recorded as a flow parameter",
    label = "not `Serialize + DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or leave it out of the record with `#[param(skip)]`"
)]
pub trait FlowParameter {}
impl<T: Serialize + DeserializeOwned> FlowParameter for T {}

/// A type that can be taken by value.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken by value",
    label = "not `Clone + Send + Sync + 'static`",
    note = "each attempt gets its own value: take `&{Self}`, derive `Clone`, or pass an `Arc`"
)]
pub trait ByValue: Clone + Send + Sync + 'static {}
impl<T: Clone + Send + Sync + 'static> ByValue for T {}

/// Fails to compile unless the type can be part of a cache key.
pub const fn assert_cache_input<T: CacheInput + ?Sized>() {}
/// Fails to compile unless the type can be kept in the cache.
pub const fn assert_cache_output<T: CacheOutput>() {}
/// Fails to compile unless the type can be persisted.
pub const fn assert_persist_output<T: PersistOutput>() {}
/// Fails to compile unless the type can be recorded as a flow's parameter.
pub const fn assert_parameter<T: FlowParameter>() {}
/// Fails to compile unless the type can be taken by value.
pub const fn assert_by_value<T: ByValue>() {}
