//! A batch's counts as rows of `rollup_delta`.

use crate::events::{Dimension, Tally};
use crate::ledger::delta;
use crate::limits::ROLLUP_MINUTES_KEPT;

/// What a batch appends to `rollup_delta`.
#[derive(Clone, Debug, Default)]
pub struct Deltas {
    /// Per dimension its counts: see [`delta`].
    pub rows: Vec<(Dimension, Vec<u8>)>,
    /// Minutes up to this one count in their hour only.
    pub oldest_minute: i64,
}

/// Encodes a tally. `now_ms` is the time of the batch: of its newest receipt.
pub fn deltas_of(tally: Tally, now_ms: i64) -> Deltas {
    let mut deltas = Deltas { rows: Vec::new(), oldest_minute: now_ms.div_euclid(60_000) - ROLLUP_MINUTES_KEPT };
    for (at, count) in tally.into_sorted() {
        if deltas.rows.last().is_none_or(|(dimension, _)| *dimension != at.dimension) {
            deltas.rows.push((at.dimension, Vec::new()));
        }
        let (_, bytes) = deltas.rows.last_mut().expect("there is one");
        delta::put(bytes, at.minute, &at.key, count);
    }
    deltas
}
