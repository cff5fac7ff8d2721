//! Retention: whole days go by their partition, one after the other, each step safe to be broken off.
//!
//! First it is written down that the day's rows are gone, so that nobody makes its partition again; then the partition is
//! detached without a lock that a batch would wait for, and dropped.

use super::connect::{Failure, Session};
use super::maintain::{PARTITION_LOCK, date};
use super::sql::{PostgresSql, UPKEEP_LOCK};
use crate::ledger::upkeep::retention;
use crate::limits::{MAINTAIN_LOCK_MS_MAX, POSTGRES_LOCK_MS_MAX};
use crate::ports::StoreError;

/// Nobody is kept waiting for longer.
const LOCK_MS_MAX: u64 = 10 * MAINTAIN_LOCK_MS_MAX;
/// Partitions that are attached, or whose detaching was broken off, by name: the oldest first.
const PARTITIONS: &str = "SELECT relname::text, inhdetachpending FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
     WHERE inhparent = 'events'::regclass AND relname ~ '^events_[0-9]{8}$' ORDER BY relname";
/// Detached and not dropped: whoever did the one died before the other, or did not get the lock.
const LEFT: &str = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname ~ '^events_[0-9]{8}$' \
     AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass) \
     AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid) ORDER BY relname";

/// Returns the first day whose rows stay.
pub(super) fn run(session: &mut Session, now_ms: i64, retention_days: i64) -> Result<i64, Failure> {
    let since = mark(session, now_ms, retention_days)?;
    let gone = format!("events_{}", date(since)?.strftime("%Y%m%d"));
    for row in session.client.query(PARTITIONS, &[])? {
        let (name, is_pending): (String, bool) = (row.get(0), row.get(1));
        if name < gone {
            detach(session, &name, is_pending)?;
        }
    }
    for row in session.client.query(LEFT, &[])? {
        let name: String = row.get(0);
        if name < gone {
            drop_table(session, &name)?;
        }
    }
    Ok(since)
}

/// Locks as an erasure does: batches under way are waited for, and those that follow find the rows gone.
fn mark(session: &mut Session, now_ms: i64, retention_days: i64) -> Result<i64, Failure> {
    let mut transaction = session.client.transaction()?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&PARTITION_LOCK])?;
    transaction.batch_execute(&format!("LOCK TABLE watermark IN SHARE ROW EXCLUSIVE MODE; {UPKEEP_LOCK}"))?;
    let since = retention::mark(&mut PostgresSql::on(&mut transaction), now_ms, retention_days)?;
    transaction.commit()?;
    Ok(since)
}

/// It waits for those who read the table, and not for long: the sink's own batches wait behind it. Broken off, it is finished
/// the next time.
fn detach(session: &mut Session, name: &str, is_pending: bool) -> Result<(), Failure> {
    let how = if is_pending { "FINALIZE" } else { "CONCURRENTLY" };
    session.client.batch_execute(&format!("SET lock_timeout = {LOCK_MS_MAX}"))?;
    // Not within a transaction, so not together with anything else.
    let detached = session.client.batch_execute(&format!("ALTER TABLE events DETACH PARTITION {name} {how}"));
    session.client.batch_execute(&format!("SET lock_timeout = {POSTGRES_LOCK_MS_MAX}"))?;
    Ok(detached.map_err(|error| StoreError::Retry(error.to_string()))?)
}

fn drop_table(session: &mut Session, name: &str) -> Result<(), Failure> {
    let mut transaction = session.client.transaction()?;
    let drop = format!("SET LOCAL lock_timeout = {LOCK_MS_MAX}; DROP TABLE {name}");
    transaction.batch_execute(&drop).map_err(|error| StoreError::Retry(error.to_string()))?;
    Ok(transaction.commit()?)
}
