//! Service links of Kubernetes: variables that Kubernetes sets in every container of a
//! namespace, such as `OTPD_PORT=tcp://10.0.0.7:50051` for a service with the name otpd.

use std::net::IpAddr;

/// Advice for a variable that has the name of a link, but not its kind of value.
pub(super) const HINT: &str = "; if Kubernetes set this variable for a service, set enableServiceLinks: false in the pod, or rename the service";

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// Value of a kind of link.
#[derive(Clone, Copy, Debug)]
enum LinkValue {
    Address,
    Port,
    Protocol,
    Url,
}

/// Returns whether a variable has the name and the value of a link.
pub(super) fn is_link(name: &str, value: &str) -> bool {
    kind(name).is_some_and(|kind| match kind {
        LinkValue::Address => value.parse::<IpAddr>().is_ok(),
        LinkValue::Port => value.parse::<u16>().is_ok(),
        LinkValue::Protocol => PROTOCOLS.contains(&value),
        LinkValue::Url => value
            .split_once("://")
            .is_some_and(|(scheme, _)| PROTOCOLS.contains(&scheme)),
    })
}

/// Returns whether a variable has the name of a link.
pub(super) fn is_name(name: &str) -> bool {
    kind(name).is_some()
}

/// Returns the kind of a link by its name: `…_SERVICE_HOST`, `…_SERVICE_PORT`,
/// `…_SERVICE_PORT_NAME`, `…_PORT`, or `…_PORT_50051_TCP` and that with `_PROTO`, `_PORT`
/// or `_ADDR`.
fn kind(name: &str) -> Option<LinkValue> {
    if name.ends_with("_SERVICE_HOST") {
        return Some(LinkValue::Address);
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return Some(LinkValue::Port);
    }
    if let Some((_, rest)) = name.split_once("_PORT_") {
        let mut parts = rest.split('_');
        let port = parts.next()?.parse::<u16>();
        let protocol = parts.next()?.to_lowercase();
        if port.is_ok() && PROTOCOLS.contains(&&*protocol) {
            return match parts.next() {
                None => Some(LinkValue::Url),
                Some("PROTO") => Some(LinkValue::Protocol),
                Some("PORT") => Some(LinkValue::Port),
                Some("ADDR") => Some(LinkValue::Address),
                Some(_) => None,
            };
        }
    }
    name.ends_with("_PORT").then_some(LinkValue::Url)
}
