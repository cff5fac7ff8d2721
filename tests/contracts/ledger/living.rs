//! A past that is lived through: events as they come, late ones, erasures and folding in any order, looked at after each.

use std::ops::Range;

use event_tracker::events::{Erase, Event, EventType, Record};
use jiff::tz::{Offset, TimeZone};
use rand::RngExt;
use rand::rngs::StdRng;
use uuid::Uuid;

use crate::support::ledgers::{DAY, Feed, Fixture, HOUR, event};
use crate::support::model::Model;

const USERS: usize = 12;

/// What was told a ledger, and what it must answer.
#[derive(Default)]
pub(crate) struct Past {
    pub(crate) model: Model,
    records: u64,
}

impl Past {
    /// Something that happens then: of one of a few users, with some of the values that are counted.
    pub(crate) fn event(&mut self, at: i64, random: &mut StdRng) -> Record<'static> {
        let kind = [EventType::Click, EventType::PageView, EventType::Search][random.random_range(0..3)];
        let mut some = |least: i32| (random.random_range(0..4) >= least).then(|| random.random_range(0..3));
        let (component, keyword, post, url) = (some(2), some(2), some(1), some(1));
        let user = format!("u{}", random.random_range(0..USERS));
        self.tell(Record::Event(Event {
            component_id: component.filter(|id| *id > 0).map(i64::from),
            // Of some events with a component, too: those are not found by their element.
            element_id: component.filter(|id| *id != 1).map(|_| "buy".into()),
            keyword: keyword.map(|n: i32| format!("Oak {n}").into()),
            post_id: post.map(|n: i32| format!("p{n}").into()),
            url: url.map(|n: i32| format!("https://example.org/{n}?user={user}").into()),
            user_id: Some(user.into()),
            ..event(kind, at)
        }))
    }

    pub(crate) fn erase(&mut self, up_to: i64, random: &mut StdRng) -> Record<'static> {
        let user = format!("u{}", random.random_range(0..USERS));
        self.tell(Record::Erase(Erase { user_id: user.into(), at_ms: up_to }))
    }

    fn tell(&mut self, record: Record<'static>) -> Record<'static> {
        self.records += 1;
        self.model.take_record(Uuid::nil(), self.records, &record);
        record
    }
}

pub(crate) struct Pace {
    pub(crate) lasts: Range<i64>,
    /// One of them is more than what passes between two batches.
    pub(crate) spans: [i64; 3],
    pub(crate) events: Range<usize>,
    /// Events that come late together, and how much at most.
    pub(crate) late: usize,
    pub(crate) back: i64,
}

/// Feeds a ledger and calls `check` with the time and what was done last.
pub(crate) fn live_through(
    fixture: &Fixture,
    pace: &Pace,
    random: &mut StdRng,
    check: impl Fn(&Past, i64, &mut StdRng, &str),
) -> (Past, Feed) {
    let (mut past, mut feed, mut now) = (Past::default(), fixture.feed(), pace.lasts.start);
    let zones = [TimeZone::UTC, TimeZone::fixed(Offset::constant(9))];
    while now < pace.lasts.end {
        let span = pace.spans[random.random_range(0..3)];
        now = (now + random.random_range(0..span)).min(pace.lasts.end);
        feed.apply((0..random.random_range(pace.events.clone())).map(|_| past.event(now, random)).collect());
        let back = [HOUR, DAY, pace.back][random.random_range(0..3)];
        let before = (now - random.random_range(0..back)).max(pace.lasts.start);
        match random.random_range(0..10) {
            0 | 1 => {
                feed.apply((0..pace.late).map(|_| past.event(before, random)).collect());
                check(&past, now, random, "late");
            }
            2 => {
                let up_to = if random.random_range(0..4) == 0 { before } else { now };
                feed.apply(vec![past.erase(up_to, random)]);
                check(&past, now, random, "erased");
            }
            3..7 => {
                feed.writer.fold(now, &zones[usize::from(random.random_range(0..4) == 0)]).expect("folds");
                check(&past, now, random, "folded");
            }
            _ => {}
        }
    }
    (past, feed)
}
