//! Exact reads, each in one snapshot: written once for both products.

pub mod bitmaps;
pub mod counting;
pub mod counts;
pub mod cover;
pub mod exact;
pub mod export;
pub mod hidden;
pub mod leaders;
pub mod lists;
pub mod local_days;
pub mod plan;
pub mod points;
pub mod posts;
pub mod rankings;
pub mod recent;
pub mod search;
pub mod series;
pub mod snapshot;
pub mod sums;
pub mod users;
