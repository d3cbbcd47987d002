//! File of a database, and the lock file beside it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::super::StoreError;

/// Mode of the files: readable and writable by the owner alone. SQLite gives its journals the mode
/// of the database.
const MODE: u32 = 0o600;

/// Bits of a mode that let other users in.
const OTHER_USERS: u32 = 0o007;

/// Creates the file unless it exists.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let created = private_options().create(true).open(path);
    created.map(drop).map_err(|error| {
        StoreError::Unavailable(format!("cannot create {}: {error}", path.display()))
    })
}

fn private_options() -> OpenOptions {
    let mut options = File::options();
    options.write(true).truncate(false).mode(MODE);
    options
}

/// Logs a warning if other users may open the file, as with a file of an older version.
pub(super) fn warn_if_shared(path: &Path) {
    let Ok(metadata) = path.metadata() else {
        return;
    };
    let mode = metadata.permissions().mode();
    if mode & OTHER_USERS != 0 {
        tracing::warn!(
            file = %path.display(),
            mode = format!("{:o}", mode & 0o777),
            "[OTP] Other users can open the SQLite file; run chmod 600 on it"
        );
    }
}

/// Takes an exclusive lock on a file beside the database. Dropping the returned file releases it.
pub(super) async fn lock_beside(database: &Path) -> Result<File, StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let locked = tokio::task::spawn_blocking(move || {
        let lock = || -> io::Result<File> {
            let file = private_options().create(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|error| format!("cannot lock {}: {error}", path.display()))
    });
    locked
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(StoreError::Unavailable)
}
