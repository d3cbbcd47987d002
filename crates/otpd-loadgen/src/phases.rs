//! The course of a run: from the ramp to the end.

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

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoadPhase {
    /// The load grows; pairs do not count.
    Ramp,
    /// The load is as it should be; pairs do not count.
    WarmUp,
    /// Pairs that start now count.
    Counted,
    /// The time is over.
    Over,
    /// Somebody ended the run before its time.
    Stopped,
}

/// Says which pairs may start, and which of them count.
#[derive(Debug)]
pub struct LoadPhases {
    phase: watch::Sender<LoadPhase>,
    /// How many pairs that count may still start, where their number is given.
    left: Option<AtomicU64>,
}

/// Why a phase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseEnded {
    /// Its time is over.
    InTime,
    /// The load ended by itself.
    WithTheLoad,
    /// Somebody ended it.
    Stopped,
}

impl LoadPhases {
    /// A run of so many pairs; of any number without one.
    pub fn new(pairs: Option<u64>) -> Self {
        Self {
            phase: watch::Sender::new(LoadPhase::Ramp),
            left: pairs.map(AtomicU64::new),
        }
    }

    /// Where the run is.
    pub fn phase(&self) -> LoadPhase {
        *self.phase.borrow()
    }

    /// The next phase begins.
    pub fn enter(&self, phase: LoadPhase) {
        self.phase.send_replace(phase);
    }

    /// Whether a pair that would start now counts; nothing where none may start any
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
        // It fails only where the sender is gone, which is in `self`.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }
}

/// Waits for the end of a phase, which is `length` from now or without a time.
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
