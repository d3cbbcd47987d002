//! The back ends that call otpd, and what each may do.

use std::{collections::BTreeSet, fmt};

use super::{DestinationPolicy, PolicySet, Purpose};

/// The name of a back end that calls otpd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerName(String);

impl CallerName {
    /// The caller of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A back end that calls otpd, and what it may do.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub name: CallerName,
    /// What its codes may be for; `None`: anything.
    pub purposes: Option<BTreeSet<Purpose>>,
    /// Where its messages may go.
    pub destinations: DestinationPolicy,
    /// Whether it may have wrong answers forgotten.
    pub may_reset_failures: bool,
    /// Whether it delivers by itself: it is given the codes.
    pub self_delivery: bool,
    /// How its codes behave.
    pub policies: PolicySet,
}

impl Caller {
    /// Whoever calls a development server that tells no callers apart.
    pub fn development(policies: PolicySet) -> Self {
        Self {
            name: CallerName::new("development"),
            purposes: None,
            destinations: DestinationPolicy::everybody(),
            may_reset_failures: false,
            self_delivery: false,
            policies,
        }
    }

    /// Whether its codes may be for `purpose`.
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
    fn a_caller_is_shown_by_its_name() {
        let name = CallerName::new("crm");
        assert_eq!(name.as_str(), "crm");
        assert_eq!(name.to_string(), "crm");
    }

    #[test]
    fn codes_are_for_the_purposes_of_their_caller() {
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
