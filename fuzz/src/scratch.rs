//! Temporary files of targets.

use std::{env, fs, path::PathBuf, process};

/// Returns a directory of this process. It is not removed here, because a target does not
/// end; scripts/fuzz removes the directory around it.
pub fn scratch() -> PathBuf {
    let directory = env::temp_dir().join(format!("otpd-fuzz-{}", process::id()));
    fs::create_dir_all(&directory).expect("temporary files can be made");
    directory
}
