//! Circuit breaker of a provider. It stops attempts with a provider that only fails, and
//! detects its recovery.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Maximum wait of a message that finds another message probing the provider; a provider
/// that has recovered responds within that time.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Thresholds of a breaker.
#[derive(Clone, Copy, Debug)]
pub struct BreakerOptions {
    /// Number of consecutive failures that opens it.
    pub failures: u32,
    /// Time for which it stays open, before one message probes the provider.
    pub pause: Duration,
}

/// Circuit breaker. Closed, it admits every message; open, none; and half-open, after its
/// pause, one message at a time, until one succeeds.
#[derive(Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: Mutex<State>,
    /// Notified when a probe has ended.
    tried: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Consecutive failures while closed.
    failures: u32,
    /// End of the open state; `None` if it is closed.
    open_until: Option<Instant>,
    /// True while a message probes the provider.
    probing: bool,
}

/// Permit for one attempt with the provider; takes its outcome. A permit that is dropped
/// without an outcome changes nothing.
#[derive(Debug)]
pub struct BreakerPermit<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

/// Change of state, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerTransition {
    /// The provider gets no messages for a while.
    Opened,
    /// The provider has recovered.
    Closed,
}

impl Breaker {
    /// Returns a closed breaker.
    pub fn new(options: BreakerOptions) -> Self {
        Self {
            options,
            state: Mutex::default(),
            tried: Notify::new(),
        }
    }

    /// Returns the time until a message may try the provider; zero if it may now.
    pub fn wait(&self) -> Duration {
        self.with(|state| self.wait_in(state))
    }

    fn wait_in(&self, state: &State) -> Duration {
        match state.open_until {
            None => Duration::ZERO,
            Some(_) if state.probing => self.options.pause.min(PROBE_TIMEOUT),
            Some(until) => until.saturating_duration_since(Instant::now()),
        }
    }

    /// Returns the state: 0 closed, 1 half-open (one message may probe the provider, or
    /// is doing so), 2 open.
    pub fn state(&self) -> u8 {
        self.with(|state| match state.open_until {
            None => 0,
            Some(until) if state.probing || until <= Instant::now() => 1,
            Some(_) => 2,
        })
    }

    /// Returns true while a message probes the provider.
    pub fn is_half_open(&self) -> bool {
        self.with(|state| state.probing)
    }

    /// Waits until the current probe has ended, but not much longer than a provider that
    /// has recovered takes to respond.
    pub async fn wait_for_probe(&self) {
        let ended = self.tried.notified();
        if self.is_half_open() {
            // A time-out needs no handling: the caller looks at the state again.
            let _ = tokio::time::timeout(PROBE_TIMEOUT, ended).await;
        }
    }

    /// Returns a permit to try the provider now, if it is available.
    pub fn admit(&self) -> Option<BreakerPermit<'_>> {
        self.with(|state| {
            if !self.wait_in(state).is_zero() {
                return None;
            }
            let probe = state.open_until.is_some();
            state.probing |= probe;
            Some(BreakerPermit {
                breaker: self,
                probe,
            })
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // No code panics while it holds the lock, so a poisoned state is valid.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl BreakerPermit<'_> {
    /// Records that the provider works, whether or not it accepted the message.
    pub fn succeeded(self) -> Option<BreakerTransition> {
        self.breaker.with(|state| {
            let was_open = state.open_until.is_some();
            // An attempt that was admitted before the breaker opened says nothing about
            // the present.
            if was_open && !self.probe {
                return None;
            }
            *state = State::default();
            was_open.then_some(BreakerTransition::Closed)
        })
    }

    /// Records that the provider failed. `at_once` means that it will fail for every
    /// message, so the breaker opens without further failures.
    pub fn failed(self, at_once: bool) -> Option<BreakerTransition> {
        let options = self.breaker.options;
        self.breaker.with(|state| {
            let was_open = state.open_until.is_some();
            if was_open && !self.probe {
                return None;
            }
            state.failures = state.failures.saturating_add(1);
            if was_open || at_once || state.failures >= options.failures {
                state.open_until = Some(Instant::now() + options.pause);
                state.probing = false;
            }
            (!was_open && state.open_until.is_some()).then_some(BreakerTransition::Opened)
        })
    }
}

impl Drop for BreakerPermit<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.with(|state| state.probing = false);
            self.breaker.tried.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    fn breaker() -> Breaker {
        Breaker::new(BreakerOptions {
            failures: 3,
            pause: PAUSE,
        })
    }

    fn fail(breaker: &Breaker) -> Option<BreakerTransition> {
        breaker.admit().unwrap().failed(false)
    }

    #[tokio::test(start_paused = true)]
    async fn consecutive_failures_open_the_breaker_and_a_success_resets_them() {
        let breaker = breaker();
        assert_eq!(fail(&breaker), None);
        assert_eq!(fail(&breaker), None);
        assert_eq!(breaker.admit().unwrap().succeeded(), None);
        assert_eq!(fail(&breaker), None);
        assert_eq!(fail(&breaker), None);
        assert!(breaker.admit().is_some());
        assert_eq!(breaker.state(), 0);
        assert_eq!(fail(&breaker), Some(BreakerTransition::Opened));
        assert!(breaker.admit().is_none());
        assert_eq!(breaker.wait(), PAUSE);
        assert_eq!(breaker.state(), 2);
        tokio::time::advance(PAUSE).await;
        assert_eq!(breaker.state(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn half_open_breaker_admits_one_trial_at_a_time() {
        let breaker = breaker();
        assert_eq!(
            breaker.admit().unwrap().failed(true),
            Some(BreakerTransition::Opened)
        );
        tokio::time::advance(PAUSE).await;
        let probe = breaker.admit().unwrap();
        assert!(breaker.admit().is_none());
        assert_eq!(probe.failed(false), None);
        assert!(breaker.admit().is_none());
        tokio::time::advance(PAUSE).await;
        // A probe that is abandoned leaves its turn to the next message.
        drop(breaker.admit().unwrap());
        let probe = breaker.admit().unwrap();
        assert_eq!(probe.succeeded(), Some(BreakerTransition::Closed));
        assert!(breaker.admit().is_some());
        assert!(breaker.wait().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_notified_of_the_trial_outcome() {
        let breaker = breaker();
        // There is no probe, so there is nothing to wait for.
        breaker.wait_for_probe().await;
        breaker.admit().unwrap().failed(true);
        tokio::time::advance(PAUSE).await;
        let start = Instant::now();
        let probe = breaker.admit().unwrap();
        assert!(breaker.is_half_open());
        assert_eq!(breaker.wait(), PROBE_TIMEOUT);
        breaker.wait_for_probe().await;
        assert_eq!(start.elapsed(), PROBE_TIMEOUT);
        let succeeded = async { probe.succeeded() };
        let ((), change) = tokio::join!(breaker.wait_for_probe(), succeeded);
        assert_eq!(change, Some(BreakerTransition::Closed));
        assert_eq!(start.elapsed(), PROBE_TIMEOUT);
        assert!(breaker.wait().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn outcome_of_an_earlier_attempt_does_not_change_an_open_breaker() {
        let breaker = breaker();
        let (early, late) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        assert_eq!(
            breaker.admit().unwrap().failed(true),
            Some(BreakerTransition::Opened)
        );
        assert_eq!(early.succeeded(), None);
        assert!(breaker.admit().is_none());
        tokio::time::advance(PAUSE).await;
        assert_eq!(late.failed(true), None);
        assert!(breaker.admit().is_some());
    }
}
