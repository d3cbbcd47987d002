//! Honest people and attackers.

use crate::{
    guarded::REPLICAS,
    random::RandomSource,
    world::{COUNTRIES, DAY, HOUR, LARGE, MINUTE, NEW, NumberBlock, RHYTHM, SCENARIO_DAY},
};

/// Addresses of the honest people of a country; some of them share one.
const ADDRESSES: u32 = 5_000;

/// Honest traffic of the day of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HonestTraffic {
    /// Daily rhythm.
    Normal,
    /// Launch in the large country: four times the traffic from 9 o'clock on.
    Launch,
    /// TV spot in the large country at 19 o'clock: thirty times the traffic, which halves every
    /// four minutes.
    TvSpot,
    /// The new country opens at 9 o'clock, with 60 first-time users in the busiest hour.
    NewCountry,
    /// The provider of the large and the middle country delivers nothing from 12 to 14 o'clock.
    Outage,
    /// First-time users lose interest: 55 % of them enter the code that arrives, not 82 %.
    LessInterest,
}

impl HonestTraffic {
    /// All of them, with a name.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Normal, "daily rhythm"),
        (Self::Launch, "launch"),
        (Self::TvSpot, "TV spot"),
        (Self::NewCountry, "new country"),
        (Self::Outage, "outage of a gateway"),
        (Self::LessInterest, "less interest"),
    ];

    /// Returns the percentage of the codes that first-time users enter once they arrive.
    fn attention(self) -> u32 {
        if self == Self::LessInterest { 55 } else { 82 }
    }

    /// Returns true while the provider of that country delivers nothing.
    pub fn is_down(self, country: usize, time: i64) -> bool {
        let hours = SCENARIO_DAY + 12 * HOUR..SCENARIO_DAY + 14 * HOUR;
        self == Self::Outage && COUNTRIES[country].provider == 0 && hours.contains(&time)
    }

    /// Returns first-time users an hour.
    fn rate(self, country: usize, time: i64) -> f64 {
        let hour = usize::try_from(time % DAY / HOUR).unwrap_or_default();
        let rhythm = f64::from(RHYTHM[hour]) / 100.0;
        let usual = f64::from(COUNTRIES[country].per_hour) * rhythm;
        let of_day = time - SCENARIO_DAY;
        match self {
            Self::Launch if country == LARGE && of_day >= 9 * HOUR => usual * 4.0,
            Self::TvSpot if country == LARGE && of_day >= 19 * HOUR => {
                let mut factor = 30.0;
                for _ in 0..(of_day - 19 * HOUR) / (4 * MINUTE) {
                    factor /= 2.0;
                }
                usual * (1.0 + factor)
            }
            Self::NewCountry if country == NEW && of_day >= 9 * HOUR => 60.0 * rhythm,
            _ => usual,
        }
    }
}

/// Honest person.
#[derive(Clone, Copy, Debug)]
pub struct HonestUser {
    /// Time of the first request.
    pub arrival: i64,
    /// Block of the number.
    pub block: NumberBlock,
    /// Last digits of the number.
    pub digits: u16,
    /// Address of the client.
    pub address: u64,
    /// True if the person verified before.
    pub returning: bool,
    /// True if the person enters the code once it arrives.
    pub attentive: bool,
    /// Replica of the first request.
    pub replica: usize,
}

/// Returns the people that arrive from `start` to `end`, half of them returning ones.
pub fn people(honest: HonestTraffic, seed: u64, start: i64, end: i64) -> Vec<HonestUser> {
    let mut people = Vec::new();
    for country in 0..COUNTRIES.len() {
        let purpose = u64::try_from(country).unwrap_or_default() + u64::from(start > 0) * 8;
        let mut random = RandomSource::new(seed, purpose);
        let mut time = start;
        loop {
            // At most 20 minutes, because the rate changes.
            let rate = (honest.rate(country, time) * 2.0).max(0.01);
            let wait = random.exponential(3_600_000.0 / rate).max(1);
            let limit = if honest == HonestTraffic::TvSpot {
                MINUTE
            } else {
                20 * MINUTE
            };
            time += wait.min(limit);
            if time >= end {
                break;
            }
            if wait <= limit {
                people.push(person(country, time, honest.attention(), &mut random));
            }
        }
    }
    people
}

