//! What both live stores share, pure: which buckets a window reads, how recent searches merge, what
//! a snapshot becomes. Two adapters give one answer because all that could differ is decided here.

use crate::events::TallyKey;

mod image;
mod recent;
mod tombstones;
mod window;

pub use image::{Buckets, Counts, Image};
pub use recent::{Forgotten, Search, forget_searches, merge_search, still_recent};
pub use tombstones::{Tombstones, lists_posts};
pub use window::{Bucket, Calendar, Reading, decay, reading, window_minutes};

/// Counts of one dimension and minute: they are sorted.
pub fn groups(counts: &[(TallyKey, i64)]) -> impl Iterator<Item = &[(TallyKey, i64)]> {
    counts.chunk_by(|a, b| (a.0.dimension, a.0.minute) == (b.0.dimension, b.0.minute))
}
