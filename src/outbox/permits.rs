//! Limits on the messages in flight. A backlog of one caller leaves capacity for the
//! messages of every other one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use otpd_rules::{CallerName, MessageId};

/// Semaphore for messages in flight: a number of permits that all callers share, and a
/// few that are reserved for each caller. Clones share their state.
#[derive(Clone, Debug)]
pub(super) struct InFlightLimits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: usize,
    reserved: usize,
    counts: Mutex<PermitCounts>,
    returned: Notify,
}

#[derive(Debug, Default)]
struct PermitCounts {
    by_caller: HashMap<CallerName, usize>,
    /// Number of shared permits in use.
    shared: usize,
}

/// Permit for one message, returned on drop.
#[derive(Debug)]
pub struct OutboxPermit {
    limits: InFlightLimits,
    caller: CallerName,
}

impl InFlightLimits {
    /// Creates limits with `shared` permits for all callers, and `reserved` ones for each of
    /// them.
    pub fn new(shared: usize, reserved: usize) -> Self {
        Self(Arc::new(Inner {
            shared,
            reserved,
            counts: Mutex::default(),
            returned: Notify::new(),
        }))
    }

    /// Acquires a permit for a message of `caller`, if one is free.
    pub fn try_acquire(&self, caller: &CallerName) -> Option<OutboxPermit> {
        let mut counts = self.counts();
        let in_use = counts.by_caller.get(caller).copied().unwrap_or_default();
        if in_use >= self.0.reserved {
            if counts.shared >= self.0.shared {
                return None;
            }
            counts.shared += 1;
        }
        counts.by_caller.insert(caller.clone(), in_use + 1);
        Some(OutboxPermit {
            limits: self.clone(),
            caller: caller.clone(),
        })
    }

    /// Waits until a permit was returned since the last call.
    pub async fn returned(&self) {
        self.0.returned.notified().await;
    }

    fn counts(&self) -> MutexGuard<'_, PermitCounts> {
        // No code panics while the lock is held.
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OutboxPermit {
    fn drop(&mut self) {
        let inner = &self.limits.0;
        let mut counts = self.limits.counts();
        let in_use = counts
            .by_caller
            .get(&self.caller)
            .copied()
            .unwrap_or_default();
        if in_use > inner.reserved {
            counts.shared -= 1;
        }
        if in_use > 1 {
            counts.by_caller.insert(self.caller.clone(), in_use - 1);
        } else {
            counts.by_caller.remove(&self.caller);
        }
        drop(counts);
        inner.returned.notify_one();
    }
}

/// Set of the messages that this replica dispatches now. Clones share their state.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldMessages(Arc<Mutex<HashSet<MessageId>>>);

/// Entry of a message in the set, removed on drop.
#[derive(Debug)]
pub(super) struct HeldMessage {
    held: HeldMessages,
    id: MessageId,
}

impl HeldMessages {
    /// Adds a message.
    pub fn add(&self, id: MessageId) -> HeldMessage {
        self.ids().insert(id);
        HeldMessage {
            held: self.clone(),
            id,
        }
    }

    /// Returns whether this replica dispatches the message.
    pub fn contains(&self, id: MessageId) -> bool {
        self.ids().contains(&id)
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<MessageId>> {
        // No code panics while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldMessage {
    fn drop(&mut self) {
        self.held.ids().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_caller_leaves_permits_for_others() {
        let [a, b, c] = ["a", "b", "c"].map(CallerName::new);
        let limits = InFlightLimits::new(3, 2);
        let acquire = |caller: &CallerName, number: usize| -> Vec<OutboxPermit> {
            (0..number)
                .map_while(|_| limits.try_acquire(caller))
                .collect()
        };
        let mut of_a = acquire(&a, 100);
        assert_eq!(of_a.len(), 3 + 2);
        let of_b = acquire(&b, 100);
        assert_eq!(of_b.len(), 2);
        // A returned shared permit is free for the next caller.
        of_a.pop();
        assert_eq!(acquire(&c, 100).len(), 2 + 1);
        of_a.truncate(1);
        assert_eq!(limits.counts().shared, 0);
        drop((of_a, of_b));
        assert!(limits.counts().by_caller.is_empty());
        assert_eq!(acquire(&b, 100).len(), 5);
    }
}
