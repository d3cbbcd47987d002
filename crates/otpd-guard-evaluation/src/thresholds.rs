//! Fixed thresholds of an open authentication server (Authgear at fa7a7d55, August 2026,
//! `deny_if_any_warning`), for comparison: leaky buckets per country of the number and per
//! client address.

use std::collections::{HashMap, HashSet, VecDeque};

use otpd_rules::Timestamp;

use crate::world::{COUNTRIES, DAY, EvaluatedGuard, HOUR, SendReply, SendRequest};

/// Countries per address and day.
const MAX_COUNTRIES: usize = 3;

#[derive(Clone, Copy, Debug, Default)]
struct LeakyBucket {
    level: f64,
    updated: i64,
}

impl LeakyBucket {
    /// Adds `amount`, which may be negative. Returns true if the level is above `threshold`,
    /// which also leaks in each period.
    fn add(&mut self, amount: f64, threshold: f64, period: i64, now: i64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "days in milliseconds are exact")]
        let elapsed = (now - self.updated).max(0) as f64 / period as f64;
        let level = self.level.min(threshold) - elapsed * threshold + amount;
        self.level = level.max(0.0);
        self.updated = now;
        self.level > threshold
    }
}

/// Times of verifications within a day, and the largest number of a day.
#[derive(Clone, Debug, Default)]
struct Successes {
    times: VecDeque<i64>,
    day: i64,
    of_day: u32,
    peak: u32,
}

impl Successes {
    fn add(&mut self, now: i64) {
        self.forget(now);
        self.times.push_back(now);
        self.of_day += 1;
    }

    fn forget(&mut self, now: i64) {
        while self.times.front().is_some_and(|time| *time <= now - DAY) {
            self.times.pop_front();
        }
        if now / DAY != self.day {
            self.peak = self.peak.max(self.of_day);
            (self.day, self.of_day) = (now / DAY, 0);
        }
    }

    fn since(&self, start: i64) -> f64 {
        let later = self.times.len() - self.times.partition_point(|time| *time <= start);
        f64::from(u32::try_from(later).unwrap_or(u32::MAX))
    }
}

#[derive(Clone, Debug, Default)]
struct UnverifiedBuckets {
    hour: LeakyBucket,
    day: LeakyBucket,
    successes: Successes,
}

/// Thresholds and the state of their buckets.
#[derive(Clone, Debug)]
pub struct FixedThresholds {
    /// Factor of all thresholds.
    factor: f64,
    countries: Vec<UnverifiedBuckets>,
    addresses: HashMap<u64, UnverifiedBuckets>,
    countries_of_address: HashMap<u64, HashSet<usize>>,
}

impl FixedThresholds {
    /// Returns the thresholds, multiplied by `factor`.
    pub fn new(factor: f64) -> Self {
        Self {
            factor,
            countries: vec![UnverifiedBuckets::default(); COUNTRIES.len()],
            addresses: HashMap::new(),
            countries_of_address: HashMap::new(),
        }
    }

    /// Adds to the four buckets of a request. Returns true if one of them is too full.
    fn add(&mut self, request: &SendRequest, amount: f64, now: i64) -> bool {
        let factor = self.factor;
        let country = &mut self.countries[request.block.country];
        country.successes.forget(now);
        let peak = f64::from(country.successes.peak);
        let (day, hour) = (
            country.successes.since(now - DAY),
            country.successes.since(now - HOUR),
        );
        let daily = factor * 20.0_f64.max(0.3 * peak).max(0.3 * day);
        let hourly = factor * 3.0_f64.max(0.2 * peak / 6.0).max(0.2 * hour);
        let mut exceeded = country.day.add(amount, daily, DAY, now);
        exceeded |= country.hour.add(amount, hourly, HOUR, now);
        let address = self.addresses.entry(request.address).or_default();
        address.successes.forget(now);
        let day = address.successes.since(now - DAY);
        let daily = factor * 10.0_f64.max(0.3 * day);
        let hourly = factor * 5.0_f64.max(0.2 * day / 6.0);
        exceeded |= address.day.add(amount, daily, DAY, now);
        exceeded |= address.hour.add(amount, hourly, HOUR, now);
        exceeded
    }
}

impl EvaluatedGuard for FixedThresholds {
    fn request(&mut self, request: &SendRequest) -> SendReply {
        let sent = SendReply::Sent {
            resend_factor: 1,
            counted: true,
        };
        if request.returning {
            return sent;
        }
        let countries = self
            .countries_of_address
            .entry(request.address)
            .or_default();
        countries.insert(request.block.country);
        let many_countries = countries.len() > MAX_COUNTRIES;
        let exceeded = self.add(request, 1.0, request.time.milliseconds());
        if exceeded || many_countries {
            SendReply::Refused
        } else {
            sent
        }
    }

    fn verified(&mut self, request: &SendRequest, _: bool, messages: u32, now: Timestamp) {
        let now = now.milliseconds();
        self.countries[request.block.country].successes.add(now);
        let address = self.addresses.entry(request.address).or_default();
        address.successes.add(now);
        let countries = self
            .countries_of_address
            .entry(request.address)
            .or_default();
        countries.remove(&request.block.country);
        if !request.returning {
            self.add(request, -f64::from(messages), now);
        }
    }

    fn allows_fallback(&mut self, _: &SendRequest) -> bool {
        true
    }

    fn release(&self, _: usize, _: Timestamp) -> Option<i64> {
        None
    }
}
