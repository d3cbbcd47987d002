//! HAProxy in front of a server.

use std::{fs, net::SocketAddr, process::Command};

use super::intermediary::{Intermediary, program};

/// An HAProxy without TLS; killed when dropped.
pub struct HaProxy(Intermediary);

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
        Self(Intermediary::start(|address, directory| {
            let file = directory.join("haproxy.cfg");
            let settings = settings(address, server, protocol);
            fs::write(&file, settings).expect("a new directory takes files");
            let mut command = Command::new(program("TEST_HAPROXY"));
            command.args(["-q", "-db", "-f"]).arg(&file);
            command
        }))
    }

    /// Address of its listener.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
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
