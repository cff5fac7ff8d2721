//! A table, read by a cursor in the order of its key.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use postgres::Client;
use uuid::Uuid;

use super::{NAMESPACE, Rows, Translation};
use crate::import::row::{Place, Row, Source};
use crate::limits::IMPORT_FETCH_ROWS;

/// How a table is read.
pub(super) struct Shape {
    /// What names a record: it is read in this order.
    pub(super) key: &'static [&'static str],
    /// Columns and what is read of them, as SQL that gives text; a column that is not there is NULL.
    pub(super) columns: Vec<Column>,
    /// Records with the same key are one: columns that are not of the key are sums.
    pub(super) is_grouped: bool,
}

pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) is_needed: bool,
    pub(super) sql: Sql,
}

/// Makes SQL of a column's name and type.
pub(super) type Sql = Box<dyn Fn(&str, &str) -> String + Send>;

/// A record's columns, as text, in the order of its shape.
pub(super) type Record = Vec<Option<String>>;

/// Text of a column as it is.
pub(super) fn text(name: &'static str, is_needed: bool) -> Column {
    Column { name, is_needed, sql: Box::new(|name, _| format!("{name}::text")) }
}

/// A list, be it an array, JSON or text, as JSON.
pub(super) fn list(name: &'static str) -> Column {
    Column { name, is_needed: false, sql: Box::new(|name, _| format!("to_json({name})::text")) }
}

/// Milliseconds since the epoch of a moment, or of a local time in `time_zone`.
pub(super) fn moment(name: &'static str, time_zone: &str) -> Column {
    let zone = quoted(time_zone);
    let sql = move |name: &str, kind: &str| {
        let moment = if kind == "timestamp with time zone" {
            name.to_owned()
        } else {
            format!("({name}::timestamp AT TIME ZONE {zone})")
        };
        format!("floor(extract(epoch FROM {moment}) * 1000)::bigint::text")
    };
    Column { name, is_needed: false, sql: Box::new(sql) }
}

/// Begins the snapshot that all tables are read in, and tells what names this database.
pub(super) fn begin(client: &mut Client) -> Result<Uuid, String> {
    let failed = |e: postgres::Error| format!("the predecessor's database: {}", told(&e));
    client
        .batch_execute(
            "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
             SET standard_conforming_strings = on; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'",
        )
        .map_err(failed)?;
    // Asked before the snapshot: a role that may not know it would spoil the transaction.
    let cluster = client.query_one("SELECT system_identifier::text FROM pg_control_system()", &[]);
    let cluster: String = cluster.map_or_else(|_| String::new(), |row| row.get(0));
    let sql = "SELECT current_database() || ' ' || oid::text FROM pg_database WHERE datname = current_database()";
    let database: String = client.query_one(sql, &[]).map_err(failed)?.get(0);
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").map_err(failed)?;
    Ok(Uuid::new_v5(&NAMESPACE, format!("{cluster} {database}").as_bytes()))
}

/// A record that is being turned into rows.
struct Current {
    record: Record,
    rows: Rows,
    /// Rows that it has given.
    given: u64,
}

/// The records of a table from a key on, as rows.
pub(super) struct Reader {
    client: Arc<Mutex<Client>>,
    translation: Box<dyn Translation>,
    /// Columns of the key.
    key: usize,
    fetched: VecDeque<Record>,
    current: Option<Current>,
    place: Place,
    /// The key of the record that the place is in, and how many of its rows are before it.
    resumed: Option<(Vec<String>, u64)>,
}

impl Reader {
    pub(super) fn open(
        client: Arc<Mutex<Client>>,
        table: &str,
        translation: Box<dyn Translation>,
        place: &Place,
    ) -> Result<Reader, String> {
        let resumed = place.key.as_ref().map(|key| serde_json::from_str(key)).transpose();
        let resumed: Option<(Vec<String>, u64)> = resumed.map_err(|e| format!("the resume file's key: {e}"))?;
        let shape = translation.shape();
        {
            let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
            let kinds = kinds(&mut client, table)?;
            let sql = select(table, &shape, &kinds, resumed.as_ref().map(|(key, _)| &key[..]))?;
            let declare = format!("CLOSE ALL; DECLARE predecessor NO SCROLL CURSOR FOR {sql}");
            client.batch_execute(&declare).map_err(|e| told(&e))?;
        }
        let key = shape.key.len();
        Ok(Reader { client, translation, key, fetched: VecDeque::new(), current: None, place: place.clone(), resumed })
    }

