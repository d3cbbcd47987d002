//! Limits on the number of connections: in total, per address, and per IPv6 site.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ConnectionSettings;
use otpd_rules::{site_network, subscriber_network};

/// Limiter of open connections. Clones share one count.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionLimiter(Arc<Mutex<ConnectionCounts>>);

#[derive(Debug, Default)]
struct ConnectionCounts {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
    by_site: HashMap<Ipv6Addr, usize>,
}

/// Permit of one connection; dropping it releases the connection's place.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limiter: ConnectionLimiter,
    network: IpAddr,
    site: Option<Ipv6Addr>,
}

/// Limit that is reached.
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
    /// Acquires a permit for a connection from `address`.
    ///
    /// # Errors
    /// The limit that is reached.
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
            limiter: self.clone(),
            network,
            site,
        })
    }

    fn counts(&self) -> MutexGuard<'_, ConnectionCounts> {
        // A poisoned lock is consistent, because no code panics between related updates.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.limiter.counts();
        counts.all -= 1;
        decrement(&mut counts.by_network, self.network);
        if let Some(site) = self.site {
            decrement(&mut counts.by_site, site);
        }
    }
}

/// Decrements the count of a key, and removes the key at zero.
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
        let limiter = ConnectionLimiter::default();
        let acquire = |address: &str| limiter.try_acquire(address.parse().unwrap(), &bounds);
        let mut permits = Vec::new();
        for address in [
            "192.0.2.1",
            "::ffff:192.0.2.1",
            "2001:db8::1",
            "2001:db8::2:1",
        ] {
            permits.push(acquire(address).unwrap());
        }
        assert_eq!(acquire("192.0.2.1").unwrap_err(), LimitReached::Address);
        assert_eq!(acquire("2001:db8::3").unwrap_err(), LimitReached::Address);
        permits.push(acquire("2001:db8:0:1::3").unwrap());
        assert_eq!(acquire("2001:db8:0:2::4").unwrap_err(), LimitReached::Site);
        // A dropped permit makes room.
        permits.remove(0);
        permits.push(acquire("192.0.2.1").unwrap());
        for _ in 0..2 {
            permits.push(acquire("127.0.0.1").unwrap());
        }
        assert_eq!(acquire("::1").unwrap_err(), LimitReached::All);
        permits.pop();
        permits.push(acquire("::1").unwrap());
        permits.clear();
        let counts = limiter.counts();
        assert_eq!(counts.all, 0);
        assert!(counts.by_network.is_empty() && counts.by_site.is_empty());
    }
}
