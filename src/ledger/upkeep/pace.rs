//! When hours are recounted, and how much time that may take: late events come one by one, and each of them makes the
//! counts of a whole hour wrong.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::limits::{
    POSTPONED_MAX, POSTPONED_MS_MAX, RECOUNT_BURST_MS, RECOUNT_HOURS_MAX, RECOUNT_QUIET_MS, RECOUNT_SHARE,
    RECOUNT_WAIT_MS_MAX,
};

const BURST: Duration = Duration::from_millis(RECOUNT_BURST_MS);

/// A dirty hour: its first minute, and the number that grows each time something changes in it. 0: never counted.
pub type Mark = (i64, i64);

/// What one housekeeper remembers of dirty hours, and the time that it has left for them.
#[derive(Debug, Default)]
pub struct Pace {
    /// `None`: every dirty hour is due at once, and time has no bound.
    recounts: Option<Recounts>,
    /// Hours and days that could not be counted, and days whose index could not be built.
    hours: Postponed,
    pub days: Postponed,
    pub indexes: Postponed,
    /// No hour was counted since every bitmap of days and spans was made.
    pub has_all_bitmaps: bool,
}

impl Pace {
    /// From now on hours wait until they are quiet, and counting has a share of a core.
    pub fn spare(&mut self, now: Instant) {
        self.recounts = Some(Recounts::new(now));
    }

    /// The hours of `marks` that may be counted now.
    pub fn due(&mut self, marks: &[Mark], now: Instant) -> Vec<i64> {
        let mut due = match &mut self.recounts {
            Some(recounts) => recounts.due(marks, now),
            None => marks.iter().map(|(at, _)| *at).collect(),
        };
        due.retain(|at| self.hours.is_due(*at, now));
        due
    }

    /// An hour was counted, or could not be.
    pub fn settle_hour(&mut self, at: i64, is_counted: bool) {
        if is_counted {
            self.has_all_bitmaps = false;
            self.recounts.iter_mut().for_each(|recounts| recounts.counted(at));
        }
        self.hours.settle(at, is_counted, Instant::now());
    }

    /// Whether there is time for counting.
    pub fn has_time(&mut self, now: Instant) -> bool {
        self.recounts.as_mut().is_none_or(|recounts| recounts.has_time(now))
    }

    /// Counting took this long.
    pub fn spend(&mut self, took: Duration) {
        self.recounts.iter_mut().for_each(|recounts| recounts.spend(took));
    }
}

/// What failed waits, longer each time, so that it keeps nothing else from being counted.
#[derive(Debug, Default)]
pub struct Postponed(HashMap<i64, (Instant, Duration)>);

/// The first wait is a bit shorter than the time between two calls.
const FIRST_WAIT: Duration = Duration::from_secs(55);

impl Postponed {
    pub fn is_due(&self, at: i64, now: Instant) -> bool {
        self.0.get(&at).is_none_or(|(until, _)| *until <= now)
    }

    /// It was done, or failed.
    pub fn settle(&mut self, at: i64, is_done: bool, now: Instant) {
        if is_done {
            self.0.remove(&at);
            return;
        }
        if self.0.len() >= POSTPONED_MAX {
            self.0.clear();
        }
        let longest = Duration::from_millis(POSTPONED_MS_MAX);
        let wait = self.0.get(&at).map_or(FIRST_WAIT, |(_, last)| (*last * 2).min(longest));
        self.0.insert(at, (now + wait, wait));
    }
}

#[derive(Debug)]
struct Recounts {
    /// By hour: its number, when it was first seen dirty, and when the number last changed.
    seen: BTreeMap<i64, (i64, Instant, Instant)>,
    /// Microseconds; below zero after a step that took longer than there was time.
    left_us: i64,
    filled: Instant,
}

