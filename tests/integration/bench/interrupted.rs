//! Loads that run until they are interrupted.

use std::{
    io::{BufRead as _, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStderr, Command, Stdio},
};

use serde_json::Value;

use super::{count, load, records, result, serve_a_caller_who_delivers};
use crate::support::{Database, Kind, Proxy};

/// Until the test ends it.
const ENDLESS: [&str; 4] = ["--duration", "1h", "--warm-up", "0s"];

/// Running load, with its output so far.
struct Running {
    child: Child,
    progress: Lines<BufReader<ChildStderr>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .args(ENDLESS)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let stderr = child.stderr.take().expect("standard error is piped");
        Self {
            child,
            progress: BufReader::new(stderr).lines(),
        }
    }

    /// Waits for a line of its progress.
    fn wait_for(&mut self, wanted: impl Fn(&Progress) -> bool) {
        loop {
            let line = self.progress.next().expect("it goes on");
            let line = line.expect("it speaks UTF-8");
            if wanted(&Progress::of(&line)) {
                return;
            }
        }
    }

    /// Interrupts it, as a person does by Ctrl-C, and returns how it ended.
    fn interrupt(self) -> Option<i32> {
        self.signal("INT");
        self.end()
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let killed = Command::new("sh").args(["-c", &kill]).status();
        assert!(killed.expect("every system has a shell").success());
    }

    fn end(mut self) -> Option<i32> {
        self.child.wait().expect("it is our child").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line such as `   1 s  counted        1234 pairs/s  0 errors  …`.
#[derive(Debug)]
struct Progress {
    pairs_a_second: u64,
    errors: u64,
}

impl Progress {
    fn of(line: &str) -> Self {
        let before = |word: &str| {
            let mut words = line.split_whitespace();
            let mut last = "";
            words.find_map(|next| {
                (next == word).then_some(last).or_else(|| {
                    last = next;
                    None
                })
            })
        };
        let number = |word| before(word).and_then(|number| number.parse().ok());
        Self {
            pairs_a_second: number("pairs/s").unwrap_or_else(|| panic!("no rate in {line:?}")),
            errors: number("errors").unwrap_or_else(|| panic!("no errors in {line:?}")),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_load_still_reports_its_result() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve_a_caller_who_delivers(&database).await;
    let address = replica.address().to_string();
    let mut running = Running::start(load(&database, &address, &["--token", "known"]));
    running.wait_for(|progress| progress.pairs_a_second > 0);
    assert_eq!(running.interrupt(), Some(0));
    let result = result(&database);
    let pairs = count(&result, "/pairs");
    assert!(pairs > 0 && count(&result, "/outcomes/VERIFIED") == pairs);
    assert!(result["seconds"].as_f64() < Some(3_600.0), "{result:#}");
    assert_eq!(result["failures"], serde_json::json!({}));
    assert_eq!(records(&database).await, pairs + 1, "all were finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connection_is_reopened() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve_a_caller_who_delivers(&database).await;
    let proxy = Proxy::before(replica.address());
    let address = proxy.address().to_string();
    let mut running = Running::start(load(&database, &address, &["--token", "known"]));
    running.wait_for(|progress| progress.pairs_a_second > 0);
    proxy.cut();
    running.wait_for(|progress| progress.errors > 0);
    running.wait_for(|progress| progress.pairs_a_second > 0);
    assert_eq!(running.interrupt(), Some(1));
    let result = result(&database);
    assert!(count(&result, "/pairs") > 0);
    let failed = count(&result, "/pairs_failed");
    let failures = result["failures"].as_object().expect("an object");
    let counted: u64 = failures.values().filter_map(Value::as_u64).sum();
    assert!(0 < failed && failed == counted, "{result:#}");
}

#[test]
fn interrupt_before_start_exits_at_once() {
    let database = Database::sqlite();
    // A server that says nothing.
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = server.local_addr().expect("it is bound").to_string();
    let mut running = Running::start(load(&database, &address, &[]));
    let _connection = server.accept().expect("it connects");
    running.signal("INT");
    let said = running.progress.next().expect("it says why it ends");
    let said = said.expect("it speaks UTF-8");
    assert_eq!(said, "otpd: interrupted before the load began");
    assert_eq!(running.end(), Some(1));
}
