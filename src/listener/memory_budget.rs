//! One memory budget over all connections. Bytes are reserved before they are taken, so
//! the bounds of one connection times the number of connections stays bounded.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes reserved for an open connection: buffers of TLS and HTTP/2 with one frame of
/// 16 KiB, and one incomplete block of headers, which takes up to 90 KiB if it consists
/// of the shortest headers.
pub(super) const CONNECTION_BYTES: usize = 128 * 1024;
/// Bytes reserved for each request that a connection may have open: its state in HTTP/2,
/// and the headers or trailers of an answer that the client does not read.
pub(super) const STREAM_BYTES: usize = 2 * 1024;
/// Divisor of the budget for the part that calls leave to new connections and probes.
const HEADROOM: usize = 8;
/// Divisor of the budget for each share of requests without authentication.
const UNAUTHENTICATED_SHARE: usize = 16;

/// Memory that connections and their requests may take together. Clones are one budget.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<BudgetUsage>);

#[derive(Debug)]
struct BudgetUsage {
    limit: AtomicUsize,
    all: AtomicUsize,
    /// Parts of `all` that the shares without authentication hold.
    public: AtomicUsize,
    local: AtomicUsize,
}

impl BudgetUsage {
    /// Returns the counter of a share that may take only a part of the budget.
    fn part(&self, share: BudgetShare) -> Option<&AtomicUsize> {
        match share {
            BudgetShare::Connections | BudgetShare::Calls => None,
            BudgetShare::Public => Some(&self.public),
            BudgetShare::Local => Some(&self.local),
        }
    }
}

/// Part of the budget that a reservation is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetShare {
    /// Connections, which may take all of it.
    Connections,
    /// Calls of known callers. They leave an eighth to new connections and probes.
    Calls,
    /// Requests without authentication, which may take a small part.
    Public,
    /// The same from this machine, with a separate part, so that its probes find room even if
    /// clients elsewhere use up the public part.
    Local,
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory budget of all connections is used up")]
pub struct BudgetExhausted;

impl MemoryBudget {
    /// Creates a budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(BudgetUsage {
            limit: AtomicUsize::new(limit),
            all: AtomicUsize::new(0),
            public: AtomicUsize::new(0),
            local: AtomicUsize::new(0),
        }))
    }

    /// Changes the limit. Reservations that exist stay.
    pub fn resize(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    /// Returns the number of bytes that are reserved.
    pub fn used(&self) -> usize {
        self.0.all.load(Ordering::Relaxed)
    }

    /// Reserves `bytes` until the reservation is dropped.
    ///
    /// # Errors
    /// The share has no room for them.
    pub fn reserve(
        &self,
        bytes: usize,
        share: BudgetShare,
    ) -> Result<MemoryReservation, BudgetExhausted> {
        let reservation = MemoryReservation {
            budget: self.clone(),
            share,
            bytes: AtomicUsize::new(0),
        };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    fn add(&self, bytes: usize, share: BudgetShare) -> Result<(), BudgetExhausted> {
        let limit = self.0.limit.load(Ordering::Relaxed);
        let part = self.0.part(share);
        let add = |used: &AtomicUsize, limit: usize| {
            let sum = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
            let added = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
            added.map(|_| ()).map_err(|_| BudgetExhausted)
        };
        if let Some(part) = part {
            add(part, limit / UNAUTHENTICATED_SHARE)?;
        }
        let limit = match share {
            BudgetShare::Calls => limit - limit / HEADROOM,
            BudgetShare::Connections | BudgetShare::Public | BudgetShare::Local => limit,
        };
        add(&self.0.all, limit).inspect_err(|_| {
            if let Some(part) = part {
                part.fetch_sub(bytes, Ordering::Relaxed);
            }
        })
    }

    fn release(&self, bytes: usize, share: BudgetShare) {
        self.0.all.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(part) = self.0.part(share) {
            part.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// Bytes of the budget that one connection or request holds until it is dropped.
#[derive(Debug)]
pub struct MemoryReservation {
    budget: MemoryBudget,
    share: BudgetShare,
    bytes: AtomicUsize,
}

impl MemoryReservation {
    /// Reserves more bytes.
    ///
    /// # Errors
    /// The share has no room for them.
    pub fn grow(&self, bytes: usize) -> Result<(), BudgetExhausted> {
        self.budget.add(bytes, self.share)?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.budget.release(*self.bytes.get_mut(), self.share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_share_one_limit() {
        let budget = MemoryBudget::new(100);
        let first = budget.reserve(60, BudgetShare::Connections).unwrap();
        assert!(budget.reserve(41, BudgetShare::Connections).is_err());
        let second = budget.reserve(30, BudgetShare::Connections).unwrap();
        assert_eq!(second.grow(11), Err(BudgetExhausted));
        second.grow(10).unwrap();
        assert_eq!(budget.used(), 100);
        drop(first);
        assert_eq!(budget.used(), 40);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn public_requests_leave_most_of_the_budget_to_authenticated_callers() {
        let budget = MemoryBudget::new(160);
        let public = budget.reserve(10, BudgetShare::Public).unwrap();
        assert!(budget.reserve(1, BudgetShare::Public).is_err());
        let local = budget.reserve(10, BudgetShare::Local).unwrap();
        assert!(budget.reserve(1, BudgetShare::Local).is_err());
        let caller = budget.reserve(140, BudgetShare::Connections).unwrap();
        drop(public);
        let full = budget.reserve(10, BudgetShare::Connections).unwrap();
        // A reservation that fails holds nothing of its share.
        assert!(budget.reserve(5, BudgetShare::Public).is_err());
        drop((caller, full, local));
        drop(budget.reserve(10, BudgetShare::Public).unwrap());
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn calls_leave_budget_for_connections_and_probes() {
        let budget = MemoryBudget::new(160);
        let calls = budget.reserve(140, BudgetShare::Calls).unwrap();
        assert!(budget.reserve(1, BudgetShare::Calls).is_err());
        let connection = budget.reserve(10, BudgetShare::Connections).unwrap();
        let probe = budget.reserve(10, BudgetShare::Local).unwrap();
        assert!(budget.reserve(1, BudgetShare::Connections).is_err());
        drop((calls, connection, probe));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn lowered_limit_applies_to_new_reservations() {
        let budget = MemoryBudget::new(100);
        let held = budget.reserve(80, BudgetShare::Connections).unwrap();
        budget.resize(50);
        assert!(budget.reserve(1, BudgetShare::Connections).is_err());
        drop(held);
        assert!(budget.reserve(50, BudgetShare::Connections).is_ok());
    }
}
