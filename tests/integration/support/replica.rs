//! The real binary as a running server.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use otpd::grpc::v1::otp_service_client::OtpServiceClient;
use tokio::sync::watch;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use super::{Database, Ended, run};

/// The binary with nothing of this process's environment.
pub fn otpd() -> Command {
    let built = || env!("CARGO_BIN_EXE_otpd").into();
    // Another build, for a check that the tests find its bugs.
    let binary = std::env::var_os("TEST_OTPD").unwrap_or_else(built);
    let mut command = Command::new(binary);
    command.env_clear();
    command
}

/// A running server; killed when dropped.
pub struct Replica {
    child: Child,
    address: SocketAddr,
    log: watch::Receiver<Vec<String>>,
    /// Holds up the reader of the log until it is dropped.
    gate: Option<mpsc::Sender<()>>,
}

impl Replica {
    /// Starts a server on `database` and waits until it serves.
    pub async fn start(database: &Database) -> Self {
        Self::start_with(database, &[]).await
    }

    /// Like [`start`](Self::start), with more environment.
    pub async fn start_with(database: &Database, environment: &[(&str, &str)]) -> Self {
        let replica = Self::launch(&database.replica_url(), database, environment).await;
        replica.wait_for_health("", ServingStatus::Serving).await;
        replica
    }

    /// Starts `count` servers at the same moment and waits until all serve.
    pub async fn start_many(database: &Database, count: usize) -> Vec<Self> {
        Self::start_many_with(database, count, &[]).await
    }

    /// Like [`start_many`](Self::start_many), with more environment.
    pub async fn start_many_with(
        database: &Database,
        count: usize,
        environment: &[(&str, &str)],
    ) -> Vec<Self> {
        let children: Vec<Child> = (0..count)
            .map(|_| Self::spawn(&database.replica_url(), database, environment))
            .collect();
        let mut replicas = Vec::new();
        for child in children {
            replicas.push(Self::attach(child).await);
        }
        for replica in &replicas {
            replica.wait_for_health("", ServingStatus::Serving).await;
        }
        replicas
    }

    /// Starts a server with the store at `url`, and waits only until it listens.
    pub async fn launch(url: &str, database: &Database, environment: &[(&str, &str)]) -> Self {
        Self::attach(Self::spawn(url, database, environment)).await
    }

    fn spawn(url: &str, database: &Database, environment: &[(&str, &str)]) -> Child {
        otpd()
            .current_dir(database.directory())
            .env("DATABASE_URL", url)
            .env("OTPD_KEYS_FILE", database.keys_file())
            .env("OTPD_LISTEN", "127.0.0.1:0")
            .env("OTPD_SHUTDOWN_DELAY", "0s")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built")
    }

    /// Like [`start_with`](Self::start_with), but of the log nothing is read beyond the
    /// address, until [`read_log`](Self::read_log).
    pub async fn start_unread(database: &Database, environment: &[(&str, &str)]) -> Self {
        let child = Self::spawn(&database.replica_url(), database, environment);
        let (gate, opened) = mpsc::channel();
        let mut replica = Self::attach_gated(child, Some(opened)).await;
        replica.gate = Some(gate);
        replica.wait_for_health("", ServingStatus::Serving).await;
        replica
    }

    /// Reads the rest of the log.
    pub fn read_log(&mut self) {
        self.gate = None;
    }

    async fn attach(child: Child) -> Self {
        Self::attach_gated(child, None).await
    }

