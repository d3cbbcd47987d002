//! `[callers.NAME]` and `[[test_recipients]]`: who may call, and what for.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

use serde::Deserialize;

use super::{
    ConfigError, TopLevelSettings,
    load::{self, ConfigTable, ConfigTables, list},
};
use crate::{
    auth::{CallerCredentials, CallerRegistry, CertificateName},
    environment::Environment,
};
use otpd_rules::{
    Caller, CallerName, DestinationPolicy, OtpCode, PolicySet, Purpose, PurposePolicy, Recipient,
    RecipientPattern, TestRecipient, Timestamp,
};

/// A back end that may call. Without any, a development server takes everybody's calls;
/// with one, every call needs a proof.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CallerTable {
    /// SHA-256 of its bearer tokens, in hexadecimal: `printf %s TOKEN | sha256sum`.
    /// Several, so that tokens can be exchanged.
    #[serde(deserialize_with = "list")]
    token_sha256: Vec<TokenDigest>,
    /// Subject alternative names of its client certificates; needs `tls.client_ca`. A text
    /// with a colon, such as `spiffe://example/crm`, matches URIs alone, any other DNS names
    /// alone.
    #[serde(deserialize_with = "list")]
    certificate_names: Vec<CertificateName>,
    /// What its codes may be for.
    ///
    /// Default: everything; production needs them named.
    #[serde(deserialize_with = "list")]
    purposes: Vec<Purpose>,
    /// Where it may send to: regions such as `RU`, prefixes such as `+7999`, `email`, or
    /// `*`.
    ///
    /// Default: everywhere; production needs them named.
    #[serde(deserialize_with = "list")]
    destinations: Vec<RecipientPattern>,
    /// Where it may not, whatever is allowed.
    #[serde(deserialize_with = "list")]
    blocked_destinations: Vec<RecipientPattern>,
    /// Whether it may have wrong answers forgotten, by CancelOtp.
    may_reset_failures: bool,
    /// Whether it delivers by itself: SendOtp returns the code.
    self_delivery: bool,
}

/// SHA-256 of a bearer token, in hexadecimal digits.
#[derive(Debug)]
struct TokenDigest([u8; 32]);

impl TryFrom<String> for TokenDigest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const PROBLEM: &str = "not the SHA-256 of a token in 64 hexadecimal digits; make it by `printf %s TOKEN | sha256sum`";
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(PROBLEM);
        }
        for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| PROBLEM)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| PROBLEM)?;
        }
        Ok(Self(digest))
    }
}

/// A recipient with a fixed code, for reviews of apps in stores and for the tests of
/// callers. Nothing is sent, and no limit on sends counts; attempts, waits and the lock
/// do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestRecipientTable {
    /// Whose test recipient it is; left out where there are no callers.
    caller: Option<String>,
    /// A phone number or an e-mail address.
    recipient: String,
    /// What its codes are for.
    ///
    /// Default: `default`.
    #[serde(default)]
    purpose: Purpose,
    /// The code, 4 to 10 digits.
    code: String,
    /// Until when: a date such as `2027-01-31`, or an instant such as
    /// `2027-01-31T12:00:00Z`.
    expires: String,
}

