//! Reading the configuration again while otpd runs: at SIGHUP, and when one of its files
//! is another one. A mistake in it leaves everything as it was.

use std::{fmt::Display, path::PathBuf, sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};

use super::{LoadedConfig, app::ReloadHandle};
use crate::{
    config::{ConfigDiff, ConfigSnapshot, LogLevel},
    files::FileSnapshot,
    log_targets::AUDIT,
    shutdown::ReloadSignals,
    telemetry,
};

/// Time for which no file may change after it was read at SIGHUP. A file that is just being
/// written could be a sound configuration with half of its callers.
const SETTLING: Duration = Duration::from_millis(100);
/// Maximum number of times that the files are read at one SIGHUP.
const MAX_READS: u32 = 50;

/// How many names one line tells at most.
const NAMES_TOLD: usize = 20;

/// Reads the configuration again, after the one that was written before; also tells which
/// files it read.
pub type ConfigLoader = Arc<dyn Fn(&ConfigSnapshot) -> LoadResult + Send + Sync>;

/// What came of reading it, with the files that were read.
pub type LoadResult = (Result<(LoadedConfig, ConfigDiff), String>, FileSnapshot);

/// How the configuration is read again, and when.
pub struct ConfigReload {
    /// The files that were read so far.
    pub files: FileSnapshot,
    /// How often it is looked whether they changed; zero: never.
    pub interval: Duration,
    /// Which lines the log tells so far.
    pub log_level: LogLevel,
    /// By which signal it is read whether or not they did.
    pub hangups: ReloadSignals,
    /// Reads it.
    pub again: ConfigLoader,
}

impl std::fmt::Debug for ConfigReload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Reload")
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

impl ConfigReload {
    /// Puts each new configuration in force, for ever.
    pub(super) async fn run(mut self, mut running: ReloadHandle) {
        // Files that are just being written are let be until they have been the same
        // for one interval.
        let mut unsettled: Option<FileSnapshot> = None;
        loop {
            tokio::select! {
                () = self.hangups.next() => {
                    tracing::info!("[OTP] SIGHUP received; reloading configuration");
                    // Whoever rotates logs says so by this signal.
                    if let Err(error) = telemetry::reopen() {
                        tracing::error!(%error, "[OTP] The audit log could not be opened again");
                    }
                    let settled = self.read_settled(&running.written).await;
                    self.put_in_force(settled, &mut running);
                    unsettled = None;
                }
                () = sleep(self.interval), if !self.interval.is_zero() => {
                    let files = self.files.clone();
                    // The look may take its time where files are far away.
                    let Ok(now) = spawn_blocking(move || files.refresh()).await else { continue };
                    if now == self.files {
                        // Written again and the same: not to be read at each look.
                        self.files = now;
                        unsettled = None;
                    } else if unsettled.as_ref() == Some(&now) {
                        let read = self.read(&running.written).await;
                        self.put_in_force(read, &mut running);
                        unsettled = None;
                    } else {
                        unsettled = Some(now);
                    }
                }
            }
        }
    }

    async fn read(&self, written: &ConfigSnapshot) -> Option<LoadResult> {
        let (again, written) = (Arc::clone(&self.again), written.clone());
        spawn_blocking(move || again(&written)).await.ok()
    }

    /// Reads the configuration until its files stay as they were read.
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

    fn put_in_force(&mut self, read: Option<LoadResult>, running: &mut ReloadHandle) {
        let Some((loaded, files)) = read else { return };
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
                "[OTP AUDIT] Configuration reload rejected; keeping previous configuration"
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

/// Names with commas between; of very many the first.
fn join_names(names: &[impl Display]) -> String {
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::files;

    /// A reload of one file, after whose reading `writer` comes to write it.
    fn reload(path: &Path, writer: impl Fn(&Path, &str) + Send + Sync + 'static) -> ConfigReload {
        let path = path.to_owned();
        ConfigReload {
            files: FileSnapshot::default(),
            interval: Duration::ZERO,
            log_level: LogLevel::Info,
            hangups: ReloadSignals::catch().unwrap(),
            again: Arc::new(move |_| {
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
