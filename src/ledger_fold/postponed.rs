//! Points that could not be counted, and sets that could not be made: they wait, longer each time, while others are.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::pace::{Mark, Recounts};
use crate::limits::{POSTPONED_MAX, POSTPONED_MS_MAX};

const FIRST_MS: u64 = 55_000;

/// What one housekeeper could not count or make, by where it begins.
#[derive(Debug, Default)]
pub struct Postponed {
    until: HashMap<i64, (Instant, u64)>,
}

/// What one housekeeper could not count lately.
#[derive(Debug, Default)]
pub struct Folding {
    pub hours: Postponed,
    /// `None`: everything that is dirty is recounted at once.
    pub recounts: Option<Recounts>,
    pub days: Postponed,
    /// Sets of users of an hour, and of longer.
    pub sets: [Postponed; 2],
    /// Days without an index of what their events name.
    pub term_indexes: Postponed,
}

impl Folding {
    /// The hours of all `marks` that are to be counted now.
    pub fn due_hours(&mut self, marks: &[Mark], now: Instant) -> Vec<i64> {
        let mut due = match &mut self.recounts {
            Some(recounts) => recounts.due(marks, now),
            None => marks.iter().map(|(at, _)| *at).collect(),
        };
        let waiting: HashSet<i64> = self.hours.waiting(now).into_iter().collect();
        due.retain(|at| !waiting.contains(at));
        due
    }

    /// After counting an hour: see [`Postponed::settle`].
    pub fn settle_hour<E>(&mut self, at: i64, counted: Result<bool, E>, failed: &mut Option<E>) {
        if let (Some(recounts), Ok(true)) = (&mut self.recounts, &counted) {
            recounts.counted(at);
        }
        self.hours.settle(at, counted, failed);
    }

    /// Whether there is time for recounts.
    pub fn may_recount(&mut self, now: Instant) -> bool {
        self.recounts.as_mut().is_none_or(|recounts| recounts.has_time(now))
    }

    /// Counting took this long.
    pub fn recounted(&mut self, took: Duration) {
        if let Some(recounts) = &mut self.recounts {
            recounts.spend(took);
        }
    }
}

impl Postponed {
    /// After a count: what failed, or was overtaken (false), waits. The first failure is kept.
    pub fn settle<E>(&mut self, at: i64, counted: Result<bool, E>, failed: &mut Option<E>) {
        match counted {
            Ok(true) => self.done(at),
            Ok(false) => self.put_off(at, Instant::now()),
            Err(failure) => {
                self.postpone(at, Instant::now());
                failed.get_or_insert(failure);
            }
        }
    }

    /// Those that are not due yet.
    pub fn waiting(&self, now: Instant) -> Vec<i64> {
        self.until.iter().filter(|(_, (until, _))| *until > now).map(|(at, _)| *at).collect()
    }

    /// It failed: not again soon.
    fn postpone(&mut self, at: i64, now: Instant) {
        if self.until.len() >= POSTPONED_MAX {
            self.until.clear();
        }
        let pause_ms = self.until.get(&at).map_or(FIRST_MS, |(_, last_ms)| (last_ms * 2).min(POSTPONED_MS_MAX));
        self.until.insert(at, (now + Duration::from_millis(pause_ms), pause_ms));
    }

    /// Something came in while it was counted, which is no failure: again with the next turn.
    fn put_off(&mut self, at: i64, now: Instant) {
        self.until.insert(at, (now + Duration::from_millis(FIRST_MS), FIRST_MS / 2));
    }

    /// It is counted.
    fn done(&mut self, at: i64) {
        self.until.remove(&at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_waits_longer_and_what_succeeds_is_forgotten() {
        let (mut postponed, begun) = (Postponed::default(), Instant::now());
        let after = |ms: u64| begun + Duration::from_millis(ms);
        postponed.postpone(7, begun);
        assert_eq!((postponed.waiting(begun), postponed.waiting(after(FIRST_MS))), (vec![7], vec![]));
        postponed.postpone(7, after(FIRST_MS));
        assert_eq!(postponed.waiting(after(3 * FIRST_MS - 1)), [7]);
        for _ in 0..20 {
            postponed.postpone(7, begun);
        }
        assert!(postponed.waiting(after(POSTPONED_MS_MAX)).is_empty());
        postponed.done(7);
        postponed.postpone(7, begun);
        assert!(postponed.waiting(after(FIRST_MS)).is_empty());
    }
}
