//! The SQL seam: reads and upkeep are written once and run on both products.
//!
//! Statements number their parameters `$1`, `$2` … in both. [`Dialect`] writes the few parts that differ: times, lists of
//! rows, the smaller of two values. A query that needs more than one such difference belongs to its product.

use std::ops::Range;

use jiff::Timestamp;
use uuid::Uuid;

use crate::ports::StoreError;

/// A value of a parameter.
#[derive(Clone, Copy, Debug)]
pub enum Value<'v> {
    Int(i64),
    Text(&'v str),
    /// A text or NULL.
    OptText(Option<&'v str>),
    Bytes(&'v [u8]),
    Uuid(Uuid),
    /// See [`Dialect::rows`]. Takes as many parameters as it has columns.
    Rows(&'v [Column<'v>]),
}

/// A column of [`Value::Rows`]; all have the same length.
#[derive(Clone, Debug)]
pub enum Column<'v> {
    Ints(Vec<i64>),
    Reals(Vec<f64>),
    Texts(Vec<&'v str>),
    Bytes(Vec<&'v [u8]>),
}

impl Column<'_> {
    pub fn len(&self) -> usize {
        match self {
            Column::Ints(values) => values.len(),
            Column::Reals(values) => values.len(),
            Column::Texts(values) => values.len(),
            Column::Bytes(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A value of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Arrays: of PostgreSQL only.
    Ints(Vec<i64>),
    Reals(Vec<f64>),
    Texts(Vec<String>),
}

/// A row of an answer. A column of another type than asked for reads as 0 or as empty: its query is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(pub Vec<Cell>);

impl Row {
    pub fn int(&self, column: usize) -> i64 {
        self.opt_int(column).unwrap_or_default()
    }

    pub fn opt_int(&self, column: usize) -> Option<i64> {
        match self.0[column] {
            Cell::Int(value) => Some(value),
            Cell::Real(value) => Some(value as i64),
            _ => None,
        }
    }

    /// A count, which is never below 0.
    pub fn count(&self, column: usize) -> u64 {
        self.int(column).max(0).cast_unsigned()
    }

    pub fn real(&self, column: usize) -> f64 {
        match self.0[column] {
            Cell::Int(value) => value as f64,
            Cell::Real(value) => value,
            _ => 0.0,
        }
    }

    pub fn text(&self, column: usize) -> &str {
        match &self.0[column] {
            Cell::Text(text) => text,
            _ => "",
        }
    }

    /// Moves a text out.
    pub fn take_text(&mut self, column: usize) -> String {
        match &mut self.0[column] {
            Cell::Text(text) => std::mem::take(text),
            _ => String::new(),
        }
    }

    pub fn bytes(&self, column: usize) -> &[u8] {
        match &self.0[column] {
            Cell::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    pub fn uuid(&self, column: usize) -> Uuid {
        Uuid::parse_str(self.text(column)).unwrap_or_default()
    }
}

/// A connection within one transaction.
pub trait Sql {
    fn dialect(&self) -> Dialect;

    /// Runs a statement and hands over each row of its answer, which is never held as a whole.
    ///
    /// Errors: those of [`StoreError`]; `Cancelled` if the time of a read is over.
    fn each(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        row: &mut dyn FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// Runs a statement; returns the number of rows that it changed.
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, StoreError>;

    /// Runs statements without parameters.
    fn batch(&mut self, sql: &str) -> Result<(), StoreError>;
}

impl dyn Sql + '_ {
    pub fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        self.each(sql, values, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    pub fn first(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, values)?.into_iter().next())
    }

    /// The first column of the first row; `None` for no row and for NULL.
    pub fn number(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Option<i64>, StoreError> {
        Ok(self.first(sql, values)?.and_then(|row| row.opt_int(0)))
    }

    /// The first column of every row.
    pub fn numbers(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<i64>, StoreError> {
        Ok(self.query(sql, values)?.iter().map(|row| row.int(0)).collect())
    }
}

/// What the products write differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    /// A time as a literal. Times are in the text, so that PostgreSQL plans for the partitions of that time alone.
    pub fn time(self, ms: i64) -> String {
        match self {
            Dialect::Postgres => {
                format!("'{}'::timestamptz", Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX))
            }
            Dialect::Sqlite => ms.to_string(),
        }
    }

    /// The condition that the time in `column` is within a range of milliseconds.
    pub fn during(self, column: &str, range: &Range<i64>) -> String {
        format!("{column} >= {} AND {column} < {}", self.time(range.start), self.time(range.end))
    }

    /// A time as milliseconds since the epoch.
    pub fn ms(self, time: &str) -> String {
        match self {
            Dialect::Postgres => format!("CAST(extract(epoch FROM {time}) * 1000 AS bigint)"),
            Dialect::Sqlite => time.to_owned(),
        }
    }

    /// The minute of a row of `events`. `extract` returns a `numeric`, whose division takes five times as long.
    pub fn minute(self) -> &'static str {
        match self {
            Dialect::Postgres => "floor(date_part('epoch', event_time) / 60)::int8",
            Dialect::Sqlite => "event_time / 60000",
        }
    }

    /// When an event happened: by its time or its receipt, whichever is earlier.
    pub fn happened(self) -> &'static str {
        match self {
            Dialect::Postgres => "least(event_time, received_at)",
            Dialect::Sqlite => "min(event_time, received_at)",
        }
    }

    /// A list of texts as JSON.
    pub fn json(self, list: &str) -> String {
        match self {
            Dialect::Postgres => format!("array_to_json({list})::text"),
            Dialect::Sqlite => list.to_owned(),
        }
    }

    /// The place of a row in its table: rows of the same time were stored in this order.
    pub fn row_id(self) -> &'static str {
        match self {
            Dialect::Postgres => "ctid",
            Dialect::Sqlite => "rowid",
        }
    }

    /// Deletes at most `limit` rows that match a condition. PostgreSQL finds them by their place: a join by the key may read
    /// the whole table.
    pub fn delete_some(self, table: &str, key: &str, condition: &str, limit: i64) -> String {
        match self {
            Dialect::Postgres => format!(
                "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT {limit}))"
            ),
            Dialect::Sqlite => {
                format!(
                    "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT {limit})"
                )
            }
        }
    }

    /// A table `r` of the rows of a [`Value::Rows`] whose first parameter is `first`, with a column `number` in their order.
    /// `columns`: name and type (`bigint`, `float8`, `text` or `bytea`).
    pub fn rows(self, first: usize, columns: &[(&str, &str)]) -> String {
        let (mut selected, mut arrays, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (name, of)) in columns.iter().enumerate() {
            let collation = if *of == "text" { " COLLATE \"C\"" } else { "" };
            selected.push(match self {
                Dialect::Postgres => format!("c{at}{collation} AS {name}"),
                Dialect::Sqlite if *of == "bytea" => format!("unhex(value ->> {at}) AS {name}"),
                Dialect::Sqlite => format!("value ->> {at} AS {name}"),
            });
            arrays.push(format!("${}::{of}[]", first + at));
            names.push(format!("c{at}"));
        }
        let selected = selected.join(", ");
        match self {
            Dialect::Postgres => format!(
                "(SELECT {selected}, number FROM unnest({}) WITH ORDINALITY AS u({}, number)) AS r",
                arrays.join(", "),
                names.join(", ")
            ),
            Dialect::Sqlite => format!("(SELECT {selected}, key AS number FROM json_each(${first})) AS r"),
        }
    }
}

/// Numbers, joined by commas.
pub fn joined(numbers: impl IntoIterator<Item = i64>) -> String {
    numbers.into_iter().map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
}
