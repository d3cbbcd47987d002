//! Providers against a scripted HTTP gateway and a real SMTP server.

mod faults;
pub mod gateway;
mod page;
mod presets;
mod sink;
mod smtp;
pub mod test_message;

use config::{File, FileFormat};
use otpd_base::{environment::Environment, tables::ConfigTable};
use otpd_delivery::{Provider, settings::ProviderSettings};

/// A table of the configuration.
pub fn table(text: &str) -> ConfigTable {
    let source = File::from_str(text, FileFormat::Toml);
    let built = config::Config::builder().add_source(source).build();
    let table = built.and_then(|config| config.cache.into_table());
    table.expect("the TOML is right").into_iter().collect()
}

/// The provider that a table of the configuration describes.
#[track_caller]
pub fn provider(table: ConfigTable) -> Provider {
    let settings = ProviderSettings::parse("x", table).expect("the settings are right");
    Provider::new("x", settings, Environment::Development).expect("the settings are right")
}
