//! Presets: descriptions of known gateways, as data. The keys of a provider's own table
//! override them.

use std::collections::BTreeSet;

use config::{File, FileFormat, Value, ValueKind};
use serde::Deserialize;

use super::http::HttpTable;
use otpd_base::tables::{ConfigKeyError, ConfigTable};

/// Presets by name.
pub const PRESETS: [(&str, &str); 7] = [
    (
        "messagebird",
        include_str!("../../../presets/messagebird.toml"),
    ),
    ("sms_aero", include_str!("../../../presets/sms_aero.toml")),
    ("sms_ru", include_str!("../../../presets/sms_ru.toml")),
    ("smsc_ru", include_str!("../../../presets/smsc_ru.toml")),
    (
        "telegram_gateway",
        include_str!("../../../presets/telegram_gateway.toml"),
    ),
    ("twilio", include_str!("../../../presets/twilio.toml")),
    ("vonage", include_str!("../../../presets/vonage.toml")),
];

/// Returns the names of all presets.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// Keys that a preset cannot contain, so that a provider's own table must give them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresetRequirements {
    #[serde(skip)]
    preset: String,
    secrets: BTreeSet<String>,
    parameters: BTreeSet<String>,
}

impl PresetRequirements {
    /// Checks that `table` has all keys that the preset needs.
    ///
    /// # Errors
    /// [`ConfigKeyError`] for the first key that is missing.
    pub fn check(&self, table: &HttpTable) -> Result<(), ConfigKeyError> {
        let missing = |key: String| {
            let problem = format!("is missing; preset {} needs it", self.preset);
            Err(ConfigKeyError::new(key, problem))
        };
        for name in &self.secrets {
            if !table.secrets.contains_key(name)
                && !table.secrets.contains_key(&format!("{name}_file"))
            {
                return missing(format!("secrets.{name}"));
            }
        }
        for name in &self.parameters {
            if table
                .parameters
                .get(name)
                .is_none_or(|value| value.0.is_empty())
            {
                return missing(format!("parameters.{name}"));
            }
        }
        Ok(())
    }
}

/// Merges a provider's table into the preset that it names, if it names one.
///
/// # Errors
/// [`ConfigKeyError`] if there is no such preset.
pub fn apply_preset(
    mut table: ConfigTable,
) -> Result<(ConfigTable, PresetRequirements), ConfigKeyError> {
    let Some(name) = table.remove("preset") else {
        return Ok((table, PresetRequirements::default()));
    };
    let name = name.into_string().unwrap_or_default();
    let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
        let known = PRESETS.map(|(name, _)| name).join(", ");
        return Err(ConfigKeyError::new(
            "preset",
            format!("unknown preset; use one of: {known}"),
        ));
    };
    if table
        .get("kind")
        .is_some_and(|kind| kind.clone().into_string().ok().as_deref() != Some("http"))
    {
        return Err(ConfigKeyError::new(
            "kind",
            "must be \"http\", or left out, beside a preset",
        ));
    }
    let built = config::Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build();
    let mut merged: ConfigTable = built
        .and_then(|config| config.cache.into_table())
        .expect("a test reads all presets")
        .into_iter()
        .collect();
    merged.remove("documentation");
    let needs = merged.remove("needs");
    let needs: Option<PresetRequirements> =
        needs.map(|needs| needs.try_deserialize().expect("a test reads all presets"));
    let needs = PresetRequirements {
        preset: name,
        ..needs.unwrap_or_default()
    };
    // A request has one body, so a body of the provider's table replaces the preset's.
    for (body, other) in [("form", "json"), ("json", "form")] {
        if table.contains_key(body) {
            merged.remove(other);
        }
    }
    for (key, value) in table {
        merge(&mut merged, key, value);
    }
    merged.insert("kind".to_owned(), "http".into());
    Ok((merged, needs))
}

/// Replaces a value; tables are merged key by key.
fn merge(base: &mut ConfigTable, key: String, value: Value) {
    let origin = value.origin().map(str::to_owned);
    let below = base.get_mut(&key).map(|below| &mut below.kind);
    match (below, value.kind) {
        (Some(ValueKind::Table(below)), ValueKind::Table(above)) => {
            let mut merged: ConfigTable = std::mem::take(below).into_iter().collect();
            for (key, value) in above {
                merge(&mut merged, key, value);
            }
            *below = merged.into_iter().collect();
        }
        (_, kind) => {
            base.insert(key, Value::new(origin.as_ref(), kind));
        }
    }
}
