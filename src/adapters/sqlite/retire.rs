//! Retention: old rows go in small steps, each a transaction of its own, so that batches get their turn.

use crate::ledger::upkeep::maintain::delete;
use crate::ledger::upkeep::retention;
use crate::ledger::upkeep::steps::Steps;
use crate::ports::StoreError;

const DAY_MS: i64 = 86_400_000;

pub(super) fn run<S: Steps>(steps: &mut S, now_ms: i64, retention_days: i64) -> Result<(), StoreError> {
    let since = steps.step(move |sql| retention::mark(sql, now_ms, retention_days))?;
    delete(steps, "events", "rowid", &format!("event_time < {}", since * DAY_MS))?;
    retention::forget_users(steps, since)
}
