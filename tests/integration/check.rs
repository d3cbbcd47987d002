//! `otpd check`: its report on a correct configuration and on each fault.

use std::fs;

use crate::{
    providers::gateway::{Gateway, Nobody},
    support::{Database, Ended, Kind, on_each_store, otpd, run},
};

/// Runs `otpd check` with this configuration on this database.
fn check(database: &Database, url: &str, configuration: &str) -> Ended {
    let file = database.directory().join("check.toml");
    fs::write(&file, configuration).expect("the directory takes files");
    run(otpd()
        .arg("check")
        .current_dir(database.directory())
        .env("DATABASE_URL", url)
        .env("OTPD_KEYS_FILE", database.keys_file())
        .env("OTPD_CONFIG", file))
}

/// Returns a configuration with a provider whose requests and check go to `gateway`.
fn configuration(gateway: &str) -> String {
    format!(
        r#"
        [providers.sms]
        kind = "http"
        url = "{gateway}/send"
        form = {{ to = "{{to_digits}}", text = "{{text}}" }}
        allow_private_addresses = true
        check = {{ url = "{gateway}/balance", conditions = [{{ pointer = "/ok", equals = true }}] }}

        [[routes]]
        providers = ["sms"]
        "#
    )
}

async fn check_reports_success(kind: Kind) {
    let database = Database::new(kind).await;
    let mut gateway = Gateway::start().await;
    let configuration = configuration(&gateway.url(""));
    let migrated = run(otpd().arg("migrate").env("DATABASE_URL", database.url()));
    migrated.done();

    gateway.will_answer(200, r#"{"ok":true}"#);
    let output = check(&database, database.url(), &configuration).done();
    for line in [
        "ok      configuration: development environment",
        "ok      keys: ",
        "ok      database, ",
        "a record was written, read and purged",
        "ok      provider sms: ",
        "text    default in en: ",
        "text    default in ru: ",
    ] {
        assert!(output.contains(line), "no {line:?} in {output}");
    }
    assert_eq!(gateway.request().await.path, "/balance");
    assert!(gateway.is_idle(), "a check sends nothing");
    let left = database.number("SELECT count(*) FROM otp_record").await;
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_each_fault_with_its_remedy() {
    let database = Database::new(Kind::Sqlite).await;
    run(otpd().arg("migrate").env("DATABASE_URL", database.url())).done();
    let gateway = Gateway::start().await;
    let sound = configuration(&gateway.url(""));
    let nobody = Nobody::new();

    gateway.will_answer(200, r#"{"ok":true}"#);
    let absent = "postgres://postgres@127.0.0.1:1/absent";
    let output = check(&database, absent, &sound).printed(69);
    assert!(
        output.contains("FAILED  database, PostgreSQL: "),
        "{output}"
    );
    assert!(output.contains("check that the database runs"), "{output}");
    assert!(output.contains("ok      provider sms"), "{output}");

    // A file without the schema.
    gateway.will_answer(200, r#"{"ok":true}"#);
    let empty = format!("sqlite://{}", database.directory().join("new.db").display());
    let output = check(&database, &empty, &sound).printed(69);
    assert!(output.contains("run `otpd migrate`"), "{output}");

    // A gateway that does not let the account in, and one that is not there.
    gateway.will_answer(200, r#"{"ok":false}"#);
    for configuration in [sound, configuration(nobody.url().trim_end_matches('/'))] {
        let output = check(&database, database.url(), &configuration).printed(69);
        assert!(output.contains("FAILED  provider sms: "), "{output}");
        assert!(output.contains("see [providers.sms]"), "{output}");
        assert!(output.contains("ok      database"), "{output}");
    }

    for (mistake, key) in [
        ("[[routes]]\nproviders = [\"sms\"]", "routes[0].providers"),
        ("[providers.sms]\nkind = \"log\"", "routes"),
        ("[providers.SMS]\nkind = \"log\"", "providers.SMS"),
        (
            "[providers.sms]\nkind = \"log\"\nbreaker_failures = 0",
            "providers.sms.breaker_failures",
        ),
        (
            "[providers.sms]\nkind = \"log\"\n[[routes]]\nproviders = [\"sms\", \"sms\"]",
            "routes[0].providers",
        ),
        (
            "[providers.sms]\nkind = \"log\"\n[[routes]]\nproviders = [\"sms\"]\ncallers = [\"x\"]",
            "routes[0].callers",
        ),
        (
            "[texts.default.en]\nplain = \"no code\"",
            "texts.default.en.plain",
        ),
    ] {
        let output = check(&database, database.url(), mistake).line(64);
        assert!(
            output.starts_with(&format!("otpd: {key}: ")),
            "{output} lacks {key}"
        );
    }
}

on_each_store! {
    check_reports_success
}
