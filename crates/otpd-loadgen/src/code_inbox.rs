//! Where codes that logs tell meet those who wait for them.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::log_line::LoggedCode;

/// How many codes that nobody asked for are kept, at most twice: those of somebody
/// else's calls, and of calls whose answer was lost.
const KEPT: usize = 100_000;

/// Codes by their challenge, whichever comes first: the code or who waits for it.
#[derive(Debug, Default)]
pub struct CodeInbox {
    notes: Mutex<CodeNotes>,
}

#[derive(Debug, Default)]
struct CodeNotes {
    /// Codes that nobody has asked for so far.
    told: HashMap<String, String>,
    /// Older ones; forgotten when there are enough younger ones.
    told_before: HashMap<String, String>,
    /// Several may wait where a code is sent again.
    waiting: HashMap<String, Vec<oneshot::Sender<String>>>,
}

impl CodeInbox {
    /// A code was told.
    pub fn deliver(&self, told: LoggedCode<'_>) {
        let notes = &mut *self.notes();
        if let Some(waiting) = notes.waiting.remove(told.challenge_id) {
            for one in waiting {
                // Who has given up meanwhile needs no code.
                let _ = one.send(told.code.to_owned());
            }
            return;
        }
        if notes.told.len() >= KEPT {
            notes.told_before = mem::take(&mut notes.told);
        }
        let code = told.code.to_owned();
        notes.told.insert(told.challenge_id.to_owned(), code);
    }

    /// The code of a challenge, as soon as it is told; what was told before is for the
    /// first who asks. Nothing where it takes longer than `patience`.
    pub async fn take(&self, challenge_id: &str, patience: Duration) -> Option<String> {
        let told = {
            let notes = &mut *self.notes();
            let told = notes.told.remove(challenge_id);
            if let Some(code) = told.or_else(|| notes.told_before.remove(challenge_id)) {
                return Some(code);
            }
            let (waiting, told) = oneshot::channel();
            let all = notes.waiting.entry(challenge_id.to_owned());
            all.or_default().push(waiting);
            told
        };
        // Its end is dropped when it gives up, so that it can be told from the others.
        if let Ok(code) = timeout(patience, told).await {
            return code.ok();
        }
        self.forget_who_gave_up(challenge_id);
        None
    }

    fn forget_who_gave_up(&self, challenge_id: &str) {
        let notes = &mut *self.notes();
        if let Some(waiting) = notes.waiting.get_mut(challenge_id) {
            waiting.retain(|one| !one.is_closed());
            if waiting.is_empty() {
                notes.waiting.remove(challenge_id);
            }
        }
    }

    fn notes(&self) -> MutexGuard<'_, CodeNotes> {
        // Each change is a single one, so none is left half done.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn told<'a>(challenge_id: &'a str, code: &'a str) -> LoggedCode<'a> {
        LoggedCode { challenge_id, code }
    }

    #[tokio::test(start_paused = true)]
    async fn code_is_found_whether_delivered_before_or_after_the_request() {
        let board = CodeInbox::default();
        board.deliver(told("before", "111111"));
        assert_eq!(
            board.take("before", PATIENCE).await.as_deref(),
            Some("111111")
        );
        let (one, other, impatient, ()) = tokio::join!(
            board.take("after", PATIENCE),
            board.take("after", PATIENCE),
            board.take("after", Duration::ZERO),
            async {
                tokio::time::sleep(PATIENCE / 2).await;
                board.deliver(told("other", "333333"));
                board.deliver(told("after", "222222"));
            }
        );
        assert_eq!(one.as_deref(), Some("222222"));
        assert_eq!(other, one);
        assert_eq!(impatient, None);
        assert_eq!(board.take("before", PATIENCE).await, None, "it was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn abandoned_wait_leaves_no_entry() {
        let board = CodeInbox::default();
        let begin = tokio::time::Instant::now();
        assert_eq!(board.take("never", PATIENCE).await, None);
        assert_eq!(begin.elapsed().as_secs(), PATIENCE.as_secs());
        assert!(board.notes().waiting.is_empty());
        board.deliver(told("never", "111111"));
        assert_eq!(
            board.take("never", PATIENCE).await.as_deref(),
            Some("111111")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn unclaimed_codes_expire() {
        let board = CodeInbox::default();
        for number in 0..=2 * KEPT {
            board.deliver(told(&number.to_string(), "111111"));
        }
        assert_eq!(board.notes().told.len(), 1);
        assert_eq!(board.notes().told_before.len(), KEPT);
        assert_eq!(board.take("0", PATIENCE).await, None);
        let young = (2 * KEPT).to_string();
        assert!(board.take(&young, PATIENCE).await.is_some());
    }
}
