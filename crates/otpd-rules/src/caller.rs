//! Callers of otpd and their permissions.

use std::{collections::BTreeSet, fmt};

use super::{DestinationPolicy, PolicySet, Purpose};

/// Name of a back end that calls otpd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerName(String);

impl CallerName {
    /// Returns the caller of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Back end that calls otpd, with its permissions.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Name of the caller.
    pub name: CallerName,
    /// Purposes that its codes may have; `None` allows all.
    pub purposes: Option<BTreeSet<Purpose>>,
    /// Destinations that it may send to.
    pub destinations: DestinationPolicy,
    /// True if it may reset the failed attempts of a record.
    pub may_reset_failures: bool,
    /// True if it delivers codes by itself, so that responses carry them.
    pub self_delivery: bool,
    /// Services that its receipts may be for; empty if it gets none.
    pub receipt_audiences: BTreeSet<String>,
    /// True if its receipts may contain the recipient.
    pub may_include_recipient: bool,
    /// Policies of its codes.
    pub policies: PolicySet,
}

impl Caller {
    /// Returns the caller of a development server that does not authenticate callers.
    pub fn development(policies: PolicySet) -> Self {
        Self {
            name: CallerName::new("development"),
            purposes: None,
            destinations: DestinationPolicy::allow_all(),
            may_reset_failures: false,
            self_delivery: false,
            receipt_audiences: BTreeSet::new(),
            may_include_recipient: false,
            policies,
        }
    }

    /// Returns true if its codes may have `purpose`.
    pub fn permits(&self, purpose: &Purpose) -> bool {
        self.purposes
            .as_ref()
            .is_none_or(|purposes| purposes.contains(purpose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caller_displays_as_its_name() {
        let name = CallerName::new("crm");
        assert_eq!(name.as_str(), "crm");
        assert_eq!(name.to_string(), "crm");
    }

    #[test]
    fn caller_is_limited_to_its_purposes() {
        let [login, payment] = ["login", "payment"].map(|name| Purpose::parse(name).unwrap());
        let anything = Caller::development(PolicySet::default());
        assert!(anything.permits(&login));
        let restricted = Caller {
            purposes: Some(BTreeSet::from([login.clone()])),
            ..anything
        };
        assert!(restricted.permits(&login));
        assert!(!restricted.permits(&payment));
    }
}
