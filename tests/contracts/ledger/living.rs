//! A past that is lived through: events as they come, late ones, erasures and folding in any order, looked at behind each.

use std::ops::Range;

use event_tracker::events::Record;
use jiff::tz::TimeZone;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::support::ledgers::{DAY, Feed, Fixture, HOUR, NOW};

/// What was told a ledger, and what it must answer.
pub(crate) trait Past: Default {
    /// Something that happens then.
    fn event(&mut self, at: i64, random: &mut StdRng) -> Record<'static>;
    /// Somebody is erased, with what happened up to then.
    fn erase(&mut self, up_to: i64, random: &mut StdRng) -> Record<'static>;
    fn check(&self, fixture: &Fixture, now: i64, random: &mut StdRng, of: &str);
}

pub(crate) struct Pace {
    pub(crate) begin: i64,
    /// One of them is more than what passes between two batches.
    pub(crate) spans: [i64; 3],
    pub(crate) events: Range<usize>,
    /// Events that come late together, and how much at most.
    pub(crate) late: usize,
    pub(crate) back: i64,
}

/// From the beginning to `NOW`, where all is folded.
pub(crate) fn live_through<P: Past>(fixture: &Fixture, pace: &Pace, random: &mut StdRng) -> (P, Feed) {
    let (mut past, mut feed, mut now) = (P::default(), fixture.feed(), pace.begin);
    while now < NOW {
        let span = pace.spans[random.random_range(0..3)];
        now = (now + random.random_range(0..span)).min(NOW);
        feed.apply((0..random.random_range(pace.events.clone())).map(|_| past.event(now, random)).collect());
        let back = [HOUR, DAY, pace.back][random.random_range(0..3)];
        let before = (now - random.random_range(0..back)).max(pace.begin);
        match random.random_range(0..10) {
            0 | 1 => {
                feed.apply((0..pace.late).map(|_| past.event(before, random)).collect());
                past.check(fixture, now, random, "late");
            }
            2 => {
                let up_to = if random.random_range(0..4) == 0 { before } else { now };
                feed.apply(vec![past.erase(up_to, random)]);
                past.check(fixture, now, random, "erased");
            }
            3..7 => {
                feed.writer.fold(now, &TimeZone::UTC).expect("folds");
                past.check(fixture, now, random, "folded");
            }
            _ => {}
        }
    }
    feed.fold_all();
    past.check(fixture, NOW, random, "folded whole");
    (past, feed)
}
