//! Housekeeping of SQLite alone: remembered ids of clients, and outcomes of records.

use uuid::Uuid;

use crate::ledger::sql::Value;
use crate::ledger::upkeep::maintain::delete;
use crate::ledger::upkeep::steps::Steps;
use crate::limits::ID_MEMORY_MS;
use crate::ports::StoreError;

/// After a day, the older table of client ids is emptied and becomes the current one. What is in it is a day old by then: it
/// may be half empty for a while.
pub(super) fn switch_ids<S: Steps>(steps: &mut S, now_ms: i64) -> Result<(), StoreError> {
    let due = format!("SELECT name FROM event_id_current WHERE since_ms <= {}", now_ms - ID_MEMORY_MS);
    let Some(current) = steps.look(move |sql| sql.first(&due, &[]))? else { return Ok(()) };
    let (older, table) = if current.text(0) == "a" { ("b", "event_id_b") } else { ("a", "event_id_a") };
    if delete(steps, table, "event_id", "true")? {
        let switch = format!("UPDATE event_id_current SET name = '{older}', since_ms = {now_ms}");
        steps.step(move |sql| sql.batch(&switch))?;
    }
    Ok(())
}

/// Forgets verdicts, and remembers that.
pub(super) fn prune<S: Steps>(steps: &mut S, stream: Uuid, up_to: i64) -> Result<(), StoreError> {
    steps.step(move |sql| {
        let values = [Value::Uuid(stream), Value::Int(up_to)];
        sql.execute("UPDATE watermark SET pruned = max(pruned, $2) WHERE stream = $1", &values)?;
        sql.execute("DELETE FROM verdict WHERE stream = $1 AND position <= $2", &values).map(drop)
    })
}
