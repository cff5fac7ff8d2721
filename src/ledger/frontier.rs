//! How far hours are closed and rows are kept: the one row of `rollup_state`.

use crate::ports::StoreError;

use super::sql::Sql;

/// See `rollup_state` in schema.sql.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    /// Hours before this one are in their day.
    pub until_hour: i64,
    /// Days before this one are in their span.
    pub until_day: i64,
    /// Rows of days before this one were deleted.
    pub rows_since: i64,
    /// Minutes before this one may be missing from `rollup_minute`.
    pub minutes_since: i64,
}

impl Frontier {
    pub fn read(sql: &mut dyn Sql) -> Result<Frontier, StoreError> {
        let query = "SELECT until_hour, until_day, rows_since, minutes_since FROM rollup_state";
        let row = sql.first(query, &[])?.ok_or_else(|| StoreError::Fatal("rollup_state has no row".to_owned()))?;
        let [until_hour, until_day, rows_since, minutes_since] = [0, 1, 2, 3].map(|at| row.int(at));
        Ok(Frontier { until_hour, until_day, rows_since, minutes_since })
    }
}
