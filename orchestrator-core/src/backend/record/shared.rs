//! Lists that are mostly empty.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::id::RunId;

/// A list that is mostly empty, and cheap to clone if it is not.
pub struct SharedList<T>(Option<Arc<[T]>>);

impl<T> SharedList<T> {
    /// Whether the two are one and the same, or both empty.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

impl<T> Default for SharedList<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Clone for SharedList<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for SharedList<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<T: fmt::Debug> fmt::Debug for SharedList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> From<Vec<T>> for SharedList<T> {
    fn from(list: Vec<T>) -> Self {
        Self((!list.is_empty()).then(|| list.into()))
    }
}

impl<T, const N: usize> From<[T; N]> for SharedList<T> {
    fn from(list: [T; N]) -> Self {
        Self((N > 0).then(|| list.into()))
    }
}

impl<T: Copy> From<&[T]> for SharedList<T> {
    fn from(list: &[T]) -> Self {
        Self((!list.is_empty()).then(|| list.into()))
    }
}

impl<T> FromIterator<T> for SharedList<T> {
    fn from_iter<I: IntoIterator<Item = T>>(list: I) -> Self {
        list.into_iter().collect::<Vec<_>>().into()
    }
}

/// Ids of runs: none or one, in place, or several, which clones share.
#[derive(Clone, Default)]
pub struct RunIds(Ids);

#[derive(Clone, Default)]
enum Ids {
    #[default]
    None,
    One(RunId),
    Several(Arc<[RunId]>),
}

impl RunIds {
    pub(crate) const fn one(id: RunId) -> Self {
        Self(Ids::One(id))
    }

    /// The only one, if there is any; `None` if there are several.
    pub(crate) const fn at_most_one(&self) -> Option<Option<RunId>> {
        match self.0 {
            Ids::None => Some(None),
            Ids::One(id) => Some(Some(id)),
            Ids::Several(_) => None,
        }
    }
}

impl Deref for RunIds {
    type Target = [RunId];

    fn deref(&self) -> &[RunId] {
        match &self.0 {
            Ids::None => &[],
            Ids::One(id) => std::slice::from_ref(id),
            Ids::Several(ids) => ids,
        }
    }
}

impl fmt::Debug for RunIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl From<&[RunId]> for RunIds {
    fn from(ids: &[RunId]) -> Self {
        Self(match ids {
            [] => Ids::None,
            [id] => Ids::One(*id),
            several => Ids::Several(several.into()),
        })
    }
}

impl From<Vec<RunId>> for RunIds {
    fn from(ids: Vec<RunId>) -> Self {
        ids.as_slice().into()
    }
}

impl<const N: usize> From<[RunId; N]> for RunIds {
    fn from(ids: [RunId; N]) -> Self {
        ids.as_slice().into()
    }
}
