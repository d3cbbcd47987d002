//! Recipients of a run's codes: phone numbers that were sent no code before, and the IP
//! addresses of their owners.

use std::{
    net::Ipv4Addr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberType, Region};

/// Regions of the numbers, in this order. In each, ten million mobile numbers and more
/// share their first digits, and all but the last five have a hundred million.
const REGIONS: [&str; 40] = [
    "RU", "US", "CN", "IN", "BR", "DE", "GB", "FR", "ID", "MX", "JP", "TR", "IT", "ES", "VN", "PH",
    "TH", "EG", "NG", "PK", "BD", "IR", "KR", "ZA", "AR", "UZ", "SA", "MY", "NL", "RO", "SE", "AE",
    "KE", "MA", "PE", "KZ", "PL", "UA", "CO", "CZ",
];

/// Maximum number of regions.
pub const MAX_REGIONS: usize = REGIONS.len();

/// First client IP address, of the network for benchmarks 198.18.0.0/15 (RFC 2544,
/// section C.2.2).
const FIRST_CLIENT_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// Maximum number of addresses.
pub const MAX_CLIENT_IPS: u32 = 1 << 17;

/// Number of last digits of an example number that are varied: as many as leave most
/// numbers valid.
const VARIED_DIGITS: std::ops::RangeInclusive<u32> = 7..=9;

/// Number of samples by which the share of valid numbers is estimated.
const SAMPLES: u64 = 64;

/// Number of successive numbers that differ in their last digit alone. One of them is
/// checked, because in no region the last digit decides the type of a number.
const BLOCK: u64 = 10;

/// Distance between successive blocks of a space, so that unassigned numbers, which are
/// adjacent, are spread. It is no multiple of 2 or 5, so every block of a space is used
/// before one is repeated.
const STRIDE: u64 = 618_033_989;

/// User that is sent a code.
#[derive(Clone, Debug)]
pub struct TestUser {
    /// Phone number in E.164.
    pub recipient: String,
    /// IP address; empty if requests have none.
    pub client_ip: String,
}

/// Supply of users; none is returned twice.
#[derive(Debug)]
pub struct RecipientSupply {
    spaces: Vec<NumberSpace>,
    next: AtomicU64,
    start: u64,
    client_ips: u32,
}

impl RecipientSupply {
    /// Creates a supply of users from that many regions and addresses. Runs whose random
    /// starts differ have, with all likelihood, no user in common. Two runs of 100,000
    /// users of 20 regions, that is 5,000 of each among a hundred million, share some
    /// with a chance of about 1 in 5,000, because the starts are the same in all regions.
    pub fn new(regions: usize, client_ips: u32, start: u64) -> Self {
        Self {
            spaces: REGIONS
                .iter()
                .take(regions)
                .map(|name| NumberSpace::of(name, start))
                .collect(),
            next: AtomicU64::new(0),
            start,
            client_ips: client_ips.min(MAX_CLIENT_IPS),
        }
    }

    /// Returns a new user.
    pub fn next(&self) -> TestUser {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // There are far fewer regions than fit, so a remainder fits as well.
        let space = usize::try_from(number % self.spaces.len() as u64).unwrap_or_default();
        TestUser {
            recipient: self.spaces[space].next(),
            client_ip: self.client_ip(number),
        }
    }

    fn client_ip(&self, number: u64) -> String {
        if self.client_ips == 0 {
            return String::new();
        }
        let first = self.start % u64::from(MAX_CLIENT_IPS - self.client_ips + 1);
        let offset = first + number % u64::from(self.client_ips);
        let offset = u32::try_from(offset).unwrap_or_default();
        Ipv4Addr::from_bits(FIRST_CLIENT_IP.to_bits() + offset).to_string()
    }
}

/// Mobile numbers of a region that share their first digits with its example.
#[derive(Debug)]
struct NumberSpace {
    /// Country calling code.
    country_code: i32,
    /// First number within the country; its varied digits are zeros.
    first: u64,
    /// Number of values of the varied digits.
    size: u64,
    /// Position of the next number.
    next: Mutex<Position>,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    block: u64,
    last_digit: u64,
}