    async fn attach_gated(mut child: Child, gate: Option<mpsc::Receiver<()>>) -> Self {
        let (sender, log) = watch::channel(Vec::new());
        let stdout = BufReader::new(child.stdout.take().expect("standard output is piped"));
        thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                let is_address = line.contains("address");
                sender.send_modify(|lines| lines.push(line));
                if let Some(gate) = gate.as_ref().filter(|_| is_address) {
                    // An error: the gate is open.
                    let _ = gate.recv();
                }
            }
        });
        let mut replica = Self {
            child,
            address: SocketAddr::from(([0; 4], 0)),
            log,
            gate: None,
        };
        let first = replica.wait_for_line("address").await;
        // Everywhere is on loopback, too.
        let (_, rest) = first
            .split_once("127.0.0.1:")
            .or_else(|| first.split_once("0.0.0.0:"))
            .expect("it listens on loopback");
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        replica.address.set_ip([127, 0, 0, 1].into());
        replica.address.set_port(port.parse().expect("a port"));
        replica
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A connection that is made at the first call.
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address))
            .expect("a URL")
            .connect_lazy()
    }

    pub fn client(&self) -> OtpServiceClient<Channel> {
        OtpServiceClient::new(self.channel())
    }

    /// Every state of the health of `service`, from now on.
    pub async fn watch_health(&self, service: &str) -> Streaming<HealthCheckResponse> {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        HealthClient::new(self.channel())
            .watch(request)
            .await
            .expect("health answers")
            .into_inner()
    }

    /// Waits until the health of `service` is `wanted`, by watching it.
    pub async fn wait_for_health(&self, service: &str, wanted: ServingStatus) {
        let mut changes = self.watch_health(service).await;
        loop {
            let change = changes.message().await.expect("health answers");
            if change.expect("health is watched for ever").status() == wanted {
                return;
            }
        }
    }

    /// The first line of the log, past or future, that holds `text`.
    pub async fn wait_for_line(&self, text: &str) -> String {
        let mut log = self.log.clone();
        let lines = log
            .wait_for(|lines| lines.iter().any(|line| line.contains(text)))
            .await
            .unwrap_or_else(|_| panic!("the log ended without {text:?}:\n{}", self.log()));
        lines
            .iter()
            .find(|line| line.contains(text))
            .expect("it was just there")
            .clone()
    }

    /// The newest line of the log that is `wanted`, once there is one; quick also in
    /// a long log.
    pub async fn wait_for_newest_line(&self, wanted: impl Fn(&str) -> bool) -> String {
        let newest = |lines: &[String]| lines.iter().rev().find(|line| wanted(line)).cloned();
        let mut log = self.log.clone();
        let lines = log.wait_for(|lines| newest(lines).is_some()).await;
        newest(&lines.expect("the log goes on until the line")).expect("it was just there")
    }

    /// Waits until `count` lines of the log hold `text`.
    pub async fn wait_for_lines(&self, text: &str, count: usize) {
        let enough =
            |lines: &Vec<String>| lines.iter().filter(|line| line.contains(text)).count() >= count;
        let mut log = self.log.clone();
        let found = log.wait_for(enough).await.is_ok();
        assert!(
            found,
            "the log ended without {count} x {text:?}:\n{}",
            self.log()
        );
    }

    /// The code that the log provider wrote for a challenge.
    pub async fn code(&self, challenge_id: &str) -> String {
        self.codes(challenge_id, 1).await.remove(0)
    }

    /// Returns the output of the log provider for a challenge in its first `sends` messages.
    pub async fn codes(&self, challenge_id: &str, sends: usize) -> Vec<String> {
        let mark = format!("challenge_id={challenge_id} ");
        let is_message = |line: &&String| line.contains(&mark) && line.contains("Generated OTP: ");
        let mut log = self.log.clone();
        let lines = log
            .wait_for(|lines| lines.iter().filter(is_message).count() >= sends)
            .await
            .unwrap_or_else(|_| panic!("the log ended before {mark}:\n{}", self.log()));
        lines
            .iter()
            .filter(is_message)
            .map(|line| {
                let (_, rest) = line
                    .split_once("[OTP] Generated OTP: ")
                    .expect("the design's line");
                rest.chars().take_while(char::is_ascii_digit).collect()
            })
            .collect()
    }

    /// All lines so far.
    pub fn log(&self) -> String {
        self.log.borrow().join("\n")
    }

    /// Writes the log to a file, from its first line on, for as long as it grows.
    pub fn copy_log(&self, path: &Path) {
        let mut file = File::create(path).expect("the directory takes files");
        let mut log = self.log.clone();
        log.mark_changed();
        tokio::spawn(async move {
            let mut copied = 0;
            while log.changed().await.is_ok() {
                let lines = log.borrow_and_update();
                let mut new = lines[copied..].join("\n");
                if new.is_empty() {
                    continue;
                }
                new.push('\n');
                copied = lines.len();
                drop(lines);
                file.write_all(new.as_bytes()).expect("the disk has room");
            }
        });
    }

    /// The resident memory of the process, in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let mut words = line.expect("Linux says so").split_whitespace();
        let number = words.nth(1).expect("the line has a number");
        number.parse().expect("it is a number")
    }

    /// Sends a signal by its name, such as TERM.
    pub fn signal(&self, name: &str) {
        // Every shell can; a program of that name is not on every machine.
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status()
            .expect("every system has a shell");
        assert!(status.success());
    }

    /// A command that speaks to this server.
    pub fn command(&self, arguments: &[&str]) -> Ended {
        run(otpd()
            .env("OTPD_ADDRESS", self.address.to_string())
            .args(arguments))
    }

    /// Sends SIGTERM, waits for the end and returns it with the whole log.
    pub async fn stop(self) -> (ExitStatus, String) {
        self.signal("TERM");
        self.end().await
    }

    /// Sends SIGTERM and waits for the end, without reading the log.
    pub async fn stop_unread(mut self) -> ExitStatus {
        self.signal("TERM");
        tokio::task::spawn_blocking(move || self.child.wait().expect("it is our child"))
            .await
            .expect("it does not panic")
    }

    /// Waits for the end and returns it with the whole log.
    pub async fn end(mut self) -> (ExitStatus, String) {
        // The log ends with the process.
        while self.log.changed().await.is_ok() {}
        (self.child.wait().expect("it is our child"), self.log())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Both fail only if the process has ended, which is their purpose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