fn person(country: usize, arrival: i64, attention: u32, random: &mut RandomSource) -> HonestUser {
    let blocks = COUNTRIES[country].blocks;
    // Half of the people have numbers in a tenth of the blocks.
    let number = if random.percent(50) {
        random.below(blocks.div_ceil(10))
    } else {
        random.below(blocks)
    };
    let returning = random.percent(50);
    let address = u64::from(random.below(ADDRESSES)) + (u64::try_from(country).unwrap_or(0) << 32);
    HonestUser {
        arrival,
        block: NumberBlock { country, number },
        digits: u16::try_from(random.below(1_000)).unwrap_or_default(),
        address,
        returning,
        attentive: random.percent(if returning { 95 } else { attention }),
        replica: usize::try_from(random.bits()).unwrap_or_default() % REPLICAS,
    }
}

/// Order of the numbers of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberOrder {
    /// One after the other, block after block.
    Sequential,
    /// At random in all blocks.
    Random,
}

/// Attack, from noon of the day of a scenario on.
#[derive(Clone, Copy, Debug)]
pub struct AttackPlan {
    /// Name in tables.
    pub name: &'static str,
    /// Country.
    pub country: usize,
    /// Number of blocks.
    pub blocks: u32,
    /// Order of the numbers.
    pub order: NumberOrder,
    /// Requests an hour.
    pub per_hour: u32,
    /// Length in hours.
    pub hours: i64,
    /// Percentage of the codes that are entered.
    pub verifies: u32,
    /// True if each request has a client address of its own.
    pub rotates_addresses: bool,
    /// Channels of the route, each of which costs a message if the previous one has no answer.
    pub channels: u32,
}

impl AttackPlan {
    /// Attack of an hour on `blocks`, from addresses that rotate.
    pub const fn on(name: &'static str, country: usize, blocks: u32, per_hour: u32) -> Self {
        Self {
            name,
            country,
            blocks,
            order: NumberOrder::Random,
            per_hour,
            hours: 1,
            verifies: 0,
            rotates_addresses: true,
            channels: 1,
        }
    }
}

/// Start of every attack.
pub const ATTACK_START: i64 = SCENARIO_DAY + 12 * HOUR;

/// Request of an attack.
#[derive(Clone, Copy, Debug)]
pub struct AttackRequest {
    /// Time.
    pub time: i64,
    /// Block of the number.
    pub block: NumberBlock,
    /// Last digits of the number.
    pub digits: u16,
    /// Address of the client.
    pub address: u64,
    /// Replica that gets the request.
    pub replica: usize,
    /// True if the code will be entered.
    pub verifies: bool,
}

/// Returns the requests of an attack. Its blocks are used by few other people.
pub fn attack_requests(attack: &AttackPlan, seed: u64) -> Vec<AttackRequest> {
    let mut random = RandomSource::new(seed, 100);
    let first = COUNTRIES[attack.country].blocks / 2;
    let mean = 3_600_000.0 / f64::from(attack.per_hour);
    let mut time = ATTACK_START;
    let mut requests = Vec::new();
    for index in 0_u32.. {
        time += random.exponential(mean).max(1);
        if time >= ATTACK_START + attack.hours * HOUR {
            break;
        }
        let (number, digits) = match attack.order {
            NumberOrder::Sequential => (index / 1_000 % attack.blocks, index % 1_000),
            NumberOrder::Random => (random.below(attack.blocks), random.below(1_000)),
        };
        let address = if attack.rotates_addresses {
            u64::from(index)
        } else {
            0
        };
        requests.push(AttackRequest {
            time,
            block: NumberBlock {
                country: attack.country,
                number: first + number,
            },
            digits: u16::try_from(digits).unwrap_or_default(),
            address: address + (1 << 60),
            replica: usize::try_from(random.bits()).unwrap_or_default() % REPLICAS,
            verifies: random.percent(attack.verifies),
        });
    }
    requests
}
