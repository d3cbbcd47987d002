//! Owner of the number, who logs in at regular times and so resets the count.

use std::time::Duration;

use otpd_rules::{Timestamp, VerifyOutcome};

use super::world::{Client, START, World, right};

/// Time to read the message and to type the code.
const TYPING: Duration = Duration::from_secs(20);
/// Interval of her retries.
const TRY_AGAIN_AFTER: Duration = Duration::from_mins(5);
/// Time after which she stops.
pub const PATIENCE: Duration = Duration::from_hours(2);
/// An address that is not the attacker's.
const HER_CLIENT: Client = Client(u32::MAX);

/// Logs in once in each `period`, in its middle.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub period: Duration,
}

impl Schedule {
    /// The last login before `now`, or at it; `None` before the first.
    pub fn last(self, now: Timestamp) -> Option<Timestamp> {
        let period = self.period.as_millis();
        let since = START
            .saturating_add(self.period / 2)
            .duration_until(now)
            .as_millis();
        let first = START.saturating_add(self.period / 2);
        (first <= now).then(|| first.saturating_add(milliseconds(since / period * period)))
    }

    /// The first login after `now`.
    pub fn next(self, now: Timestamp) -> Timestamp {
        self.last(now)
            .map_or(START.saturating_add(self.period / 2), |last| {
                last.saturating_add(self.period)
            })
    }
}

/// The owner of the number of target 0.
#[derive(Debug)]
pub struct Victim {
    pub schedule: Schedule,
    /// Time of her next action.
    pub at: Timestamp,
    /// True if she has requested a code and will type it next.
    typing: bool,
    login: Timestamp,
    /// Number of logins that she abandoned.
    pub shut_out: u32,
}

impl Victim {
    pub fn new(schedule: Schedule) -> Self {
        let login = schedule.next(START);
        Self {
            schedule,
            at: login,
            typing: false,
            login,
            shut_out: 0,
        }
    }

    pub fn act(&mut self, world: &mut World) {
        let now = self.at;
        if !self.typing {
            // Even if it is refused: a code that the attacker requested is as good.
            let _ = world.send(0, HER_CLIENT, now);
            self.typing = true;
            self.at = now.saturating_add(TYPING);
            return;
        }
        self.typing = false;
        let code = world.live_code(0, now).map(right);
        let verdict = code.map(|code| world.verify(0, HER_CLIENT, &code, now));
        if matches!(verdict, Some(Ok(VerifyOutcome::Verified { .. }))) {
            self.next_login();
        } else if self.login.saturating_add(PATIENCE) < now {
            self.shut_out += 1;
            self.next_login();
        } else {
            self.at = now.saturating_add(TRY_AGAIN_AFTER);
        }
    }

    fn next_login(&mut self) {
        self.login = self.schedule.next(self.at);
        self.at = self.login;
    }
}

fn milliseconds(milliseconds: u128) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).expect("a few years fit"))
}
