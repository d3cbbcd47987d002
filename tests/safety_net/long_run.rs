//! Seed and progress of a run.

use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;

use crate::support::asked;

/// Returns the seed of this run: `SAFETY_NET_SEED`, or a new one. It is printed.
pub fn seed() -> u64 {
    let seed = asked("SAFETY_NET_SEED").unwrap_or_else(|| otpd::keys::os_rng().next_u64());
    eprintln!("SAFETY_NET_SEED={seed}");
    seed
}

/// Prints the progress of a run at intervals.
pub struct Progress {
    name: String,
    of: u32,
    done: u32,
    start: Instant,
    printed_at: Instant,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(10);

    pub fn new(name: String, of: u32) -> Self {
        let start = Instant::now();
        Self {
            name,
            of,
            done: 0,
            start,
            printed_at: start,
        }
    }

    pub fn step(&mut self) {
        self.steps(1);
    }

    pub fn steps(&mut self, count: usize) {
        self.done += u32::try_from(count).expect("few");
        if self.printed_at.elapsed() >= Self::EVERY {
            self.printed_at = Instant::now();
            let seconds = self.start.elapsed().as_secs();
            eprintln!(
                "{}: {} of {} after {seconds} s",
                self.name, self.done, self.of
            );
        }
    }
}
