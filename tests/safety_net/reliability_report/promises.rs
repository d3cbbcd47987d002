//! The promises with their tests, and the faults that the safety net found.

use config::{Config, File, FileFormat};
use serde::Deserialize;

use super::sources::Source;

const PROMISES: &str = include_str!("promises.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promises {
    #[serde(rename = "part")]
    pub parts: Vec<Part>,
    pub caught: Vec<Caught>,
}

/// Promises about one subject.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub about: String,
    #[serde(rename = "promise")]
    pub promises: Vec<Promise>,
}

/// Behaviour that callers and operators may rely on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promise {
    pub what: String,
    /// Long runs that test it beyond the gate.
    #[serde(default)]
    pub by: Vec<Source>,
    /// Tests that fail if it is broken.
    #[serde(default)]
    pub tests: Vec<String>,
}

/// Fault of otpd found by the safety net.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caught {
    pub fault: String,
    pub found_by: String,
    /// Regression test.
    pub test: String,
}

impl Promises {
    pub fn read() -> Self {
        let file = File::from_str(PROMISES, FileFormat::Toml);
        let promises = Config::builder().add_source(file).build();
        let promises = promises.and_then(Config::try_deserialize);
        promises.unwrap_or_else(|error| panic!("promises.toml: {error}"))
    }

    pub fn all(&self) -> impl Iterator<Item = &Promise> {
        self.parts.iter().flat_map(|part| &part.promises)
    }
}