/// All callers; anyone, where none is configured in development.
pub fn callers(
    settings: &TopLevelSettings,
    tables: &ConfigTables,
    general: &PolicySet,
) -> Result<CallerRegistry, ConfigError> {
    let ConfigTables {
        policy,
        purposes,
        callers,
        ..
    } = tables;
    if callers.is_empty() {
        let development = settings.environment.development().ok_or_else(|| {
            ConfigError::new(
                "callers",
                "production needs callers; add a table [callers.NAME] for each, with token_sha256 or certificate_names",
            )
        })?;
        return Ok(CallerRegistry::anyone(general.clone(), development));
    }
    let mut known = Vec::new();
    for (name, mut table) in callers.clone() {
        let key = format!("callers.{name}");
        // The same names as for purposes do, and for the same reason.
        Purpose::parse(&name).ok().filter(|_| !name.is_empty()).ok_or_else(|| {
            ConfigError::new(&key, "a caller's name is a small letter and then up to 31 small letters, digits, \"_\" or \"-\"")
        })?;
        let own_policy = table.remove("policy");
        let own_policy = own_policy
            .map(|own| load::table(&format!("{key}.policy"), own))
            .transpose()?;
        let own_policy = own_policy.map(|own| (format!("{key}.policy"), own));
        let policies = policies(policy, purposes, own_policy)?;
        let table: CallerTable = load::deserialize(&key, table)?;
        known.push(credentials(settings, &name, table, policies)?);
    }
    ensure_unique(&known, "token_sha256", |caller| &caller.tokens)?;
    ensure_unique(&known, "certificate_names", |caller| {
        &caller.certificate_names
    })?;
    Ok(CallerRegistry::Configured(known))
}

/// Refuses a proof that two callers have: one of them could never prove who it is.
fn ensure_unique<Proof: Eq + Hash>(
    known: &[CallerCredentials],
    key: &str,
    proofs: impl Fn(&CallerCredentials) -> &[Proof],
) -> Result<(), ConfigError> {
    let mut owners = HashMap::new();
    for credentials in known {
        let name = credentials.caller.name.as_str();
        for proof in proofs(credentials) {
            let owner = *owners.entry(proof).or_insert(name);
            if owner != name {
                return Err(ConfigError::new(
                    &format!("callers.{name}.{key}"),
                    format!("one is that of {owner:?} too; give each caller its own"),
                ));
            }
        }
    }
    Ok(())
}

/// What proves a caller, and what it may do.
fn credentials(
    settings: &TopLevelSettings,
    name: &str,
    table: CallerTable,
    policies: PolicySet,
) -> Result<CallerCredentials, ConfigError> {
    let fault =
        |key: &str, problem: &str| Err(ConfigError::new(&format!("callers.{name}.{key}"), problem));
    if table.token_sha256.is_empty() && table.certificate_names.is_empty() {
        return fault(
            "token_sha256",
            "is missing, and certificate_names too; nobody could prove to be this caller",
        );
    }
    let tls = settings.tls.as_ref();
    if !table.certificate_names.is_empty() && tls.and_then(|tls| tls.client_ca.as_ref()).is_none() {
        return fault(
            "certificate_names",
            "needs tls.client_ca, the authority that the certificates are of",
        );
    }
    let in_the_clear = tls.is_none() && !settings.listen.ip().is_loopback();
    if !table.token_sha256.is_empty() && in_the_clear && !settings.allow_plaintext_tokens {
        return fault(
            "token_sha256",
            "tokens would cross the network in the clear; add a [tls] table, or set allow_plaintext_tokens = true where a mesh does the TLS",
        );
    }
    let production = settings.environment == Environment::Production;
    if production && table.purposes.is_empty() {
        return fault(
            "purposes",
            "is missing; in production a caller has only the purposes that are named",
        );
    }
    if production && table.destinations.is_empty() {
        return fault(
            "destinations",
            "is missing; name regions such as RU, prefixes such as +7999, email, or * for everywhere",
        );
    }
    let allowed = if table.destinations.is_empty() {
        vec![RecipientPattern::Everybody]
    } else {
        table.destinations
    };
    let purposes = (!table.purposes.is_empty()).then(|| table.purposes.into_iter().collect());
    Ok(CallerCredentials {
        caller: Arc::new(Caller {
            name: CallerName::new(name),
            purposes,
            destinations: DestinationPolicy {
                allowed,
                blocked: table.blocked_destinations,
            },
            may_reset_failures: table.may_reset_failures,
            self_delivery: table.self_delivery,
            policies,
        }),
        tokens: table
            .token_sha256
            .into_iter()
            .map(|digest| digest.0)
            .collect(),
        certificate_names: table.certificate_names,
    })
}

