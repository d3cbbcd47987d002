//! Bounds on the messages in hand. A backlog of one caller leaves room for the messages
//! of every other one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use otpd_rules::{CallerName, MessageId};

/// Rooms for messages in hand: some that all callers share, and a few for each caller
/// alone. Clones are the same rooms.
#[derive(Clone, Debug)]
pub(super) struct InFlightLimits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: usize,
    reserved: usize,
    taken: Mutex<PermitCounts>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct PermitCounts {
    by: HashMap<CallerName, usize>,
    /// Number of shared rooms that are taken.
    shared: usize,
}

/// Room for one message, until it is dropped.
#[derive(Debug)]
pub struct OutboxPermit {
    rooms: InFlightLimits,
    caller: CallerName,
}

impl InFlightLimits {
    /// `shared` rooms for all callers, and `reserved` rooms for each of them.
    pub fn new(shared: usize, reserved: usize) -> Self {
        Self(Arc::new(Inner {
            shared,
            reserved,
            taken: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// Takes a room for a message of `caller`, if one is free.
    pub fn enter(&self, caller: &CallerName) -> Option<OutboxPermit> {
        let mut taken = self.taken();
        let mine = taken.by.get(caller).copied().unwrap_or_default();
        if mine >= self.0.reserved {
            if taken.shared >= self.0.shared {
                return None;
            }
            taken.shared += 1;
        }
        taken.by.insert(caller.clone(), mine + 1);
        Some(OutboxPermit {
            rooms: self.clone(),
            caller: caller.clone(),
        })
    }

    /// Waits until a room was freed since the last call.
    pub async fn freed(&self) {
        self.0.freed.notified().await;
    }

    fn taken(&self) -> MutexGuard<'_, PermitCounts> {
        // Nothing panics while it is held.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OutboxPermit {
    fn drop(&mut self) {
        let inner = &self.rooms.0;
        let mut taken = self.rooms.taken();
        let mine = taken.by.get(&self.caller).copied().unwrap_or_default();
        if mine > inner.reserved {
            taken.shared -= 1;
        }
        if mine > 1 {
            taken.by.insert(self.caller.clone(), mine - 1);
        } else {
            taken.by.remove(&self.caller);
        }
        drop(taken);
        inner.freed.notify_one();
    }
}

/// The messages that this replica carries now. Clones are one list.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldMessages(Arc<Mutex<HashSet<MessageId>>>);

/// Entry of a message in the list, until it is dropped.
#[derive(Debug)]
pub(super) struct HeldMessage {
    carried: HeldMessages,
    id: MessageId,
}

impl HeldMessages {
    /// Adds a message.
    pub fn add(&self, id: MessageId) -> HeldMessage {
        self.ids().insert(id);
        HeldMessage {
            carried: self.clone(),
            id,
        }
    }

    /// Returns whether this replica carries the message.
    pub fn holds(&self, id: MessageId) -> bool {
        self.ids().contains(&id)
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<MessageId>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldMessage {
    fn drop(&mut self) {
        self.carried.ids().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_caller_leaves_permits_for_others() {
        let [a, b, c] = ["a", "b", "c"].map(CallerName::new);
        let rooms = InFlightLimits::new(3, 2);
        let enter = |caller: &CallerName, number: usize| -> Vec<OutboxPermit> {
            (0..number).map_while(|_| rooms.enter(caller)).collect()
        };
        let mut of_a = enter(&a, 100);
        assert_eq!(of_a.len(), 3 + 2);
        let of_b = enter(&b, 100);
        assert_eq!(of_b.len(), 2);
        // A shared room that is freed is free for the next caller.
        of_a.pop();
        assert_eq!(enter(&c, 100).len(), 2 + 1);
        of_a.truncate(1);
        assert_eq!(rooms.taken().shared, 0);
        drop((of_a, of_b));
        assert!(rooms.taken().by.is_empty());
        assert_eq!(enter(&b, 100).len(), 5);
    }
}
