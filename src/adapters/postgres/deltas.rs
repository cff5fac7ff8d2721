//! What small batches have yet to add to rollups.
//!
//! Most of what a small batch writes are counts of names that the last one wrote too. So a batch leaves them as one row of
//! `rollup_delta`, in its own transaction, and `add_rollup_deltas` adds up many of them: every [`ADD_UP_EVERY_MS`], before each
//! exact read, and before an hour is folded or a deleted post's counts are taken back. It is a function of the database, so that
//! whoever sums rollups by SQL can call it as well. Folding keeps batches out and adds up first: of hours that are folded nothing is
//! left to add.
//!
//! [`ADD_UP_EVERY_MS`]: crate::limits::ADD_UP_EVERY_MS

use postgres::GenericClient;

use super::connect::{Failure, Session};

/// As a part of a transaction.
pub(super) fn add_within(client: &mut impl GenericClient) -> Result<(), postgres::Error> {
    client.batch_execute("SELECT add_rollup_deltas()")
}

/// By itself: a server that crashes may forget it, and has all of the deltas again.
pub(super) fn add(session: &mut Session) -> Result<(), Failure> {
    let add = "BEGIN; SET LOCAL synchronous_commit = off; SELECT add_rollup_deltas(); COMMIT";
    Ok(session.client.batch_execute(add)?)
}

/// As rows of rollups, in buckets of so many minutes.
pub(super) fn rows_sql(minutes: i64) -> String {
    format!(
        "SELECT dimension, minute / {minutes} AS bucket, key, count FROM rollup_delta \
         CROSS JOIN unnest(dimensions, minutes, keys, counts) AS r(dimension, minute, key, count)"
    )
}
