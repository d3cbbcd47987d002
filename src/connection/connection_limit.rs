//! Number of connections: in all, of each address, and of each site of IPv6.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ConnectionSettings;
use otpd_rules::{site_network, subscriber_network};

/// Everybody who is connected. Clones are one crowd.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionLimiter(Arc<Mutex<ConnectionCounts>>);

#[derive(Debug, Default)]
struct ConnectionCounts {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
    by_site: HashMap<Ipv6Addr, usize>,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    crowd: ConnectionLimiter,
    network: IpAddr,
    site: Option<Ipv6Addr>,
}

/// Which bound leaves no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitReached {
    /// `max`.
    All,
    /// `max_per_address`.
    Address,
    /// `max_per_site`.
    Site,
    /// `memory_mib`.
    Memory,
}

impl ConnectionLimiter {
    /// A place for a connection from `address`.
    pub fn try_acquire(
        &self,
        address: IpAddr,
        bounds: &ConnectionSettings,
    ) -> Result<ConnectionPermit, LimitReached> {
        let (network, site) = (subscriber_network(address), site_network(address));
        let mut counts = self.counts();
        let own = counts.by_network.get(&network).copied().unwrap_or_default();
        let bounded = bounds.max_per_address > 0 && !network.is_loopback();
        if counts.all >= bounds.max {
            return Err(LimitReached::All);
        }
        if bounded && own >= bounds.max_per_address {
            return Err(LimitReached::Address);
        }
        let of_site = site.and_then(|site| counts.by_site.get(&site));
        let of_site = of_site.copied().unwrap_or_default();
        if bounds.max_per_site > 0 && of_site >= bounds.max_per_site {
            return Err(LimitReached::Site);
        }
        counts.all += 1;
        counts.by_network.insert(network, own + 1);
        if let Some(site) = site {
            counts.by_site.insert(site, of_site + 1);
        }
        drop(counts);
        Ok(ConnectionPermit {
            crowd: self.clone(),
            network,
            site,
        })
    }

    fn counts(&self) -> MutexGuard<'_, ConnectionCounts> {
        // Nothing panics between two counts that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts();
        counts.all -= 1;
        decrement(&mut counts.by_network, self.network);
        if let Some(site) = self.site {
            decrement(&mut counts.by_site, site);
        }
    }
}

/// Counts one less, and forgets a key that counts none.
fn decrement<Key: Eq + Hash>(counts: &mut HashMap<Key, usize>, key: Key) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_per_network_per_site_and_in_total() {
        let bounds = ConnectionSettings {
            max: 7,
            max_per_address: 2,
            max_per_site: 3,
            ..ConnectionSettings::default()
        };
        let crowd = ConnectionLimiter::default();
        let enter = |address: &str| crowd.try_acquire(address.parse().unwrap(), &bounds);
        let mut inside = Vec::new();
        for address in [
            "192.0.2.1",
            "::ffff:192.0.2.1",
            "2001:db8::1",
            "2001:db8::2:1",
        ] {
            inside.push(enter(address).unwrap());
        }
        assert_eq!(enter("192.0.2.1").unwrap_err(), LimitReached::Address);
        assert_eq!(enter("2001:db8::3").unwrap_err(), LimitReached::Address);
        inside.push(enter("2001:db8:0:1::3").unwrap());
        assert_eq!(enter("2001:db8:0:2::4").unwrap_err(), LimitReached::Site);
        // Who leaves makes room.
        inside.remove(0);
        inside.push(enter("192.0.2.1").unwrap());
        for _ in 0..2 {
            inside.push(enter("127.0.0.1").unwrap());
        }
        assert_eq!(enter("::1").unwrap_err(), LimitReached::All);
        inside.pop();
        inside.push(enter("::1").unwrap());
        inside.clear();
        let counts = crowd.counts();
        assert_eq!(counts.all, 0);
        assert!(counts.by_network.is_empty() && counts.by_site.is_empty());
    }
}
