//! What a ledger hands to a live store that is built from it.

use uuid::Uuid;

use super::Watermark;
use crate::events::{Dimension, Sketch};

/// What a live store is built from: one consistent state of the ledger.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every stream the ledger knows.
    pub watermarks: Vec<(Uuid, Watermark)>,
    /// Minute rollups of the last hour: dimension, minute since the epoch, name, count. A name may have several rows, which
    /// add up; of hours as well.
    pub minutes: Vec<(Dimension, i64, String, i64)>,
    /// Hour rollups of the last 8 days and a bit: dimension, hour since the epoch, name, count. They cover what
    /// `minutes` covers too.
    pub hours: Vec<(Dimension, i64, String, i64)>,
    /// Users by minute of the last hour (read from raw rows) and by hour of the last 8 days and a bit.
    pub user_minutes: Vec<(i64, Sketch)>,
    pub user_hours: Vec<(i64, Sketch)>,
    /// All-time totals, as [`super::LiveStore::totals`] answers them.
    pub totals: Vec<(Dimension, String, i64)>,
    /// Searches of the last hour that were not forgotten: user, keyword as typed, when; oldest first. At most the
    /// newest 10 a user.
    pub recent: Vec<(String, String, i64)>,
    /// What was forgotten in the last hour: user, folded keyword (empty: all), up to when.
    pub forgotten: Vec<(String, String, i64)>,
}
