//! Countries, blocks and messages of a simulation.

use otpd_rules::Timestamp;

/// Milliseconds of a second, a minute, an hour and a day.
pub const SECOND: i64 = 1_000;
/// Minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Day.
pub const DAY: i64 = 24 * HOUR;

/// Days of honest traffic before the day of a scenario.
pub const WARM_UP_DAYS: i64 = 3;
/// Start of the day of a scenario.
pub const SCENARIO_DAY: i64 = WARM_UP_DAYS * DAY;

/// Country of the simulation.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedCountry {
    /// Name in tables.
    pub name: &'static str,
    /// Provider that delivers its messages.
    pub provider: usize,
    /// Blocks in which people have numbers.
    pub blocks: u32,
    /// First-time users in the busiest hour, and as many returning ones.
    pub per_hour: u32,
}

/// Number of the country with much traffic.
pub const LARGE: usize = 0;
/// Number of the country with some traffic.
pub const MIDDLE: usize = 1;
/// Number of the country with little traffic.
pub const SMALL: usize = 2;
/// Number of the country without traffic before the day of a scenario.
pub const NEW: usize = 3;

/// All countries.
pub const COUNTRIES: [SimulatedCountry; 4] = [
    SimulatedCountry {
        name: "large",
        provider: 0,
        blocks: 20_000,
        per_hour: 300,
    },
    SimulatedCountry {
        name: "middle",
        provider: 0,
        blocks: 3_000,
        per_hour: 40,
    },
    SimulatedCountry {
        name: "small",
        provider: 1,
        blocks: 200,
        per_hour: 4,
    },
    SimulatedCountry {
        name: "new",
        provider: 1,
        blocks: 3_000,
        per_hour: 0,
    },
];

/// Percentage of the busiest hour's traffic in each hour of a day.
pub const RHYTHM: [u32; 24] = [
    20, 12, 8, 6, 6, 10, 20, 40, 60, 75, 85, 95, 100, 95, 90, 90, 90, 95, 100, 100, 90, 75, 55, 35,
];

/// Block of a thousand numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NumberBlock {
    /// Its country.
    pub country: usize,
    /// Its number in the country.
    pub number: u32,
}

/// Request for a message.
#[derive(Clone, Copy, Debug)]
pub struct SendRequest {
    /// Time.
    pub time: Timestamp,
    /// Block of the recipient.
    pub block: NumberBlock,
    /// Last three digits of the recipient.
    pub digits: u16,
    /// Address of the client.
    pub address: u64,
    /// True if the recipient verified before.
    pub returning: bool,
    /// Replica that gets the request.
    pub replica: usize,
}

/// Reply to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendReply {
    /// The message is sent.
    Sent {
        /// Multiple of the time until a resend.
        resend_factor: u32,
        /// True if the message counts for its country.
        counted: bool,
    },
    /// The message is refused.
    Refused,
}

/// Guard under evaluation.
pub trait EvaluatedGuard: Clone {
    /// Decides about a request.
    fn request(&mut self, request: &SendRequest) -> SendReply;

    /// Counts the verification of a code that was sent in `messages`, the last one of them by
    /// `request`.
    fn verified(&mut self, request: &SendRequest, counted: bool, messages: u32, now: Timestamp);

    /// Returns true if a message of this request may be sent over a further channel.
    fn allows_fallback(&mut self, request: &SendRequest) -> bool;

    /// Returns the milliseconds after `now` until no block of the country, nor the country
    /// itself, is slowed down or refused, if there are no more messages.
    fn release(&self, country: usize, now: Timestamp) -> Option<i64>;
}
