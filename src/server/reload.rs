//! Reload of the configuration while otpd runs: at SIGHUP, and when one of its files changes.
//! An invalid configuration is rejected, and the previous one stays in force.

use std::{fmt::Display, path::PathBuf, sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};

use super::{LoadedConfig, app::ReloadHandle};
use crate::{
    config::{ConfigDiff, ConfigSnapshot},
    shutdown::ReloadSignals,
    telemetry::{self, LogLevel},
};
use otpd_base::{files::FileSnapshot, log_targets::AUDIT};

/// Time for which no file may change after it was read at SIGHUP. A file that is being written
/// could be a valid configuration with half of its callers.
const SETTLING: Duration = Duration::from_millis(100);
/// Maximum number of times that the files are read at one SIGHUP.
const MAX_READS: u32 = 50;

/// Maximum number of names in a log line.
const MAX_LOGGED_NAMES: usize = 20;

/// Function that reloads the configuration, given the previous snapshot; also returns the files
/// that it read.
pub type ConfigLoader = Arc<dyn Fn(&ConfigSnapshot) -> LoadResult + Send + Sync>;

/// Result of a reload, with the files that were read.
pub type LoadResult = (Result<(LoadedConfig, ConfigDiff), String>, FileSnapshot);

/// Settings and state of the reload.
pub struct ConfigReload {
    /// Files that the configuration in force was read from.
    pub files: FileSnapshot,
    /// Interval of the check for changed files; zero: never.
    pub interval: Duration,
    /// Log level in force.
    pub log_level: LogLevel,
    /// Signal that forces a reload.
    pub hangups: ReloadSignals,
    /// Loader of the configuration.
    pub loader: ConfigLoader,
}

impl std::fmt::Debug for ConfigReload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ConfigReload")
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

impl ConfigReload {
    /// Applies each new configuration; never completes.
    pub(super) async fn run(mut self, mut running: ReloadHandle) {
        // Files that are being written are not read until they have been unchanged for one
        // interval.
        let mut unsettled: Option<FileSnapshot> = None;
        loop {
            tokio::select! {
                () = self.hangups.next() => {
                    tracing::info!("[OTP] SIGHUP received; reloading configuration");
                    // Log rotation uses this signal, too.
                    if let Err(error) = telemetry::reopen() {
                        tracing::error!(%error, "[OTP] Audit log could not be reopened");
                    }
                    let settled = self.read_settled(&running.written).await;
                    self.apply(settled, &mut running);
                    unsettled = None;
                }
                () = sleep(self.interval), if !self.interval.is_zero() => {
                    let files = self.files.clone();
                    // Runs on a blocking thread, because network file systems may be slow.
                    let Ok(now) = spawn_blocking(move || files.refresh()).await else { continue };
                    if now == self.files {
                        // Rewritten with the same content: remember the new stamps.
                        self.files = now;
                        unsettled = None;
                    } else if unsettled.as_ref() == Some(&now) {
                        let read = self.read(&running.written).await;
                        self.apply(read, &mut running);
                        unsettled = None;
                    } else {
                        unsettled = Some(now);
                    }
                }
            }
        }
    }

    async fn read(&self, written: &ConfigSnapshot) -> Option<LoadResult> {
        let (loader, written) = (Arc::clone(&self.loader), written.clone());
        spawn_blocking(move || loader(&written)).await.ok()
    }

    /// Reads the configuration until its files no longer change.
    async fn read_settled(&self, written: &ConfigSnapshot) -> Option<LoadResult> {
        for _ in 0..MAX_READS {
            let (loaded, files) = self.read(written).await?;
            sleep(SETTLING).await;
            let read = files.clone();
            let now = spawn_blocking(move || read.refresh()).await.ok()?;
            if now == files {
                return Some((loaded, files));
            }
        }
        let problem = "its files keep changing while they are read; send SIGHUP again afterwards";
        Some((Err(problem.to_owned()), self.files.clone()))
    }

    fn apply(&mut self, read: Option<LoadResult>, running: &mut ReloadHandle) {
        let Some((loaded, files)) = read else { return };
        let changed_files = files.changed(&self.files);
        // Also of an invalid configuration, which is read again when it has changed.
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
                "[OTP AUDIT] Configuration reload rejected; keeping previous configuration"
            ),
            Ok((level, changes)) => {
                // The change is logged if the old level or the new one includes it.
                telemetry::set_level(level.max(self.log_level));
                report(&changes, &changed_files);
                telemetry::set_level(level);
                self.log_level = level;
            }
        }
    }
}

fn report(changes: &ConfigDiff, files: &[PathBuf]) {
    if !changes.fixed.is_empty() {
        let keys = join_names(&changes.fixed);
        tracing::warn!(keys, "[OTP] Restart required for changed settings");
    }
    let files: Vec<_> = files.iter().map(|path| path.display()).collect();
    if changes.keys.is_empty() && files.is_empty() {
        tracing::info!("[OTP] Configuration reloaded: nothing has changed");
        return;
    }
    let (keys, files) = (join_names(&changes.keys), join_names(&files));
    tracing::info!(target: AUDIT, keys, files, "[OTP AUDIT] Configuration reloaded");
}

/// Joins names with commas; of many names the first ones.
fn join_names(names: &[impl Display]) -> String {
    let shown: Vec<_> = names
        .iter()
        .take(MAX_LOGGED_NAMES)
        .map(ToString::to_string)
        .collect();
    let text = shown.join(", ");
    match names.len().saturating_sub(MAX_LOGGED_NAMES) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use otpd_base::files;

    /// Returns a reload of one file, which calls `writer` after each read.
    fn reload(path: &Path, writer: impl Fn(&Path, &str) + Send + Sync + 'static) -> ConfigReload {
        let path = path.to_owned();
        ConfigReload {
            files: FileSnapshot::default(),
            interval: Duration::ZERO,
            log_level: LogLevel::Info,
            hangups: ReloadSignals::catch().unwrap(),
            loader: Arc::new(move |_| {
                files::track_reads(|| {
                    let text = files::read_text(&path).unwrap();
                    writer(&path, &text);
                    Err(text)
                })
            }),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn file_being_written_at_sighup_is_reread() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("otpd.toml");
        fs::write(&path, "half").unwrap();
        let reload = reload(&path, |path, text| {
            if text == "half" {
                fs::write(path, "half and the rest").unwrap();
            }
        });
        let (read, files) = reload
            .read_settled(&ConfigSnapshot::default())
            .await
            .unwrap();
        assert_eq!(read.unwrap_err(), "half and the rest");
        assert_eq!(files, files.refresh());
    }

    #[tokio::test(start_paused = true)]
    async fn constantly_changing_files_are_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("otpd.toml");
        fs::write(&path, "").unwrap();
        let reload = reload(&path, |path, text| {
            fs::write(path, format!("{text}.")).unwrap();
        });
        let (read, _) = reload
            .read_settled(&ConfigSnapshot::default())
            .await
            .unwrap();
        assert!(read.unwrap_err().contains("keep changing"));
        let length = fs::read_to_string(&path).unwrap().len();
        assert_eq!(length, usize::try_from(MAX_READS).unwrap());
    }
}
