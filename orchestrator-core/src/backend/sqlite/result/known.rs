//! Where the results of root flow runs are, for those that ask for them: a run that is resumed or retried looks for each
//! of its calls, and the table has no index over keys.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use smallvec::SmallVec;

use super::super::lock;
use crate::backend::record::CacheKey;
use crate::id::FlowRunId;

/// The numbers of rows, in their order, that may have a key.
pub(in super::super) type Numbers = SmallVec<[i64; 2]>;

/// The root flow runs that ask at the moment.
#[derive(Debug, Default)]
pub(in super::super) struct Known(Mutex<HashMap<FlowRunId, Arc<Places>>>);

/// The rows of one root flow run. One that was deleted meanwhile may be here still.
#[derive(Debug, Default)]
struct Places {
    /// Sorted; `None` before the first question was answered, for which it is locked.
    at_first: Mutex<Option<Box<[Place]>>>,
    /// Those that were stored since somebody asked; some may be among the others as well.
    since: Mutex<BTreeSet<Place>>,
}

/// How a key begins, which is random, and the number of a row with such a key.
type Place = (u64, i64);

pub(super) fn place(key: &CacheKey, no: i64) -> Place {
    (beginning(key), no)
}

fn beginning(key: &CacheKey) -> u64 {
    let (beginning, _) = key.0.split_first_chunk().expect("a key has 32 bytes");
    u64::from_be_bytes(*beginning)
}

impl Known {
    /// Where the result may be. The first question about a root has all its rows read.
    pub(super) fn find<E>(
        &self,
        root: FlowRunId,
        key: &CacheKey,
        read: impl FnOnce() -> Result<Vec<Place>, E>,
    ) -> Result<Numbers, E> {
        // From here on what is stored is put down, so that nothing is missed between that and the reading.
        let places = Arc::clone(lock(&self.0).entry(root).or_default());
        let mut at_first = lock(&places.at_first);
        if at_first.is_none() {
            let mut read = read()?;
            read.sort_unstable();
            *at_first = Some(read.into_boxed_slice());
        }
        let at_first = at_first.as_deref().unwrap_or_default();
        Ok(places.numbers(at_first, key))
    }

    /// The same for who must not wait for the reading; `None` if it was not done.
    pub(super) fn find_now(&self, root: FlowRunId, key: &CacheKey) -> Option<Numbers> {
        let places = Arc::clone(lock(&self.0).get(&root)?);
        let at_first = places.at_first.try_lock().ok()?;
        Some(places.numbers(at_first.as_deref()?, key))
    }

    /// Puts down what is in the file now.
    pub(super) fn stored<'r>(&self, rows: impl IntoIterator<Item = (FlowRunId, &'r CacheKey, i64)>) {
        let known = lock(&self.0);
        if known.is_empty() {
            return;
        }
        for (root, key, no) in rows {
            if let Some(places) = known.get(&root) {
                lock(&places.since).insert(place(key, no));
            }
        }
    }

    pub(super) fn let_go(&self, root: FlowRunId) {
        let places = lock(&self.0).remove(&root);
        drop(places);
    }
}

impl Places {
    fn numbers(&self, at_first: &[Place], key: &CacheKey) -> Numbers {
        let beginning = beginning(key);
        let from = at_first.partition_point(|place| place.0 < beginning);
        let found = at_first[from..].iter().take_while(|place| place.0 == beginning).map(|place| place.1);
        let mut numbers: Numbers = found.collect();
        let since = lock(&self.since);
        numbers.extend(since.range((beginning, i64::MIN)..=(beginning, i64::MAX)).map(|place| place.1));
        numbers
    }
}
