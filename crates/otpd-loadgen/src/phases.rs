//! Phases of a run, from the ramp to the end.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep_until},
};

/// Phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoadPhase {
    /// The load grows; pairs do not count.
    Ramp,
    /// The load is constant; pairs do not count.
    WarmUp,
    /// Pairs that start now count.
    Counted,
    /// The run is complete.
    Over,
    /// The run was stopped early.
    Stopped,
}

/// Phases of a run: they decide which pairs may start, and which of them count.
#[derive(Debug)]
pub struct LoadPhases {
    phase: watch::Sender<LoadPhase>,
    /// Number of pairs that count and may still start, if their number is given.
    left: Option<AtomicU64>,
}

/// End of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseEnded {
    /// Its time is over.
    InTime,
    /// The load ended by itself.
    WithTheLoad,
    /// The run was stopped.
    Stopped,
}

impl LoadPhases {
    /// Creates a run of that many pairs, or of any number.
    pub fn new(pairs: Option<u64>) -> Self {
        Self {
            phase: watch::Sender::new(LoadPhase::Ramp),
            left: pairs.map(AtomicU64::new),
        }
    }

    /// Returns the phase of the run.
    pub fn phase(&self) -> LoadPhase {
        *self.phase.borrow()
    }

    /// Enters the next phase.
    pub fn enter(&self, phase: LoadPhase) {
        self.phase.send_replace(phase);
    }

    /// Admits a pair, and returns true if it counts; `None` if no pair may start any
    /// more.
    pub fn admit(&self) -> Option<bool> {
        match self.phase() {
            LoadPhase::Ramp | LoadPhase::WarmUp => Some(false),
            LoadPhase::Counted => self.take_one().then_some(true),
            LoadPhase::Over | LoadPhase::Stopped => None,
        }
    }

    fn take_one(&self) -> bool {
        let take = |left: &AtomicU64| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
        };
        self.left.as_ref().is_none_or(take)
    }

    /// Waits until the run is at `phase` or later.
    pub async fn reached(&self, phase: LoadPhase) {
        let mut phases = self.phase.subscribe();
        // It fails only if the sender is dropped, which is a field of `self`.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }
}

/// Waits for the end of a phase, after `length` or without a limit.
pub async fn end_of_phase(
    length: Option<Duration>,
    load: &mut Pin<&mut impl Future<Output = ()>>,
    stop: &mut Pin<&mut impl Future<Output = ()>>,
) -> PhaseEnded {
    let end = length.map(|length| Instant::now() + length);
    let time = async {
        match end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    select! {
        biased;
        () = stop => PhaseEnded::Stopped,
        () = load => PhaseEnded::WithTheLoad,
        () = time => PhaseEnded::InTime,
    }
}
