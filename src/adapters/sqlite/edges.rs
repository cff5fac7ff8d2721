//! Parts of hours in which a local day begins, counted from raw rows.

use std::ops::Range;

use rusqlite::{Result, Transaction};

use super::rankings;
use crate::events::Dimension;
use crate::ledger_fold::{Cover, EdgeCount, raw_sql};

const MINUTE_MS: i64 = 60_000;

/// Counts of ranges of minutes, each within an hour.
pub(super) fn count(
    transaction: &Transaction<'_>,
    ranges: &[Range<i64>],
    dimensions: &[Dimension],
) -> Result<Vec<EdgeCount>> {
    let parts: Vec<(Dimension, i64)> = dimensions.iter().map(|dimension| (*dimension, 1)).collect();
    let mut counts = Vec::new();
    for Range { start, end } in ranges {
        let raw = std::iter::once(start * MINUTE_MS..end * MINUTE_MS).collect();
        let cover = Cover { raw, ..Cover::default() };
        let Some(sql) = raw_sql(&parts, &cover, rankings::during) else { continue };
        let mut statement = transaction.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let dimension = dimensions[row.get::<_, u32>(0)? as usize];
            let name = row.get(1)?;
            counts.push(EdgeCount { minute: *start, dimension, name, count: row.get(2)? });
        }
    }
    Ok(counts)
}
