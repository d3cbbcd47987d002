//! HAProxy in front of a server.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use rand::Rng as _;
use tempfile::TempDir;

/// An HAProxy without TLS; killed when dropped.
pub struct HaProxy {
    child: Child,
    address: SocketAddr,
    /// Directory of its configuration.
    _directory: TempDir,
}

#[allow(dead_code, reason = "each test program uses a part of it")]
impl HaProxy {
    /// Starts one of HTTP/2 before `server`, on a free port.
    pub fn start(server: SocketAddr) -> Self {
        Self::start_with(server, " proto h2")
    }

    /// Starts one of HTTP/1.1.
    pub fn start_http1(server: SocketAddr) -> Self {
        Self::start_with(server, "")
    }

    fn start_with(server: SocketAddr, protocol: &str) -> Self {
        for _ in 0..20 {
            let random = otpd::keys::os_rng().next_u64() % 12_000;
            let port = 20_000 + u16::try_from(random).expect("below");
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            if let Some(proxy) = Self::start_at(address, server, protocol) {
                return proxy;
            }
        }
        panic!("HAProxy does not start");
    }

    /// Address of its listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn start_at(address: SocketAddr, server: SocketAddr, protocol: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("the temporary directory takes files");
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, settings(address, server, protocol)).expect("a new directory takes files");
        let program = std::env::var_os("TEST_HAPROXY").expect(
            "TEST_HAPROXY names HAProxy; run `./check tests`, or a test by `scripts/with-postgres cargo test NAME`",
        );
        let child = Command::new(program)
            .args(["-q", "-db", "-f"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("HAProxy is installed");
        let mut proxy = Self {
            child,
            address,
            _directory: directory,
        };
        loop {
            if TcpStream::connect(address).is_ok() {
                // The port of another program would be open as well.
                return proxy.runs().then_some(proxy);
            }
            if !proxy.runs() {
                return None;
            }
        }
    }

    fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(address: SocketAddr, server: SocketAddr, protocol: &str) -> String {
    format!(
        "global\n    maxconn 1024\n    nbthread 1\n\
         defaults\n    mode http\n    timeout connect 5s\n    timeout client 1m\n    timeout server 1m\n\
         frontend callers\n    bind {address}{protocol}\n    default_backend replicas\n\
         backend replicas\n    server otpd {server}{protocol}\n"
    )
}
