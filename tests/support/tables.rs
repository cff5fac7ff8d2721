//! A look at a ledger's tables from outside, as text.

use std::path::Path;

pub(crate) type Rows = Vec<Vec<String>>;

pub(crate) fn of_postgres(url: &str, sql: &str) -> Rows {
    let mut client = ::postgres::Client::connect(url, ::postgres::NoTls).expect("connects");
    // As docs/statistics.md says whoever sums rollups by SQL does.
    if sql.contains("rollup_") && !sql.contains("rollup_delta") && sql.trim_start().starts_with("SELECT") {
        client.batch_execute("SELECT add_rollup_deltas()").expect("adds up");
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

pub(crate) fn of_sqlite(path: &Path, sql: &str) -> Rows {
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
