//! How large a page of an export may be, in bytes: rows differ a hundredfold.

use crate::events::Event;
use crate::limits::{EXPORT_PAGE_BYTES, EXPORT_PAGE_ROWS_MAX, EXPORT_PAGE_ROWS_MIN};

/// Bytes of an event's texts, and about those of the rest.
pub fn row_bytes(event: &Event<'_>) -> usize {
    event.texts().into_iter().flatten().map(|text| text.len()).sum::<usize>() + 100
}

/// Rows that make a page if they are as large as these.
pub fn page_rows<'e>(like: impl ExactSizeIterator<Item = &'e Event<'e>>) -> usize {
    let rows = like.len();
    let bytes: usize = like.map(row_bytes).sum();
    (EXPORT_PAGE_BYTES * rows)
        .checked_div(bytes)
        .map_or(EXPORT_PAGE_ROWS_MIN, |fit| fit.clamp(EXPORT_PAGE_ROWS_MIN, EXPORT_PAGE_ROWS_MAX))
}
