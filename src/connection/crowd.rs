//! How many connections there are, in all and of each address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ConnectionSettings;

/// Everybody who is connected. Clones are one crowd.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    network: IpAddr,
}

/// Which bound leaves no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// `max`.
    All,
    /// `max_per_address`.
    Address,
}

impl Crowd {
    /// A place for a connection from `address`.
    pub fn enter(&self, address: IpAddr, bounds: &ConnectionSettings) -> Result<Place, Full> {
        let network = network(address);
        let mut counts = self.counts();
        let own = counts.by_network.get(&network).copied().unwrap_or_default();
        let bounded = bounds.max_per_address > 0 && !network.is_loopback();
        if counts.all >= bounds.max {
            return Err(Full::All);
        }
        if bounded && own >= bounds.max_per_address {
            return Err(Full::Address);
        }
        counts.all += 1;
        counts.by_network.insert(network, own + 1);
        drop(counts);
        Ok(Place {
            crowd: self.clone(),
            network,
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics between two counts that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts();
        counts.all -= 1;
        if let Some(own) = counts.by_network.get_mut(&self.network) {
            *own -= 1;
            if *own == 0 {
                counts.by_network.remove(&self.network);
            }
        }
    }
}

/// Returns the network that an address counts for: a client with an address of IPv6 has
/// its /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_and_all_together_have_a_bound_and_this_machine_only_the_latter() {
        let bounds = ConnectionSettings {
            max: 7,
            max_per_address: 2,
            ..ConnectionSettings::default()
        };
        let crowd = Crowd::default();
        let enter = |address: &str| crowd.enter(address.parse().unwrap(), &bounds);
        let mut inside = Vec::new();
        for address in [
            "192.0.2.1",
            "::ffff:192.0.2.1",
            "2001:db8::1",
            "2001:db8::2:1",
        ] {
            inside.push(enter(address).unwrap());
        }
        assert_eq!(enter("192.0.2.1").unwrap_err(), Full::Address);
        assert_eq!(enter("2001:db8::3").unwrap_err(), Full::Address);
        inside.push(enter("2001:db8:0:1::3").unwrap());
        // Who leaves makes room.
        inside.remove(0);
        inside.push(enter("192.0.2.1").unwrap());
        for _ in 0..2 {
            inside.push(enter("127.0.0.1").unwrap());
        }
        assert_eq!(enter("::1").unwrap_err(), Full::All);
        inside.pop();
        inside.push(enter("::1").unwrap());
        inside.clear();
        let counts = crowd.counts();
        assert_eq!((counts.all, counts.by_network.len()), (0, 0));
    }
}