    fn next_record(&mut self) -> Result<Option<Record>, String> {
        if self.fetched.is_empty() {
            let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
            let rows = client.query(&format!("FETCH FORWARD {IMPORT_FETCH_ROWS} FROM predecessor"), &[]);
            let rows = rows.map_err(|e| format!("the predecessor's database: {}", told(&e)))?;
            self.fetched.extend(rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()));
        }
        Ok(self.fetched.pop_front())
    }

    /// The record that has a row to give.
    fn current(&mut self) -> Result<Option<&mut Current>, String> {
        while self.current.as_ref().is_none_or(|current| current.given >= current.rows.count()) {
            let Some(record) = self.next_record()? else { return Ok(None) };
            let key: Vec<String> = record[..self.key].iter().map(|part| part.clone().unwrap_or_default()).collect();
            // The record that an earlier run was in comes first, if it is still there.
            let given = match self.resumed.take() {
                Some((last, given)) if last == key => given,
                _ => 0,
            };
            let rows = self.translation.translate(&record);
            self.current = Some(Current { record, rows, given });
        }
        Ok(self.current.as_mut())
    }
}

impl Rows {
    fn count(&self) -> u64 {
        match self {
            Rows::One(_) => 1,
            Rows::Many { count, .. } => *count,
        }
    }
}

impl Source for Reader {
    fn next(&mut self, row: &mut Row) -> Result<bool, String> {
        row.clear();
        let key_columns = self.key;
        let Some(current) = self.current()? else { return Ok(false) };
        let made = match &current.rows {
            Rows::One(made) => made.clone(),
            Rows::Many { event, .. } => Ok(event(current.given)),
        };
        current.given += 1;
        let key: Vec<&str> = current.record[..key_columns].iter().map(|part| part.as_deref().unwrap_or("")).collect();
        let key = serde_json::to_string(&(key, current.given)).map_err(|e| e.to_string())?;
        row.input = serde_json::to_vec(&current.record).map_err(|e| e.to_string())?;
        let made = made.map(|event| row.event = event);
        row.judge(made);
        self.place.row += 1;
        self.place.line += 1;
        self.place.key = Some(key);
        row.line = self.place.line;
        row.end = self.place.clone();
        Ok(true)
    }
}

/// The table's columns and their types.
fn kinds(client: &mut Client, table: &str) -> Result<HashMap<String, String>, String> {
    let sql = "SELECT column_name::text, data_type::text FROM information_schema.columns \
               WHERE table_name = $1 AND table_schema = ANY(current_schemas(false))";
    let rows = client.query(sql, &[&table]).map_err(|e| told(&e))?;
    if rows.is_empty() {
        return Err("there is no such table (or view) on this role's search path".to_owned());
    }
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn select(
    table: &str,
    shape: &Shape,
    kinds: &HashMap<String, String>,
    behind: Option<&[String]>,
) -> Result<String, String> {
    let mut columns = Vec::new();
    for column in &shape.columns {
        columns.push(match kinds.get(column.name) {
            Some(kind) => (column.sql)(column.name, kind),
            None if column.is_needed => return Err(format!("the table has no column {}", column.name)),
            None => "NULL::text".to_owned(),
        });
    }
    let ordered = if shape.is_grouped { as_text } else { by_index };
    let key: Vec<String> =
        shape.key.iter().map(|name| ordered(&format!("{table}.{name}"), kind(name, kinds))).collect();
    let key = key.join(", ");
    let mut sql = format!("SELECT {} FROM {table}", columns.join(", "));
    if let Some(behind) = behind {
        let values: Vec<String> =
            shape.key.iter().zip(behind).map(|(name, value)| literal(value, kind(name, kinds))).collect();
        let relation = if shape.is_grouped { ">=" } else { ">" };
        sql.push_str(&format!(" WHERE (({key}) {relation} ({})) IS NOT FALSE", values.join(", ")));
    }
    if shape.is_grouped {
        sql.push_str(&format!(" GROUP BY {key}"));
    }
    sql.push_str(&format!(" ORDER BY {key}"));
    Ok(sql)
}

fn kind<'a>(name: &str, kinds: &'a HashMap<String, String>) -> &'a str {
    kinds.get(name).map_or("", String::as_str)
}

/// A column of the key, ordered as an index on it is. With its table: a bare name in ORDER BY would mean what is
/// selected under it, which is text.
fn by_index(column: &str, kind: &str) -> String {
    match kind {
        "bigint" | "integer" | "smallint" | "uuid" | "text" | "character varying" => column.to_owned(),
        _ => format!("{column}::text"),
    }
}

/// A column as text that has an order and equality: `jsonb` writes one value in one way, `json` does not.
pub(super) fn as_text(column: &str, kind: &str) -> String {
    let cast = if kind == "json" { "::jsonb" } else { "" };
    format!("coalesce({column}{cast}::text, '') COLLATE \"C\"")
}

/// A value of a column of the key. What has no id is read again, and refused again, by every run.
fn literal(value: &str, kind: &str) -> String {
    match kind {
        "bigint" | "integer" | "smallint" | "uuid" if value.is_empty() => format!("NULL::{kind}"),
        "bigint" | "integer" | "smallint" | "uuid" => format!("{}::{kind}", quoted(value)),
        _ => format!("{}::text", quoted(value)),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn told(error: &postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
}
