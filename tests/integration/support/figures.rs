//! Counts of a test run, for docs/reliability.md.

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    pub name: String,
    /// Seed of a repeatable run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    pub seconds: u64,
    pub counts: BTreeMap<String, u64>,
    #[serde(skip, default = "Instant::now")]
    start: Instant,
}

impl Figures {
    /// Those of a run that begins now.
    pub fn new(name: &str, seed: Option<u64>) -> Self {
        Self {
            name: name.to_owned(),
            seed,
            seconds: 0,
            counts: BTreeMap::new(),
            start: Instant::now(),
        }
    }

    /// # Panics
    /// Panics if the number is no count: negative, or beyond 64 bits.
    pub fn count(&mut self, what: &str, number: impl TryInto<u64>) {
        let number = number.try_into().ok().expect("a count");
        self.counts.insert(what.to_owned(), number);
    }

    /// Prints the figures, and stores them in the directory `TEST_FIGURES` if that is set. It is
    /// called after all checks, so that stored figures are of a run that passed.
    pub fn write(mut self) {
        self.seconds = self.start.elapsed().as_secs();
        let text = serde_json::to_string_pretty(&self).expect("figures are plain");
        eprintln!("{text}");
        if let Some(directory) = env::var_os("TEST_FIGURES") {
            let file = PathBuf::from(directory).join(format!("{}.json", self.name));
            fs::write(file, text + "\n").expect("the directory takes files");
        }
    }
}
