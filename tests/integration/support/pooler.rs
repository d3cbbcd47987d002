//! PgBouncer in front of a server.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use super::{
    intermediary::{Intermediary, program},
    postgres::{as_server_user, give_to_server_user},
};

/// A PgBouncer with nothing configured but its mode, and how soon it connects again; killed when
/// dropped.
pub struct PgBouncer {
    process: Intermediary,
    url: String,
    mode: String,
}

#[allow(dead_code, reason = "each test program uses a part of it")]
impl PgBouncer {
    /// One before the server of `url`, on a port that is free.
    pub fn start(url: &str, mode: &str) -> Self {
        let command = |address, directory: &Path| command(address, directory, url, mode);
        Self {
            process: Intermediary::start(command),
            url: url.to_owned(),
            mode: mode.to_owned(),
        }
    }

    /// Ends it, and starts another one in its place.
    pub fn replace(&mut self, mode: &str) {
        self.process.kill();
        mode.clone_into(&mut self.mode);
        let command = |address, directory: &Path| command(address, directory, &self.url, mode);
        let process = Intermediary::start_at(self.process.address(), command);
        self.process = process.expect("the port was just ours");
    }

    /// Ends it, and starts it again.
    pub fn restart(&mut self) {
        self.replace(&self.mode.clone());
    }

    /// `url` by way of it.
    pub fn url(&self, url: &str) -> String {
        let (before, after) = url.rsplit_once('@').expect("the URL names a user");
        let (_, name) = after.split_once('/').expect("the URL names a database");
        format!("{before}@{}/{name}", self.process.address())
    }
}

fn command(address: SocketAddr, directory: &Path, url: &str, mode: &str) -> Command {
    let file = directory.join("pgbouncer.ini");
    let users = directory.join("users");
    write(&users, "\"postgres\" \"\"\n");
    write(&file, &settings(address, url, mode, &users));
    give_to_server_user(directory);
    let mut command = as_server_user(Path::new(&program("TEST_PGBOUNCER")));
    command.arg(&file);
    command
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
