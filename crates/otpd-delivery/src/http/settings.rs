//! Settings of an `http` provider, checked, with all templates parsed.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::{
    condition::{Predicate, ReplyCondition, StatusRange},
    request::{RequestTable, RequestTemplate},
    table::{CheckTable, ConditionTable, ConfigScalar, ErrorTable, HttpTable, ScalarList},
    template::{TemplateScope, ValueTemplate},
};
use otpd_base::{files, tables::ConfigKeyError};
use otpd_rules::DeliveryErrorKind;

/// Checked settings of an `http` provider.
pub struct HttpSettings {
    /// Request that hands a message over.
    pub send: RequestTemplate,
    pub(super) id_pointer: Option<ValueTemplate>,
    pub(super) error_pointers: Vec<ValueTemplate>,
    pub(super) errors: Vec<ErrorRule>,
    pub(super) shortest_life: Duration,
    pub(super) longest_life: Duration,
    pub(super) secrets: Vec<SecretString>,
    pub(super) ca: Option<PathBuf>,
    pub(super) allow_private_addresses: bool,
    pub(super) check: Option<RequestTemplate>,
    /// Time to wait for a connection before the next host is tried.
    pub(super) connect_timeout: Duration,
}

/// Rule that gives an unsuccessful response its kind of failure.
#[derive(Debug)]
pub(super) struct ErrorRule {
    pub class: DeliveryErrorKind,
    pub statuses: Vec<StatusRange>,
    pub condition: Option<ReplyCondition>,
}

/// Shows no secrets.
impl fmt::Debug for HttpSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpSettings")
            .field("host", &self.send.host())
            .finish_non_exhaustive()
    }
}