/// `[policy]`, on top of it each `[purposes.NAME]`, and on top of both the own one of a
/// caller.
pub fn policies(
    general: &ConfigTable,
    purposes: &BTreeMap<String, ConfigTable>,
    own: Option<(String, ConfigTable)>,
) -> Result<PolicySet, ConfigError> {
    let (own_name, own) = own.unzip();
    let own = own.unwrap_or_default();
    let laid_over = |base: &ConfigTable, top: &ConfigTable| -> ConfigTable {
        base.iter()
            .chain(top)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let name = own_name.as_deref();
    let mut policies = PolicySet {
        general: policy(name.unwrap_or("policy"), laid_over(general, &own))?,
        purposes: BTreeMap::new(),
    };
    for (purpose, keys) in purposes {
        let table = format!("purposes.{purpose}");
        let parsed = Purpose::parse(purpose).map_err(|error| ConfigError::new(&table, error))?;
        let keys = laid_over(&laid_over(general, keys), &own);
        policies
            .purposes
            .insert(parsed, policy(name.unwrap_or(&table), keys)?);
    }
    Ok(policies)
}

fn policy(table: &str, keys: ConfigTable) -> Result<PurposePolicy, ConfigError> {
    let policy: PurposePolicy = load::deserialize(table, keys)?;
    policy
        .validate()
        .map_err(|error| ConfigError::new(&format!("{table}.{}", error.key), error.problem))?;
    Ok(policy)
}

/// The test recipients, each bound to a caller and a purpose.
pub fn test_recipients(
    settings: &TopLevelSettings,
    callers: &CallerRegistry,
) -> Result<Vec<TestRecipient>, ConfigError> {
    let refused = settings.environment == Environment::Production
        && !settings.allow_test_recipients
        && !settings.test_recipients.is_empty();
    if refused {
        return Err(ConfigError::new(
            "test_recipients",
            "their codes are known beforehand; remove them, or set allow_test_recipients = true",
        ));
    }
    let entries = settings.test_recipients.iter().enumerate();
    entries
        .map(|(index, entry)| test_recipient(index, entry, settings, callers))
        .collect()
}

fn test_recipient(
    index: usize,
    entry: &TestRecipientTable,
    settings: &TopLevelSettings,
    callers: &CallerRegistry,
) -> Result<TestRecipient, ConfigError> {
    let fault = |key: &str, problem: &dyn ToString| {
        ConfigError::new(
            &format!("test_recipients[{index}].{key}"),
            problem.to_string(),
        )
    };
    let caller = match (callers, &entry.caller) {
        (CallerRegistry::Unauthenticated(caller), None) => caller,
        (CallerRegistry::Unauthenticated(_), Some(_)) => {
            return Err(fault("caller", &"there are no callers; leave it out"));
        }
        (CallerRegistry::Configured(known), name) => known
            .iter()
            .map(|credentials| &credentials.caller)
            .find(|caller| Some(caller.name.as_str()) == name.as_deref())
            .ok_or_else(|| fault("caller", &"must be the name of one of the callers"))?,
    };
    if !caller.permits(&entry.purpose) {
        return Err(fault("purpose", &"is not one of the caller's"));
    }
    let recipient = Recipient::parse(&entry.recipient, settings.default_region)
        .map_err(|error| fault("recipient", &error))?;
    let code = OtpCode::from_digits(&entry.code)
        .ok_or_else(|| fault("code", &"must be 4 to 10 digits"))?;
    let expires = humantime::parse_rfc3339_weak(&format!("{}T00:00:00Z", entry.expires))
        .or_else(|_| humantime::parse_rfc3339_weak(&entry.expires))
        .map_err(|_| fault("expires", &"must be a date such as \"2027-01-31\", or an instant such as \"2027-01-31T12:00:00Z\""))?;
    let expires = expires
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Ok(TestRecipient {
        caller: caller.name.clone(),
        recipient,
        purpose: entry.purpose.clone(),
        code,
        expires_at: Timestamp::from_milliseconds(0).saturating_add(expires),
    })
}
