//! How far hours are closed and rows are kept: the one row of `rollup_state`.

use crate::ports::StoreError;

use super::HOUR_MS;
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
    /// No journal has counted anything later, milliseconds.
    pub newest_ms: i64,
}

impl Frontier {
    pub fn read(sql: &mut dyn Sql) -> Result<Frontier, StoreError> {
        let query = "SELECT until_hour, until_day, rows_since, minutes_since, \
                       (SELECT coalesce(max(newest_ms), 0) FROM watermark) FROM rollup_state";
        let row = sql.first(query, &[])?.ok_or_else(|| StoreError::Fatal("rollup_state has no row".to_owned()))?;
        let [until_hour, until_day, rows_since, minutes_since, newest_ms] = [0, 1, 2, 3, 4].map(|at| row.int(at));
        Ok(Frontier { until_hour, until_day, rows_since, minutes_since, newest_ms })
    }

    /// The end of a range that ends at `to_ms`, moved to the end of its hour if nothing is later than the range: the rows of the
    /// open hour need not be read then.
    pub fn end_ms(&self, to_ms: i64) -> i64 {
        let rest = (-to_ms).rem_euclid(HOUR_MS);
        if to_ms > self.newest_ms { to_ms.saturating_add(rest) } else { to_ms }
    }
}
