//! Set-up of a production deployment with compose: `prepare`, run by any user, and
//! `hand-over`, run by root in a container.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Ended, repository, run};

/// User of otpd in its image.
const OTPD: u32 = 10001;

/// An unprivileged user, for tests that run as root.
const SOMEONE: u32 = 65534;

/// Copy of the files that `prepare` needs, in a directory readable by every user.
struct Checkout {
    root: tempfile::TempDir,
}

impl Checkout {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory for the test");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(root.path(), open).expect("it is ours");
        let production = root.path().join("deploy/production");
        fs::create_dir_all(&production).expect("a new directory");
        for name in ["prepare", "otpd.toml"] {
            let from = repository::path("deploy/production").join(name);
            fs::copy(from, production.join(name)).expect("it exists");
        }
        fs::copy(env!("CARGO_BIN_EXE_otpd"), root.path().join("otpd")).expect("it was built");
        Self { root }
    }

    /// An empty directory of a user.
    fn directory(&self, name: &str, owner: u32) -> PathBuf {
        let directory = self.root.path().join(name);
        fs::create_dir(&directory).expect("a new directory");
        if is_root(self.root.path()) {
            std::os::unix::fs::chown(&directory, Some(owner), Some(owner)).expect("root may");
        }
        directory
    }

    /// Runs `prepare` as a user, which must be the current user unless that is root.
    fn prepare(&self, directory: &Path, user: u32) -> Ended {
        let mut command = Command::new(self.root.path().join("deploy/production/prepare"));
        command
            .arg(directory)
            .current_dir(self.root.path())
            .env("OTPD", self.root.path().join("otpd"));
        if is_root(self.root.path()) {
            command.uid(user).gid(user);
        }
        run(&mut command)
    }
}

fn is_root(ours: &Path) -> bool {
    fs::metadata(ours).expect("it was made").uid() == 0
}

fn hand_over(prepared: &Path, destination: &Path, owner: u32) -> Ended {
    let mut command = Command::new(repository::path("deploy/production/hand-over"));
    command
        .args([prepared, destination])
        .arg(format!("{owner}:{owner}"));
    run(&mut command)
}

/// Owner and mode of each file in a directory, by name.
fn listed(directory: &Path) -> BTreeMap<String, (u32, u32)> {
    let entries = fs::read_dir(directory).expect("it can be listed");
    let describe = |entry: fs::DirEntry| {
        let metadata = entry.metadata().expect("it exists");
        let name = entry.file_name().into_string().expect("plain names");
        (name, (metadata.uid(), metadata.mode() & 0o777))
    };
    entries
        .map(|entry| describe(entry.expect("it can be listed")))
        .collect()
}

fn names(directory: &Path) -> Vec<String> {
    listed(directory).into_keys().collect()
}

/// Returns the prepared files and an empty destination of each user that the tests may use: root
/// and another one, or else the current one.
fn prepared_by_each_user(checkout: &Checkout) -> Vec<(PathBuf, PathBuf, u32)> {
    let own = fs::metadata(checkout.root.path())
        .expect("it was made")
        .uid();
    let (users, reader) = match own {
        0 => (vec![0, SOMEONE], OTPD),
        _ => (vec![own], own),
    };
    let mut made = Vec::new();
    for user in users {
        let prepared = checkout.directory(&format!("prepared-{user}"), user);
        checkout.prepare(&prepared, user).done();
        let destination = checkout.directory(&format!("served-{user}"), own);
        made.push((prepared, destination, reader));
    }
    made
}

#[test]
fn files_prepared_by_any_user_are_readable_only_by_otpd() {
    let checkout = Checkout::new();
    for (prepared, destination, reader) in prepared_by_each_user(&checkout) {
        let secret = listed(&prepared);
        assert_eq!(secret["otpd.key"].1, 0o600, "{secret:?}");
        assert_eq!(secret["ca.key"].1, 0o600, "{secret:?}");

        hand_over(&prepared, &destination, reader).done();
        let handed = listed(&destination);
        let expected = [
            "ca.crt",
            "otpd.crt",
            "otpd.key",
            "otpd.keys",
            "otpd.toml",
            "sms-api-id",
        ];
        assert_eq!(
            handed.keys().collect::<Vec<_>>(),
            expected,
            "neither the authority's key nor what belongs to callers"
        );
        for (name, found) in &handed {
            assert_eq!(*found, (reader, 0o400), "{name}");
        }
        let metadata = fs::metadata(&destination).expect("it was made");
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (reader, 0o700));
    }
}

