//! What is kept for a time only: minute rollups and forgotten searches. Ids of clients: see the adapters.

use std::time::{Duration, Instant};

use super::steps::Steps;
use crate::ledger::MINUTE_MS;
use crate::ledger::sql::Sql;
use crate::limits::{MAINTAIN_MS_MAX, MAINTAIN_ROWS_MAX, RECENT_SEARCHES_MS, ROLLUP_MINUTES_KEPT};
use crate::ports::StoreError;

/// Deletes what is old at `now_ms`.
pub fn run<S: Steps>(steps: &mut S, now_ms: i64) -> Result<(), StoreError> {
    super::compact::run(steps)?;
    let now = now_ms.div_euclid(MINUTE_MS);
    let oldest = now - ROLLUP_MINUTES_KEPT;
    // Said before they go. A clock that was ahead has taken minutes of a time that is yet to come: from now on they are whole.
    steps.step(move |sql| {
        sql.batch(&format!(
            "UPDATE rollup_state SET minutes_since = CASE WHEN minutes_since > {now} THEN {now} + 1 ELSE {oldest} + 1 END \
             WHERE minutes_since <= {oldest} OR minutes_since > {now} + 1"
        ))
    })?;
    for dimension in 1..=12 {
        delete(
            steps,
            "rollup_minute",
            "dimension, bucket, key",
            &format!("dimension = {dimension} AND bucket <= {oldest}"),
        )?;
    }
    let forgotten = format!("at < {}", now_ms - RECENT_SEARCHES_MS);
    delete(steps, "recent_forgotten", "user_id, keyword", &forgotten)?;
    Ok(())
}

/// Deletes rows by their key in small steps, until all are deleted or the time is over; true if all are.
pub fn delete<S: Steps>(
    steps: &mut S,
    table: &'static str,
    key: &'static str,
    condition: &str,
) -> Result<bool, StoreError> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(MAINTAIN_MS_MAX) {
        let condition = condition.to_owned();
        let delete = move |sql: &mut dyn Sql| {
            sql.execute(&sql.dialect().delete_some(table, key, &condition, MAINTAIN_ROWS_MAX), &[])
        };
        if steps.step(delete)? < MAINTAIN_ROWS_MAX.cast_unsigned() {
            return Ok(true);
        }
    }
    Ok(false)
}
