//! Signals that stop otpd or reload its configuration.

use std::io::IsTerminal as _;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry;

/// Signals that stop otpd.
#[derive(Debug)]
pub struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignals {
    /// Installs handlers in place of the default action, which would end otpd at once.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Completes at the first SIGTERM or SIGINT; a second one ends the process at
    /// once.
    pub async fn stop(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("[OTP] Aborted on second signal");
            telemetry::flush();
            // 128 + SIGTERM, as a shell reports it.
            std::process::exit(143);
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Signal that reloads the configuration.
#[derive(Debug)]
pub struct ReloadSignals(Option<Signal>);

impl ReloadSignals {
    /// Installs a handler of SIGHUP in place of the default action, which would end otpd. Not
    /// if the log goes to a terminal, because there SIGHUP means that the terminal was closed.
    ///
    /// # Errors
    /// If the system refuses the handler.
    pub fn catch() -> std::io::Result<Self> {
        let is_watched = std::io::stdout().is_terminal();
        let caught = (!is_watched).then(|| signal(SignalKind::hangup()));
        caught.transpose().map(Self)
    }

    /// Completes at the next signal.
    pub async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}
