//! Faults of the database itself: each cause is reported, without secrets.

use std::fs;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tonic_health::pb::health_check_response::ServingStatus;

use super::{
    DEADLINE, ask_many, assert_all_unavailable, assert_one_line_each, remarks, send,
    wait_for_health, watch_liveness,
};
use crate::support::{Database, Replica, otpd};

/// A database that responds, but cannot serve requests.
#[tokio::test(flavor = "multi_thread")]
async fn unusable_database_counts_as_unavailable() {
    let database = Database::postgres().await;
    let replica = Replica::launch(database.url(), &database, &[]).await;
    wait_for_health(&replica, ServingStatus::Serving).await;
    let (_, name) = database.url().rsplit_once('/').unwrap();
    let default_read_only =
        |value| format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}");
    // Only new sessions take up a default.
    let end_sessions = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                        WHERE datname = current_database() AND pid <> pg_backend_pid()";

    for (number, (break_it, mend_it, cause)) in [
        (
            "ALTER TABLE otp_record RENAME TO otp_lost".to_owned(),
            "ALTER TABLE otp_lost RENAME TO otp_record".to_owned(),
            "\"otp_record\" does not exist",
        ),
        (
            default_read_only("on"),
            default_read_only("off"),
            "read-only",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let (_, start) = remarks(&replica, 0);
        let mut connection = PgConnection::connect(database.url()).await.unwrap();
        for statement in [break_it.as_str(), end_sessions] {
            let statement = AssertSqlSafe(statement.to_owned());
            connection.execute(statement).await.expect("it is broken");
        }
        wait_for_health(&replica, ServingStatus::NotServing).await;
        replica.wait_for_line(cause).await;
        assert_all_unavailable(ask_many(&replica, DEADLINE)).await;

        let mend_it = AssertSqlSafe(format!(
            "SET default_transaction_read_only = off; {mend_it}"
        ));
        connection.execute(mend_it).await.expect("it is repaired");
        wait_for_health(&replica, ServingStatus::Serving).await;
        replica.wait_for_lines("Store available", 2 + number).await;
        assert_one_line_each(&remarks(&replica, start).0);
        let challenge = send(replica.client(), number, DEADLINE).await;
        replica.code(&challenge.expect("it is sent")).await;
    }
}

/// A server that asks for a password and takes none.
async fn refuse_passwords(listener: TcpListener) {
    const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();
    loop {
        let (mut client, _) = listener.accept().await.expect("the listener is open");
        let mut read = async || {
            let length = client.read_u32().await?;
            let mut message = vec![0; length as usize - 4];
            client.read_exact(&mut message).await?;
            if message == SSL_REQUEST {
                client.write_all(b"N").await?;
                let length = client.read_u32().await?;
                message = vec![0; length as usize - 4];
                client.read_exact(&mut message).await?;
            }
            // AuthenticationCleartextPassword, then a PasswordMessage.
            client.write_all(b"R\0\0\0\x08\0\0\0\x03").await?;
            client.read_u8().await?;
            let length = client.read_u32().await?;
            client.read_exact(&mut vec![0; length as usize - 4]).await?;
            let fields = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0";
            let length = u32::try_from(fields.len() + 4).expect("it is short");
            client.write_all(b"E").await?;
            client.write_u32(length).await?;
            client.write_all(fields).await
        };
        // A client may disconnect early.
        let _: std::io::Result<()> = read().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_shows_the_cause_but_no_password_or_url() {
    const PASSWORD: &str = "correct-horse";
    let database = Database::postgres().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = listener.local_addr().unwrap();
    tokio::spawn(refuse_passwords(listener));
    let with_password = database.url().replacen('@', &format!(":{PASSWORD}@"), 1);

    for (url, cause) in [
        (
            format!("postgres://otpd:{PASSWORD}@{refusing}/otpd"),
            "password authentication failed",
        ),
        (format!("{with_password}_absent"), "does not exist"),
        (
            format!("postgres://otpd:{PASSWORD}@127.0.0.1:1/otpd"),
            "Connection refused",
        ),
        (
            format!("postgres://otpd:{PASSWORD}@name.invalid/otpd"),
            "lookup",
        ),
    ] {
        let replica = Replica::launch(&url, &database, &[("OTPD_LOG_LEVEL", "trace")]).await;
        let line = replica.wait_for_line("Store unavailable").await;
        assert!(line.contains(cause), "{line}");
        assert_all_unavailable(ask_many(&replica, DEADLINE)).await;
        let log = replica.log();
        assert!(!log.contains(PASSWORD), "{log}");
        assert!(!log.contains("postgres://"), "{log}");
        assert_eq!(log.matches("Store unavailable").count(), 1, "{log}");
    }
}

#[test]
fn invalid_url_is_rejected_and_not_shown() {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    for url in [
        "postgres://otpd:correct-horse@127.0.0.1/otpd?pasword=correct-horse",
        "postgres://otpd:correct-horse@127.0.0.1/otpd?sslmod=require",
        "postgres://otpd:correct-horse@127.0.0.1/otpd?sslmode=sometimes",
        "postgres://otpd:correct-horse@127.0.0.1:correct-horse/otpd",
        "mysql://otpd:correct-horse@127.0.0.1/otpd",
        "correct-horse",
    ] {
        let ended = otpd()
            .env("DATABASE_URL", url)
            .env("OTPD_LISTEN", "127.0.0.1:0")
            .env("OTPD_LOG_LEVEL", "trace")
            .current_dir(directory.path())
            .output()
            .expect("the binary was built");
        let output = [ended.stdout, ended.stderr].map(|text| String::from_utf8(text).unwrap());
        assert_eq!(ended.status.code(), Some(64), "{output:?}");
        assert!(output[1].contains("database_url: "), "{output:?}");
        for text in &output {
            assert!(!text.contains("correct-horse"), "{url}: {output:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unopenable_sqlite_file_is_reported_and_used_after_recovery() {
    let database = Database::sqlite();
    let directory = database.directory().join("later");
    fs::write(database.directory().join("file"), "no directory").unwrap();
    fs::create_dir(&directory).unwrap();
    let garbage = directory.join("garbage.db");
    fs::write(&garbage, "no database ".repeat(1_000)).unwrap();

    let absent = database.directory().join("absent/otpd.db");
    let below_a_file = database.directory().join("file/otpd.db");
    for (path, cause) in [
        (&absent, "No such file or directory"),
        (&below_a_file, "Not a directory"),
        (&garbage, "file is not a database"),
    ] {
        let url = format!("sqlite://{}", path.display());
        let replica = Replica::launch(&url, &database, &[]).await;
        let liveness = watch_liveness(&replica).await;
        let line = replica.wait_for_line("Store unavailable").await;
        assert!(line.contains(cause), "{line}");
        wait_for_health(&replica, ServingStatus::NotServing).await;
        assert_all_unavailable(ask_many(&replica, DEADLINE)).await;

        let parent = path.parent().unwrap();
        if parent.is_file() {
            fs::remove_file(parent).unwrap();
        }
        fs::create_dir_all(parent).unwrap();
        if path.exists() {
            fs::remove_file(path).unwrap();
        }
        wait_for_health(&replica, ServingStatus::Serving).await;
        replica.wait_for_lines("Store available", 1).await;
        assert_one_line_each(&remarks(&replica, 1).0);
        let challenge = send(replica.client(), 1, DEADLINE)
            .await
            .expect("it is sent");
        replica.code(&challenge).await;
        assert!(!liveness.is_finished());
    }
}
