//! What a class of keys is allowed: how long a value is fresh, how long it may be shown after that, and which of these
//! a given copy is now. Pure functions of ages.

use crate::limits::{CACHE_BETA, CACHE_CAP_MS, CACHE_DEADLINE_MS, CACHE_JITTER, CACHE_LOCAL_MS, CACHE_NULL_MS};

/// Settings of a class of keys, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// A value is fresh for this long after its fill, less up to a tenth. 0: nothing is cached or shared.
    pub fresh_ms: u32,
    /// Expired for less than this it is shown at once, while a refresh runs behind.
    pub stale_ms: u32,
    /// Expired for less than this it is shown where there is nothing better in time.
    pub cap_ms: u32,
    /// "The ledger has none" is fresh for this long to twice as long.
    pub null_ms: u32,
    /// How early an early refresh begins, in units of what a fill takes; 0: none.
    pub beta: f64,
    /// How long a request may take.
    pub deadline_ms: u32,
    /// Instances share values and fills through the shared cache.
    pub is_shared: bool,
    /// Requests of an instance join one fill. False only in `perf/cache`, which measures what that saves.
    pub is_joined: bool,
}

impl Policy {
    /// The defaults of a class that is fresh for so long.
    pub const fn fresh_for(fresh_ms: u32) -> Policy {
        Policy {
            fresh_ms,
            stale_ms: fresh_ms,
            cap_ms: CACHE_CAP_MS,
            null_ms: CACHE_NULL_MS,
            beta: CACHE_BETA,
            deadline_ms: CACHE_DEADLINE_MS,
            is_shared: true,
            is_joined: true,
        }
    }

    /// The same with what `text` says instead: `off`, or a list such as `fresh=5000,stale=5000,beta=1`, milliseconds.
    pub fn with(mut self, text: &str) -> Result<Policy, String> {
        if text.trim().eq_ignore_ascii_case("off") {
            return Ok(Policy { fresh_ms: 0, ..self });
        }
        let mut stale = None;
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let known = "fresh, stale, cap, null, beta, deadline";
            let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not name=value ({known})"))?;
            let ms = || value.trim().parse::<u32>().ok().filter(|ms| *ms <= 86_400_000);
            let ms = || ms().ok_or_else(|| format!("`{part}`: milliseconds, at most a day"));
            match name.trim() {
                "fresh" => self.fresh_ms = ms()?,
                "stale" => stale = Some(ms()?),
                "cap" => self.cap_ms = ms()?,
                "null" => self.null_ms = ms()?,
                "lock" if cfg!(feature = "bench") => self.is_shared = ms()? != 0,
                "flight" if cfg!(feature = "bench") => self.is_joined = ms()? != 0,
                "deadline" => self.deadline_ms = ms()?.max(1),
                "beta" => {
                    let beta = value.trim().parse::<f64>().ok().filter(|beta| (0.0..=100.0).contains(beta));
                    self.beta = beta.ok_or_else(|| format!("`{part}`: a number from 0 to 100"))?;
                }
                _ => return Err(format!("`{part}` is none of {known}")),
            }
        }
        self.stale_ms = stale.unwrap_or(self.fresh_ms);
        self.cap_ms = self.cap_ms.max(self.stale_ms);
        Ok(self)
    }

    pub(super) fn is_cached(&self) -> bool {
        self.fresh_ms > 0
    }

    /// How long a new value is fresh. `random` is uniform in [0, 1): values that were written together do not expire
    /// together.
    pub fn ttl_ms(&self, is_null: bool, random: f64) -> u32 {
        if is_null {
            return self.null_ms + (f64::from(self.null_ms) * random) as u32;
        }
        (f64::from(self.fresh_ms) * (1.0 - CACHE_JITTER * random)) as u32
    }

    /// What may be done with a value that expires (or expired) in `left_ms`, and was last compared with the shared one
    /// `looked_ms` ago.
    pub fn stand(&self, left_ms: i64, looked_ms: u64) -> Stand {
        if left_ms <= -i64::from(self.cap_ms) {
            return Stand::Gone;
        }
        if left_ms <= -i64::from(self.stale_ms) {
            return Stand::Late;
        }
        // What is not shared has nothing to be compared with.
        let local_ms = if self.is_shared { u64::from(CACHE_LOCAL_MS) } else { u64::MAX };
        match (looked_ms >= local_ms, left_ms > 0) {
            (true, _) => Stand::Late,
            (false, false) => Stand::Revalidate,
            // A busy key is looked after before its time is over, so that nobody waits for it.
            (false, true) if looked_ms >= local_ms - local_ms / 5 => Stand::Look,
            (false, true) => Stand::Fresh,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    Fresh,
    /// Shown; the shared one is looked at behind.
    Look,
    /// Expired: shown at once, refreshed behind.
    Revalidate,
    /// Expired for long, or not compared for long: shown if nothing better comes within a moment.
    Late,
    /// Not to be shown any more.
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_from_fresh_to_gone_in_the_order_of_the_table() {
        let policy = Policy { cap_ms: 600_000, ..Policy::fresh_for(2_000) };
        let stands = [(1, 0), (1, 799), (1, 800), (1, 999), (1, 1_000), (0, 0), (-1_999, 0), (-2_000, 0)];
        let stands: Vec<Stand> = stands.iter().map(|(left, looked)| policy.stand(*left, *looked)).collect();
        use Stand::{Fresh, Gone, Late, Look, Revalidate};
        assert_eq!(stands, [Fresh, Fresh, Look, Look, Late, Revalidate, Revalidate, Late]);
        assert_eq!((policy.stand(-599_999, 0), policy.stand(-600_000, 0)), (Late, Gone));
    }

    #[test]
    fn jitter_takes_a_tenth_at_most_and_nulls_live_once_to_twice_their_time() {
        let policy = Policy { null_ms: 5_000, ..Policy::fresh_for(60_000) };
        assert_eq!((policy.ttl_ms(false, 0.0), policy.ttl_ms(false, 0.999_999)), (60_000, 54_000));
        assert_eq!((policy.ttl_ms(true, 0.0), policy.ttl_ms(true, 0.999_999)), (5_000, 9_999));
    }

    #[test]
    fn settings_say_what_they_change_and_what_is_wrong_with_them() {
        let policy = Policy::fresh_for(5_000);
        let changed = policy.with("fresh=100, beta=2.5").unwrap();
        assert_eq!((changed.fresh_ms, changed.stale_ms, changed.beta), (100, 100, 2.5));
        assert_eq!(policy.with("off").unwrap().fresh_ms, 0);
        assert_eq!(policy.with("fresh=0").unwrap().fresh_ms, 0);
        assert_eq!(policy.with("stale=900000").unwrap().cap_ms, 900_000, "what is shown at once is within the cap");
        for bad in ["fresh", "fresh=-1", "fresh=x", "beta=-1", "beta=NaN", "ttl=5"] {
            assert!(policy.with(bad).is_err(), "{bad}");
        }
        for switch in ["lock=0", "flight=0"] {
            assert_eq!(policy.with(switch).is_ok(), cfg!(feature = "bench"), "{switch}");
        }
    }
}
