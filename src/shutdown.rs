//! When to stop, and when to read the configuration again.

use std::io::IsTerminal as _;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry;

/// The signals that stop otpd.
#[derive(Debug)]
pub struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignals {
    /// Takes the signals from their default action, which would end otpd at once.
    ///
    /// # Errors
    /// Where the system refuses.
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
            // 128 + SIGTERM, as a shell tells it.
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

/// The signals by which otpd is told to read its configuration again.
#[derive(Debug)]
pub struct ReloadSignals(Option<Signal>);

impl ReloadSignals {
    /// Takes SIGHUP from its default action, which would end otpd; but not where a
    /// terminal shows the log: there it says that the terminal is gone.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn catch() -> std::io::Result<Self> {
        let is_watched = std::io::stdout().is_terminal();
        let caught = (!is_watched).then(|| signal(SignalKind::hangup()));
        caught.transpose().map(Self)
    }

    /// Completes at the next one.
    pub async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}
