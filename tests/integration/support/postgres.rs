//! A separate, durable PostgreSQL server that can crash, have a standby, and fail over to
//! it.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rand::Rng as _;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;

/// A server that is stopped when dropped.
pub struct Postgres {
    directory: TempDir,
    port: u16,
}

#[allow(dead_code, reason = "each test program uses a part of it")]
impl Postgres {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// One with more lines of configuration.
    pub fn start_with(settings: &str) -> Self {
        let directory = directory();
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
        let postgres = Self { directory, port: 0 };
        postgres.configure(&format!(
            "max_connections = 200\nfsync = on\nsynchronous_commit = on\n\
             full_page_writes = on\n{settings}"
        ));
        postgres.listen()
    }

    /// A standby of this server, which follows it from now on.
    pub fn standby(&self) -> Self {
        let directory = directory();
        let primary = format!("--dbname={}", self.url());
        run(
            directory.path(),
            "pg_basebackup",
            &[
                "--pgdata=data",
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--wal-method=stream",
                "--no-sync",
                &primary,
            ],
        );
        Self { directory, port: 0 }.listen()
    }

    /// Adds lines to the configuration, which it reads when it starts.
    pub fn configure(&self, lines: &str) {
        let path = self.directory.path().join("data/postgresql.conf");
        let file = fs::OpenOptions::new().append(true).open(path);
        let mut file = file.expect("initdb made it");
        writeln!(file, "{lines}").expect("the directory is ours");
    }

    /// Adds a file to its directory, readable only by the server's user.
    pub fn add_file(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;

        let path = self.directory.path().join("data").join(name);
        fs::write(&path, text).expect("the directory is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        give_to_server_user(&path);
    }

    /// Sets the rules of client authentication for the next start or reload.
    pub fn admit(&self, lines: &str) {
        let path = self.directory.path().join("data/pg_hba.conf");
        fs::write(path, lines).expect("the directory is ours");
    }

    /// Starts it on a port that is free: below the range from which outgoing connections
    /// take theirs, and tried until one is.
    fn listen(mut self) -> Self {
        for _ in 0..20 {
            let random = otpd::keys::os_rng().next_u64() % 12_000;
            self.port = 20_000 + u16::try_from(random).expect("below");
            if self.control(&["start", "--wait"]) {
                return self;
            }
        }
        let log = fs::read_to_string(self.directory.path().join("server.log"));
        panic!("PostgreSQL does not start: {log:?}");
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address())
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("server.log")).expect("it runs")
    }

    /// Runs a statement as superuser.
    pub async fn execute(&self, statements: &str) {
        let mut connection = PgConnection::connect(&self.url()).await.expect("it runs");
        for statement in statements.split_inclusive(';') {
            let done = connection.execute(AssertSqlSafe(statement)).await;
            done.expect("a superuser may");
        }
    }

    /// Ends it as a crash does, without any last words, and starts it again.
    pub fn crash(&self) {
        assert!(self.control(&["stop", "--mode=immediate"]));
        self.start_again();
    }

    /// Kills its first process, as the kernel does when memory runs out; the others
    /// notice and end.
    pub fn kill(&self) {
        let path = self.directory.path().join("data/postmaster.pid");
        let text = fs::read_to_string(path).expect("it runs");
        let id = text.lines().next().expect("the id comes first");
        // Every shell can; a program of that name is not on every machine.
        let killed = Command::new("sh")
            .args(["-c", &format!("kill -KILL {id}")])
            .status();
        assert!(killed.expect("every system has a shell").success());
    }

    /// Restarts it in an orderly way.
    pub fn restart(&self) {
        assert!(self.control(&["stop", "--mode=fast", "--wait"]));
        self.start_again();
    }

    /// Starts it where it was; it may have to wait for processes of the one before.
    pub fn start_again(&self) {
        while !self.control(&["start", "--wait"]) {}
    }

    /// Promotes a standby to primary.
    pub fn promote(&self) {
        assert!(self.control(&["promote", "--wait"]));
    }

    pub fn stop(&self) {
        self.control(&["stop", "--mode=immediate"]);
    }

    fn control(&self, arguments: &[&str]) -> bool {
        let directory = self.directory.path();
        let options = format!(
            "--options=-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={}",
            self.port,
            directory.display()
        );
        let mut all = vec!["--pgdata=data", "--silent", "--log=server.log", &options];
        all.extend(arguments);
        // The action comes first.
        all.rotate_right(arguments.len());
        try_run(directory, "pg_ctl", &all)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An empty directory of the server's user.
fn directory() -> TempDir {
    // In memory if the machine offers that: a crash of processes loses no data that was given to
    // the system, and the speed of the disk is not tested.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    let directory = directory.expect("the temporary directory takes files");
    give_to_server_user(directory.path());
    directory
}

/// Changes the owner of a file or directory to the server's user.
pub fn give_to_server_user(path: &Path) {
    if let Some((user, group)) = server_user() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).expect("root may");
    }
}

fn run(directory: &Path, program: &str, arguments: &[&str]) {
    assert!(try_run(directory, program, arguments), "{program} failed");
}

fn try_run(directory: &Path, program: &str, arguments: &[&str]) -> bool {
    let mut command = as_server_user(&programs().join(program));
    command
        .args(arguments)
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().expect("PostgreSQL is installed").success()
}

/// Returns the directory of its programs.
fn programs() -> PathBuf {
    let directory = std::env::var_os("TEST_POSTGRES_BIN").expect(
        "TEST_POSTGRES_BIN names PostgreSQL's programs; run `./check tests`, or a test by `scripts/with-postgres cargo test NAME`",
    );
    directory.into()
}

/// A program that refuses to run as root, run as the server's own user there.
pub fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = server_user() {
        command.uid(user).gid(group);
    }
    command
}

/// User and group that it must run as if this process is root.
fn server_user() -> Option<(u32, u32)> {
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
