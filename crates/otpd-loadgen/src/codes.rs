//! Source of the codes of a run.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    BenchError,
    code_inbox::CodeInbox,
    follow::{self, LogFollower},
};
use otpd_contract::v1::SendOtpResponse;

/// Source of codes: responses, if the caller delivers by itself; else the servers' logs,
/// if there are any.
#[derive(Debug)]
pub struct CodeSource {
    logs: Option<Arc<CodeInbox>>,
}

impl CodeSource {
    /// Follows the logs, from their present end.
    ///
    /// # Errors
    /// [`BenchError`] with the log that cannot be read.
    pub fn from_logs(paths: &[PathBuf]) -> Result<Self, BenchError> {
        if paths.is_empty() {
            return Ok(Self { logs: None });
        }
        let cannot_read = |path: &PathBuf, error: std::io::Error| {
            BenchError::Usage(format!("--codes: {}: {error}", path.display()))
        };
        let logs = paths
            .iter()
            .map(|path| LogFollower::from_end(path).map_err(|error| cannot_read(path, error)))
            .collect::<Result<_, _>>()?;
        let inbox = Arc::default();
        follow::follow(logs, &inbox).map_err(|error| cannot_read(&paths[0], error))?;
        Ok(Self { logs: Some(inbox) })
    }

    /// Returns true if there are logs.
    pub fn has_logs(&self) -> bool {
        self.logs.is_some()
    }

    /// Returns the code that was sent, as soon as it is known; `None` if it is not known
    /// within `max_wait`.
    pub async fn of(&self, reply: &SendOtpResponse, max_wait: Duration) -> Option<String> {
        if !reply.code.is_empty() {
            return Some(reply.code.clone());
        }
        let inbox = self.logs.as_ref()?;
        inbox.take(&reply.challenge_id, max_wait).await
    }
}

/// Returns a code that differs from `code` in its last digit.
pub fn wrong(code: &str) -> String {
    let mut wrong = code.to_owned();
    let other = match wrong.pop() {
        Some('9') | None => '0',
        Some(digit) => char::from_u32(u32::from(digit) + 1).unwrap_or('0'),
    };
    wrong.push(other);
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_codes_have_equal_length_and_different_value() {
        for (code, other) in [("123456", "123457"), ("000009", "000000"), ("0", "1")] {
            assert_eq!(wrong(code), other);
        }
    }
}
