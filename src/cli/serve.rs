//! Commands `otpd serve` and `otpd migrate`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use super::{CommandError, CommandOutcome, block_on, exit, output::print_line};
use crate::{
    auth::CallerRegistry,
    config::{self, EnvVars, ServeConfig, TopLevelSettings},
    key_file,
    keys::KeyRing,
    server::{self, ConfigLoader, ConfigReload, Listeners, LoadedConfig, ServerError},
    shutdown::{ReloadSignals, ShutdownSignals},
    store::{self, SqliteStore, StoreError},
    telemetry::{self, LogSettings},
    traces,
};
use otpd_base::{environment::Environment, files};

pub(super) fn serve(file: Option<&Path>) -> CommandOutcome {
    let (loaded, files) = files::track_reads(|| {
        let config = load(file)?;
        complete(config)
    });
    let (loaded, keys_origin) = loaded?;
    block_on(async {
        let config = &loaded.config;
        let settings = &config.settings;
        let internal = |error| CommandError::new(exit::SOFTWARE, error);
        let signals = ShutdownSignals::install().map_err(internal)?;
        let hangups = ReloadSignals::catch().map_err(internal)?;
        let listener = bind("listen", settings.listen).await?;
        let address = listener.local_addr().unwrap_or(settings.listen);
        let operations = match settings.operations_listen {
            Some(address) => Some(bind("operations_listen", address).await?),
            None => None,
        };
        let receipts = match settings
            .receipts
            .as_ref()
            .and_then(|receipts| receipts.listen)
        {
            Some(address) => Some(bind("receipts.listen", address).await?),
            None => None,
        };
        let receipts_address = receipts
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        let operations_address = operations
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        start_log(settings)?;
        traces::start(&settings.traces).map_err(CommandError::usage)?;
        let environment = match (settings.environment, &config.callers) {
            (Environment::Production, _) => "Production environment",
            (Environment::Development, CallerRegistry::Configured(_)) => {
                "Development environment: codes are printed here"
            }
            (Environment::Development, CallerRegistry::Unauthenticated(_)) => {
                "Development environment: callers are not authenticated, and codes are printed here"
            }
        };
        tracing::info!(
            %address,
            operations = operations_address.map(tracing::field::display),
            receipts = receipts_address.map(tracing::field::display),
            tls = settings.tls.is_some(),
            store = store_name(settings),
            keys = keys_origin,
            "[OTP] {environment}"
        );
        let reload = ConfigReload {
            files,
            interval: settings.reload_interval,
            log_level: settings.log_level,
            hangups,
            loader: reloader(file),
        };
        let listeners = Listeners {
            calls: listener,
            operations,
            receipts,
        };
        server::run(listeners, loaded, reload, signals.stop())
            .await
            .map_err(|error| match error {
                ServerError::Store(error) => CommandError::usage(error),
                error @ ServerError::Reflection(_) => CommandError::new(exit::SOFTWARE, error),
            })?;
        Ok(ExitCode::SUCCESS)
    })
}

fn start_log(settings: &TopLevelSettings) -> Result<(), CommandError> {
    let log = LogSettings {
        format: settings.log_format,
        level: settings.log_level,
        audit: settings.audit_log.clone(),
        repeat_after: settings.log_dedup_window,
    };
    telemetry::start(&log)
        .map_err(|error| CommandError::usage(format!("audit_log: cannot be opened: {error}")))
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, CommandError> {
    let bound = TcpListener::bind(address).await;
    bound
        .map_err(|error| CommandError::usage(format!("{key}: cannot listen on {address}: {error}")))
}

/// Loads the keys and certificates that a configuration names. Also returns the origin of the
/// keys.
fn complete(config: ServeConfig) -> Result<(LoadedConfig, String), CommandError> {
    let (keys, origin) = keys(&config.settings)?;
    let loaded = LoadedConfig {
        tls: config.settings.read_tls().map_err(CommandError::usage)?,
        config,
        keys,
    };
    Ok((loaded, origin))
}

/// Returns the function that reloads the configuration, with the same checks as at the start.
fn reloader(file: Option<&Path>) -> ConfigLoader {
    let file = file.map(Path::to_owned);
    Arc::new(move |before| {
        files::track_reads(|| {
            let reloaded = ServeConfig::load_after(before, file.as_deref(), &EnvVars::of_process());
            let (config, changes) = reloaded.map_err(|error| error.to_string())?;
            let (loaded, _) = complete(config).map_err(|failure| failure.message)?;
            Ok((loaded, changes))
        })
    })
}

pub(super) fn migrate(file: Option<&Path>) -> CommandOutcome {
    let settings = load(file)?.settings;
    block_on(async {
        let store =
            store::open(&settings.database_url, &settings.store).map_err(CommandError::usage)?;
        store.migrate().await.map_err(|error| match error {
            error @ StoreError::Url(_) => CommandError::usage(error),
            error => CommandError::new(exit::UNAVAILABLE, format!("database_url: {error}")),
        })?;
        store.close().await;
        print_line!("The schema of {} is up to date.", store_name(&settings));
        Ok(ExitCode::SUCCESS)
    })
}

pub(super) fn load(file: Option<&Path>) -> Result<ServeConfig, CommandError> {
    ServeConfig::load(file, &EnvVars::of_process()).map_err(CommandError::usage)
}

/// Returns the configured key ring. In development, generates one if none is configured.
pub(super) fn keys(settings: &TopLevelSettings) -> Result<(KeyRing, String), CommandError> {
    let (text, origin) = if let Some(keys) = &settings.keys {
        (
            Zeroizing::new(keys.expose_secret().to_owned()),
            "keys".to_owned(),
        )
    } else {
        let database = sqlite_file(settings).map_err(CommandError::usage)?;
        let path = config::development_keys_file(settings.environment, database.as_deref());
        let path = path.map_err(CommandError::usage)?;
        let name = path.display().to_string();
        let text = key_file::create(&path).and_then(|_| key_file::read(&path));
        (
            text.map_err(|error| CommandError::usage(format!("keys: {name}: {error}")))?,
            name,
        )
    };
    let keys = KeyRing::parse(&text).map_err(|error| {
        CommandError::usage(format!(
            "keys: {origin}: {error}; generate a key ring with `otpd keygen`"
        ))
    })?;
    if settings.receipts.is_some() && !keys.has_receipt_keys() {
        return Err(CommandError::usage(format!(
            "keys: {origin}: [receipts] needs a key receipt.1; add the line that `otpd keygen --receipt 1` prints"
        )));
    }
    Ok((keys, origin))
}

fn sqlite_file(settings: &TopLevelSettings) -> Result<Option<PathBuf>, StoreError> {
    let url = settings.database_url.expose_secret();
    let is_sqlite = url.starts_with("sqlite:");
    is_sqlite.then(|| SqliteStore::path(url)).transpose()
}

/// Returns the name of the store without its URL, which may contain a password.
pub(super) fn store_name(settings: &TopLevelSettings) -> String {
    match sqlite_file(settings) {
        Ok(Some(file)) => format!("SQLite file {}", file.display()),
        _ => "PostgreSQL".to_owned(),
    }
}
