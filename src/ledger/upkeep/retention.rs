//! Retention: which days' rows may go, and what goes with them.

use super::maintain::delete;
use super::steps::Steps;
use crate::ledger::HOUR_MS;
use crate::ledger::frontier::Frontier;
use crate::ledger::sql::Sql;
use crate::limits::{RETENTION_SLACK_DAYS, RETENTION_TRUSTED_DAYS, RETIRE_DAYS_MAX};
use crate::ports::StoreError;

/// Days with events, the newest first, none later than a given hour.
fn days_sql(hour: i64) -> String {
    format!(
        "WITH RECURSIVE day(n) AS ( \
           SELECT max(bucket) / 24 FROM rollup_hour WHERE dimension = 1 AND bucket <= {hour} \
           UNION ALL SELECT (SELECT max(bucket) / 24 FROM rollup_hour WHERE dimension = 1 AND bucket < n * 24) FROM day \
             WHERE n IS NOT NULL) \
         SELECT n FROM day WHERE n IS NOT NULL LIMIT 8"
    )
}

/// Writes down which rows may go: of days that are old enough, closed and counted, some at a time. Returns the first day that
/// stays. The caller has locked batches out: those that follow find the rows gone.
pub fn mark(sql: &mut dyn Sql, now_ms: i64, retention_days: i64) -> Result<i64, StoreError> {
    let (hour, frontier) = (now_ms.div_euclid(HOUR_MS), Frontier::read(sql)?);
    let since = frontier.rows_since;
    let Some(trusted) = newest_trusted_day(&sql.numbers(&days_sql(hour), &[])?) else { return Ok(since) };
    let oldest = hour.div_euclid(24).min(trusted) - retention_days - RETENTION_SLACK_DAYS;
    let first = format!("SELECT min(bucket) / 24 FROM rollup_hour WHERE dimension = 1 AND bucket >= {since} * 24");
    let first = sql.number(&first, &[])?.unwrap_or(since).max(since);
    let until = oldest.min(frontier.until_day).min(first + RETIRE_DAYS_MAX);
    let uncounted = sql.number(&uncounted_day_sql(since, until.max(since)), &[])?;
    let until = until.min(uncounted.unwrap_or(until));
    if until <= since {
        return Ok(since);
    }
    sql.batch(&format!("UPDATE rollup_state SET rows_since = {until}"))?;
    Ok(until)
}

/// Deletes what belongs to days before `since` besides their rows.
pub fn forget_users<S: Steps>(steps: &mut S, since: i64) -> Result<(), StoreError> {
    delete(steps, "user_hour", "hour, event_type, user_id", &format!("hour < {}", since * 24))?;
    delete(steps, "visitor_bitmap", "hours, event_type, at", &format!("hours > 0 AND at < {}", since * 24))?;
    delete(steps, "visitor", "key", &format!("day < {since}"))?;
    Ok(())
}

/// The newest of `days` (days with events, none later than today), if the days right before it have
/// events too. A clock that jumped ahead leaves a gap before it; then there is none.
fn newest_trusted_day(days: &[i64]) -> Option<i64> {
    let newest = *days.iter().max()?;
    (newest + 1 - RETENTION_TRUSTED_DAYS..newest).all(|day| days.contains(&day)).then_some(newest)
}

/// The first of some days with a dirty hour, or with one that is in no point of a local day yet: its users would be lost with
/// its rows.
fn uncounted_day_sql(since: i64, until: i64) -> String {
    let in_no_day = |minute: &str| {
        format!(
            "NOT EXISTS (SELECT 1 FROM series AS d WHERE d.minutes > 60 AND d.event_type = 0 \
             AND d.at <= {minute} AND d.at + d.minutes > {minute})"
        )
    };
    format!(
        "SELECT min(h.at) / 1440 FROM series AS h WHERE h.minutes = 60 AND h.event_type = 0 \
         AND h.at >= {since} * 1440 AND h.at < {until} * 1440 AND (h.users IS NULL OR {} OR {})",
        in_no_day("h.at"),
        in_no_day("h.at + 59")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_clock_is_not_trusted_before_it_has_lasted_for_days() {
        assert_eq!(newest_trusted_day(&[]), None);
        assert_eq!(newest_trusted_day(&[7, 8, 9]), Some(9));
        assert_eq!(newest_trusted_day(&[7, 8, 9, 500]), None);
        assert_eq!(newest_trusted_day(&[7, 8, 9, 500, 501]), None);
        assert_eq!(newest_trusted_day(&[500, 501, 502]), Some(502));
    }
}
