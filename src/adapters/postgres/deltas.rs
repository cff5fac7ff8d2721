//! What small batches have yet to add to rollups.
//!
//! Most of what a small batch writes are counts of names that the last one wrote too. So a batch leaves them as one row of
//! `rollup_delta`, in its own transaction, and `add_rollup_deltas` adds up many of them: every [`ADD_UP_EVERY_MS`], before each
//! exact read, and before an hour is folded. What only looks reads both: a snapshot, and what takes a deleted post's counts back,
//! which has rows of rollups already and must not wait for who adds up. It is a function of the database, so that
//! whoever sums rollups by SQL can call it as well. Folding keeps batches out and adds up first: of hours that are folded nothing is
//! left to add.
//!
//! [`ADD_UP_EVERY_MS`]: crate::limits::ADD_UP_EVERY_MS

use super::connect::{Failure, Session};

/// As a part of a transaction that has no rows of rollups yet.
pub(super) const ADD: &str = "SELECT add_rollup_deltas()";

/// By itself: a server that crashes may forget it, and has all of the deltas again.
pub(super) fn add(session: &mut Session) -> Result<(), Failure> {
    Ok(session.client.batch_execute(&format!("BEGIN; SET LOCAL synchronous_commit = off; {ADD}; COMMIT"))?)
}

/// As rows of rollups, in buckets of so many minutes.
pub(super) fn rows_sql(minutes: i64) -> String {
    format!(
        "SELECT dimension, minute / {minutes} AS bucket, key, count FROM rollup_delta \
         CROSS JOIN unnest(dimensions, minutes, keys, counts) AS r(dimension, minute, key, count)"
    )
}
