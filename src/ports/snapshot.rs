//! What a ledger hands to a live store that is built from it.

use uuid::Uuid;

use crate::events::{Dimension, Sketch};
use crate::journal::Watermark;

/// What a live store is built from: one consistent state of the ledger.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every stream the ledger knows.
    pub watermarks: Vec<(Uuid, Watermark)>,
    /// Minute rollups of the last hour: dimension, minute since the epoch, name, count; rows add up.
    pub minutes: Vec<(Dimension, i64, String, i64)>,
    /// Hour rollups of 8 days and a bit, like `minutes`, and of the same events.
    pub hours: Vec<(Dimension, i64, String, i64)>,
    /// Minutes within an hour at which a local day begins, in zones at :30 and :45. The rest of
    /// such an hour belongs to that day, the hour before it to the day before.
    pub days_within_hours: Vec<i64>,
    /// Counts of the rest of those hours, by the minute at which it begins; `hours` has them too.
    pub rests_of_hours: Vec<(Dimension, i64, String, i64)>,
    /// Users of the two parts of those hours, by the minute at which each part begins.
    pub user_parts: Vec<(i64, Sketch)>,
    /// Users by minute of the last hour, and by hour of 8 days and a bit.
    pub user_minutes: Vec<(i64, Sketch)>,
    pub user_hours: Vec<(i64, Sketch)>,
    /// All-time totals, as [`super::live::LiveStore::totals`] answers them.
    pub totals: Vec<(Dimension, String, i64)>,
    /// The newest 10 searches per user of the last hour: user, keyword as typed, when; oldest first.
    pub recent: Vec<(String, String, i64)>,
    /// What was forgotten in the last hour: user, folded keyword (empty: all), up to when.
    pub forgotten: Vec<(String, String, i64)>,
    /// Posts that were deleted in the last 9 days and not put again, with their versions.
    pub tombstones: Vec<(String, i64)>,
}
