//! Where targets keep files.

use std::{env, fs, path::PathBuf, process};

/// A directory of this process alone. It stays there: a target has no end at which it
/// could be removed, and scripts/fuzz removes the one around it.
pub fn scratch() -> PathBuf {
    let directory = env::temp_dir().join(format!("otpd-fuzz-{}", process::id()));
    fs::create_dir_all(&directory).expect("temporary files can be made");
    directory
}
