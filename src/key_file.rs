//! Key ring files. A file is created once, by the first process, and never overwritten.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rand::Rng as _;
use zeroize::Zeroizing;

use crate::keys::{KeyRing, os_rng};
use otpd_base::files;

/// Mode of the file: readable and writable by the owner alone.
const OWNER_ONLY: u32 = 0o600;

/// Creates a key ring in `path` unless there is one, and returns whether it did. Of several
/// processes one succeeds, and no reader ever sees a part of a file.
///
/// # Errors
/// The error of the file system.
pub fn create(path: &Path) -> io::Result<bool> {
    if path.try_exists()? {
        return Ok(false);
    }
    // A random name, because the process id is 1 in every container: the file of a process that
    // died or still writes would block all later ones.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{:016x}", os_rng().next_u64()));
    let unfinished = Path::new(&unfinished);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(unfinished)?;
    let created = file
        .write_all(KeyRing::generate(&mut os_rng()).as_bytes())
        .and_then(|()| file.sync_all())
        // Unlike a rename, a link never replaces the file of another process.
        .and_then(|()| fs::hard_link(unfinished, path));
    fs::remove_file(unfinished)?;
    match created {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the text of a key ring, which is overwritten when dropped.
///
/// # Errors
/// The error of the file system.
pub fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    files::read_text(path).map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn partial_key_file_of_another_process_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("otpd.keys");
        let unfinished = format!("otpd.keys.{}", std::process::id());
        fs::write(directory.path().join(unfinished), "index = ").unwrap();
        assert!(create(&path).unwrap());
        assert!(KeyRing::parse(&read(&path).unwrap()).is_ok());
    }

    #[test]
    fn concurrent_creation_makes_one_key_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("otpd.keys");
        assert!(create(&path).unwrap());
        let first = read(&path).unwrap();
        assert!(!create(&path).unwrap());
        assert_eq!(read(&path).unwrap(), first);
        assert!(KeyRing::parse(&first).is_ok());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            OWNER_ONLY
        );
        assert_eq!(
            fs::read_dir(&directory).unwrap().count(),
            1,
            "nothing unfinished is left"
        );
    }
}
