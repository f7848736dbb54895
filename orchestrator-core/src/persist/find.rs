//! Finding results that were kept. One that is of no use is told once, and makes room for what the run gives now.

use std::fmt::Display;

use crate::backend::record::{CacheHit, CacheKey, CacheReason, CachedValue, Event};
use crate::backend::{BackendError, BackendErrorKind};
use crate::body::Erased;
use crate::cache::{self, Shelf};
use crate::engine::{Call, panics};
use crate::results::Sweeper;
use crate::run::Run;

/// Why a result that is kept cannot be taken.
pub(crate) enum Useless {
    /// It is damaged, missing or of another type, and stays so.
    ForEver(String),
    /// It cannot be read at the moment.
    ForNow(String),
}

/// The result that the flow run has of this call, if it is not the first time that it is made.
pub(crate) async fn find(run: &Run, identity: CacheKey, call: &mut dyn Call) -> Option<(Erased, CacheReason)> {
    let orchestrator = &run.scope().orchestrator;
    let root = run.scope().kept.looked_through(orchestrator)?;
    let useless = match cache::look(orchestrator, Shelf::Results(root), identity).await {
        Ok(None) => return None,
        Ok(Some(hit)) => match take(run, hit, call).await {
            Ok(found) => return Some(found),
            Err(useless) => useless,
        },
        Err(error) => Useless::from(error),
    };
    let (Useless::ForEver(why) | Useless::ForNow(why)) = &useless;
    let (kind, name) = (run.kind(), run.name());
    tracing::warn!(target: "orchestrator", "{kind} '{name}' runs again, its persisted result is of no use: {why}");
    if let Useless::ForEver(_) = useless {
        let discarded = Event::Discarded { root, key: identity };
        if orchestrator.journal.is_immediate() {
            let _ = orchestrator.backend.append(&[discarded]);
        } else if orchestrator.journal.push_awaited([discarded]).await.is_ok() {
            // Its object, if there is any, is not needed any more. What is left is deleted another time.
            let _ = Sweeper::of(orchestrator).sweep().await;
        }
    }
    None
}

async fn take(run: &Run, hit: CacheHit, call: &mut dyn Call) -> Result<(Erased, CacheReason), Useless> {
    let orchestrator = &run.scope().orchestrator;
    let useless = |why: &dyn Display| Useless::ForEver(format!("in {}, {why}", orchestrator.backend.location()));
    let value = match (hit.value, call.codec()) {
        (CachedValue::Live(value), _) if call.gives(&value) => value,
        (CachedValue::Live(_), _) => return Err(useless(&"it is of another type")),
        (CachedValue::Encoded(_) | CachedValue::Stored(_), None) => return Err(useless(&cache::NO_CODEC)),
        (CachedValue::Encoded(value), Some(codec)) => {
            let decoded = panics::catch(|| codec.decode(&value));
            decoded.map_err(|said| useless(&said))?.map_err(|why| useless(&why))?
        }
        (CachedValue::Stored(stored), Some(codec)) => orchestrator.results.get(stored, codec).await?,
    };
    Ok((value, CacheReason::Persisted { run: hit.run }))
}

impl From<BackendError> for Useless {
    fn from(error: BackendError) -> Self {
        if error.kind() == BackendErrorKind::Damaged {
            Self::ForEver(error.to_string())
        } else {
            Self::ForNow(error.to_string())
        }
    }
}
