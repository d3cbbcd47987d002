//! Routes: the providers of a message, in order.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::ProviderHandle;
use otpd_rules::{CallerName, Channel, Purpose, Recipient, RecipientPattern};

/// Properties of a message by which its route is chosen.
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery<'a> {
    /// Requested channel.
    pub channel: Channel,
    /// Purpose of the code.
    pub purpose: &'a Purpose,
    /// Caller that made the request.
    pub caller: &'a CallerName,
    /// Recipient of the message.
    pub recipient: &'a Recipient,
    /// Requested language; empty if none was requested.
    pub locale: &'a str,
}

/// Selection of messages, with their providers.
#[derive(Debug)]
pub struct Route {
    /// Conditions for messages.
    pub conditions: RouteMatcher,
    /// Providers in the order of failover; at least one.
    pub gateways: Vec<Arc<ProviderHandle>>,
    /// First provider of the second message of a challenge.
    pub resend: ResendStrategy,
}

/// Conditions of a route; an empty one matches every message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteMatcher {
    /// Requested channels.
    pub channels: Vec<Channel>,
    /// Purposes of codes.
    pub purposes: BTreeSet<Purpose>,
    /// Callers.
    pub callers: BTreeSet<CallerName>,
    /// Sets of recipients.
    pub destinations: Vec<RecipientPattern>,
    /// Languages: tags or the beginning of tags, in lower case.
    pub locales: Vec<String>,
}

/// First provider of the second message of a challenge, and of each one after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResendStrategy {
    /// The first provider, as for the first message.
    #[default]
    Same,
    /// The next provider, because the message before may not have arrived.
    Next,
}

impl RouteMatcher {
    fn matches(&self, query: &RouteQuery<'_>) -> bool {
        let Self {
            channels,
            purposes,
            callers,
            destinations,
            locales,
        } = self;
        (channels.is_empty() || channels.contains(&query.channel))
            && (purposes.is_empty() || purposes.contains(query.purpose))
            && (callers.is_empty() || callers.contains(query.caller))
            && (destinations.is_empty()
                || destinations
                    .iter()
                    .any(|destination| destination.contains(query.recipient)))
            && (locales.is_empty() || locales.iter().any(|range| is_in(query.locale, range)))
    }
}

/// Returns true if a language tag is in a range: `ru-RU` is in `ru` (RFC 4647, basic
/// filtering).
fn is_in(tag: &str, range: &str) -> bool {
    let tag = tag.to_ascii_lowercase();
    tag.strip_prefix(range)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

impl Route {
    /// Returns true if the route is for such a message.
    pub fn is_for(&self, query: &RouteQuery<'_>) -> bool {
        self.conditions.matches(query)
    }

    /// Returns the providers in the order in which to try them for a message with that
    /// many `predecessors`.
    pub fn order(&self, predecessors: u32) -> impl Iterator<Item = &Arc<ProviderHandle>> {
        let start = match self.resend {
            ResendStrategy::Same => 0,
            ResendStrategy::Next => {
                usize::try_from(predecessors).unwrap_or(0) % self.gateways.len().max(1)
            }
        };
        let (earlier, later) = self.gateways.split_at(start);
        later.iter().chain(earlier)
    }

    /// Returns the name of the provider that such a message tries first.
    pub fn first(&self, predecessors: u32) -> &str {
        let mut order = self.order(predecessors);
        order.next().map_or("", |gateway| &gateway.name)
    }

    /// Returns the maximum duration of an attempt with any of its providers.
    pub fn longest_attempt(&self) -> Duration {
        let timeouts = self.gateways.iter().map(|gateway| gateway.options.timeout);
        timeouts.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GatewayOptions, Provider};
    use otpd_base::environment::Environment;

    fn route(conditions: RouteMatcher, names: &[&str], resend: ResendStrategy) -> Route {
        let development = Environment::Development.development().unwrap();
        let gateway = |name: &&str| {
            let log = Provider::Log(development);
            Arc::new(ProviderHandle::new(name, log, GatewayOptions::default()))
        };
        Route {
            conditions,
            gateways: names.iter().map(gateway).collect(),
            resend,
        }
    }

    fn holds(conditions: &RouteMatcher, recipient: &str, locale: &str) -> bool {
        conditions.matches(&RouteQuery {
            channel: Channel::Sms,
            purpose: &Purpose::default(),
            caller: &CallerName::new("crm"),
            recipient: &Recipient::from_canonical(recipient.to_owned()),
            locale,
        })
    }

    #[test]
    fn route_matches_if_every_condition_holds() {
        let moscow = "+79991234567";
        let all = RouteMatcher::default();
        assert!(holds(&all, moscow, ""));
        let by = |change: &dyn Fn(&mut RouteMatcher)| {
            let mut conditions = RouteMatcher::default();
            change(&mut conditions);
            holds(&conditions, moscow, "ru-RU")
        };
        assert!(by(&|by| by.channels = vec![Channel::Voice, Channel::Sms]));
        assert!(!by(&|by| by.channels = vec![Channel::Voice]));
        assert!(by(&|by| by.purposes = [Purpose::default()].into()));
        assert!(!by(&|by| by.purposes = ["login".parse().unwrap()].into()));
        assert!(by(&|by| by.callers = [CallerName::new("crm")].into()));
        assert!(!by(&|by| by.callers = [CallerName::new("shop")].into()));
        assert!(by(&|by| by.destinations = vec!["+7".parse().unwrap()]));
        assert!(!by(&|by| by.destinations = vec!["KZ".parse().unwrap()]));
        assert!(by(&|by| by.locales = vec!["ru".to_owned()]));
        assert!(!by(&|by| by.locales = vec!["r".to_owned()]));
        assert!(!by(&|by| {
            by.locales = vec!["ru".to_owned()];
            by.channels = vec![Channel::Voice];
        }));
    }

    #[test]
    fn resend_can_start_with_the_next_provider() {
        let names = |route: &Route, predecessors| -> Vec<String> {
            let order = route.order(predecessors);
            order.map(|gateway| gateway.name.clone()).collect()
        };
        let same = route(
            RouteMatcher::default(),
            &["a", "b", "c"],
            ResendStrategy::Same,
        );
        assert_eq!(names(&same, 2), ["a", "b", "c"]);
        let next = route(
            RouteMatcher::default(),
            &["a", "b", "c"],
            ResendStrategy::Next,
        );
        assert_eq!(names(&next, 0), ["a", "b", "c"]);
        assert_eq!(names(&next, 1), ["b", "c", "a"]);
        assert_eq!(names(&next, 3), ["a", "b", "c"]);
        assert_eq!(names(&next, u32::MAX), ["a", "b", "c"]);
    }
}
