//! A store that this program knows nothing of.

use super::{Bytes, Doing, ResultStore};
use crate::backend::{BackendError, BackendErrorKind};

/// Says why it cannot be used, to whoever tries.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub(crate) url: String,
    pub(crate) why: String,
}

impl Unusable {
    fn refuse<T: Send>(&self) -> Doing<'_, T> {
        let doing = format!("use the result store {}", self.url);
        Box::pin(async move { Err(BackendError::new(BackendErrorKind::Unavailable, doing).because(self.why.clone())) })
    }
}

impl ResultStore for Unusable {
    fn put<'a>(&'a self, _name: &'a str, _bytes: Bytes) -> Doing<'a, bool> {
        self.refuse()
    }

    fn get<'a>(&'a self, _name: &'a str) -> Doing<'a, Option<Bytes>> {
        self.refuse()
    }

    fn delete<'a>(&'a self, _name: &'a str) -> Doing<'a, ()> {
        self.refuse()
    }

    fn list<'a>(&'a self, _folder: &'a str) -> Doing<'a, Vec<String>> {
        self.refuse()
    }

    fn location(&self) -> String {
        self.url.clone()
    }
}