#[test]
fn repeated_hand_over_replaces_changed_files_and_removes_unneeded_ones() {
    let checkout = Checkout::new();
    let (prepared, destination, reader) = prepared_by_each_user(&checkout).remove(0);
    hand_over(&prepared, &destination, reader).done();
    let inode = |name: &str| {
        fs::metadata(destination.join(name))
            .expect("it exists")
            .ino()
    };
    let key = inode("otpd.key");

    let configuration = prepared.join("otpd.toml");
    let text = fs::read_to_string(&configuration).expect("it was made");
    let text = text.replace("/run/secrets/sms-api-id", "/run/secrets/gateway-key");
    fs::write(&configuration, &text).expect("it is ours");
    fs::write(prepared.join("gateway-key"), "secret").expect("a new file");

    let said = hand_over(&prepared, &destination, reader).done();
    assert_eq!(said, "copied gateway-key\ncopied otpd.toml\n");
    assert_eq!(inode("otpd.key"), key, "unchanged files stay");
    let served = fs::read_to_string(destination.join("otpd.toml")).expect("it exists");
    assert_eq!(served, text);
    let expected = [
        "ca.crt",
        "gateway-key",
        "otpd.crt",
        "otpd.key",
        "otpd.keys",
        "otpd.toml",
    ];
    assert_eq!(names(&destination), expected);
    assert_eq!(hand_over(&prepared, &destination, reader).done(), "");
}

#[test]
fn hand_over_of_incomplete_files_names_the_missing_one_and_copies_nothing() {
    let checkout = Checkout::new();
    let (prepared, destination, reader) = prepared_by_each_user(&checkout).remove(0);
    fs::remove_file(prepared.join("sms-api-id")).expect("it was made");
    let complaint = hand_over(&prepared, &destination, reader).line(66);
    assert!(complaint.contains("otpd needs sms-api-id"), "{complaint}");
    fs::remove_file(prepared.join("otpd.toml")).expect("it was made");
    let complaint = hand_over(&prepared, &destination, reader).line(66);
    assert!(
        complaint.contains("run deploy/production/prepare"),
        "{complaint}"
    );
    assert!(names(&destination).is_empty());
}

#[test]
fn hand_over_of_unreadable_files_asks_for_the_right_to_read() {
    let checkout = Checkout::new();
    let own = fs::metadata(checkout.root.path())
        .expect("it was made")
        .uid();
    let prepared = checkout.directory("prepared", own);
    fs::write(prepared.join("otpd.toml"), "").expect("a new file");
    fs::set_permissions(&prepared, fs::Permissions::from_mode(0o000)).expect("it is ours");
    let script = checkout.root.path().join("hand-over");
    fs::copy(repository::path("deploy/production/hand-over"), &script).expect("it exists");
    let mut command = Command::new(script);
    command
        .args([&prepared, checkout.root.path()])
        .arg(format!("{own}:{own}"))
        .current_dir(checkout.root.path());
    if own == 0 {
        command.uid(SOMEONE).gid(SOMEONE);
    }
    let complaint = run(&mut command).line(66);
    assert!(complaint.contains("cannot be read"), "{complaint}");
}

#[test]
fn prepare_without_otpd_names_the_commands_that_build_it() {
    let checkout = Checkout::new();
    let mut command = Command::new(checkout.root.path().join("deploy/production/prepare"));
    // Without the directories in which otpd or Docker may be.
    let programs = checkout.directory("programs", 0);
    for name in ["bash", "dirname"] {
        let found = ["/usr/bin", "/bin"].map(|directory| Path::new(directory).join(name));
        let found = found.into_iter().find(|path| path.exists());
        std::os::unix::fs::symlink(found.expect("every machine has it"), programs.join(name))
            .expect("a new link");
    }
    command.env("PATH", &programs).env_remove("OTPD");
    let complaint = run(&mut command).line(69);
    assert!(
        complaint.contains("cargo build --release --locked"),
        "{complaint}"
    );
    assert!(complaint.contains("docker compose build"), "{complaint}");
}

/// Default host ports on which compose publishes the replicas.
fn published_ports(compose: &str) -> (u16, u16) {
    let (_, rest) = compose
        .split_once("- \"127.0.0.1:${OTPD_PORTS:-")
        .expect("the replicas are published on loopback");
    let (range, _) = rest.split_once("}:50051\"").expect("otpd's own port");
    let (first, last) = range.split_once('-').expect("a range");
    (
        first.parse().expect("a port"),
        last.parse().expect("a port"),
    )
}

#[test]
fn compose_publishes_each_replica_below_the_ephemeral_ports() {
    let compose = repository::read("docker-compose.yml");
    let (first, last) = published_ports(&compose);
    let (_, replicas) = compose.split_once("replicas: ").expect("the number");
    let replicas: u16 = replicas
        .lines()
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a number");
    assert_eq!(last - first + 1, replicas);
    // The lowest default of any system: Linux begins at 32768.
    assert!(last < 32768, "{last}");
    let page = repository::read("docs/compose.md");
    assert!(page.contains(&format!("{first} to {last}")));
}

#[test]
fn compose_hands_files_to_the_user_of_the_image() {
    let owner = format!("{OTPD}:{OTPD}");
    let image = repository::read("Dockerfile");
    assert!(image.contains(&format!("\nUSER {owner}\n")), "{image}");
    let production = repository::read("docker-compose.production.yml");
    let command = format!("command: [\"/prepared\", \"/secrets\", \"{owner}\"]");
    assert!(production.contains(&command), "{production}");
}
