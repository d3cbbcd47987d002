//! PgBouncer in front of a server.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Stdio},
};

use rand::Rng as _;
use tempfile::TempDir;

use super::postgres::{as_server_user, give_to_server_user};

/// A PgBouncer with nothing configured but its mode, and how soon it connects again; killed when
/// dropped.
pub struct PgBouncer {
    // Held for as long as it runs.
    directory: TempDir,
    child: Child,
    address: SocketAddr,
    url: String,
    mode: String,
}

#[allow(dead_code, reason = "each test program uses a part of it")]
impl PgBouncer {
    /// One before the server of `url`, on a port that is free.
    pub fn start(url: &str, mode: &str) -> Self {
        for _ in 0..20 {
            let random = otpd::keys::os_rng().next_u64() % 12_000;
            let port = 20_000 + u16::try_from(random).expect("below");
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            if let Some(pooler) = Self::start_at(address, url, mode) {
                return pooler;
            }
        }
        panic!("PgBouncer does not start");
    }

    /// Ends it, and starts another one in its place.
    pub fn replace(&mut self, mode: &str) {
        self.kill();
        let (address, url) = (self.address, self.url.clone());
        *self = Self::start_at(address, &url, mode).expect("the port was just ours");
    }

    /// Ends it, and starts it again.
    pub fn restart(&mut self) {
        self.replace(&self.mode.clone());
    }

    fn kill(&mut self) {
        // Both fail only if the process has ended, which is their purpose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// `url` by way of it.
    pub fn url(&self, url: &str) -> String {
        let (before, after) = url.rsplit_once('@').expect("the URL names a user");
        let (_, name) = after.split_once('/').expect("the URL names a database");
        format!("{before}@{}/{name}", self.address)
    }

    fn start_at(address: SocketAddr, url: &str, mode: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("the temporary directory takes files");
        let file = directory.path().join("pgbouncer.ini");
        let users = directory.path().join("users");
        write(&users, "\"postgres\" \"\"\n");
        write(&file, &settings(address, url, mode, &users));
        give_to_server_user(directory.path());
        let program = std::env::var_os("TEST_PGBOUNCER").expect(
            "TEST_PGBOUNCER names PgBouncer; run `./check tests`, or a test by `scripts/with-postgres cargo test NAME`",
        );
        let child = as_server_user(Path::new(&program))
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("PgBouncer is installed");
        let mut pooler = Self {
            directory,
            child,
            address,
            url: url.to_owned(),
            mode: mode.to_owned(),
        };
        loop {
            if TcpStream::connect(address).is_ok() {
                // Another program's port would be open as well.
                return pooler.runs().then_some(pooler);
            }
            if !pooler.runs() {
                return None;
            }
        }
    }

    fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None)) && self.directory.path().is_dir()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn settings(address: SocketAddr, url: &str, mode: &str, users: &Path) -> String {
    let (_, server) = url.rsplit_once('@').expect("the URL names a user");
    let (server, _) = server.split_once('/').expect("the URL names a database");
    let (host, port) = server.split_once(':').expect("the URL names a port");
    format!(
        "[databases]\n* = host={host} port={port}\n[pgbouncer]\n\
         listen_addr = {}\nlisten_port = {}\nunix_socket_dir =\n\
         auth_type = trust\nauth_file = {}\npool_mode = {mode}\n\
         server_login_retry = 0.1\n",
        address.ip(),
        address.port(),
        users.display(),
    )
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a new directory takes files");
    give_to_server_user(path);
}
