//! Two versions side by side: the statements of the previous version still work after the
//! migrations of this one.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::support::{Database, Replica, repository};

/// The statements of a version by the migration that it ends with.
fn levels() -> BTreeMap<i64, Vec<String>> {
    let mut levels = BTreeMap::new();
    for entry in fs::read_dir(directory()).expect("the fixtures are there") {
        let path = entry.expect("they can be read").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let level = name.and_then(|name| name.parse().ok()).expect("a number");
        let text = fs::read_to_string(&path).expect("they can be read");
        levels.insert(level, serde_json::from_str(&text).expect("a list"));
    }
    levels
}

fn directory() -> PathBuf {
    repository::path("tests/integration/fixtures/statements")
}

/// Statements of this version, from the query cache of its build.
fn statements_of_this_version() -> Vec<String> {
    let cache = repository::path(".sqlx");
    let mut statements = Vec::new();
    for entry in fs::read_dir(cache).expect("the cache is committed") {
        let path = entry.expect("it can be read").path();
        let text = fs::read_to_string(path).expect("it can be read");
        let query: serde_json::Value = serde_json::from_str(&text).expect("sqlx wrote it");
        let query = query["query"].as_str().expect("sqlx wrote it");
        statements.push(query.to_owned());
    }
    statements.sort();
    statements
}

async fn newest(database: &Database) -> (PgConnection, i64) {
    drop(Replica::start(database).await);
    let level = database.number("SELECT max(version) FROM otp_migrations");
    let level = level.await;
    let connection = PgConnection::connect(database.url()).await;
    (connection.expect("the database was made"), level)
}

/// So that the next migration finds them here: `UPDATE_STATEMENTS=1` writes them.
#[tokio::test(flavor = "multi_thread")]
async fn statements_of_the_current_schema_are_recorded() {
    let database = Database::postgres().await;
    let (_, level) = newest(&database).await;
    let statements = statements_of_this_version();
    if env::var_os("UPDATE_STATEMENTS").is_some() {
        let text = serde_json::to_string_pretty(&statements).expect("texts are plain");
        let file = directory().join(format!("{level:04}.json"));
        fs::write(file, text + "\n").expect("the fixtures can be written");
        return;
    }
    assert_eq!(
        levels().get(&level),
        Some(&statements),
        "run this test with UPDATE_STATEMENTS=1, and commit what it wrote"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_earlier_versions_work_on_the_newest_schema() {
    let database = Database::postgres().await;
    let (mut connection, newest) = newest(&database).await;
    let levels = levels();
    assert!(levels.keys().any(|level| *level < newest));
    for (level, statements) in levels {
        for (number, statement) in statements.iter().enumerate() {
            // PREPARE fails if the statement names anything that does not exist.
            let prepare = format!("PREPARE of_{level}_{number} AS {statement}");
            let prepared = connection.execute(AssertSqlSafe(prepare)).await;
            prepared.unwrap_or_else(|error| panic!("level {level}: {error}\n{statement}"));
            for (table, given) in inserts(statement) {
                let missing: Vec<_> = needed(&mut connection, &table)
                    .await
                    .into_iter()
                    .filter(|column| !given.contains(column))
                    .collect();
                assert!(
                    missing.is_empty(),
                    "level {level} gives no {missing:?}\n{statement}"
                );
            }
        }
    }
}

/// The tables that a statement inserts into, with the columns that it gives.
fn inserts(statement: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut found = Vec::new();
    for rest in statement.split("INSERT INTO ").skip(1) {
        let (table, rest) = rest.split_once('(').expect("a list of columns");
        let (columns, _) = rest.split_once(')').expect("a list of columns");
        let columns = columns.split(',').map(|column| column.trim().to_owned());
        // It may have an alias.
        let table = table.split_whitespace().next().expect("a name");
        found.push((table.to_owned(), columns.collect()));
    }
    found
}

/// The columns that must be given.
async fn needed(connection: &mut PgConnection, table: &str) -> BTreeSet<String> {
    let needed: Vec<String> = sqlx::query_scalar(
        "SELECT column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name = $1
             AND is_nullable = 'NO' AND column_default IS NULL AND is_generated = 'NEVER'",
    )
    .bind(table)
    .fetch_all(connection)
    .await
    .expect("everybody may");
    assert!(!needed.is_empty(), "there is no table {table}");
    needed.into_iter().collect()
}

#[test]
fn columns_of_a_statement_are_extracted() {
    let given =
        inserts("WITH a AS (INSERT INTO x AS y (a, b) SELECT 1) INSERT INTO z (c) VALUES (1)");
    let columns = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    assert_eq!(
        given,
        [
            ("x".to_owned(), columns(&["a", "b"])),
            ("z".to_owned(), columns(&["c"]))
        ]
    );
}
