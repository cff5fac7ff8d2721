//! [`Sql`] on a transaction of SQLite.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement, ToSql};
use serde_json::{Value as Json, json};

use super::error::read_error;
use crate::ledger::sql::{Cell, Column, Dialect, Row, Sql, Value};
use crate::ports::StoreError;

/// A connection within a transaction.
pub(super) struct SqliteSql<'c>(pub(super) &'c Connection);

/// Parameters are `?1` here.
fn numbered(sql: &str) -> String {
    sql.replace('$', "?")
}

fn bind(statement: &mut Statement<'_>, values: &[Value<'_>]) -> rusqlite::Result<()> {
    let mut at = 0;
    let mut put = |value: &dyn ToSql| {
        at += 1;
        // Columns of rows come as one value; no statement names the others.
        if at <= statement.parameter_count() { statement.raw_bind_parameter(at, value) } else { Ok(()) }
    };
    for value in values {
        match value {
            Value::Int(number) => put(number)?,
            Value::Text(text) => put(text)?,
            Value::OptText(text) => put(text)?,
            Value::Bytes(bytes) => put(bytes)?,
            Value::Uuid(uuid) => put(&uuid.to_string())?,
            Value::Rows(columns) => {
                put(&rows_json(columns))?;
                columns.iter().skip(1).try_for_each(|_| put(&rusqlite::types::Null))?;
            }
        }
    }
    Ok(())
}

fn rows_json(columns: &[Column<'_>]) -> String {
    let value = |column: &Column<'_>, at: usize| match column {
        Column::Ints(values) => json!(values[at]),
        Column::Reals(values) => json!(values[at]),
        Column::Texts(values) => json!(values[at]),
        Column::Bytes(values) => json!(values[at].iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    };
    let rows = columns.first().map_or(0, Column::len);
    let row = |at| Json::Array(columns.iter().map(|column| value(column, at)).collect());
    Json::Array((0..rows).map(row).collect()).to_string()
}

fn cells(row: &rusqlite::Row<'_>, columns: usize) -> rusqlite::Result<Row> {
    let cell = |column| {
        Ok(match row.get_ref(column)? {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(number) => Cell::Int(number),
            ValueRef::Real(number) => Cell::Real(number),
            ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
        })
    };
    (0..columns).map(cell).collect::<rusqlite::Result<_>>().map(Row)
}

impl Sql for SqliteSql<'_> {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn each(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut statement = self.0.prepare_cached(&numbered(sql)).map_err(read_error)?;
        bind(&mut statement, values).map_err(read_error)?;
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(read_error)? {
            each(cells(row, columns).map_err(read_error)?)?;
        }
        Ok(())
    }

    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        let mut statement = self.0.prepare_cached(&numbered(sql)).map_err(read_error)?;
        bind(&mut statement, values).map_err(read_error)?;
        statement.raw_execute().map(|rows| rows as u64).map_err(read_error)
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.0.execute_batch(sql).map_err(read_error)
    }
}
