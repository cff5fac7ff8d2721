//! Whether ledger and follower have applied what was durable a while ago: what is removed for good goes only then.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::RETIRE_BEHIND_MS;
use crate::ports::Position;

/// Where the journal ended, and when. What came since may wait: a day that goes is older, by more than that, than anything
/// that is still taken.
#[derive(Default)]
pub struct Level {
    ended: VecDeque<(Instant, Position)>,
}

impl Level {
    /// A look at where the journal ends and at what all have applied, about once a minute: only the newest look of those that
    /// are old enough is kept beside younger ones.
    pub fn look(&mut self, now: Instant, end: Position, applied: Position) -> bool {
        let is_old = |at: &Instant| now.duration_since(*at) >= Duration::from_millis(RETIRE_BEHIND_MS);
        self.ended.push_back((now, end));
        while self.ended.get(1).is_some_and(|(at, _)| is_old(at)) {
            self.ended.pop_front();
        }
        self.ended.front().is_some_and(|(at, end)| is_old(at) && *end <= applied)
    }
}
