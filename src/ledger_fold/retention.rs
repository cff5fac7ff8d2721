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
