//! A real SMTP server (aiosmtpd) of one test.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::support::repository;

pub struct Sink {
    program: Child,
    directory: TempDir,
    events: mpsc::UnboundedReceiver<Value>,
    port: u16,
}

impl Sink {
    /// One that speaks `mode`: starttls, implicit or plain. Its certificate is for
    /// `name`.
    pub async fn start(mode: &str, name: &str) -> Self {
        let python = std::env::var("TEST_SMTP_SINK_PYTHON")
            .expect("TEST_SMTP_SINK_PYTHON names a Python that has aiosmtpd; run `./check tests`");
        let directory = tempfile::tempdir().expect("the temporary directory takes files");
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([name.to_owned()]).expect("a name");
        let at = |file: &str| directory.path().join(file);
        std::fs::write(at("ca.pem"), cert.pem()).expect("a new directory takes files");
        std::fs::write(at("key.pem"), signing_key.serialize_pem()).expect("the same");
        let mut program = Command::new(python)
            .arg(repository::path("tests/integration/providers/smtp_sink.py"))
            .args([at("ca.pem"), at("key.pem")])
            .arg(mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let (sender, mut events) = mpsc::unbounded_channel();
        let lines = BufReader::new(program.stdout.take().expect("it is piped")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("the sink speaks JSON");
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let listening: Value = events.recv().await.expect("the sink listens");
        let port = listening["port"].as_u64().map(u16::try_from);
        Self {
            program,
            directory,
            events,
            port: port.expect("it has a port").expect("a port"),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate.
    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Lets the sink give the answers that are late.
    pub fn go_on(&mut self) {
        let input = self.program.stdin.as_mut().expect("it is piped");
        input.write_all(b"\n").expect("the sink runs");
    }

    /// Returns the next event of the sink.
    pub async fn event(&mut self) -> Value {
        self.events.recv().await.expect("the sink runs")
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
