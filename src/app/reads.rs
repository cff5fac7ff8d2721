//! Reads: straight from the stores, on lanes. What is cached blocks here and is called by fills (`caching`).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::{App, Pending};
use crate::events::Event;
use crate::limits::READ_WAIT_MS;
use crate::live::window_minutes;
use crate::ports::{ExportCursor, ExportQuery, Interval, Ledger, LiveTop, StoreError, TopQuery, Window};
use crate::runtime::LaneFull;
use crate::runtime::Ticket;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Live,
    Ledger,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Source::Live => "live",
            Source::Ledger => "ledger",
        }
    }
}

pub(super) const PATIENCE: Duration = Duration::from_millis(READ_WAIT_MS);

/// A read under way, or none where too many wait already.
pub type Read<T> = Result<Pending<Result<T, StoreError>>, LaneFull>;

impl App {
    /// Reads from the ledger, on its lane.
    pub fn ask_ledger<T: Send + 'static>(
        &self,
        ticket: &Arc<Ticket>,
        read: impl FnOnce(&dyn Ledger) -> Result<T, StoreError> + Send + 'static,
    ) -> Read<T> {
        let ledger = self.ledger.clone();
        self.ledger_lane.submit(ticket, PATIENCE, move || read(&*ledger))
    }

    /// The highest counts of a window. Blocks.
    pub fn top(&self, source: Source, query: &TopQuery) -> Result<LiveTop, StoreError> {
        let now_ms = self.clock.now_ms();
        match source {
            Source::Live => self.live.top(query, now_ms),
            Source::Ledger => self
                .ledger
                .top(query, now_ms, self.calendar.time_zone())
                .map(|items| LiveTop { items, approximate: false }),
        }
    }

    /// How many distinct users a window has: about as many in the live store, exact in the ledger. Blocks.
    pub fn users(&self, source: Source, window: Window) -> Result<Option<u64>, StoreError> {
        let now_ms = self.clock.now_ms();
        match source {
            Source::Live => self.live.users(window, now_ms).map(Some),
            Source::Ledger => {
                let range = window_minutes(window, now_ms, &self.calendar);
                self.ledger.users(range.start * 60_000, range.end * 60_000)
            }
        }
    }

    /// A user's recent searches.
    pub fn recent(&self, source: Source, user_id: String, ticket: &Arc<Ticket>) -> Read<Vec<String>> {
        let (live, now_ms) = (self.live.clone(), self.clock.now_ms());
        match source {
            Source::Live => self.live_lane.submit(ticket, PATIENCE, move || live.recent(&user_id, now_ms)),
            Source::Ledger => self.ask_ledger(ticket, move |ledger| ledger.recent(&user_id, now_ms)),
        }
    }

    /// Rows of this time may be gone: days, hours and points are kept, what only rows tell is not.
    pub fn may_be_gone(&self, at_ms: i64) -> bool {
        at_ms < self.clock.now_ms() - self.retention_ms
    }

    /// A bound of an exact range as it can be told: where rows may be gone, an hour is the smallest part.
    pub fn tellable(&self, at_ms: i64) -> i64 {
        if self.may_be_gone(at_ms) { at_ms - at_ms.rem_euclid(3_600_000) } else { at_ms }
    }

    /// Where the buckets of an interval begin that hold any of a range, and where the last one ends; `None` where they
    /// are more than `points_max`.
    pub fn edges(&self, interval: Interval, range: &Range<i64>, points_max: usize) -> Option<Vec<i64>> {
        let Range { start: from_ms, end: to_ms } = *range;
        if range.is_empty() {
            return Some(vec![from_ms]);
        }
        let minute = 60_000;
        let floor = |at_ms: i64| match interval {
            Interval::Minute => at_ms - at_ms.rem_euclid(minute),
            Interval::Hour => at_ms - at_ms.rem_euclid(60 * minute),
            Interval::Day => self.calendar.day_start(self.calendar.day(at_ms.div_euclid(minute))) * minute,
        };
        let next = |edge_ms: i64| match interval {
            Interval::Minute => edge_ms + minute,
            Interval::Hour => edge_ms + 60 * minute,
            Interval::Day => self.calendar.day_start(self.calendar.day(edge_ms.div_euclid(minute)) + 1) * minute,
        };
        let mut edges = vec![floor(from_ms)];
        while let Some(last) = edges.last().copied().filter(|last| *last < to_ms) {
            if edges.len() > points_max {
                return None;
            }
            // A calendar that stood still would be no reason to.
            edges.push(next(last).max(last + minute));
        }
        Some(edges)
    }

    /// When a day of `TIME_ZONE` begins, in days and milliseconds since 1970.
    pub fn day_start_ms(&self, day: i64) -> i64 {
        self.calendar.day_start(day).saturating_mul(60_000)
    }

    /// A page of stored events, which `write` turns into what is sent, on the lane.
    pub fn export<T: Send + 'static>(
        &self,
        query: ExportQuery,
        after: Option<ExportCursor>,
        ticket: &Arc<Ticket>,
        write: impl FnOnce(&[Event<'_>]) -> T + Send + 'static,
    ) -> Read<(T, Option<ExportCursor>)> {
        self.ask_ledger(ticket, move |ledger| ledger.export(&query, after).map(|page| (write(&page.events), page.next)))
    }
}
