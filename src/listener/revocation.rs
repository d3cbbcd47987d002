//! Expiry of revocation lists (RFC 5280, section 5), which rustls does not check.
//!
//! An outdated list is still used, because refusing every client would be worse; but a
//! certificate that was revoked since then is accepted, so the log reports it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::pki_types::UnixTime;
use tokio::{sync::watch, time::sleep};
use x509_parser::{prelude::FromDer as _, revocation_list::CertificateRevocationList};

use super::ConnectionConfig;

/// Interval in which outdated lists are reported again.
const REPEAT: Duration = Duration::from_hours(1);

/// Issuer and end of a revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    issuer: String,
    /// Seconds since 1970 at which the next list is due; none if the list has no such date.
    next_update: Option<u64>,
}

impl RevocationList {
    /// Parses a list in DER.
    pub fn parse(list: &[u8]) -> Result<Self, String> {
        let (_, list) = CertificateRevocationList::from_der(list)
            .map_err(|error| format!("holds a revocation list that cannot be read: {error}"))?;
        let next_update = list.next_update().map(|at| at.timestamp());
        Ok(Self {
            issuer: list.issuer().to_string(),
            // A date before 1970 is past as well.
            next_update: next_update.map(|at| u64::try_from(at).unwrap_or_default()),
        })
    }

    /// Returns whether its next update is overdue at `now`, in seconds since 1970.
    pub fn is_outdated(&self, now: u64) -> bool {
        self.next_update.is_some_and(|at| at <= now)
    }

    fn next_update(&self) -> impl fmt::Display {
        let at = Duration::from_secs(self.next_update.unwrap_or_default());
        // A date outside the range of the format is shown as 1970.
        let at = SystemTime::UNIX_EPOCH.checked_add(at);
        humantime::format_rfc3339_seconds(at.unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

impl fmt::Display for RevocationList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (issuer, next_update) = (&self.issuer, self.next_update());
        write!(formatter, "{issuer}, next update {next_update}")
    }
}

/// Reports revocation lists that are outdated: when they are read, when they become so,
/// and then every hour. Runs for ever.
pub async fn report_outdated(mut config: watch::Receiver<Arc<ConnectionConfig>>) {
    loop {
        let in_force = Arc::clone(&config.borrow_and_update());
        let lists = in_force.tls.as_ref().map_or(&[][..], |tls| &tls.lists);
        let pause = report(lists, UnixTime::now().as_secs());
        tokio::select! {
            () = sleep(pause) => {}
            Ok(()) = config.changed() => {}
        }
    }
}

/// Reports the outdated ones of `lists`; returns the time until the next report.
fn report(lists: &[RevocationList], now: u64) -> Duration {
    let mut pause = REPEAT;
    for list in lists {
        if list.is_outdated(now) {
            tracing::warn!(
                issuer = list.issuer,
                next_update = %list.next_update(),
                "[OTP] Revocation list is outdated"
            );
        } else if let Some(at) = list.next_update {
            pause = pause.min(Duration::from_secs(at - now));
        }
    }
    pause
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(next_update: Option<u64>) -> RevocationList {
        RevocationList {
            issuer: "CN=ours".to_owned(),
            next_update,
        }
    }

    #[test]
    fn revocation_list_is_outdated_from_next_update() {
        assert!(!list(None).is_outdated(u64::MAX));
        assert!(!list(Some(10)).is_outdated(9));
        assert!(list(Some(10)).is_outdated(10));
        let shown = list(Some(1_609_459_200)).to_string();
        assert_eq!(shown, "CN=ours, next update 2021-01-01T00:00:00Z");
    }

    #[test]
    fn next_report_is_due_when_a_revocation_list_becomes_outdated() {
        assert_eq!(report(&[], 0), REPEAT);
        assert_eq!(report(&[list(None), list(Some(5))], 10), REPEAT);
        let seconds = Duration::from_secs;
        assert_eq!(report(&[list(Some(13)), list(Some(5))], 10), seconds(3));
        assert_eq!(report(&[list(Some(1_000_000))], 10), REPEAT);
    }
}
