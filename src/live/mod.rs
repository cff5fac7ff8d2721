//! What both live stores share, pure: which buckets a window reads, how recent searches merge, what a snapshot becomes.
//!
//! Owns the arithmetic and its bounds; leaves storing to `adapters::redis` and `adapters::memory`. Two adapters give
//! one answer because everything that could differ is decided here.

use crate::limits::{LIVE_BUCKET_MEMBERS_MAX, LIVE_OPEN_BUCKET_MEMBERS_MAX};

mod image;
mod recent;
mod window;

pub use image::{Image, ImageBucket, trimmed_names};
pub use recent::{Forgotten, Search, forget_searches, merge_search, still_recent};
pub use window::{Bucket, Calendar, Reading, decay, reading, window_minutes};

const _: () = assert!(LIVE_BUCKET_MEMBERS_MAX < LIVE_OPEN_BUCKET_MEMBERS_MAX);
