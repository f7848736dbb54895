//! Limits and claims that processes share through a store.
//!
//! Nobody here waits for the store but one thread, the [`broker`], which takes what has gathered on the [`Desk`] to the
//! store, and brings the answers back. While somebody waits it looks all the time whether another process
//! has changed something; otherwise it sleeps. It is started when a limit or a claim is used first.

mod broker;
mod claims;
mod desk;
mod gate;

use std::time::Duration;

use crate::error::Error;

pub(crate) use broker::{Broker, Store};
pub(crate) use claims::Landing;
pub(super) use desk::Desk;

/// How far the store is with a request for slots.
pub(super) enum Stage {
    /// It has not been asked.
    Queued,
    Asked,
    /// It has said that the request has to wait.
    Told,
    Granted,
    Failed(Error),
}

impl Stage {
    /// Whether the store has the request, or is about to have it, and has not served it.
    pub(super) const fn is_asked(&self) -> bool {
        match self {
            Self::Asked | Self::Told => true,
            Self::Queued | Self::Granted | Self::Failed(_) => false,
        }
    }
}

/// How often the broker looks for changes while somebody waits: at first, and when that was in vain for a while. To be
/// woken costs more than to look.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(8), Duration::from_millis(20)];

/// How often it looks whether those are gone who keep others waiting.
const LOOK_FOR_GONE: Duration = Duration::from_millis(250);

/// For so long a look at the limits counts as new.
const NEW: Duration = Duration::from_millis(100);

/// Says that everything is over.
fn shut_down() -> Error {
    Error::new(crate::error::ErrorKind::ShutDown)
}
