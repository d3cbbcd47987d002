//! Inbox of codes from logs, for the pairs that wait for them.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::log_line::LoggedCode;

/// Maximum number of unclaimed codes, kept twice at most: those of other clients' calls,
/// and of calls that lost their response.
const MAX_UNCLAIMED: usize = 100_000;

/// Codes by their challenge, delivered before or after a pair waits for them.
#[derive(Debug, Default)]
pub struct CodeInbox {
    notes: Mutex<CodeNotes>,
}

#[derive(Debug, Default)]
struct CodeNotes {
    /// Unclaimed codes.
    unclaimed: HashMap<String, String>,
    /// Older unclaimed codes; dropped when there are enough younger ones.
    older: HashMap<String, String>,
    /// Pairs that wait, by challenge. There may be several if a code is sent again.
    waiting: HashMap<String, Vec<oneshot::Sender<String>>>,
}

impl CodeInbox {
    /// Delivers a code.
    pub fn deliver(&self, logged: LoggedCode<'_>) {
        let notes = &mut *self.notes();
        if let Some(waiting) = notes.waiting.remove(logged.challenge_id) {
            for one in waiting {
                // A pair that has given up needs no code.
                let _ = one.send(logged.code.to_owned());
            }
            return;
        }
        if notes.unclaimed.len() >= MAX_UNCLAIMED {
            notes.older = mem::take(&mut notes.unclaimed);
        }
        let code = logged.code.to_owned();
        notes.unclaimed.insert(logged.challenge_id.to_owned(), code);
    }

    /// Returns the code of a challenge, as soon as it is delivered; a code that was
    /// delivered before goes to the first call. `None` if it takes longer than
    /// `max_wait`.
    pub async fn take(&self, challenge_id: &str, max_wait: Duration) -> Option<String> {
        let code = {
            let notes = &mut *self.notes();
            let unclaimed = notes.unclaimed.remove(challenge_id);
            if let Some(code) = unclaimed.or_else(|| notes.older.remove(challenge_id)) {
                return Some(code);
            }
            let (sender, receiver) = oneshot::channel();
            let all = notes.waiting.entry(challenge_id.to_owned());
            all.or_default().push(sender);
            receiver
        };
        // The receiver is dropped if the wait is given up, so that its entry can be
        // found.
        if let Ok(code) = timeout(max_wait, code).await {
            return code.ok();
        }
        self.remove_closed(challenge_id);
        None
    }

    fn remove_closed(&self, challenge_id: &str) {
        let notes = &mut *self.notes();
        if let Some(waiting) = notes.waiting.get_mut(challenge_id) {
            waiting.retain(|one| !one.is_closed());
            if waiting.is_empty() {
                notes.waiting.remove(challenge_id);
            }
        }
    }

    fn notes(&self) -> MutexGuard<'_, CodeNotes> {
        // Each change is a single operation, so a panic leaves no partial one.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_WAIT: Duration = Duration::from_secs(10);

    fn logged<'a>(challenge_id: &'a str, code: &'a str) -> LoggedCode<'a> {
        LoggedCode { challenge_id, code }
    }

    #[tokio::test(start_paused = true)]
    async fn code_is_found_whether_delivered_before_or_after_the_request() {
        let inbox = CodeInbox::default();
        inbox.deliver(logged("before", "111111"));
        assert_eq!(
            inbox.take("before", MAX_WAIT).await.as_deref(),
            Some("111111")
        );
        let (one, other, impatient, ()) = tokio::join!(
            inbox.take("after", MAX_WAIT),
            inbox.take("after", MAX_WAIT),
            inbox.take("after", Duration::ZERO),
            async {
                tokio::time::sleep(MAX_WAIT / 2).await;
                inbox.deliver(logged("other", "333333"));
                inbox.deliver(logged("after", "222222"));
            }
        );
        assert_eq!(one.as_deref(), Some("222222"));
        assert_eq!(other, one);
        assert_eq!(impatient, None);
        assert_eq!(inbox.take("before", MAX_WAIT).await, None, "it was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn abandoned_wait_leaves_no_entry() {
        let inbox = CodeInbox::default();
        let begin = tokio::time::Instant::now();
        assert_eq!(inbox.take("never", MAX_WAIT).await, None);
        assert_eq!(begin.elapsed().as_secs(), MAX_WAIT.as_secs());
        assert!(inbox.notes().waiting.is_empty());
        inbox.deliver(logged("never", "111111"));
        assert_eq!(
            inbox.take("never", MAX_WAIT).await.as_deref(),
            Some("111111")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn unclaimed_codes_expire() {
        let inbox = CodeInbox::default();
        for number in 0..=2 * MAX_UNCLAIMED {
            inbox.deliver(logged(&number.to_string(), "111111"));
        }
        assert_eq!(inbox.notes().unclaimed.len(), 1);
        assert_eq!(inbox.notes().older.len(), MAX_UNCLAIMED);
        assert_eq!(inbox.take("0", MAX_WAIT).await, None);
        let young = (2 * MAX_UNCLAIMED).to_string();
        assert!(inbox.take(&young, MAX_WAIT).await.is_some());
    }
}
