//! [`Sql`] on a transaction of PostgreSQL.

use std::time::Instant;

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};
use postgres::{GenericClient, IsolationLevel, Transaction};

use super::connect::{Cause, Failure, Session};
use crate::ledger::sql::{Cell, Column, Dialect, Row, Sql, Value};
use crate::limits::{POSTGRES_READ_STATEMENT_MS_MAX, READ_TIME_STEP_MS};
use crate::ports::StoreError;

/// Held for a transaction by steps of upkeep, erasures and retention.
pub(super) const UPKEEP_LOCK: &str = "SELECT pg_advisory_xact_lock(73120834)";

/// A transaction, or a client within one; the statements of a read share the time of one.
pub(super) struct PostgresSql<'c, C> {
    client: &'c mut C,
    begun: Instant,
    /// What was spent when the server was last told how much is left. `None`: each statement has the connection's time.
    told_ms: Option<u64>,
}

impl<'c, C: GenericClient> PostgresSql<'c, C> {
    /// All statements together have the time of one.
    pub(super) fn within_time(client: &'c mut C) -> PostgresSql<'c, C> {
        PostgresSql { client, begun: Instant::now(), told_ms: Some(0) }
    }

    /// Each statement has the connection's time.
    pub(super) fn on(client: &'c mut C) -> PostgresSql<'c, C> {
        PostgresSql { client, begun: Instant::now(), told_ms: None }
    }

    /// Not before each statement, which is another round trip: all together may take a step longer.
    fn tell(&mut self) -> Result<(), postgres::Error> {
        let Some(told) = self.told_ms else { return Ok(()) };
        let spent = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if spent - told >= READ_TIME_STEP_MS {
            let left = POSTGRES_READ_STATEMENT_MS_MAX.saturating_sub(spent).max(1);
            self.client.batch_execute(&format!("SET LOCAL statement_timeout = {left}"))?;
            self.told_ms = Some(spent);
        }
        Ok(())
    }
}

/// One snapshot of several statements.
pub(super) fn snapshot(session: &mut Session) -> Result<Transaction<'_>, Failure> {
    Ok(session.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start()?)
}

/// A statement that the server ended is `Cancelled`, not a failure of the store.
pub(super) fn store_error(error: postgres::Error) -> StoreError {
    let failure = Failure::from(error);
    match failure.error {
        StoreError::Retry(why) if failure.cause == Cause::Cancelled => StoreError::Cancelled(why),
        error => error,
    }
}

type Parameter<'v> = (Box<dyn ToSql + Sync + 'v>, Type);

fn parameters<'v>(values: &'v [Value<'v>]) -> Vec<Parameter<'v>> {
    let mut parameters: Vec<Parameter<'v>> = Vec::with_capacity(values.len());
    for value in values {
        match value {
            Value::Int(number) => parameters.push((Box::new(*number), Type::INT8)),
            Value::Text(text) => parameters.push((Box::new(*text), Type::TEXT)),
            Value::OptText(text) => parameters.push((Box::new(*text), Type::TEXT)),
            Value::Bytes(bytes) => parameters.push((Box::new(*bytes), Type::BYTEA)),
            Value::Uuid(uuid) => parameters.push((Box::new(*uuid), Type::UUID)),
            Value::Rows(columns) => parameters.extend(columns.iter().map(|column| -> Parameter<'v> {
                match column {
                    Column::Ints(values) => (Box::new(values), Type::INT8_ARRAY),
                    Column::Reals(values) => (Box::new(values), Type::FLOAT8_ARRAY),
                    Column::Texts(values) => (Box::new(values), Type::TEXT_ARRAY),
                    Column::Bytes(values) => (Box::new(values), Type::BYTEA_ARRAY),
                }
            })),
        }
    }
    parameters
}

fn cell(row: &postgres::Row, column: usize) -> Result<Cell, postgres::Error> {
    fn of<'r, T: postgres::types::FromSql<'r>>(
        row: &'r postgres::Row,
        column: usize,
        cell: impl Fn(T) -> Cell,
    ) -> Result<Cell, postgres::Error> {
        Ok(row.try_get::<_, Option<T>>(column)?.map_or(Cell::Null, cell))
    }
    match *row.columns()[column].type_() {
        Type::BOOL => of(row, column, |value: bool| Cell::Int(value.into())),
        Type::INT2 => of(row, column, |value: i16| Cell::Int(value.into())),
        Type::INT4 => of(row, column, |value: i32| Cell::Int(value.into())),
        Type::FLOAT8 => of(row, column, Cell::Real),
        Type::BYTEA => of(row, column, Cell::Bytes),
        Type::UUID => of(row, column, |value: uuid::Uuid| Cell::Text(value.to_string())),
        Type::TEXT => of(row, column, Cell::Text),
        Type::INT8_ARRAY => of(row, column, Cell::Ints),
        Type::FLOAT8_ARRAY => of(row, column, Cell::Reals),
        Type::TEXT_ARRAY => of(row, column, Cell::Texts),
        _ => of(row, column, Cell::Int),
    }
}

impl<C: GenericClient> Sql for PostgresSql<'_, C> {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    /// Types come with the values: the server is not asked for them, which would be another round trip.
    fn each(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.tell().map_err(store_error)?;
        let parameters = parameters(values);
        let typed = parameters.iter().map(|(value, of)| (&**value as &(dyn ToSql + Sync), of.clone()));
        let mut rows = self.client.query_typed_raw(sql, typed).map_err(store_error)?;
        while let Some(row) = rows.next().map_err(store_error)? {
            let cells = (0..row.len()).map(|column| cell(&row, column)).collect::<Result<_, _>>();
            each(Row(cells.map_err(store_error)?))?;
        }
        Ok(())
    }

    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        self.tell().map_err(store_error)?;
        let parameters = parameters(values);
        let typed: Vec<_> =
            parameters.iter().map(|(value, of)| (&**value as &(dyn ToSql + Sync), of.clone())).collect();
        self.client.execute_typed(sql, &typed).map_err(store_error)
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.client.batch_execute(sql).map_err(store_error)
    }
}
