//! Configuration, from the text of its file to a server's settings.

use std::{fs, path::PathBuf, sync::LazyLock};

use otpd::config::{ConfigDiff, EnvVars, ServeConfig};

use crate::scratch::scratch;

/// Secret that every file is loaded with; no error may show it.
const SECRET: &str = "Zq7secretZq7";

/// Directory of the file.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(scratch);

/// Checks that a valid file is loaded in the same way each time, without a change if it
/// is loaded again, and that an invalid one returns one line that names a key.
pub fn configuration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Device files may have no end, and no operator names one by mistake.
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
            let problem = error.to_string();
            assert!(!problem.contains('\n'), "{problem:?} is more than one line");
            assert!(problem.contains(": "), "{problem:?} names no key");
            assert!(!problem.contains(SECRET), "{problem:?} shows a secret");
            return;
        }
    };
    let shown = format!("{config:?}");
    assert!(!shown.contains(SECRET), "{shown:?} shows a secret");
    let (again, changes) = ServeConfig::load_after(&config.snapshot, Some(&path), &variables)
        .expect("a valid file loads again");
    assert_eq!(changes, ConfigDiff::default(), "nothing has changed");
    let changes = again.snapshot.changes(&config.snapshot);
    assert_eq!(changes, ConfigDiff::default(), "nothing has changed");
    // No route is without a provider.
    assert!(
        config
            .delivery
            .routes
            .iter()
            .all(|route| !route.gateways.is_empty())
    );
}
