//! Networks by which requests are counted if clients are limited by IP address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Prefix under which a NAT64 gateway writes IPv4 addresses (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Returns the network of one subscriber: an IPv4 address, or the /64 of an IPv6 address,
/// within which a host chooses its addresses (RFC 7421).
pub fn subscriber_network(address: IpAddr) -> IpAddr {
    match canonical(address) {
        IpAddr::V6(address) if !address.is_loopback() => first_groups::<4>(address).into(),
        address => address,
    }
}

/// Returns the network of one site: the /48 of an IPv6 address, the most that a provider
/// gives to one site (RFC 6177). `None` for IPv4, and for private networks, in which all
/// addresses of an operator may share a /48.
pub fn site_network(address: IpAddr) -> Option<Ipv6Addr> {
    match canonical(address) {
        IpAddr::V6(address) if is_global_unicast(address) => Some(first_groups::<3>(address)),
        _ => None,
    }
}

/// Returns the embedded IPv4 address of an IPv6 address that has one: IPv4-mapped, or of
/// a NAT64 gateway. All of these share a /64.
fn canonical(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if address.segments().starts_with(&NAT64) => {
            let [.., a, b, c, d] = address.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        address => address,
    }
}

/// Returns true for addresses in 2000::/3 (RFC 4291, section 2.4, as assigned).
fn is_global_unicast(address: Ipv6Addr) -> bool {
    address.segments()[0] >> 13 == 1
}

/// Returns the address with all but its first `COUNT` groups of 16 bits set to zero.
fn first_groups<const COUNT: usize>(address: Ipv6Addr) -> Ipv6Addr {
    let mut groups = address.segments();
    groups[COUNT..].fill(0);
    groups.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(text: &str) -> String {
        subscriber_network(text.parse().unwrap()).to_string()
    }

    fn site(text: &str) -> Option<String> {
        site_network(text.parse().unwrap()).map(|site| site.to_string())
    }

    #[test]
    fn client_subnet_is_an_ipv4_address_or_an_ipv6_64() {
        assert_eq!(subscriber("203.0.113.7"), "203.0.113.7");
        assert_eq!(subscriber("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_ne!(subscriber("2001:db8:1:2::1"), subscriber("2001:db8:1:3::1"));
        assert_eq!(subscriber("::1"), "::1");
    }

    #[test]
    fn ipv4_mapped_address_counts_as_ipv4() {
        for embedded in ["::ffff:203.0.113.7", "64:ff9b::203.0.113.7"] {
            assert_eq!(subscriber(embedded), "203.0.113.7", "{embedded}");
            assert_eq!(site(embedded), None, "{embedded}");
        }
        assert_eq!(subscriber("64:ff9b:0:0:0:1::"), "64:ff9b::");
    }

    #[test]
    fn site_is_a_48_of_global_addresses() {
        assert_eq!(site("2001:db8:1:2::1").as_deref(), Some("2001:db8:1::"));
        assert_eq!(site("2001:db8:1:2::1"), site("2001:db8:1:ffff::9"));
        assert_ne!(site("2001:db8:1:2::1"), site("2001:db8:2:2::1"));
        for no_site in ["203.0.113.7", "::1", "fd00:1:2:3::1", "fe80::1"] {
            assert_eq!(site(no_site), None, "{no_site}");
        }
    }
}
