//! A ledger in PostgreSQL as one in SQLite, row by row: one generator fills both.

use std::path::Path;

use ::postgres::fallible_iterator::FallibleIterator;
use ::postgres::types::Type;
use ::postgres::{Client, Row};
use event_tracker::adapters::sqlite::SqliteLedger;
use rusqlite::Connection;
use rusqlite::types::Value;

/// Tables and what is read for them, in the order of their keys: so that they are filled from end to end.
const TABLES: [(&str, &str); 15] = [
    (
        "events",
        "SELECT event_id::text, event_type, user_id, session_id, component_id, element_id, keyword, post_id, url, referrer, \
         result_count, properties::text, (extract(epoch FROM event_time) * 1000)::int8, \
         (extract(epoch FROM received_at) * 1000)::int8, page, keyword_key, source, campaign, bot::int, name, visitor_id, \
         stream, position FROM events",
    ),
    ("rollup_minute", "SELECT dimension, bucket, key, count FROM rollup_minute ORDER BY 1, 2, 3"),
    ("rollup_hour", "SELECT dimension, bucket, key, count FROM rollup_hour ORDER BY 1, 2, 3"),
    ("rollup_day", "SELECT dimension, bucket, key, count FROM rollup_day ORDER BY 1, 3, 2"),
    ("rollup_span", "SELECT dimension, bucket, key, count FROM rollup_span ORDER BY 1, 3, 2"),
    ("rollup_total", "SELECT dimension, key, count FROM rollup_total ORDER BY 1, 2"),
    ("series", "SELECT minutes, event_type, at, count, users FROM series ORDER BY 1, 2, 3"),
    ("user_hour", "SELECT hour, event_type, user_id FROM user_hour ORDER BY 1, 2, 3"),
    (
        "post_like",
        "SELECT user_id, post_id, (extract(epoch FROM liked_at) * 1000)::int8 FROM post_like ORDER BY post_id, user_id",
    ),
    (
        "post_like_log",
        "SELECT seq, stream::text, position, post_id, user_id, action, like_count, version, \
         (extract(epoch FROM changed_at) * 1000)::int8, (extract(epoch FROM happened_at) * 1000)::int8 \
         FROM post_like_log ORDER BY seq",
    ),
    (
        "post_stat",
        "SELECT post_id, like_count, version, (extract(epoch FROM made_at) * 1000)::int8 FROM post_stat ORDER BY 1",
    ),
    ("watermark", "SELECT stream::text, number, position, crc, newest_ms, pruned FROM watermark"),
    ("visitor", "SELECT ordinal, key, day FROM visitor ORDER BY 1"),
    ("visitor_bitmap", "SELECT hours, event_type, at, members FROM visitor_bitmap ORDER BY 1, 2, 3"),
    ("rollup_state", "SELECT 1, until_hour, until_day, rows_since, minutes_since FROM rollup_state"),
];

fn value(row: &Row, column: usize) -> Value {
    let number = match *row.columns()[column].type_() {
        Type::INT2 => row.get::<_, Option<i16>>(column).map(i64::from),
        Type::INT4 => row.get::<_, Option<i32>>(column).map(i64::from),
        Type::INT8 => row.get(column),
        Type::BYTEA => return row.get::<_, Option<Vec<u8>>>(column).map_or(Value::Null, Value::Blob),
        _ => return row.get::<_, Option<String>>(column).map_or(Value::Null, Value::Text),
    };
    number.map_or(Value::Null, Value::Integer)
}

fn copy(server: &mut Client, file: &Connection, table: &str, select: &str) {
    let columns = server.prepare(select).expect("a query").columns().len();
    let marks = vec!["?"; columns].join(", ");
    let mut insert = file.prepare(&format!("INSERT OR REPLACE INTO {table} VALUES ({marks})")).expect("a table");
    let mut rows = server.query_raw(select, std::iter::empty::<&str>()).expect("answers");
    while let Some(row) = rows.next().expect("a row") {
        insert.execute(rusqlite::params_from_iter((0..columns).map(|column| value(&row, column)))).expect("inserts");
    }
}

#[test]
#[ignore = "copies a ledger: perf/scale"]
fn copy_into_sqlite() {
    let (Ok(place), Ok(path)) = (std::env::var("SCALE_LEDGER"), std::env::var("SCALE_COPY")) else { return };
    drop(SqliteLedger::open(Path::new(&path)).expect("a new file"));
    let file = Connection::open(&path).expect("opens");
    let mut server = ::postgres::Client::connect(&place, ::postgres::NoTls).expect("connects");
    // A copy that is broken off is thrown away: nothing has to be safe before its end.
    let quick = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -500000";
    file.execute_batch(quick).expect("sets");
    let indexes: Vec<(String, String)> = {
        let sql =
            "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND name NOT LIKE 'erased%'";
        let mut indexes = file.prepare(sql).expect("reads");
        let rows = indexes.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("reads");
        rows.collect::<Result<_, _>>().expect("indexes")
    };
    for (name, _) in &indexes {
        file.execute_batch(&format!("DROP INDEX {name}")).expect("drops");
    }
    for (table, select) in TABLES {
        file.execute_batch("BEGIN").expect("begins");
        copy(&mut server, &file, table, select);
        file.execute_batch("COMMIT").expect("commits");
        eprintln!("{table}");
    }
    for (_, sql) in &indexes {
        file.execute_batch(sql).expect("indexes");
    }
}

#[test]
#[ignore = "needs a ledger of SQLite: perf/scale"]
fn bytes_of_every_part() {
    let Ok(place) = std::env::var("SCALE_LEDGER") else { return };
    let file = Connection::open(place).expect("opens");
    let sql = "SELECT name, pgsize FROM dbstat WHERE aggregate = TRUE AND pgsize > 1000000";
    let mut parts = file.prepare(sql).expect("reads");
    let mut rows = parts.query([]).expect("reads");
    while let Some(row) = rows.next().expect("a row") {
        println!("{} | {}", row.get::<_, String>(0).expect("a name"), row.get::<_, i64>(1).expect("bytes"));
    }
}
