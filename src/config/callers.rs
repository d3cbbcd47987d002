//! Callers with their credentials and permissions: `[callers.NAME]` and
//! `[[test_recipients]]`.

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
use crate::auth::{CallerCredentials, CallerRegistry, CertificateName};
use otpd_base::environment::Environment;
use otpd_rules::{
    Caller, CallerName, DestinationPolicy, OtpCode, PolicySet, Purpose, PurposePolicy, Recipient,
    RecipientPattern, TestRecipient, Timestamp,
};

/// Maximum length of an audience, as in requests.
const MAX_AUDIENCE_BYTES: usize = 256;

/// A back end that may call otpd. Without any caller, a development server accepts all
/// calls; with at least one, every call needs credentials.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CallerTable {
    /// SHA-256 digests of the bearer tokens, in hexadecimal: `printf %s TOKEN | sha256sum`.
    /// Several are allowed, so that tokens can be rotated.
    #[serde(deserialize_with = "list")]
    token_sha256: Vec<TokenDigest>,
    /// Subject alternative names of the client certificates; needs `tls.client_ca`. A value
    /// with a colon, such as `spiffe://example/crm`, matches only URIs, any other only DNS
    /// names.
    #[serde(deserialize_with = "list")]
    certificate_names: Vec<CertificateName>,
    /// Purposes that the caller may use.
    ///
    /// Default: all; required in production.
    #[serde(deserialize_with = "list")]
    purposes: Vec<Purpose>,
    /// Allowed recipients: regions such as `RU`, prefixes such as `+7999`, `email`, or
    /// `*`.
    ///
    /// Default: all; required in production.
    #[serde(deserialize_with = "list")]
    destinations: Vec<RecipientPattern>,
    /// Blocked recipients, which take precedence over `destinations`.
    #[serde(deserialize_with = "list")]
    blocked_destinations: Vec<RecipientPattern>,
    /// Allows CancelOtp with `reset_failures`, which resets failed attempts and lockouts.
    may_reset_failures: bool,
    /// Returns the code in the response to SendOtp, and sends no message: the caller
    /// delivers it.
    self_delivery: bool,
    /// Services that the caller may have receipts for, such as `https://shop.example`; needs
    /// `[receipts]`.
    ///
    /// Default: none; then there are no receipts for this caller.
    #[serde(deserialize_with = "list")]
    receipt_audiences: Vec<String>,
    /// Allows receipts that state the phone number or e-mail address itself.
    may_include_recipient: bool,
}

/// SHA-256 of a bearer token, in hexadecimal digits.
#[derive(Debug)]
struct TokenDigest([u8; 32]);

impl TryFrom<String> for TokenDigest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const PROBLEM: &str = "not a SHA-256 digest of 64 hexadecimal digits; create one with `printf %s TOKEN | sha256sum`";
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

/// A recipient with a fixed code, for app store reviews and for tests of callers. No
/// message is sent, and no rate limit on sends applies. Attempts, delays and lockouts
/// apply.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestRecipientTable {
    /// Caller of the test recipient. Unset if there are no callers.
    caller: Option<String>,
    /// Phone number or e-mail address.
    recipient: String,
    /// Purpose of the codes.
    ///
    /// Default: `default`.
    #[serde(default)]
    purpose: Purpose,
    /// Code of 4 to 10 digits.
    code: String,
    /// End of validity: a date such as `2027-01-31`, or an instant such as
    /// `2027-01-31T12:00:00Z`.
    expires: String,
}