impl HttpSettings {
    /// Checks the keys of a table, and reads the files that they name. One attempt may
    /// take `timeout`.
    ///
    /// # Errors
    /// [`ConfigKeyError`] with the first wrong key.
    pub fn new(table: HttpTable, timeout: Duration) -> Result<Self, ConfigKeyError> {
        let names = TemplateScope {
            secrets: secrets(table.secrets)?,
            parameters: plain(table.parameters),
        };
        let plaintext = table.allow_plaintext;
        let second = table.fallback_urls.unwrap_or_default().0;
        let hosts = u32::try_from(second.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let send = RequestTable {
            method: table.method,
            url: table.url,
            fallback_urls: second,
            query: plain(table.query),
            headers: plain(table.headers),
            basic: table.basic.map(|basic| (basic.user, basic.password)),
            form: table.form.map(plain),
            json: table.json,
            success: statuses("success_status", table.success_status)?
                .unwrap_or(vec![StatusRange::SUCCESS]),
            conditions: conditions(table.conditions, &names)?,
        };
        let send = RequestTemplate::new(send, &names, plaintext, table.allow_private_addresses)?;
        let check = table
            .check
            .map(|check| check_request(check, &names, plaintext, table.allow_private_addresses))
            .transpose()
            .map_err(|fault| fault.inside("check"))?;
        let pointer = |key: &str, text: String| {
            pointer(&text, &names).map_err(|problem| ConfigKeyError::new(key, problem))
        };
        let error_pointers = table.error_pointer.unwrap_or_default().0.into_iter();
        let shortest_life = Duration::from_secs(table.ttl_seconds_min.unwrap_or(0));
        let longest_life = table
            .ttl_seconds_max
            .map_or(Duration::MAX, Duration::from_secs);
        if shortest_life > longest_life {
            return Err(ConfigKeyError::new(
                "ttl_seconds_min",
                "is greater than ttl_seconds_max",
            ));
        }
        Ok(Self {
            send,
            id_pointer: table
                .id_pointer
                .map(|text| pointer("id_pointer", text))
                .transpose()?,
            error_pointers: error_pointers
                .map(|text| pointer("error_pointer", text))
                .collect::<Result<_, _>>()?,
            errors: error_rules(table.errors, &names)?,
            shortest_life,
            longest_life,
            secrets: names.secrets.into_values().collect(),
            ca: table.ca,
            allow_private_addresses: table.allow_private_addresses,
            check,
            // So that the last host still has time to respond.
            connect_timeout: timeout / hosts.saturating_add(1),
        })
    }
}

/// Returns the secrets, those from files among them.
fn secrets(
    given: BTreeMap<String, SecretString>,
) -> Result<BTreeMap<String, SecretString>, ConfigKeyError> {
    let mut secrets = BTreeMap::new();
    for (key, value) in given {
        let at = format!("secrets.{key}");
        let (name, secret) = match key.strip_suffix("_file") {
            None => (key.clone(), value),
            Some(name) => (name.to_owned(), read_secret(&at, value.expose_secret())?),
        };
        if secret.expose_secret().is_empty() {
            return Err(ConfigKeyError::new(at, "is empty"));
        }
        if secrets.insert(name.clone(), secret).is_some() {
            let both = format!("secrets.{name} is set as well; leave one out");
            return Err(ConfigKeyError::new(at, both));
        }
    }
    Ok(secrets)
}

/// Reads a text file, without the line end that editors add.
pub(crate) fn read_secret(key: &str, path: &str) -> Result<SecretString, ConfigKeyError> {
    let text = files::read_text(Path::new(path))
        .map_err(|error| ConfigKeyError::new(key, format!("cannot read {path}: {error}")))?;
    let text = Zeroizing::new(text);
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
}

fn plain(table: BTreeMap<String, ConfigScalar>) -> BTreeMap<String, String> {
    let pairs = table.into_iter();
    pairs
        .map(|(key, ConfigScalar(value))| (key, value))
        .collect()
}

fn check_request(
    table: CheckTable,
    names: &TemplateScope,
    plaintext: bool,
    private: bool,
) -> Result<RequestTemplate, ConfigKeyError> {
    let request = RequestTable {
        method: Some(table.method.unwrap_or("GET".to_owned())),
        url: table.url,
        fallback_urls: Vec::new(),
        query: plain(table.query),
        headers: plain(table.headers),
        basic: table.basic.map(|basic| (basic.user, basic.password)),
        form: table.form.map(plain),
        json: table.json,
        success: statuses("success_status", table.success_status)?
            .unwrap_or(vec![StatusRange::SUCCESS]),
        conditions: conditions(table.conditions, names)?,
    };
    let request = RequestTemplate::new(request, names, plaintext, private)?;
    if !request.is_fixed() {
        return Err(ConfigKeyError::new(
            "url",
            "belongs to a check, which has no message; use only secrets and parameters in it, no variables of messages",
        ));
    }
    Ok(request)
}

fn statuses(
    key: &str,
    given: Option<ScalarList>,
) -> Result<Option<Vec<StatusRange>>, ConfigKeyError> {
    let Some(ScalarList(texts)) = given else {
        return Ok(None);
    };
    let each = texts.into_iter().map(|text| {
        StatusRange::try_from(text.clone())
            .map_err(|problem| ConfigKeyError::new(key, format!("{text:?} is {problem}")))
    });
    each.collect::<Result<_, _>>().map(Some)
}

fn pointer(text: &str, names: &TemplateScope) -> Result<ValueTemplate, String> {
    let template = ValueTemplate::parse(text, names)?;
    if !template.beginning().starts_with('/') {
        return Err("not a JSON pointer (RFC 6901); write e.g. /result/id".to_owned());
    }
    Ok(template)
}

fn conditions(
    tables: Vec<ConditionTable>,
    names: &TemplateScope,
) -> Result<Vec<ReplyCondition>, ConfigKeyError> {
    let each = tables.into_iter().enumerate().map(|(index, table)| {
        let at = format!("conditions[{index}]");
        let test = Conditions {
            equals: table.equals,
            one_of: table.one_of,
            not_one_of: table.not_one_of,
            present: table.present,
            absent: table.absent,
            greater_than: table.greater_than,
        };
        Ok(ReplyCondition {
            pointer: pointer(&table.pointer, names)
                .map_err(|problem| ConfigKeyError::new(format!("{at}.pointer"), problem))?,
            test: test
                .only()
                .map_err(|problem| ConfigKeyError::new(at, problem))?,
        })
    });
    each.collect()
}

fn error_rules(
    tables: Vec<ErrorTable>,
    names: &TemplateScope,
) -> Result<Vec<ErrorRule>, ConfigKeyError> {
    let each = tables.into_iter().enumerate().map(|(index, table)| {
        let at = format!("errors[{index}]");
        error_rule(table, names).map_err(|fault| fault.inside(&at))
    });
    each.collect()
}

fn error_rule(table: ErrorTable, names: &TemplateScope) -> Result<ErrorRule, ConfigKeyError> {
    let classes = [
        DeliveryErrorKind::UnknownOutcome,
        DeliveryErrorKind::Transient,
        DeliveryErrorKind::Permanent,
        DeliveryErrorKind::BadDestination,
        DeliveryErrorKind::NoBalance,
    ];
    let class = classes
        .into_iter()
        .find(|class| class.name() == table.class);
    let class = class.ok_or_else(|| {
        let known = classes.map(DeliveryErrorKind::name).join(", ");
        ConfigKeyError::new(
            "class",
            format!("unknown class of errors; use one of: {known}"),
        )
    })?;
    let tests = Conditions {
        equals: table.equals,
        one_of: table.one_of,
        not_one_of: table.not_one_of,
        present: table.present,
        absent: table.absent,
        greater_than: table.greater_than,
    };
    let condition = match table.pointer {
        None => {
            if tests.names().next().is_some() {
                return Err(ConfigKeyError::new(
                    "pointer",
                    "is missing; give the place of the value to compare",
                ));
            }
            None
        }
        Some(text) => Some(ReplyCondition {
            pointer: pointer(&text, names)
                .map_err(|problem| ConfigKeyError::new("pointer", problem))?,
            test: tests
                .only()
                .map_err(|problem| ConfigKeyError::new("pointer", problem))?,
        }),
    };
    let statuses = statuses("status", table.status)?;
    if statuses.is_none() && condition.is_none() {
        return Err(ConfigKeyError::new(
            "status",
            "is missing, and pointer too; give one of them to select the responses of this class",
        ));
    }
    Ok(ErrorRule {
        class,
        statuses: statuses.unwrap_or_default(),
        condition,
    })
}

/// Keys of a condition; exactly one of them must be given.
struct Conditions {
    equals: Option<ConfigScalar>,
    one_of: Option<ScalarList>,
    not_one_of: Option<ScalarList>,
    present: Option<bool>,
    absent: Option<bool>,
    greater_than: Option<f64>,
}

impl Conditions {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            ("equals", self.equals.is_some()),
            ("one_of", self.one_of.is_some()),
            ("not_one_of", self.not_one_of.is_some()),
            ("present", self.present.is_some()),
            ("absent", self.absent.is_some()),
            ("greater_than", self.greater_than.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
    }

    fn only(self) -> Result<Predicate, String> {
        if self.names().count() != 1 {
            return Err(
                "needs one of equals, one_of, not_one_of, present, absent or greater_than"
                    .to_owned(),
            );
        }
        let presence = match (self.present, self.absent) {
            (Some(true), _) | (_, Some(false)) => Some(Predicate::Present),
            (Some(false), _) | (_, Some(true)) => Some(Predicate::Absent),
            (None, None) => None,
        };
        let test = self
            .equals
            .map(|ConfigScalar(value)| Predicate::Equals(value))
            .or(self
                .one_of
                .map(|ScalarList(values)| Predicate::OneOf(values)))
            .or(self
                .not_one_of
                .map(|ScalarList(values)| Predicate::NotOneOf(values)))
            .or(presence)
            .or(self.greater_than.map(Predicate::GreaterThan));
        Ok(test.expect("exactly one key was counted"))
    }
}
