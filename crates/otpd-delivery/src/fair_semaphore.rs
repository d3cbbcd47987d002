//! Semaphore with one permit, which callers take in turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use otpd_base::lanes::Lanes;
use otpd_rules::CallerName;

/// Semaphore with one permit and a queue for each caller.
#[derive(Debug, Default)]
pub struct FairSemaphore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// True while a permit exists.
    taken: bool,
    waiting: Lanes<oneshot::Sender<FairPermit>>,
}

/// Permit of the semaphore. The next waiter follows when it is dropped.
#[derive(Debug)]
pub struct FairPermit(Option<Arc<Mutex<State>>>);

impl FairSemaphore {
    /// Waits for the permit, in the queue of `caller`.
    pub async fn acquire(&self, caller: &CallerName) -> FairPermit {
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
            .expect("a waiter leaves the queue only with its permit")
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
                // That waiter has given up. Its permit must not look for the next one,
                // too.
                Err(mut unused) => drop(unused.0.take()),
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // No code panics while it holds the lock.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn callers_take_turns_and_a_cancelled_waiter_blocks_none() {
        let semaphore = FairSemaphore::default();
        let [a, b] = ["a", "b"].map(CallerName::new);
        let first = semaphore.acquire(&a).await;
        let waiting = [&a, &a, &a, &b, &b].map(|caller| Box::pin(semaphore.acquire(caller)));
        let [mut a1, mut a2, mut a3, mut b1, mut b2] = waiting;
        for waiter in [&mut a1, &mut a2, &mut a3, &mut b1, &mut b2] {
            assert!(waiter.now_or_never().is_none());
        }
        drop(a2);
        drop(first);
        let permit = (&mut a1).now_or_never().expect("it is its turn");
        assert!((&mut b1).now_or_never().is_none());
        drop(permit);
        // It gives up with its permit on the way.
        drop(b1);
        let permit = (&mut b2).now_or_never().expect("a2 has given up");
        assert!((&mut a3).now_or_never().is_none());
        drop(permit);
        drop((&mut a3).now_or_never().expect("it is the last one"));
        drop(semaphore.acquire(&a).now_or_never().expect("it is free"));
    }
}
