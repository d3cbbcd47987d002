//! TLS to PostgreSQL: URL parameters mean the same as in libpq, and the files that they
//! name must exist.

use std::{fs, path::Path};

use tonic_health::pb::health_check_response::ServingStatus;

use super::wait_for_health;
use crate::support::{Database, Postgres, Replica, TestCa, dns, otpd, repository};

/// Starts a server with this certificate and its key.
fn serve_tls(certificate: &str, key: &str) -> Postgres {
    let server = Postgres::start_with("");
    for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
        server.add_file(name, text);
    }
    server.configure("ssl = on\nssl_cert_file = 'tls.crt'\nssl_key_file = 'tls.key'");
    server.restart();
    server
}

/// A server with a certificate for another name than its address.
struct World {
    database: Database,
    server: Postgres,
    /// The authority of its certificate, and another one.
    right: String,
    wrong: String,
}

impl World {
    fn new() -> Self {
        let database = Database::sqlite();
        let directory = database.directory();
        let [right, wrong] = ["right", "wrong"].map(TestCa::new);
        let proof = right.certify(dns("db.example"), |_| {});
        let server = serve_tls(&proof.certificate, &proof.key);
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).expect("the directory is ours");
            path.display().to_string()
        };
        Self {
            right: write("right.pem", &right.certificate),
            wrong: write("wrong.pem", &wrong.certificate),
            database,
            server,
        }
    }

    fn url(&self, parameters: &str) -> String {
        format!("{}?{parameters}", self.server.url())
    }

    async fn launch(&self, parameters: &str) -> Replica {
        Replica::launch(&self.url(parameters), &self.database, &[]).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_certificate_is_verified_in_every_applicable_sslmode() {
    let world = World::new();
    let World { right, wrong, .. } = &world;
    for parameters in [
        format!("sslmode=require&sslrootcert={right}"),
        format!("sslmode=verify-ca&sslrootcert={right}"),
        "sslmode=require".to_owned(),
        "ssl=true".to_owned(),
    ] {
        let replica = world.launch(&parameters).await;
        wait_for_health(&replica, ServingStatus::Serving).await;
    }
    for parameters in [
        format!("sslmode=require&sslrootcert={wrong}"),
        format!("sslmode=verify-ca&sslrootcert={wrong}"),
        format!("sslmode=verify-full&sslrootcert={right}"),
        "sslmode=verify-full".to_owned(),
        "sslrootcert=system".to_owned(),
    ] {
        let replica = world.launch(&parameters).await;
        let line = replica.wait_for_line("Store ").await;
        assert!(line.contains("Store unavailable"), "{parameters}: {line}");
        assert!(line.contains("certificate"), "{parameters}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_urls_of_hosting_providers_are_accepted() {
    let world = World::new();
    let parameters = "sslmode=require&channel_binding=prefer&connect_timeout=10&keepalives=1\
        &keepalives_idle=30&keepalives_interval=10&keepalives_count=5&tcp_user_timeout=0\
        &gssencmode=disable&target_session_attrs=read-write&application_name=otp-eu\
        &options=-c%20search_path%3Dpublic&sslnegotiation=postgres&client_encoding=UTF8";
    let replica = world.launch(parameters).await;
    wait_for_health(&replica, ServingStatus::Serving).await;
    // It fails where there is none.
    world
        .server
        .execute("SELECT 1 / count(*) FROM pg_stat_activity WHERE application_name = 'otp-eu'")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_certificate_file_is_named_in_the_outage_log() {
    let world = World::new();
    let parameters = format!("sslmode=verify-ca&sslrootcert={}", world.right);
    let replica = world.launch(&parameters).await;
    wait_for_health(&replica, ServingStatus::Serving).await;
    fs::remove_file(&world.right).expect("it was there");
    world.server.restart();
    let line = replica
        .wait_for_line(&format!("sslrootcert: {}", world.right))
        .await;
    assert!(line.contains("No such file"), "{line}");
}

/// Such a certificate is what `openssl x509 -req` makes without extensions.
#[tokio::test(flavor = "multi_thread")]
async fn x509_v1_certificate_is_reported_and_prefer_goes_on_without_tls() {
    let server = serve_tls(
        include_str!("../fixtures/x509_v1/server.crt"),
        include_str!("../fixtures/x509_v1/server.key"),
    );
    let database = Database::sqlite();
    let replica = Replica::launch(&server.url(), &database, &[]).await;
    let line = replica.wait_for_line("are not encrypted").await;
    assert!(
        line.contains("WARN") && line.contains("X.509 version 1"),
        "{line}"
    );
    // Neither each connection nor each check reports it.
    wait_for_health(&replica, ServingStatus::Serving).await;
    assert_eq!(replica.log().matches("not encrypted").count(), 1);

    let url = format!("{}?sslmode=require", server.url());
    let replica = Replica::launch(&url, &database, &[]).await;
    let line = replica.wait_for_line("Store unavailable").await;
    assert!(line.contains("X.509 version 1"), "{line}");
    assert!(line.contains("sslmode=disable"), "{line}");
}

/// Starts otpd with a URL that it refuses, and returns its error text.
fn refused(url: &str, directory: &Path, variables: &[(&str, &str)]) -> String {
    let ended = otpd()
        .env("DATABASE_URL", url)
        .env("OTPD_LISTEN", "127.0.0.1:0")
        .envs(variables.iter().copied())
        .current_dir(directory)
        .output()
        .expect("the binary was built");
    let text = String::from_utf8(ended.stderr).expect("it is text");
    assert_eq!(ended.status.code(), Some(64), "{url}: {text}");
    assert!(!text.contains("s3cret"), "{url}: {text}");
    text
}

#[test]
fn unsupported_url_parameters_are_rejected_by_name_at_start() {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("the directory is ours");
        path.display().to_string()
    };
    let authority = file("ca.pem", &TestCa::new("one").certificate);
    let empty = file("empty.pem", "no certificate\n");
    for (parameters, reply) in [
        (
            "sslmode=verify-full&sslrootcert=/absent/ca.pem",
            "sslrootcert: /absent/ca.pem: No such file",
        ),
        (
            &*format!("sslmode=verify-full&sslrootcert={empty}"),
            &*format!("sslrootcert: {empty}: holds no certificate"),
        ),
        (
            &format!("sslrootcert={authority}"),
            "sslrootcert: has no effect",
        ),
        (
            &format!("sslmode=prefer&sslrootcert={authority}"),
            "sslrootcert: has no effect",
        ),
        ("sslmode=verify-ca", "sslmode=verify-ca: needs"),
        ("sslmode=require&sslrootcert=system", "sslrootcert=system: "),
        ("sslmode=allow", "sslmode=allow: not supported"),
        ("sslmode=sometimes", "sslmode: give "),
        (
            "sslmode=disable&channel_binding=require",
            "channel_binding=require: ",
        ),
        (
            "sslcert=/absent/client.pem",
            "sslcert and sslkey: give both",
        ),
        (
            "sslmode=require&sslcert=/absent/client.pem&sslkey=/absent/client.key",
            "sslcert: /absent/client.pem: No such file",
        ),
        ("sslcrl=/etc/crl.pem", "sslcrl: not supported"),
        ("require_auth=scram-sha-256", "require_auth: not supported"),
        ("gssencmode=require", "gssencmode: "),
        ("target_session_attrs=read-only", "target_session_attrs: "),
        (
            "ssl_min_protocol_version=TLSv1.3",
            "ssl_min_protocol_version: ",
        ),
        (
            "connect_timeout=soon",
            "connect_timeout: not a whole number",
        ),
        ("sslmod=require", "unknown parameter, sslmod"),
    ] {
        let url = format!("postgres://otpd:s3cret@127.0.0.1:1/otpd?{parameters}");
        let text = refused(&url, directory.path(), &[]);
        assert!(text.contains(reply), "{parameters}: {text}");
    }
    // Also by a variable of libpq, which would be ignored if it were not read.
    let url = "postgres://otpd@127.0.0.1:1/otpd";
    let text = refused(url, directory.path(), &[("PGSSLMODE", "verify-fll")]);
    assert!(text.contains("sslmode: give "), "{text}");
}

#[test]
fn unescaped_password_is_rejected_with_the_remedy() {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    for (password, remedy) in [
        ("s3cret#1", "%23"),
        ("s3cret/1", "%2F"),
        ("s3cret?1", "%3F"),
        ("s3cret?a&b=1", "%3F"),
        ("s3cret/a?b#c", "%23"),
    ] {
        let url = format!("postgres://otpd:{password}@127.0.0.1/otpd");
        let text = refused(&url, directory.path(), &[]);
        assert!(text.contains(remedy), "{password}: {text}");
    }
}

/// sqlx adds its own authorities to those in `sslrootcert`. It is built without any.
#[test]
fn sqlx_ships_no_root_certificates() {
    let lock = fs::read_to_string(repository::path("Cargo.lock")).expect("it is committed");
    let package = lock
        .split("[[package]]")
        .find(|package| package.contains("name = \"webpki-roots\""))
        .expect("sqlx names it");
    assert!(!package.contains("source = "), "{package}");
}
