//! Exact distinct users of a range.

use std::collections::HashSet;

use super::bitmaps::distinct;
use super::cover::cover;
use crate::events::Dimension;
use crate::ledger::delta::pending;
use crate::ledger::frontier::Frontier;
use crate::ledger::sql::Sql;
use crate::ports::StoreError;

pub fn users(sql: &mut dyn Sql, from_ms: i64, to_ms: i64) -> Result<u64, StoreError> {
    let (pending, frontier) = (pending_minutes(sql)?, Frontier::read(sql)?);
    let hours = pending.iter().map(|minute| minute.div_euclid(60)).collect();
    distinct(sql, &cover(from_ms..frontier.end_ms(to_ms), None), None, &hours)
}

/// Minutes with events whose counts are pending: points and bitmaps that share time with them do
/// not know these events yet.
pub fn pending_minutes(sql: &mut dyn Sql) -> Result<HashSet<i64>, StoreError> {
    let mut minutes = HashSet::new();
    pending(sql, [Dimension::Type], |_, minute, _, _| {
        minutes.insert(minute);
    })?;
    Ok(minutes)
}
