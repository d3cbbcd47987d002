//! Seed and progress of a run.

use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;

use crate::support::asked;

/// The seed of this run: that of `SAFETY_NET_SEED`, or a new one, which is printed.
pub fn seed() -> u64 {
    let seed = asked("SAFETY_NET_SEED").unwrap_or_else(|| otpd::keys::os_rng().next_u64());
    eprintln!("SAFETY_NET_SEED={seed}");
    seed
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
