//! Early refresh: each reader of a value that is about to expire draws whether it is the one to refresh it, by XFetch
//! (Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", PVLDB 8, 2015). A key that is
//! read rarely gets a wider window, so that some reader falls into it, and no window exceeds a part of the value's life.

use crate::limits::{CACHE_EARLY_READS, CACHE_EARLY_SHARE_MAX};

/// Whether this reader refreshes. `fill_ms` is what the last fill took, `reads_per_ms` how often the key is read here,
/// `random` uniform in [0, 1).
pub fn is_due(left_ms: i64, ttl_ms: u32, fill_ms: u32, beta: f64, reads_per_ms: f64, random: f64) -> bool {
    let left_ms = left_ms as f64;
    if beta <= 0.0 || left_ms > f64::from(ttl_ms) * CACHE_EARLY_SHARE_MAX {
        return false;
    }
    // βδ >= 7/λ: about seven readers come by within the window, and all but one in a thousand windows has one that draws it.
    let wide_enough_ms = if reads_per_ms > 0.0 { CACHE_EARLY_READS / reads_per_ms } else { f64::INFINITY };
    let window_ms = (f64::from(fill_ms) * beta).max(wide_enough_ms);
    // 1 - U is in (0, 1]: its logarithm is a number.
    window_ms * -(1.0 - random).ln() >= left_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// Of many values that are read `reads` times a second and take `fill_ms`: the share that nobody refreshed before the
    /// end, and how long before it the others were, on average.
    fn play(reads: f64, fill_ms: u32, ttl_ms: u32) -> (f64, f64) {
        let mut random = StdRng::seed_from_u64(7);
        let (mut missed, mut early_ms) = (0, 0.0);
        for _ in 0..2_000 {
            let mut left = f64::from(ttl_ms) - random.random::<f64>() * 1_000.0 / reads;
            let refreshed = loop {
                if left <= 0.0 {
                    break None;
                }
                if is_due(left as i64, ttl_ms, fill_ms, 1.0, reads / 1_000.0, random.random()) {
                    break Some(left);
                }
                left -= 1_000.0 / reads;
            };
            match refreshed {
                Some(left) => early_ms += left,
                None => missed += 1,
            }
        }
        (f64::from(missed) / 2_000.0, early_ms / f64::from(2_000 - missed))
    }

    #[test]
    fn somebody_refreshes_a_busy_key_in_time_for_its_fill() {
        let (missed, early_ms) = play(250.0, 300, 2_000);
        assert_eq!(missed, 0.0);
        assert!((300.0..=400.0).contains(&early_ms), "{early_ms} ms before the end");
    }

    #[test]
    fn a_key_that_is_read_rarely_is_refreshed_early_as_well() {
        let (missed, _) = play(20.0, 5, 5_000);
        assert!(missed < 0.01, "{missed}");
    }

    #[test]
    fn nobody_refreshes_what_is_young_or_where_it_is_switched_off() {
        assert!(!is_due(401, 2_000, 60_000, 1.0, 0.000_1, 0.999_999));
        assert!(!is_due(1, 2_000, 60_000, 0.0, 1.0, 0.999_999));
    }
}
