//! The real binary as a running server, light enough for long runs.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Number of log lines that are kept for the message of a failed test.
const KEPT_LINES: usize = 40;

/// A running server; killed when dropped.
pub struct Server {
    child: Mutex<Child>,
    id: u32,
    port: u16,
    channel: Channel,
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

impl Server {
    /// Starts a server by `command` and waits until it listens. Each line of its log is passed
    /// to `read`.
    pub fn start(command: &mut Command, read: impl Fn(&str) + Send + 'static) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let stdout = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let last_lines = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&last_lines);
        let (first, address) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                if let Some((_, rest)) = line.split_once("address=127.0.0.1:") {
                    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    // Only the first address is received.
                    let _ = first.send(port);
                }
                read(&line);
                let mut kept = kept.lock().expect("no reader panics");
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        let port = address
            .recv()
            .expect("a server logs its address before it exits");
        let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))
            .expect("a URL")
            .connect_lazy();
        Self {
            id: child.id(),
            child: Mutex::new(child),
            port: port.parse().expect("a port"),
            channel,
            last_lines,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Waits until its health is SERVING.
    pub async fn serves(&self) {
        let request = HealthCheckRequest {
            service: String::new(),
        };
        let watched = HealthClient::new(self.channel()).watch(request).await;
        let mut changes = watched
            .unwrap_or_else(|status| panic!("{status}\n{}", self.last_lines()))
            .into_inner();
        loop {
            let change = changes.message().await.expect("the health service replies");
            let change = change.expect("the watch does not end");
            if change.status() == ServingStatus::Serving {
                return;
            }
        }
    }

    /// Sends a signal by its name, such as STOP.
    pub fn signal(&self, name: &str) {
        // Every shell has `kill`; a program of that name is not on every machine.
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.id)])
            .status()
            .expect("every system has a shell");
        assert!(status.success());
    }

    /// Stops it by SIGTERM.
    pub fn stop(self) {
        self.signal("TERM");
        let mut child = self.child.lock().expect("lock is not poisoned");
        child.wait().expect("it is a child of this process");
    }

    /// Returns its latest log lines.
    pub fn last_lines(&self) -> String {
        let kept = self.last_lines.lock().expect("no reader panics");
        kept.iter()
            .fold(String::new(), |text, line| text + line + "\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child.lock().expect("lock is not poisoned");
        // Both fail only if the process has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}
