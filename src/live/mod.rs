//! What both live stores share, pure: which buckets a window reads, how recent searches merge, what a snapshot becomes.
//!
//! Owns the arithmetic and its bounds; leaves storing to `adapters::redis` and `adapters::memory`. Two adapters give
//! one answer because everything that could differ is decided here.

mod image;
mod recent;
mod window;

pub use image::{Image, ImageBucket, trimmed_names};
pub use recent::{Search, forget_searches, merge_search, still_recent};
pub use window::{Bucket, Calendar, Reading, decay, reading};

use crate::limits::LIVE_BUCKET_MEMBERS_MAX;

/// An open bucket that passes this many members is trimmed to [`LIVE_BUCKET_MEMBERS_MAX`] at once.
pub const OPEN_BUCKET_MEMBERS_MAX: usize = 40_000;
/// Minutes folded in one step (one script call, one hold of a lock): readers get their turn between two steps.
pub const FOLD_STEP_MINUTES_MAX: usize = 5;
/// A union of buckets is computed once in this time and shared by all readers.
pub const UNION_KEPT_MS: i64 = 1_000;

const _: () = assert!(LIVE_BUCKET_MEMBERS_MAX < OPEN_BUCKET_MEMBERS_MAX);
