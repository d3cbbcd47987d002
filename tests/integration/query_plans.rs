//! PostgreSQL plans of every statement, on tables of any size: rows are found by indexes,
//! and a batch is scanned once.

use std::{collections::BTreeMap, fs};

use otpd::store::SESSION_OPTIONS;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use crate::support::{Database, Kind, Replica, repository};

/// Number of rows that each table is filled up to.
const SIZES: [i64; 4] = [1, 100, 10_000, 100_000];
/// The tables that grow.
const TABLES: [&str; 3] = ["otp_record", "otp_limit", "otp_message"];
/// Index required for each statement that selects old rows.
const PURGES: [(&str, &str); 3] = [
    ("DELETE FROM otp_record", "otp_record_removable_at"),
    ("DELETE FROM otp_limit", "otp_limit_full_hour"),
    ("DELETE FROM otp_message", "otp_message_removable_at"),
];

/// A checked statement, from the cache that the build makes.
struct Statement {
    text: String,
    parameters: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_plan_uses_an_index() {
    let database = Database::new(Kind::Postgres).await;
    drop(Replica::start(&database).await);
    let mut connection = session(&database).await;
    let statements = statements();
    assert!(
        statements.len() >= 8,
        "the cache of the queries is not there"
    );
    // Like a replica that started on an empty database.
    for (number, statement) in statements.iter().enumerate() {
        prepare(&mut connection, &format!("early_{number}"), statement).await;
        plan(&mut connection, &format!("early_{number}"), statement).await;
    }
    let mut filled = 0;
    for size in SIZES {
        fill(&mut connection, filled + 1, size).await;
        filled = size;
        for analyzed in [false, true] {
            if analyzed {
                connection
                    .execute("ANALYZE")
                    .await
                    .expect("it is a superuser");
            }
            for (number, statement) in statements.iter().enumerate() {
                let late = format!("late_{size}_{analyzed}_{number}");
                prepare(&mut connection, &late, statement).await;
                for name in [format!("early_{number}"), late] {
                    let plan = plan(&mut connection, &name, statement).await;
                    let faults = faults(&plan, &statement.text);
                    assert!(
                        faults.is_empty(),
                        "{faults:?} on {size} rows (analyzed: {analyzed}) in\n{plan:#}\nof\n{}",
                        statement.text
                    );
                }
            }
        }
    }
}

#[test]
fn plan_checker_detects_bad_plans() {
    let index = serde_json::json!({
        "Node Type": "Index Scan", "Relation Name": "otp_record", "Index Name": "otp_record_pkey",
    });
    let scan = serde_json::json!({"Node Type": "Seq Scan", "Relation Name": "otp_record"});
    let batch = serde_json::json!({"Node Type": "CTE Scan", "CTE Name": "input"});
    let sub_plan =
        serde_json::json!({"Node Type": "CTE Scan", "Filter": "((SubPlan 6) IS NOT TRUE)"});
    let hashed = serde_json::json!({
        "Node Type": "CTE Scan", "Filter": "((hashed SubPlan 6) IS NOT TRUE)",
    });
    let join = |outer: &Value, inner: &Value| serde_json::json!({"Node Type": "Nested Loop", "Plans": [outer, inner]});
    let limit = serde_json::json!({"Node Type": "Limit", "Plans": [{
        "Node Type": "Index Scan", "Parent Relationship": "Outer",
    }]});
    for good in [
        &index,
        &hashed,
        &join(&batch, &index),
        &join(&batch, &limit),
    ] {
        assert!(faults(good, "").is_empty(), "{good}");
    }
    for bad in [
        &scan,
        &sub_plan,
        &join(&index, &batch),
        &join(&batch, &scan),
    ] {
        assert!(!faults(bad, "").is_empty(), "{bad}");
    }
    assert!(!faults(&index, "DELETE FROM otp_record").is_empty());
}

/// Returns the faults of a plan.
fn faults(plan: &Value, statement: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut indexes = Vec::new();
    visit(plan, &mut |node| {
        let text = |name: &str| node[name].as_str().unwrap_or_default();
        let relation = text("Relation Name");
        if text("Node Type") == "Seq Scan" && TABLES.contains(&relation) {
            faults.push(format!("all of {relation} is read"));
        }
        if text("Node Type") == "Nested Loop" {
            // The first rows of an index may be enough.
            let mut inner = &node["Plans"][1];
            while inner["Node Type"] == "Limit" {
                let mut plans = inner["Plans"].as_array().into_iter().flatten();
                let rows = plans.find(|plan| plan["Parent Relationship"] == "Outer");
                inner = rows.expect("a limit is one of rows");
            }
            let inner = inner["Node Type"].as_str().unwrap_or_default();
            if !inner.contains("Index") && !inner.contains("Bitmap Heap") {
                faults.push(format!("a nested loop over a {inner}"));
            }
        }
        let fields = node.as_object().into_iter().flatten();
        for (_, filter) in fields.filter(|(name, _)| name.ends_with("Filter")) {
            let condition = filter.as_str().unwrap_or_default();
            if condition.replace("hashed SubPlan", "").contains("SubPlan") {
                faults.push(format!("a subplan for each row: {condition}"));
            }
        }
        indexes.push(text("Index Name").to_owned());
    });
    for (start, index) in PURGES {
        if statement.contains(start) && !indexes.iter().any(|used| used == index) {
            faults.push(format!("{index} is not used, but {indexes:?}"));
        }
    }
    faults
}

fn visit(plan: &Value, see: &mut impl FnMut(&Value)) {
    see(plan);
    for inner in plan["Plans"].as_array().into_iter().flatten() {
        visit(inner, see);
    }
}

/// The statements about the tables that grow.
fn statements() -> Vec<Statement> {
    let cache = repository::path(".sqlx");
    let files = fs::read_dir(cache).expect("the cache is committed");
    let mut statements = BTreeMap::new();
    for file in files {
        let path = file.expect("the directory can be read").path();
        let text = fs::read_to_string(path).expect("it is a text");
        let query: Value = serde_json::from_str(&text).expect("it is JSON");
        let text = query["query"]
            .as_str()
            .expect("it has a statement")
            .to_owned();
        let parameters = &query["describe"]["parameters"]["Left"];
        let parameters = parameters.as_array().map_or(0, Vec::len);
        if TABLES.iter().any(|table| text.contains(table)) {
            statements.insert(text, parameters);
        }
    }
    let statement = |(text, parameters)| Statement { text, parameters };
    statements.into_iter().map(statement).collect()
}

/// A session like those of a replica.
async fn session(database: &Database) -> PgConnection {
    let mut connection = PgConnection::connect(database.url())
        .await
        .expect("the database is there");
    for (name, value) in SESSION_OPTIONS {
        let statement = AssertSqlSafe(format!("SET {name} = '{value}'"));
        connection
            .execute(statement)
            .await
            .expect("the setting is valid");
    }
    connection
}

async fn prepare(connection: &mut PgConnection, name: &str, statement: &Statement) {
    let prepare = AssertSqlSafe(format!("PREPARE {name} AS {}", statement.text));
    connection.execute(prepare).await.expect("it was checked");
}

async fn plan(connection: &mut PgConnection, name: &str, statement: &Statement) -> Value {
    let nulls = vec!["NULL"; statement.parameters].join(", ");
    let arguments = if nulls.is_empty() {
        nulls
    } else {
        format!("({nulls})")
    };
    let explain = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE {name}{arguments}"));
    let row = sqlx::raw_sql(explain).fetch_one(connection).await;
    let row = row.expect("it can be explained");
    let text: String = row.get_unchecked(0);
    let mut explained: Value = serde_json::from_str(&text).expect("it is JSON");
    explained[0]["Plan"].take()
}

/// Fills each table with rows from number `from` to number `to`.
async fn fill(connection: &mut PgConnection, from: i64, to: i64) {
    let key = "sha256(int8send(i))";
    for insert in [
        format!(
            "INSERT INTO otp_record (record_key, version, caller, purpose, challenge, state,
                 channel, created_at, expires_at, attempts, sent_at, failures, failed_at,
                 hour_full_at, day_full_at, memory, written_at, removable_at, sends)
             SELECT {key}, i, 'crm', 'default', substr({key}, 1, 16), 'spent', 'sms', i, i, 0, i,
                 0, i, i, i, {key}, i, i, 1
             FROM generate_series({from}, {to}) AS i"
        ),
        format!(
            "INSERT INTO otp_limit (limit_key, version, full_at)
             SELECT {key}, i, i FROM generate_series({from}, {to}) AS i"
        ),
        format!(
            "INSERT INTO otp_message (record_key, message_id, version, challenge, channel,
                 predecessors, state, provider, history, created_at, updated_at, expires_at,
                 removable_at)
             SELECT {key}, substr({key}, 1, 16), i, substr({key}, 1, 16), 'sms', 0, 'sent', 'log',
                 {key}, i, i, i, i
             FROM generate_series({from}, {to}) AS i"
        ),
    ] {
        let insert = AssertSqlSafe(insert);
        connection.execute(insert).await.expect("the rows are new");
    }
}
