//! How large a run is to be, how far it is, and what it counted.

use std::{collections::BTreeMap, env, fs, path::PathBuf, str::FromStr, time::Duration};

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A number that the environment asks for.
pub fn asked<T: FromStr>(variable: &str) -> Option<T> {
    let value = env::var(variable).ok()?;
    let number = value.parse().ok();
    Some(number.unwrap_or_else(|| panic!("{variable} is no number: {value}")))
}

/// The seed of this run: that of `SAFETY_NET_SEED`, or a new one, which is printed.
pub fn seed() -> u64 {
    let seed = asked("SAFETY_NET_SEED").unwrap_or_else(|| otpd::keys::system_random().next_u64());
    eprintln!("SAFETY_NET_SEED={seed}");
    seed
}

/// What a run counted, for the page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    pub name: String,
    pub seed: u64,
    pub seconds: u64,
    pub counts: BTreeMap<String, u64>,
    #[serde(skip, default = "Instant::now")]
    start: Instant,
}

impl Figures {
    pub fn new(name: &str, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            seed,
            seconds: 0,
            counts: BTreeMap::new(),
            start: Instant::now(),
        }
    }

    pub fn count(&mut self, what: &str, number: u64) {
        self.counts.insert(what.to_owned(), number);
    }

    pub fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// Prints the figures, and writes them into the directory of `SAFETY_NET_FIGURES`
    /// where that is set.
    pub fn write(mut self) {
        self.seconds = self.start.elapsed().as_secs();
        let text = serde_json::to_string_pretty(&self).expect("figures are plain");
        eprintln!("{text}");
        if let Some(directory) = env::var_os("SAFETY_NET_FIGURES") {
            let file = PathBuf::from(directory).join(format!("{}.json", self.name));
            fs::write(file, text + "\n").expect("the directory takes files");
        }
    }
}

/// Says now and then how far a run is.
pub struct Progress {
    what: String,
    of: u32,
    done: u32,
    start: Instant,
    said: Instant,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(10);

    pub fn new(what: String, of: u32) -> Self {
        let start = Instant::now();
        Self {
            what,
            of,
            done: 0,
            start,
            said: start,
        }
    }

    pub fn step(&mut self) {
        self.steps(1);
    }

    pub fn steps(&mut self, count: usize) {
        self.done += u32::try_from(count).expect("few");
        if self.said.elapsed() >= Self::EVERY {
            self.said = Instant::now();
            let seconds = self.start.elapsed().as_secs();
            eprintln!(
                "{}: {} of {} after {seconds} s",
                self.what, self.done, self.of
            );
        }
    }
}
