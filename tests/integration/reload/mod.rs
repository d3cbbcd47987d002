//! Reload of the configuration at run time, transparent to callers.

mod delivery;
mod keys;
mod settings;
mod tls;
mod under_load;

use otpd::grpc::v1::{SendOtpRequest, SendOtpResponse};
use tonic::Status;

use crate::support::{CallerClient, Database, Kind, Replica};

/// Log line of each configuration that was applied.
const RELOADED: &str = "[OTP AUDIT] Configuration reloaded";
/// And of each that was not.
const REFUSED: &str = "[OTP AUDIT] Configuration reload rejected";

/// Replica whose configuration can be replaced; it reads it only at a signal.
struct Reloading {
    database: Database,
    replica: Replica,
    /// Number of reloads, applied or rejected.
    outcomes: usize,
}

impl Reloading {
    async fn start(configuration: &str) -> Self {
        Self::start_with(configuration, &[]).await
    }

    async fn start_with(configuration: &str, environment: &[(&str, &str)]) -> Self {
        let database = Database::new(Kind::Sqlite).await;
        let file = database.configure(configuration);
        let by_signal = [
            ("OTPD_CONFIG", file.as_str()),
            ("OTPD_RELOAD_INTERVAL", "0s"),
        ];
        let environment = [&by_signal, environment].concat();
        let replica = Replica::launch(database.url(), &database, &environment).await;
        replica.wait_for_line("[OTP] Store available").await;
        Self {
            database,
            replica,
            outcomes: 0,
        }
    }

    /// Replaces the configuration and reloads it; returns the log line.
    async fn reload(&mut self, configuration: &str) -> String {
        self.database.configure(configuration);
        self.hang_up().await
    }

    /// Reloads the configuration unchanged.
    async fn hang_up(&mut self) -> String {
        let line = self.outcome().await;
        assert!(line.contains(RELOADED), "{line}");
        line
    }

    /// Replaces the configuration by an unusable one and reloads it; returns the log line.
    async fn refuse(&mut self, configuration: &str) -> String {
        self.database.configure(configuration);
        let line = self.outcome().await;
        assert!(line.contains(REFUSED), "{line}");
        line
    }

    async fn outcome(&mut self) -> String {
        const EITHER: &str = "[OTP AUDIT] Configuration ";
        self.replica.signal("HUP");
        self.outcomes += 1;
        self.replica.wait_for_lines(EITHER, self.outcomes).await;
        let log = self.replica.log();
        let mut lines = log.lines().filter(|line| line.contains(EITHER));
        let line = lines.nth(self.outcomes - 1);
        line.expect("it was waited for").to_owned()
    }
}

fn to(recipient: &str) -> SendOtpRequest {
    SendOtpRequest {
        recipient: recipient.to_owned(),
        ..Default::default()
    }
}

async fn send_to(client: &mut CallerClient, recipient: &str) -> Result<SendOtpResponse, Status> {
    let sent = client.send_otp(to(recipient)).await;
    sent.map(tonic::Response::into_inner)
}
