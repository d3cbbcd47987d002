//! The configuration, from the text of its file to what a server is made of.

use std::{fs, path::PathBuf, sync::LazyLock};

use otpd::config::{ConfigDiff, EnvVars, ServeConfig};

use crate::scratch::scratch;

/// What every file is loaded with; no complaint may show it.
const SECRET: &str = "Zq7secretZq7";

/// Where the file is.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(scratch);

/// A file that is loaded is the same each time, and nothing changes where it is loaded
/// after itself; one that is not is told why, on one line that names a key.
pub fn configuration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Files of devices may have no end, and nobody names one by mistake.
    if ["dev", "proc", "sys"]
        .iter()
        .any(|name| text.contains(&format!("{name}/")))
    {
        return;
    }
    let path = DIRECTORY.join("otpd.toml");
    fs::write(&path, data).expect("temporary files can be written");
    let variables = EnvVars::new(
        [
            ("OTPD_KEYS", SECRET.to_owned()),
            (
                "DATABASE_URL",
                format!("postgres://otpd:{SECRET}@127.0.0.1/otpd"),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let config = match ServeConfig::load(Some(&path), &variables) {
        Ok(config) => config,
        Err(error) => {
            let told = error.to_string();
            assert!(!told.contains('\n'), "{told:?} is more than one line");
            assert!(told.contains(": "), "{told:?} names no key");
            assert!(!told.contains(SECRET), "{told:?} shows a secret");
            return;
        }
    };
    let shown = format!("{config:?}");
    assert!(!shown.contains(SECRET), "{shown:?} shows a secret");
    let (again, changes) = ServeConfig::load_after(&config.snapshot, Some(&path), &variables)
        .expect("what was loaded is loaded again");
    assert_eq!(changes, ConfigDiff::default(), "nothing has changed");
    let changes = again.snapshot.changes(&config.snapshot);
    assert_eq!(changes, ConfigDiff::default(), "nothing has changed");
    // Whatever a message is, it is known whether there is a provider for it.
    assert!(
        config
            .delivery
            .routes
            .iter()
            .all(|route| !route.gateways.is_empty())
    );
}
