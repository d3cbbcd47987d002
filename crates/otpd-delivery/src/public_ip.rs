//! Check that a gateway's name leads to a public address. A mistyped or hijacked name
//! could otherwise direct requests to the machine, to its network or to the cloud's
//! metadata.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The address of a gateway is not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address is not public; set allow_private_addresses = true if it is meant")]
pub struct PrivateAddress;

/// Returns true if `address` belongs to the public network (IANA's registries of special
/// addresses: RFC 6890, RFC 8190).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // This network, private, loopback, multicast and reserved.
        [0 | 10 | 127 | 224..=255, ..]
        // Carrier-grade NAT.
        | [100, 64..=127, ..]
        // Link-local, and with it the metadata of clouds.
        | [169, 254, ..]
        | [172, 16..=31, ..]
        // Protocol assignments, documentation, 6to4 relays.
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [192, 168, ..]
        // Benchmarks and documentation.
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => true,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments {
        // Mapped, and translated by NAT64 (RFC 6052): the address inside counts.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = address.octets();
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Protocol assignments with Teredo, 6to4, documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Blocks that have been assigned as global unicast so far.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Resolver that returns only public addresses.
#[derive(Clone, Copy, Debug)]
pub struct PublicOnlyResolver {
    /// True to return other addresses as well.
    pub allow_private: bool,
}

impl PublicOnlyResolver {
    /// Returns the addresses of `host` that may be connected to.
    ///
    /// # Errors
    /// [`io::Error`] if the name is unknown, or if none of its addresses is allowed.
    pub async fn lookup(self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<_> = tokio::net::lookup_host((host, 0)).await?.collect();
        let allowed = |address: &SocketAddr| self.allow_private || is_public(address.ip());
        let addresses: Vec<_> = found.into_iter().filter(allowed).collect();
        if addresses.is_empty() {
            return Err(io::Error::other(PrivateAddress));
        }
        Ok(addresses)
    }
}

impl Resolve for PublicOnlyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = *self;
        Box::pin(async move {
            let addresses = resolver.lookup(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
