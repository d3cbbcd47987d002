//! A PostgreSQL of one's own, that keeps what it acknowledged, and may be crashed.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A server that is stopped when dropped.
pub struct Postgres {
    directory: TempDir,
    port: u16,
}

impl Postgres {
    pub fn start() -> Self {
        // In memory where the machine offers that: a crash of processes loses nothing
        // that was handed to the system, and the disk's speed is nobody's promise.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let directory = directory.expect("the temporary directory takes files");
        // A server that refuses to run as root runs as its own user.
        if let Some((user, group)) = owner() {
            std::os::unix::fs::chown(directory.path(), Some(user), Some(group)).expect("root may");
        }
        run(
            directory.path(),
            "initdb",
            &[
                "--pgdata=data",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
            ],
        );
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             max_connections = 200\nfsync = on\nsynchronous_commit = on\n\
             full_page_writes = on\n",
            directory.path().display()
        );
        fs::write(directory.path().join("data/postgresql.auto.conf"), settings)
            .expect("the directory is ours");
        let mut postgres = Self { directory, port: 0 };
        // Below the range from which outgoing connections take their ports, and tried
        // until one is free.
        for attempt in 0..20 {
            let random = u16::try_from(crate::figures::random() % 12_000).expect("below");
            postgres.port = 20_000 + random;
            if postgres.control(&["start", "--wait"]) {
                return postgres;
            }
            assert!(attempt < 19, "PostgreSQL does not start");
        }
        unreachable!("the last attempt panics")
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends it as a crash does, without any last words, and starts it again.
    pub fn crash(&self) {
        assert!(self.control(&["stop", "--mode=immediate"]));
        while !self.control(&["start", "--wait"]) {}
    }

    pub fn stop(&self) {
        self.control(&["stop", "--mode=immediate"]);
    }

    fn control(&self, arguments: &[&str]) -> bool {
        let options = format!("--options=-p {}", self.port);
        let mut all = vec!["--pgdata=data", "--silent", "--log=server.log", &options];
        all.extend(arguments);
        // The action comes first.
        all.rotate_right(arguments.len());
        try_run(self.directory.path(), "pg_ctl", &all)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(directory: &Path, program: &str, arguments: &[&str]) {
    assert!(try_run(directory, program, arguments), "{program} failed");
}

fn try_run(directory: &Path, program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(programs().join(program));
    command
        .args(arguments)
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some((user, group)) = owner() {
        command.uid(user).gid(group);
    }
    command.status().expect("PostgreSQL is installed").success()
}

/// Where its programs are.
fn programs() -> PathBuf {
    let directory = std::env::var_os("TEST_POSTGRES_BIN").expect(
        "TEST_POSTGRES_BIN names PostgreSQL's programs; run `./check tests`, or a test by `scripts/with-postgres cargo test NAME`",
    );
    directory.into()
}

/// The user and group that it must run as, where this process is root.
fn owner() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;

    let own = fs::metadata("/proc/self").ok()?;
    if own.uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let id = |name: &str| {
        let line = users.lines().find(|line| line.starts_with(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    id("postgres:").or_else(|| id("nobody:"))
}
