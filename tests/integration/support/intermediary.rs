//! Programs between a caller and a server, or between a server and its database.

use std::{
    ffi::OsString,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use rand::Rng as _;
use tempfile::TempDir;

/// Program that listens on a port of 127.0.0.1; killed when dropped.
pub struct Intermediary {
    child: Child,
    address: SocketAddr,
    /// Directory of its files.
    _directory: TempDir,
}

impl Intermediary {
    /// Starts one on a free port. `command` writes its files into a directory, and returns the
    /// command that makes it listen on an address.
    pub fn start(command: impl Fn(SocketAddr, &Path) -> Command) -> Self {
        for _ in 0..20 {
            let random = otpd::keys::os_rng().next_u64() % 12_000;
            let port = 20_000 + u16::try_from(random).expect("below");
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            if let Some(started) = Self::start_at(address, &command) {
                return started;
            }
        }
        panic!("the program does not start");
    }

    /// Starts one on this port; `None` if it does not run, such as on a port that is not free.
    pub fn start_at(
        address: SocketAddr,
        command: impl Fn(SocketAddr, &Path) -> Command,
    ) -> Option<Self> {
        let directory = tempfile::tempdir().expect("the temporary directory takes files");
        let child = command(address, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program is installed");
        let mut started = Self {
            child,
            address,
            _directory: directory,
        };
        loop {
            if TcpStream::connect(address).is_ok() {
                // The port of another program would be open as well.
                return started.runs().then_some(started);
            }
            if !started.runs() {
                return None;
            }
        }
    }

    /// Address of its listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub fn kill(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Intermediary {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Program that `variable` names.
pub fn program(variable: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| {
        panic!(
            "{variable} names the program; run `./check tests`, or a test by `scripts/with-postgres cargo test NAME`"
        )
    })
}
