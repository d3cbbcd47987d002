//! Reading the configuration again while otpd runs: at SIGHUP, and when one of its files
//! is another one. A mistake in it leaves everything as it was.

use std::{fmt::Display, path::PathBuf, sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};

use super::{Loaded, parts::Reloadable};
use crate::{
    config::{Changes, LogLevel, Written},
    files::Files,
    log_targets::AUDIT,
    shutdown::Hangups,
    telemetry,
};

/// How many names one line tells at most.
const NAMES_TOLD: usize = 20;

/// Reads the configuration again, after the one that was written before; also tells which
/// files it read.
pub type Again = Arc<dyn Fn(&Written) -> Reread + Send + Sync>;

/// What came of reading it, with the files that were read.
pub type Reread = (Result<(Loaded, Changes), String>, Files);

/// How the configuration is read again, and when.
pub struct Reload {
    /// The files that were read so far.
    pub files: Files,
    /// How often it is looked whether they changed; zero: never.
    pub interval: Duration,
    /// Which lines the log tells so far.
    pub log_level: LogLevel,
    /// By which signal it is read whether or not they did.
    pub hangups: Hangups,
    /// Reads it.
    pub again: Again,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Reload")
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

impl Reload {
    /// Puts each new configuration in force, for ever.
    pub(super) async fn run(mut self, mut running: Reloadable) {
        // Files that are just being written are let be until they have been the same
        // for one interval.
        let mut unsettled: Option<Files> = None;
        loop {
            tokio::select! {
                () = self.hangups.next() => {
                    tracing::info!("[OTP] SIGHUP: reading the configuration again");
                    // Whoever rotates logs says so by this signal.
                    if let Err(error) = telemetry::reopen() {
                        tracing::error!(%error, "[OTP] The audit log could not be opened again");
                    }
                    self.reload(&mut running).await;
                    unsettled = None;
                }
                () = sleep(self.interval), if !self.interval.is_zero() => {
                    let files = self.files.clone();
                    // The look may take its time where files are far away.
                    let Ok(now) = spawn_blocking(move || files.now()).await else { continue };
                    if now == self.files {
                        // Written again and the same: not to be read at each look.
                        self.files = now;
                        unsettled = None;
                    } else if unsettled.as_ref() == Some(&now) {
                        self.reload(&mut running).await;
                        unsettled = None;
                    } else {
                        unsettled = Some(now);
                    }
                }
            }
        }
    }

    async fn reload(&mut self, running: &mut Reloadable) {
        let (again, written) = (Arc::clone(&self.again), running.written.clone());
        let Ok((loaded, files)) = spawn_blocking(move || again(&written)).await else {
            return;
        };
        let changed_files = files.changed(&self.files);
        // Also of a bad one: it is looked at again when it has changed.
        self.files = files;
        let outcome = loaded.and_then(|(loaded, changes)| {
            let level = loaded.config.settings.log_level;
            running.replace(loaded)?;
            Ok((level, changes))
        });
        match outcome {
            Err(problem) => tracing::error!(
                target: AUDIT,
                problem,
                "[OTP AUDIT] Configuration refused, the one before stays in force"
            ),
            Ok((level, changes)) => {
                // By the old level or the new one, the change is told.
                telemetry::set_level(level.max(self.log_level));
                report(&changes, &changed_files);
                telemetry::set_level(level);
                self.log_level = level;
            }
        }
    }
}

fn report(changes: &Changes, files: &[PathBuf]) {
    if !changes.fixed.is_empty() {
        let keys = told(&changes.fixed);
        tracing::warn!(keys, "[OTP] Some settings changed that need a restart");
    }
    let files: Vec<_> = files.iter().map(|path| path.display()).collect();
    if changes.keys.is_empty() && files.is_empty() {
        tracing::info!("[OTP] Configuration reloaded: nothing has changed");
        return;
    }
    let (keys, files) = (told(&changes.keys), told(&files));
    tracing::info!(target: AUDIT, keys, files, "[OTP AUDIT] Configuration reloaded");
}

/// Names with commas between; of very many the first.
fn told(names: &[impl Display]) -> String {
    let told: Vec<_> = names
        .iter()
        .take(NAMES_TOLD)
        .map(ToString::to_string)
        .collect();
    let text = told.join(", ");
    match names.len().saturating_sub(NAMES_TOLD) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}
