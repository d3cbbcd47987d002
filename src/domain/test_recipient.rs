//! Recipients who get a fixed code and no message: for reviews of apps in stores, and
//! for the tests of callers.

use super::{CallerName, Code, Purpose, Recipient, Timestamp};

/// A recipient whose code is known beforehand. Attempts, waits and the lock are those
/// of every other; limits on sends do not count.
#[derive(Clone, Debug)]
pub struct TestRecipient {
    /// Whose it is.
    pub caller: CallerName,
    /// Who it is.
    pub recipient: Recipient,
    /// What its codes are for.
    pub purpose: Purpose,
    /// The code.
    pub code: Code,
    /// From when on it is a recipient like any other.
    pub expires_at: Timestamp,
}

impl TestRecipient {
    /// Whether a request is about this one.
    pub fn is(&self, caller: &CallerName, recipient: &Recipient, purpose: &Purpose) -> bool {
        self.caller == *caller && self.recipient == *recipient && self.purpose == *purpose
    }

    /// The code, while it is a test recipient.
    pub fn code_at(&self, now: Timestamp) -> Option<&Code> {
        (now < self.expires_at).then_some(&self.code)
    }
}
