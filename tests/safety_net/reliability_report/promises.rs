//! What is promised and what tries to break it; and what was broken.

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

/// The promises about one thing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub about: String,
    #[serde(rename = "promise")]
    pub promises: Vec<Promise>,
}

/// Something that whoever calls or runs otpd may rely on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promise {
    pub what: String,
    /// What tries to break it beyond the gate.
    #[serde(default)]
    pub by: Vec<Source>,
    /// The tests that would fail if it were not kept.
    #[serde(default)]
    pub tests: Vec<String>,
}

/// A fault of otpd that the net found.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caught {
    pub fault: String,
    pub found_by: String,
    /// What holds it off now.
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