fn us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Recounts {
    /// With its first burst at hand.
    fn new(now: Instant) -> Recounts {
        Recounts { seen: BTreeMap::new(), left_us: us(BURST), filled: now }
    }

    /// The hours of all `marks` that may be counted now, in the order of `marks`.
    fn due(&mut self, marks: &[Mark], now: Instant) -> Vec<i64> {
        let before = std::mem::take(&mut self.seen);
        let mut due = Vec::new();
        for &(at, number) in marks {
            let (last, since, changed) = before.get(&at).copied().unwrap_or((number, now, now));
            let changed = if last == number { changed } else { now };
            let is_quiet = now - changed >= Duration::from_millis(RECOUNT_QUIET_MS);
            let has_waited = now - since >= Duration::from_millis(RECOUNT_WAIT_MS_MAX);
            let is_known = self.seen.len() < RECOUNT_HOURS_MAX;
            if number == 0 || is_quiet || has_waited || !is_known {
                due.push(at);
            }
            if number > 0 && is_known {
                self.seen.insert(at, (number, since, changed));
            }
        }
        due
    }

    /// An hour was counted: the next change begins its wait.
    fn counted(&mut self, at: i64) {
        self.seen.remove(&at);
    }

    /// Whether there is time left, as of `now`.
    fn has_time(&mut self, now: Instant) -> bool {
        self.left_us = us(BURST).min(self.left_us.saturating_add(us((now - self.filled) / RECOUNT_SHARE)));
        self.filled = now;
        self.left_us > 0
    }

    /// Counting took this long.
    fn spend(&mut self, took: Duration) {
        self.left_us = self.left_us.saturating_sub(us(took));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(begun: Instant, seconds: u64) -> Instant {
        begun + Duration::from_secs(seconds)
    }

    #[test]
    fn an_hour_is_recounted_once_it_is_quiet_and_after_ten_minutes_at_the_latest() {
        let begun = Instant::now();
        let mut recounts = Recounts::new(begun);
        // One that was never counted is due at once.
        assert_eq!(recounts.due(&[(120, 0), (60, 3)], begun), [120]);
        assert_eq!(recounts.due(&[(60, 3)], after(begun, 59)), [0; 0]);
        assert_eq!(recounts.due(&[(60, 3)], after(begun, 60)), [60]);
        for second in (0..500).step_by(30) {
            assert_eq!(recounts.due(&[(60, second as i64 + 4)], after(begun, 100 + second)), [0; 0], "{second}");
        }
        assert_eq!(recounts.due(&[(60, 999)], after(begun, 600)), [60]);
        // It stays due until it is counted; then the next change waits again.
        assert_eq!(recounts.due(&[(60, 999)], after(begun, 701)), [60]);
        recounts.counted(60);
        assert_eq!(recounts.due(&[(60, 1_000)], after(begun, 702)), [0; 0]);
    }

    #[test]
    fn what_fails_again_waits_longer_and_what_succeeds_is_forgotten() {
        let (mut postponed, begun) = (Postponed::default(), Instant::now());
        postponed.settle(7, false, begun);
        assert!(!postponed.is_due(7, begun) && postponed.is_due(7, begun + FIRST_WAIT) && postponed.is_due(8, begun));
        postponed.settle(7, false, begun + FIRST_WAIT);
        assert!(!postponed.is_due(7, begun + FIRST_WAIT * 3 - Duration::from_millis(1)));
        (0..20).for_each(|_| postponed.settle(7, false, begun));
        assert!(postponed.is_due(7, begun + Duration::from_millis(POSTPONED_MS_MAX)));
        postponed.settle(7, true, begun);
        assert!(postponed.is_due(7, begun));
    }

    #[test]
    fn recounts_have_a_burst_and_then_a_tenth_of_the_time() {
        let begun = Instant::now();
        let mut recounts = Recounts::new(begun);
        assert!(recounts.has_time(begun));
        recounts.spend(BURST);
        assert!(!recounts.has_time(begun));
        let mut spent = Duration::ZERO;
        for second in 1..=600 {
            if recounts.has_time(after(begun, second)) {
                recounts.spend(Duration::from_secs(1));
                spent += Duration::from_secs(1);
            }
        }
        let share = Duration::from_secs(600) / RECOUNT_SHARE;
        assert!(spent.abs_diff(share) <= Duration::from_secs(1), "{spent:?}");
    }
}
