//! deploy/kubernetes.yaml, checked without Kubernetes: its mounts and settings start a
//! server, its probes succeed, and the objects that docs/kubernetes.md creates are those
//! that it needs.

use std::{fs, path::PathBuf, process::Command};

use crate::support::{Database, Replica, otpd, repository, run};

/// Directory in which the manifest mounts everything.
const MOUNTED: &str = "/etc/otpd";

fn manifest() -> String {
    repository::read("deploy/kubernetes.yaml")
}

/// Returns the file in the ConfigMap: the lines that are indented further than its key.
fn configuration(manifest: &str) -> String {
    let (_, rest) = manifest.split_once("  otpd.toml: |\n").expect("it exists");
    let lines = rest
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("    "));
    let lines: Vec<&str> = lines
        .map(|line| line.get(4..).unwrap_or_default())
        .collect();
    lines.join("\n")
}

/// The variables of the container.
fn environment(manifest: &str) -> Vec<(String, String)> {
    let mut lines = manifest.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("- name: ") else {
            continue;
        };
        if name == "DATABASE_URL_FILE" || name.starts_with("OTPD_") {
            let value = lines.next().and_then(|line| line.strip_prefix("value: "));
            found.push((name.to_owned(), value.expect("each has a value").to_owned()));
        }
    }
    found
}

/// The commands of all probes.
fn probes(manifest: &str) -> Vec<Vec<String>> {
    let commands = manifest.lines().filter_map(|line| {
        let list = line.trim().strip_prefix("command: [")?.strip_suffix(']')?;
        Some(list.split(", ").map(str::to_owned).collect())
    });
    commands.collect()
}

/// Creates the files of the Secrets as described in docs/kubernetes.md, in the directories of the
/// mounts.
fn lay_out(database: &Database, manifest: &str) -> PathBuf {
    let mounted = database.directory().join("mounted");
    let made = database.directory().join("made");
    let prepared = Command::new(repository::path("deploy/production/prepare"))
        .arg(&made)
        .env("OTPD", env!("CARGO_BIN_EXE_otpd"))
        .env("SERVER_NAMES", "DNS:otpd.otpd.svc")
        .output()
        .expect("the script runs");
    assert!(prepared.status.success(), "{prepared:?}");
    for (directory, files) in [
        (
            "secrets",
            [("otpd.keys", "otpd.keys"), ("sms-api-id", "sms-api-id")].as_slice(),
        ),
        (
            "tls",
            &[
                ("otpd.crt", "tls.crt"),
                ("otpd.key", "tls.key"),
                ("ca.crt", "ca.crt"),
            ],
        ),
    ] {
        fs::create_dir_all(mounted.join(directory)).expect("a new directory");
        for (from, to) in files {
            fs::copy(made.join(from), mounted.join(directory).join(to)).expect("it was made");
        }
    }
    let url = mounted.join("secrets/database-url");
    fs::write(url, format!("{}\n", database.url())).expect("a new file");
    fs::create_dir_all(mounted.join("config")).expect("a new directory");
    let here = mounted.display().to_string();
    let text = configuration(manifest).replace(MOUNTED, &here);
    fs::write(mounted.join("config/otpd.toml"), text).expect("a new file");
    mounted
}

#[tokio::test(flavor = "multi_thread")]
async fn manifest_configuration_serves_and_probes_succeed() {
    let database = Database::postgres().await;
    let manifest = manifest();
    let mounted = lay_out(&database, &manifest);
    let here = mounted.display().to_string();
    let set: Vec<(String, String)> = environment(&manifest)
        .into_iter()
        // Settings of this machine: a free port, and the directories of the mounts.
        .filter(|(name, _)| name != "OTPD_LISTEN" && name != "OTPD_ADDRESS")
        .map(|(name, value)| (name, value.replace(MOUNTED, &here)))
        .collect();
    assert!(set.len() >= 7, "{set:?}");

    // Like the Job in docs/kubernetes.md.
    run(otpd().arg("migrate").envs(set.clone())).done();
    // A closed port instead of the real gateway, which a test must not call.
    let checked = run(otpd()
        .arg("check")
        .envs(set.clone())
        .env("OTPD_PROVIDERS__SMS__CHECK__URL", "http://127.0.0.1:1/")
        .env("OTPD_PROVIDERS__SMS__ALLOW_PRIVATE_ADDRESSES", "true")
        .current_dir(database.directory()));
    let printed = checked.printed(69);
    assert_eq!(printed.matches("FAILED").count(), 1, "{printed}");
    assert!(printed.contains("FAILED  provider sms"), "{printed}");
    assert!(
        printed.contains("ok      configuration: production"),
        "{printed}"
    );
    assert!(printed.contains("ok      tls: "), "{printed}");

    let mut environment: Vec<(&str, &str)> = set
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    // The harness names both by other variables.
    environment.extend([("DATABASE_URL", ""), ("OTPD_SHUTDOWN_DELAY", "0s")]);
    let replica = Replica::launch("", &database, &environment).await;
    replica.wait_for_line("Store available").await;
    let probes = probes(&manifest);
    assert_eq!(probes.len(), 3, "{probes:?}");
    for probe in probes {
        assert_eq!(probe[0], "otpd");
        let address = format!("https://localhost:{}", replica.address().port());
        let mut command = otpd();
        command
            .args(&probe[1..])
            .env("OTPD_ADDRESS", address)
            .env("OTPD_CA", mounted.join("tls/ca.crt"));
        // It serves a moment after its first line.
        while run(&mut command).printed_any() != "SERVING\n" {}
    }
    let (status, log) = replica.stop().await;
    assert!(status.success(), "{log}");
}

#[test]
fn termination_grace_period_exceeds_shutdown_time() {
    let manifest = manifest();
    let seconds = |name: &str| -> u64 {
        let all = environment(&manifest);
        let (_, value) = all
            .iter()
            .find(|(known, _)| known == name)
            .expect("it is set");
        humantime::parse_duration(value)
            .expect("a duration")
            .as_secs()
    };
    let (_, rest) = manifest
        .split_once("terminationGracePeriodSeconds: ")
        .expect("it is set");
    let given: u64 = rest
        .lines()
        .next()
        .and_then(|text| text.parse().ok())
        .expect("a number");
    // A second to say farewell, and store.timeout.
    let needed = seconds("OTPD_SHUTDOWN_DELAY") + seconds("OTPD_SHUTDOWN_TIMEOUT") + 1 + 2;
    assert!(given > needed, "{given} {needed}");
}
