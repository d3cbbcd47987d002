//! Lets one waiter through at a time. Callers take turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::lanes::Lanes;
use otpd_rules::CallerName;

/// Turnstile with a lane for each caller.
#[derive(Debug, Default)]
pub struct FairSemaphore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// True while a passage exists.
    taken: bool,
    waiting: Lanes<oneshot::Sender<FairPermit>>,
}

/// Leave to be in the turnstile. The next waiter follows when it is dropped.
#[derive(Debug)]
pub struct FairPermit(Option<Arc<Mutex<State>>>);

impl FairSemaphore {
    /// Waits for the turnstile, in the lane of `caller`.
    pub async fn pass(&self, caller: &CallerName) -> FairPermit {
        let turn = {
            let mut state = lock(&self.state);
            if !state.taken {
                state.taken = true;
                return FairPermit(Some(Arc::clone(&self.state)));
            }
            let (sender, turn) = oneshot::channel();
            state.waiting.push(caller, sender);
            turn
        };
        turn.await
            .expect("a waiter leaves the lanes only with its passage")
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        let Some(state) = self.0.take() else {
            return;
        };
        loop {
            let next = {
                let mut locked = lock(&state);
                let next = locked.waiting.pop();
                locked.taken = next.is_some();
                next
            };
            let Some(next) = next else {
                return;
            };
            match next.send(Self(Some(Arc::clone(&state)))) {
                Ok(()) => return,
                // That one has given up. Its passage must not look for the next one, too.
                Err(mut unused) => drop(unused.0.take()),
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing panics while it is held.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn callers_take_turns_and_a_cancelled_waiter_blocks_none() {
        let turnstile = FairSemaphore::default();
        let [a, b] = ["a", "b"].map(CallerName::new);
        let first = turnstile.pass(&a).await;
        let waiting = [&a, &a, &a, &b, &b].map(|caller| Box::pin(turnstile.pass(caller)));
        let [mut a1, mut a2, mut a3, mut b1, mut b2] = waiting;
        for waiter in [&mut a1, &mut a2, &mut a3, &mut b1, &mut b2] {
            assert!(waiter.now_or_never().is_none());
        }
        drop(a2);
        drop(first);
        let passage = (&mut a1).now_or_never().expect("it is its turn");
        assert!((&mut b1).now_or_never().is_none());
        drop(passage);
        // It gives up with its passage on the way.
        drop(b1);
        let passage = (&mut b2).now_or_never().expect("a2 has given up");
        assert!((&mut a3).now_or_never().is_none());
        drop(passage);
        drop((&mut a3).now_or_never().expect("it is the last one"));
        drop(turnstile.pass(&a).now_or_never().expect("it is free"));
    }
}
