//! What is to be taken to the store next.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;
use tokio::sync::oneshot;

use super::gate::above;
use crate::backend::record::CacheKey;
use crate::backend::{ClaimRequest, Claimed, LimitSetting, Shared, SlotClass, SlotRequest, SlotTrade};
use crate::error::Error;
use crate::run::Run;

/// At most so many requests for slots are taken to the store at once: others want to write, too.
const ASKS: usize = 512;

type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// Something else that is to be asked.
pub(super) type Question = Box<dyn FnOnce(&dyn Shared) + Send>;

#[derive(Default)]
pub(in super::super) struct Desk {
    orders: Mutex<Orders>,
    work: Condvar,
}

#[derive(Default)]
pub(super) struct Orders {
    pub(super) slots: SlotTrade,
    /// Claims that are over as soon as the journal has settled what had been pushed by then.
    pub(super) claims_over: Vec<(CacheKey, u64, u64)>,
    pub(super) claims: Vec<(ClaimRequest, Answer<Claimed>)>,
    /// Who wants to know when a key is not claimed by others any more.
    pub(super) landings: HashMap<CacheKey, Vec<Answer<()>>>,
    /// Limits that are to be there.
    pub(super) declared: Vec<(SmolStr, LimitSetting)>,
    /// Who waits for a look at the limits.
    pub(super) looks: Vec<Answer<()>>,
    /// What is to be read in the store.
    pub(super) questions: Vec<Question>,
    /// What is to be changed there besides.
    pub(super) changes: Vec<Question>,
    /// Nothing comes any more.
    pub(super) closed: bool,
    sleeping: bool,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Orders {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
            && self.claims_over.is_empty()
            && self.claims.is_empty()
            && self.landings.is_empty()
            && self.declared.is_empty()
            && self.looks.is_empty()
            && self.questions.is_empty()
            && self.changes.is_empty()
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves an order, unless everything is over; says whether it did.
    pub(super) fn order(&self, order: impl FnOnce(&mut Orders)) -> bool {
        let mut orders = self.lock();
        if orders.closed {
            return false;
        }
        order(&mut orders);
        let wake = std::mem::take(&mut orders.sleeping);
        drop(orders);
        if wake {
            self.work.notify_one();
        }
        true
    }

    /// A request for slots; says whether it was taken.
    pub(super) fn ask(&self, request: SlotRequest) -> bool {
        self.order(|orders| orders.slots.asks.push(request))
    }

    /// Slots that were held are given back.
    pub(in super::super) fn give_back(&self, ticket: u64) {
        self.order(|orders| orders.slots.over.push(ticket));
    }

    /// Nobody waits for the answer to a request any more.
    pub(super) fn give_up(&self, ticket: u64) {
        self.order(|orders| {
            orders.slots.moved.retain(|(moved, ..)| *moved != ticket);
            let before = orders.slots.asks.len();
            orders.slots.asks.retain(|ask| ask.ticket != ticket);
            if orders.slots.asks.len() == before {
                orders.slots.over.push(ticket);
            }
        });
    }

    /// A request that was made is of another class from now on.
    pub(in super::super) fn moved(&self, ticket: u64, class: SlotClass, run: Option<&Arc<Run>>) {
        let above = above(run);
        self.order(|orders| match orders.slots.asks.iter_mut().find(|ask| ask.ticket == ticket) {
            Some(ask) => (ask.class, ask.above) = (class, above),
            None => orders.slots.moved.push((ticket, class, above)),
        });
    }

    /// Waits for orders, for at most that long, and takes them.
    pub(super) fn take(&self, at_most: Option<Duration>) -> Orders {
        let mut orders = self.lock();
        if orders.is_empty() && !orders.closed {
            orders.sleeping = true;
            let idle = |orders: &mut Orders| orders.sleeping && !orders.closed;
            orders = match at_most {
                Some(time) => {
                    self.work.wait_timeout_while(orders, time, idle).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.work.wait_while(orders, idle).unwrap_or_else(PoisonError::into_inner),
            };
            orders.sleeping = false;
        }
        let closed = orders.closed;
        let mut taken = std::mem::replace(&mut *orders, Orders { closed, ..Orders::default() });
        if taken.slots.asks.len() > ASKS {
            orders.slots.asks = taken.slots.asks.split_off(ASKS);
            // What was said of them comes with them.
            let later = |(ticket, ..): &(u64, SlotClass, _)| orders.slots.asks.iter().any(|ask| ask.ticket == *ticket);
            debug_assert!(!taken.slots.moved.iter().any(later), "requests on the desk are changed in place");
        }
        taken
    }

    /// Takes the questions alone.
    pub(super) fn take_questions(&self) -> Vec<Question> {
        std::mem::take(&mut self.lock().questions)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Nothing comes any more: what is on the desk is done, then the broker ends.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }
}
