//! Which days' rows may go.

use crate::limits::{RETENTION_SLACK_DAYS, RETENTION_TRUSTED_DAYS};

/// How far the ledger's own events say that time has come: `days` have events, none of them later than today. A clock that
/// jumped leaves days without any behind it.
pub fn newest_trusted_day(days: &[i64]) -> Option<i64> {
    let newest = *days.iter().max()?;
    (newest + 1 - RETENTION_TRUSTED_DAYS..newest).all(|day| days.contains(&day)).then_some(newest)
}

/// Rows of days before this one may go, if they are folded and counted.
pub fn retire_until(today: i64, trusted: i64, retention_days: i64) -> i64 {
    today.min(trusted) - retention_days - RETENTION_SLACK_DAYS
}

/// The first of some days with an hour that has to be counted again, or that is in no point of a local day yet: its users
/// would be lost with its rows.
pub fn uncounted_day_sql(since: i64, until: i64) -> String {
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
