//! Providers, routes and texts of messages: `[providers.NAME]`, `[[routes]]` and
//! `[texts.PURPOSE]`.

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
use crate::auth::CallerRegistry;
use otpd_base::{
    environment::Environment,
    files,
    tables::{self, ConfigKeyError},
};
use otpd_delivery::{
    Delivery, Provider, ProviderHandle, ResendStrategy, Route, RouteMatcher,
    settings::ProviderSettings, text::MessageTemplates,
};
use otpd_rules::{CallerName, Channel, PolicySet, Purpose, RecipientPattern};

/// Providers for the messages that match all conditions of the route. An unset condition
/// matches every message.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// Channels of the message.
    ///
    /// Default: all.
    #[serde(default, deserialize_with = "names")]
    channels: Vec<Channel>,
    /// Purposes of the code.
    ///
    /// Default: all.
    #[serde(default, deserialize_with = "list")]
    purposes: Vec<Purpose>,
    /// Callers that sent the request.
    ///
    /// Default: all.
    #[serde(default, deserialize_with = "list")]
    callers: Vec<String>,
    /// Recipients of the message: regions such as `RU`, prefixes such as `+7999`, `email`, or
    /// `*`.
    ///
    /// Default: all.
    #[serde(default, deserialize_with = "list")]
    destinations: Vec<RecipientPattern>,
    /// Languages of the request: `ru` matches `ru-RU` too.
    ///
    /// Default: all.
    #[serde(default, deserialize_with = "list")]
    locales: Vec<String>,
    /// Names of the providers, in order of preference.
    #[serde(deserialize_with = "list")]
    providers: Vec<String>,
    /// First provider for the second message of a code: the same one, or the next one, in
    /// case the first message did not arrive.
    #[serde(default, deserialize_with = "name")]
    resend: ResendStrategy,
}

/// Returns the providers, routes and texts. Without any provider and route, development
/// uses the log.
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
            None if all_self_deliver(callers) => Ok(Delivery::none(texts)),
            None => Err(ConfigError::new(
                "providers",
                "required in production; add a table [providers.NAME] and a [[routes]] entry with it, or set self_delivery = true for every caller",
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
            "missing, so that no provider is used; add a [[routes]] entry with providers = [\"NAME\"]",
        ));
    }
    Ok(Delivery {
        gateways: gateways.into_values().collect(),
        routes,
        texts,
    })
}

fn all_self_deliver(callers: &CallerRegistry) -> bool {
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
        // The same rule as for names of purposes, for the same reason.
        Purpose::parse(&name).ok().filter(|_| !name.is_empty()).ok_or_else(|| {
            ConfigError::new(&key, "invalid name of a provider; use a lowercase letter and then up to 31 lowercase letters, digits, \"_\" or \"-\"")
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
            "empty; name at least one provider".to_owned(),
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
                format!("unknown provider {name:?}; configured: {known}"),
            )
        })?;
        if !seen.insert(name) {
            return Err(fault(
                "providers",
                format!("{name:?} is listed twice; remove one"),
            ));
        }
        chosen.push(Arc::clone(gateway));
    }
    let mut of_callers = BTreeSet::new();
    for name in &entry.callers {
        let name = CallerName::new(name);
        if callers.get(&name).is_none() {
            return Err(fault(
                "callers",
                format!(
                    "unknown caller \"{name}\"; add a table [callers.{name}], or correct the name"
                ),
            ));
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
