//! How keys and their parts are written.

use jiff::tz::TimeZone;

use crate::events::Dimension;
use crate::live::{Bucket, Search};

/// The layout of keys and values. It grows with every change that an older program would misread.
const FORMAT: u32 = 3;
/// When each generation was used last, by the key that names it.
pub(super) const GENERATIONS_KEY: &str = "et:{t0}:generations";

/// What every key begins with: the braces make one hash slot of it.
pub(super) fn key_prefix(zone: &TimeZone) -> String {
    let unnamed = || format!("{zone:?}").chars().filter(char::is_ascii_alphanumeric).collect();
    let zone: String = zone.iana_name().map_or_else(unnamed, str::to_owned);
    format!("et:{{t0}}:{FORMAT}:{zone}:")
}

/// The field of a total: one a dimension, one a type.
pub(super) fn total_field(dimension: Dimension, name: &str) -> String {
    if dimension == Dimension::Type { format!("{}:{name}", dimension as u8) } else { format!("{}", dimension as u8) }
}

pub(super) fn bucket_name(bucket: Bucket) -> (&'static str, i64) {
    match bucket {
        Bucket::Minute(minute) => ("m:", minute),
        Bucket::Hour(hour) => ("h:", hour),
        Bucket::Day(day) => ("d:", day),
    }
}

/// A search as an element of its list. Keywords hold no U+0000.
pub(super) fn recent_element(search: &Search) -> String {
    if search.folded == search.typed {
        format!("{}:{}", search.at_ms, search.folded)
    } else {
        format!("{}:{}\0{}", search.at_ms, search.folded, search.typed)
    }
}
