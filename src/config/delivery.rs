//! `[providers.NAME]`, `[[routes]]` and `[texts.PURPOSE]`: how messages travel, and what
//! they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    ConfigError, TopLevelSettings,
    load::{ConfigTable, list, name, names},
};
use crate::{
    auth::CallerRegistry,
    delivery::{
        Delivery, Provider, ProviderHandle, ResendStrategy, Route, RouteMatcher,
        settings::ProviderSettings, text::MessageTemplates,
    },
    environment::Environment,
    files,
    tables::{self, ConfigKeyError},
};
use otpd_rules::{CallerName, Channel, PolicySet, Purpose, RecipientPattern};

/// A `[[routes]]` entry: some messages, and the providers that they go to. A condition
/// that is left out holds for every message.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// By which channel.
    ///
    /// Default: all.
    #[serde(default, deserialize_with = "names")]
    channels: Vec<Channel>,
    /// What the code is for.
    ///
    /// Default: all.
    #[serde(default, deserialize_with = "list")]
    purposes: Vec<Purpose>,
    /// Who asked.
    ///
    /// Default: all.
    #[serde(default, deserialize_with = "list")]
    callers: Vec<String>,
    /// Who gets it: regions such as `RU`, prefixes such as `+7999`, `email`, or `*`.
    ///
    /// Default: all.
    #[serde(default, deserialize_with = "list")]
    destinations: Vec<RecipientPattern>,
    /// In which language of the request: `ru` is for `ru-RU` too.
    ///
    /// Default: all.
    #[serde(default, deserialize_with = "list")]
    locales: Vec<String>,
    /// Names of providers, the first one first.
    #[serde(deserialize_with = "list")]
    providers: Vec<String>,
    /// Where the second message of a code starts: with the same provider, or with the
    /// next one, in case the first one's did not arrive.
    #[serde(default, deserialize_with = "name")]
    resend: ResendStrategy,
}

/// Everything about delivery; the development log, where nothing is configured in
/// development.
pub fn delivery(
    settings: &TopLevelSettings,
    providers: BTreeMap<String, ConfigTable>,
    callers: &CallerRegistry,
    policies: &PolicySet,
) -> Result<Delivery, ConfigError> {
    let texts = MessageTemplates::new(&settings.default_locale, &settings.texts, policies)
        .map_err(|error| ConfigError::new(&error.key, error.problem))?;
    if providers.is_empty() && settings.routes.is_empty() {
        return match settings.environment.development() {
            Some(development) => Ok(Delivery::development(texts, development)),
            None if all_deliver(callers) => Ok(Delivery::none(texts)),
            None => Err(ConfigError::new(
                "providers",
                "production needs a provider that reaches people; add a table [providers.NAME] and a [[routes]] entry that names it, or set self_delivery = true for every caller",
            )),
        };
    }
    let gateways = gateways(settings, providers)?;
    let entries = settings.routes.iter().enumerate();
    let routes = entries
        .map(|(index, entry)| route(index, entry, &gateways, callers))
        .collect::<Result<Vec<_>, _>>()?;
    if routes.is_empty() {
        return Err(ConfigError::new(
            "routes",
            "no provider is used without one; add a [[routes]] entry with providers = [\"NAME\"]",
        ));
    }
    Ok(Delivery {
        gateways: gateways.into_values().collect(),
        routes,
        texts,
    })
}

fn all_deliver(callers: &CallerRegistry) -> bool {
    match callers {
        CallerRegistry::Unauthenticated(caller) => caller.self_delivery,
        CallerRegistry::Configured(known) => known
            .iter()
            .all(|credentials| credentials.caller.self_delivery),
    }
}

fn gateways(
    settings: &TopLevelSettings,
    providers: BTreeMap<String, ConfigTable>,
) -> Result<BTreeMap<String, Arc<ProviderHandle>>, ConfigError> {
    let mut gateways = BTreeMap::new();
    for (name, table) in providers {
        let key = format!("providers.{name}");
        // The same names as for purposes do, and for the same reason.
        Purpose::parse(&name).ok().filter(|_| !name.is_empty()).ok_or_else(|| {
            ConfigError::new(&key, "a provider's name is a small letter and then up to 31 small letters, digits, \"_\" or \"-\"")
        })?;
        let written = tables::digest(&table);
        let (made, files) = files::track_reads(|| gateway(&name, table, settings.environment));
        let origin = Sha256::digest([written, files.digest()].concat()).into();
        gateways.insert(name, Arc::new(made?.with_config_digest(origin)));
    }
    Ok(gateways)
}

fn gateway(
    name: &str,
    table: ConfigTable,
    environment: Environment,
) -> Result<ProviderHandle, ConfigError> {
    let fault = |error: ConfigKeyError| ConfigError::new(&error.key, error.problem);
    let provider = ProviderSettings::parse(name, table).map_err(fault)?;
    let options = provider.common.options();
    let provider = Provider::new(name, provider, environment).map_err(fault)?;
    Ok(ProviderHandle::new(name, provider, options))
}

fn route(
    index: usize,
    entry: &RouteTable,
    gateways: &BTreeMap<String, Arc<ProviderHandle>>,
    callers: &CallerRegistry,
) -> Result<Route, ConfigError> {
    let fault =
        |key: &str, problem: String| ConfigError::new(&format!("routes[{index}].{key}"), problem);
    if entry.providers.is_empty() {
        return Err(fault(
            "providers",
            "names none; give at least one".to_owned(),
        ));
    }
    let mut chosen = Vec::new();
    let mut seen = BTreeSet::new();
    for name in &entry.providers {
        let gateway = gateways.get(name).ok_or_else(|| {
            let known: Vec<&str> = gateways.keys().map(String::as_str).collect();
            let known = known.join(", ");
            fault(
                "providers",
                format!("there is no {name:?}; there are: {known}"),
            )
        })?;
        if !seen.insert(name) {
            return Err(fault("providers", format!("{name:?} is there twice")));
        }
        chosen.push(Arc::clone(gateway));
    }
    let mut of_callers = BTreeSet::new();
    for name in &entry.callers {
        let name = CallerName::new(name);
        if callers.get(&name).is_none() {
            return Err(fault("callers", format!("there is no caller \"{name}\"")));
        }
        of_callers.insert(name);
    }
    Ok(Route {
        conditions: RouteMatcher {
            channels: entry.channels.clone(),
            purposes: entry.purposes.iter().cloned().collect(),
            callers: of_callers,
            destinations: entry.destinations.clone(),
            locales: entry
                .locales
                .iter()
                .map(|tag| tag.to_ascii_lowercase())
                .collect(),
        },
        gateways: chosen,
        resend: entry.resend,
    })
}
