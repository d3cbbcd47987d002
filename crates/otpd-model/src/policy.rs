//! Policy values shared by the server and the model.

use std::fmt::Write as _;

/// One second in milliseconds.
pub const SECOND: i64 = 1_000;
/// One hour in milliseconds.
pub const HOUR: i64 = 3_600 * SECOND;
/// One day in milliseconds.
pub const DAY: i64 = 24 * HOUR;

/// Policy of a purpose. Its fields are the configuration keys, which docs/configuration.md
/// explains; durations are in milliseconds.
#[expect(missing_docs, reason = "the fields are the keys of the configuration")]
#[derive(Clone, Debug)]
pub struct Policy {
    /// Name of the purpose.
    pub name: &'static str,
    pub code_length: usize,
    pub code_ttl: i64,
    pub max_attempts: u32,
    pub resend_after: i64,
    pub require_challenge_id: bool,
    pub failure_delay: i64,
    pub failure_limit: u32,
    pub failure_memory: i64,
    pub sends_per_hour: i64,
    pub sends_per_day: i64,
    pub ip_sends_per_hour: i64,
    pub ip_failures_per_hour: i64,
    pub ip_site_sends_per_hour: i64,
    pub ip_site_failures_per_hour: i64,
    pub request_memory: i64,
}

/// Caller with its permissions.
#[expect(clippy::struct_excessive_bools, reason = "independent permissions")]
#[derive(Clone, Debug)]
pub struct Caller {
    /// Name of the caller.
    pub name: &'static str,
    /// True if the configuration has its token.
    pub is_configured: bool,
    /// Permission to reset failed attempts.
    pub may_reset_failures: bool,
    /// True if it receives the codes and delivers them itself.
    pub self_delivery: bool,
    /// True if it may have receipts. Only for callers without self-delivery.
    pub receipts: bool,
    /// Indexes of the purposes that it may use.
    pub purposes: &'static [usize],
}

/// All callers and purposes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Callers.
    pub callers: Vec<Caller>,
    /// Policies of the purposes.
    pub policies: Vec<Policy>,
    /// True if calls run at the same time, on a clock that runs by itself and never steps
    /// back.
    pub concurrent: bool,
}

impl Policy {
    /// Defaults of otpd.
    pub const DEFAULT: Self = Self {
        name: "default",
        code_length: 6,
        code_ttl: 300 * SECOND,
        max_attempts: 5,
        resend_after: 60 * SECOND,
        require_challenge_id: false,
        failure_delay: 30 * SECOND,
        failure_limit: 100,
        failure_memory: 30 * DAY,
        sends_per_hour: 5,
        sends_per_day: 10,
        ip_sends_per_hour: 60,
        ip_failures_per_hour: 60,
        ip_site_sends_per_hour: 600,
        ip_site_failures_per_hour: 600,
        request_memory: 600 * SECOND,
    };

    /// Low bounds, so that a short sequence of calls reaches each of them.
    pub const TIGHT: Self = Self {
        name: "tight",
        code_length: 8,
        code_ttl: 90 * SECOND,
        max_attempts: 2,
        resend_after: 45 * SECOND,
        failure_delay: 20 * SECOND,
        failure_limit: 7,
        failure_memory: 2 * DAY,
        sends_per_hour: 3,
        sends_per_day: 4,
        ip_sends_per_hour: 2,
        ip_failures_per_hour: 3,
        ip_site_sends_per_hour: 3,
        ip_site_failures_per_hour: 4,
        request_memory: 120 * SECOND,
        ..Self::DEFAULT
    };

    /// Requires a challenge id.
    pub const NAMED: Self = Self {
        name: "named",
        require_challenge_id: true,
        max_attempts: 3,
        ip_sends_per_hour: 3,
        // Below the limits of a network, so that often only the site has no room.
        ip_site_sends_per_hour: 2,
        ip_site_failures_per_hour: 3,
        ..Self::DEFAULT
    };

    /// Returns its table of the configuration.
    fn toml(&self) -> String {
        let seconds = |milliseconds: i64| milliseconds / SECOND;
        format!(
            "[purposes.{}]\ncode_length = {}\ncode_ttl = \"{}s\"\nmax_attempts = {}\nresend_after = \"{}s\"\n\
             require_challenge_id = {}\nfailure_delay = \"{}s\"\nfailure_limit = {}\n\
             failure_memory = \"{}s\"\nsends_per_hour = {}\nsends_per_day = {}\n\
             ip_sends_per_hour = {}\nip_failures_per_hour = {}\n\
             ip_site_sends_per_hour = {}\nip_site_failures_per_hour = {}\nrequest_memory = \"{}s\"\n",
            self.name,
            self.code_length,
            seconds(self.code_ttl),
            self.max_attempts,
            seconds(self.resend_after),
            self.require_challenge_id,
            seconds(self.failure_delay),
            self.failure_limit,
            seconds(self.failure_memory),
            self.sends_per_hour,
            self.sends_per_day,
            self.ip_sends_per_hour,
            self.ip_failures_per_hour,
            self.ip_site_sends_per_hour,
            self.ip_site_failures_per_hour,
            seconds(self.request_memory),
        )
    }
}

impl Settings {
    /// Returns the configuration of otpd with these settings. `token_digest` returns the digest
    /// of a caller's token.
    pub fn toml(&self, token_digest: impl Fn(&Caller) -> String) -> String {
        let mut text = "default_region = \"RU\"\n".to_owned();
        if self.callers.iter().any(|caller| caller.receipts) {
            text += "receipts.issuer = \"https://otp.example\"\n";
        }
        for policy in &self.policies {
            text += &policy.toml();
        }
        for caller in self.callers.iter().filter(|caller| caller.is_configured) {
            let purposes: Vec<&str> = caller
                .purposes
                .iter()
                .map(|&purpose| self.policies[purpose].name)
                .collect();
            write!(
                text,
                "[callers.{}]\ntoken_sha256 = [\"{}\"]\npurposes = {purposes:?}\n\
                 destinations = [\"*\"]\nmay_reset_failures = {}\nself_delivery = {}\n",
                caller.name,
                token_digest(caller),
                caller.may_reset_failures,
                caller.self_delivery,
            )
            .expect("writing to a string cannot fail");
            if caller.receipts {
                text += "receipt_audiences = [\"https://shop.example\"]\n";
            }
        }
        text
    }
}