/// Returns all callers. Without any in development, every client is accepted.
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
                "required in production; add a table [callers.NAME] with token_sha256 or certificate_names for each caller",
            )
        })?;
        return Ok(CallerRegistry::anyone(general.clone(), development));
    }
    let mut known = Vec::new();
    for (name, mut table) in callers.clone() {
        let key = format!("callers.{name}");
        // The same rule as for names of purposes, for the same reason.
        Purpose::parse(&name).ok().filter(|_| !name.is_empty()).ok_or_else(|| {
            ConfigError::new(&key, "invalid name of a caller; use a lowercase letter and then up to 31 lowercase letters, digits, \"_\" or \"-\"")
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

/// Rejects a credential that two callers share, because it does not identify either.
fn ensure_unique<Credential: Eq + Hash>(
    known: &[CallerCredentials],
    key: &str,
    values: impl Fn(&CallerCredentials) -> &[Credential],
) -> Result<(), ConfigError> {
    let mut owners = HashMap::new();
    for credentials in known {
        let name = credentials.caller.name.as_str();
        for value in values(credentials) {
            let owner = *owners.entry(value).or_insert(name);
            if owner != name {
                return Err(ConfigError::new(
                    &format!("callers.{name}.{key}"),
                    format!(
                        "contains a value that caller {owner:?} has too; use different ones for each caller"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Returns the credentials and permissions of a caller.
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
            "missing, and certificate_names too; set at least one of them, so that the caller can authenticate",
        );
    }
    let tls = settings.tls.as_ref();
    if !table.certificate_names.is_empty() && tls.and_then(|tls| tls.client_ca.as_ref()).is_none() {
        return fault(
            "certificate_names",
            "needs tls.client_ca, the authority that issues the certificates",
        );
    }
    let is_plaintext = tls.is_none() && !settings.listen.ip().is_loopback();
    if !table.token_sha256.is_empty() && is_plaintext && !settings.allow_plaintext_tokens {
        return fault(
            "token_sha256",
            "tokens would cross the network unencrypted; add a [tls] table, or set allow_plaintext_tokens = true if a service mesh provides TLS",
        );
    }
    let production = settings.environment == Environment::Production;
    if production && table.purposes.is_empty() {
        return fault(
            "purposes",
            "required in production; list the purposes that the caller may use",
        );
    }
    if production && table.destinations.is_empty() {
        return fault(
            "destinations",
            "required in production; list regions such as RU, prefixes such as +7999, email, or * for all recipients",
        );
    }
    if let Err((key, problem)) = check_receipts(settings, &table) {
        return fault(key, problem);
    }
    let allowed = if table.destinations.is_empty() {
        vec![RecipientPattern::All]
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
            receipt_audiences: table.receipt_audiences.into_iter().collect(),
            may_include_recipient: table.may_include_recipient,
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

/// Checks the receipts of a caller. An error is a key and its problem.
fn check_receipts(
    settings: &TopLevelSettings,
    table: &CallerTable,
) -> Result<(), (&'static str, &'static str)> {
    const AUDIENCES: &str = "receipt_audiences";
    let audiences = &table.receipt_audiences;
    let is_audience = |text: &String| {
        (1..=MAX_AUDIENCE_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if table.may_include_recipient && audiences.is_empty() {
        let problem = "has no effect without receipt_audiences; set both, or remove it";
        return Err(("may_include_recipient", problem));
    }
    if audiences.is_empty() {
        return Ok(());
    }
    if table.self_delivery {
        let problem = "not allowed with self_delivery: the caller knows the codes, so it could make receipts for any recipient; remove one of them";
        return Err((AUDIENCES, problem));
    }
    if settings.receipts.is_none() {
        let problem = "needs the table [receipts] with issuer, which takes effect at a restart";
        return Err((AUDIENCES, problem));
    }
    if !audiences.iter().all(is_audience) {
        let problem =
            "an audience must be 1 to 256 visible ASCII characters, such as https://shop.example";
        return Err((AUDIENCES, problem));
    }
    Ok(())
}

/// Returns the policies of each purpose. `[purposes.NAME]` overrides `[policy]`, and the
/// policy of a caller overrides both.
pub fn policies(
    general: &ConfigTable,
    purposes: &BTreeMap<String, ConfigTable>,
    own: Option<(String, ConfigTable)>,
) -> Result<PolicySet, ConfigError> {
    let (own_name, own) = own.unzip();
    let own = own.unwrap_or_default();
    let merge = |base: &ConfigTable, top: &ConfigTable| -> ConfigTable {
        base.iter()
            .chain(top)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let name = own_name.as_deref();
    let mut policies = PolicySet {
        general: policy(name.unwrap_or("policy"), merge(general, &own))?,
        purposes: BTreeMap::new(),
    };
    for (purpose, keys) in purposes {
        let table = format!("purposes.{purpose}");
        let parsed = Purpose::parse(purpose).map_err(|error| ConfigError::new(&table, error))?;
        let keys = merge(&merge(general, keys), &own);
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

/// Returns the test recipients, each bound to a caller and a purpose.
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
            "not allowed in production, because their codes are fixed; remove them, or set allow_test_recipients = true",
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
            return Err(fault(
                "caller",
                &"no callers are configured; remove the key",
            ));
        }
        (CallerRegistry::Configured(known), name) => known
            .iter()
            .map(|credentials| &credentials.caller)
            .find(|caller| Some(caller.name.as_str()) == name.as_deref())
            .ok_or_else(|| fault("caller", &"must be the name of a configured caller"))?,
    };
    if !caller.permits(&entry.purpose) {
        return Err(fault(
            "purpose",
            &"not a purpose of the caller; add it to the caller's purposes, or use another one",
        ));
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
