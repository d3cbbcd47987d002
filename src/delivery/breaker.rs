//! Stops asking a provider that only fails, and finds out when it is back.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// How long it is until a message may ask again that finds the provider being tried: a
/// provider that is back answers within that time.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct BreakerOptions {
    /// After how many failures in a row.
    pub failures: u32,
    /// How long the provider is then left alone, before one message tries it.
    pub pause: Duration,
}

/// A circuit breaker. Closed, it lets everything through; open, nothing; and when its
/// pause is over, one message after the other, until one succeeds.
#[derive(Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: Mutex<State>,
    /// Told when a message has tried whether the provider is back.
    tried: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Failures in a row while closed.
    failures: u32,
    /// Until when it is open; `None`: it is closed.
    open_until: Option<Instant>,
    /// Whether a message is trying whether the provider is back.
    probing: bool,
}

/// Leave to try the provider; tells the breaker how it went. One that is dropped
/// without a word changes nothing.
#[derive(Debug)]
pub struct BreakerPermit<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

/// A change of a breaker, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerTransition {
    /// The provider is left alone.
    Opened,
    /// The provider is back.
    Closed,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(options: BreakerOptions) -> Self {
        Self {
            options,
            state: Mutex::default(),
            tried: Notify::new(),
        }
    }

    /// How long until a message may try the provider; nothing: now.
    pub fn wait(&self) -> Duration {
        self.with(|state| self.wait_in(state))
    }

    fn wait_in(&self, state: &State) -> Duration {
        match state.open_until {
            None => Duration::ZERO,
            Some(_) if state.probing => self.options.pause.min(PROBE_PATIENCE),
            Some(until) => until.saturating_duration_since(Instant::now()),
        }
    }

    /// How far it is open: 0 closed, 1 one message may try or tries whether the provider is
    /// back, 2 open.
    pub fn state(&self) -> u8 {
        self.with(|state| match state.open_until {
            None => 0,
            Some(until) if state.probing || until <= Instant::now() => 1,
            Some(_) => 2,
        })
    }

    /// Whether a message is trying whether the provider is back.
    pub fn is_half_open(&self) -> bool {
        self.with(|state| state.probing)
    }

    /// Waits until the message that is trying the provider knows whether it is back; not
    /// much longer than a provider that is takes to answer.
    pub async fn wait_for_probe(&self) {
        let ended = self.tried.notified();
        if self.is_half_open() {
            // Late is as good as never: whoever waited finds out how things stand.
            let _ = tokio::time::timeout(PROBE_PATIENCE, ended).await;
        }
    }

    /// Leave to try the provider now.
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
        // Nothing here panics half-way, so a poisoned state is as good as another.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl BreakerPermit<'_> {
    /// The provider does its work, whether or not it took the message.
    pub fn succeeded(self) -> Option<BreakerTransition> {
        self.breaker.with(|state| {
            let was_open = state.open_until.is_some();
            // What was admitted before the breaker opened says nothing of now.
            if was_open && !self.probe {
                return None;
            }
            *state = State::default();
            was_open.then_some(BreakerTransition::Closed)
        })
    }

    /// The provider failed. `at_once`: it will fail for everybody, so that no further
    /// failure is waited for.
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
        // A probe that was given up leaves its turn to the next.
        drop(breaker.admit().unwrap());
        let probe = breaker.admit().unwrap();
        assert_eq!(probe.succeeded(), Some(BreakerTransition::Closed));
        assert!(breaker.admit().is_some());
        assert!(breaker.wait().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_notified_of_the_trial_outcome() {
        let breaker = breaker();
        // Nobody tries, so there is nothing to wait for.
        breaker.wait_for_probe().await;
        breaker.admit().unwrap().failed(true);
        tokio::time::advance(PAUSE).await;
        let start = Instant::now();
        let probe = breaker.admit().unwrap();
        assert!(breaker.is_half_open());
        assert_eq!(breaker.wait(), PROBE_PATIENCE);
        breaker.wait_for_probe().await;
        assert_eq!(start.elapsed(), PROBE_PATIENCE);
        let succeeded = async { probe.succeeded() };
        let ((), change) = tokio::join!(breaker.wait_for_probe(), succeeded);
        assert_eq!(change, Some(BreakerTransition::Closed));
        assert_eq!(start.elapsed(), PROBE_PATIENCE);
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