impl NumberSpace {
    fn of(name: &str, start: u64) -> Self {
        let region: Region = name.parse().expect("the list names regions");
        let example = PHONE_NUMBER_UTIL
            .get_example_number_for_type_and_region(region, PhoneNumberType::Mobile)
            .expect("each region of the list has mobile numbers");
        let space = |digits: u32| {
            let size = 10_u64.pow(digits);
            Self {
                country_code: example.country_code,
                first: example.national_number / size * size,
                size,
                next: Mutex::new(Position {
                    block: start % (size / BLOCK),
                    last_digit: 0,
                }),
            }
        };
        let mostly_valid = |space: &Self| {
            let valid = (0..SAMPLES).filter(|&block| space.is_mobile(space.first_of(block)));
            space.first > 0 && valid.count() as u64 * 2 > SAMPLES
        };
        VARIED_DIGITS
            .rev()
            .map(space)
            .find(mostly_valid)
            .unwrap_or_else(|| space(*VARIED_DIGITS.start()))
    }

    fn next(&self) -> String {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let position = &mut *next;
        while position.last_digit == 0 && !self.is_mobile(self.first_of(position.block)) {
            position.block = position.block.wrapping_add(1);
        }
        let national = self.first_of(position.block) + position.last_digit;
        position.last_digit = (position.last_digit + 1) % BLOCK;
        if position.last_digit == 0 {
            position.block = position.block.wrapping_add(1);
        }
        format!("+{}{national}", self.country_code)
    }

    /// Returns the first number of a block; the space has as many blocks as numbers.
    fn first_of(&self, block: u64) -> u64 {
        let blocks = self.size / BLOCK;
        self.first + block % blocks * STRIDE % blocks * BLOCK
    }

    fn is_mobile(&self, national: u64) -> bool {
        let number = PhoneNumber {
            country_code: self.country_code,
            national_number: national,
            ..Default::default()
        };
        matches!(
            number.get_type(),
            PhoneNumberType::Mobile | PhoneNumberType::FixedLineOrMobile
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use otpd_rules::Recipient;

    #[test]
    fn recipients_are_unique_canonical_mobile_numbers() {
        let people = RecipientSupply::new(MAX_REGIONS, 100, 7_777_777_777);
        let mut numbers = HashSet::new();
        let mut client_ips = HashSet::new();
        let mut prefixes = HashSet::new();
        for _ in 0..20_000 {
            let person = people.next();
            let recipient = Recipient::parse(&person.recipient, None).expect(&person.recipient);
            assert_eq!(recipient.as_str(), person.recipient);
            prefixes.insert(recipient.dialling_prefix().map(str::to_owned));
            assert!(numbers.insert(person.recipient));
            client_ips.insert(person.client_ip);
        }
        assert_eq!(client_ips.len(), 100);
        // In the list, the United States share their calling code with no other region,
        // and Russia with Kazakhstan.
        assert_eq!(prefixes.len(), MAX_REGIONS - 1);
    }

    #[test]
    fn recipient_spaces_are_large_and_disjoint() {
        let spaces: Vec<NumberSpace> = REGIONS
            .iter()
            .map(|name| NumberSpace::of(name, 0))
            .collect();
        for (number, (name, space)) in REGIONS.iter().zip(&spaces).enumerate() {
            assert!(space.size >= 10_000_000, "{name}: {space:?}");
            let many = spaces.len() - 5;
            assert!(
                space.size >= 100_000_000 || number >= many,
                "{name}: {space:?}"
            );
            let last = space.first + space.size - 1;
            let others = spaces.iter().filter(|other| {
                other.country_code == space.country_code
                    && other.first <= last
                    && space.first < other.first + other.size
            });
            assert_eq!(others.count(), 1, "{name}: {space:?}");
        }
    }

    #[test]
    fn different_starts_give_different_recipients() {
        let first = RecipientSupply::new(20, 1_000, 1);
        let second = RecipientSupply::new(20, 1_000, 1 << 40);
        let numbers: HashSet<_> = (0..10_000).map(|_| first.next().recipient).collect();
        for _ in 0..10_000 {
            assert!(!numbers.contains(&second.next().recipient));
        }
    }

    #[test]
    fn client_addresses_stay_in_their_network() {
        for (client_ips, start) in [(1, u64::MAX), (MAX_CLIENT_IPS, 3), (10_000, 131_071)] {
            let people = RecipientSupply::new(1, client_ips, start);
            for _ in 0..1_000 {
                let client_ip = people.next().client_ip;
                let network = ["198.18.", "198.19."];
                assert!(network.iter().any(|start| client_ip.starts_with(start)));
            }
        }
        assert_eq!(RecipientSupply::new(1, 0, 1).next().client_ip, "");
    }
}
