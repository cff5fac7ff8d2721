//! A look at a ledger's tables from outside, as text.

use std::path::Path;

use event_tracker::adapters::postgres::PostgresLedger;
use event_tracker::adapters::sqlite::SqliteLedger;
use event_tracker::ports::Ledger;

pub(crate) type Rows = Vec<Vec<String>>;

pub(crate) fn of_postgres(url: &str, sql: &str) -> Rows {
    let mut client = ::postgres::Client::connect(url, ::postgres::NoTls).expect("connects");
    if sums_rollups(sql) {
        add_up(&PostgresLedger::new(url, 1).expect("a URL"));
    }
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let rows = messages.iter().filter_map(|message| match message {
        ::postgres::SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).unwrap_or("NULL").to_owned()).collect())
        }
        _ => None,
    });
    rows.collect()
}

/// Rollups lack what is pending: a ledger is told to add it first.
fn sums_rollups(sql: &str) -> bool {
    let is_rollup = |word: &str| word.starts_with("rollup_") && !["rollup_delta", "rollup_state"].contains(&word);
    sql.trim_start().starts_with("SELECT") && sql.split(|c: char| !c.is_alphanumeric() && c != '_').any(is_rollup)
}

fn add_up(ledger: &dyn Ledger) {
    ledger.open_writer().and_then(|mut writer| writer.add_up()).expect("adds up");
}

pub(crate) fn of_sqlite(path: &Path, sql: &str) -> Rows {
    if sums_rollups(sql) {
        add_up(&SqliteLedger::open(path).expect("opens"));
    }
    let connection = rusqlite::Connection::open(path).expect("opens");
    connection.busy_timeout(std::time::Duration::from_secs(5)).expect("sets");
    if !sql.trim_start().starts_with("SELECT") {
        connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        return Vec::new();
    }
    let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let columns = statement.column_count();
    let text = |value: rusqlite::types::Value| match value {
        rusqlite::types::Value::Null => "NULL".to_owned(),
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Real(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Blob(bytes) => format!("{bytes:?}"),
    };
    let rows = statement.query_map([], |row| (0..columns).map(|i| row.get(i).map(text)).collect());
    rows.expect("answers").collect::<Result<_, _>>().expect("rows")
}
