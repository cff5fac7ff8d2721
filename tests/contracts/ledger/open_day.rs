//! The day that is not over: its users are exact whatever is counted of it, comes late or is erased.

use std::collections::{BTreeMap, BTreeSet};

use event_tracker::events::{Erase, Event, EventType, Record};
use event_tracker::ports::{Interval, SeriesPoint, SeriesQuery};
use jiff::tz::{Offset, TimeZone};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::support::ledgers::{DAY, Fixture, HOUR, MINUTE, NOW, each_ledger, event, seeded};

/// Half past eight in the evening, UTC.
const NIGHT: i64 = NOW - NOW.rem_euclid(DAY) - 3 * HOUR - HOUR / 2;
const KINDS: [EventType; 2] = [EventType::Click, EventType::Search];

/// Rows, each with its user while it has one; and who was erased, up to when.
#[derive(Default)]
struct Day {
    rows: Vec<(i64, EventType, Option<String>)>,
    erased: BTreeMap<String, i64>,
}

impl Day {
    /// Something of one of a few users; dropped by the ledger where that user was erased behind it.
    fn event(&mut self, at: i64, random: &mut StdRng) -> Record<'static> {
        let (kind, user) = (KINDS[random.random_range(0..2)], format!("u{}", random.random_range(0..12)));
        if self.erased.get(&user).is_none_or(|up_to| at > *up_to) {
            self.rows.push((at, kind, Some(user.clone())));
        }
        let keyword = (kind == EventType::Search).then(|| "word".into());
        Record::Event(Event { user_id: Some(user.into()), keyword, component_id: Some(1), ..event(kind, at) })
    }

    fn erase(&mut self, at: i64, random: &mut StdRng) -> Record<'static> {
        let user = format!("u{}", random.random_range(0..12));
        let theirs = self.rows.iter_mut().filter(|(when, _, whose)| *when <= at && whose.as_ref() == Some(&user));
        theirs.for_each(|(.., whose)| *whose = None);
        self.erased.insert(user.clone(), at);
        Record::Erase(Erase { user_id: user.into(), at_ms: at })
    }

    fn point(&self, kind: Option<EventType>, from: i64) -> SeriesPoint {
        let of_day = |row: &&(i64, EventType, Option<String>)| {
            (from..from + DAY).contains(&row.0) && kind.is_none_or(|kind| kind == row.1)
        };
        let rows: Vec<_> = self.rows.iter().filter(of_day).collect();
        let users: BTreeSet<&String> = rows.iter().filter_map(|row| row.2.as_ref()).collect();
        SeriesPoint { count: rows.len() as u64, users: users.len() as u64 }
    }
}

fn check(fixture: &Fixture, day: &Day, of: &str) {
    for shift in [0, 9 * HOUR] {
        let from = NIGHT - (NIGHT + shift).rem_euclid(DAY);
        for event_type in [None, Some(EventType::Click), Some(EventType::Search), Some(EventType::Like)] {
            let query = SeriesQuery { event_type, interval: Interval::Day, edges_ms: vec![from, from + DAY] };
            let read = fixture.ledger.series(&query).expect("answers").expect("in time");
            assert_eq!(read, [day.point(event_type, from)], "{} {of} {shift} {event_type:?}", fixture.name);
        }
    }
}

// claims: L22, L23
#[test]
fn users_of_the_day_that_is_not_over_are_exact_whatever_is_counted_late_or_erased() {
    let mut random = seeded();
    let zones = [TimeZone::UTC, TimeZone::fixed(Offset::from_seconds(9 * 3_600).expect("an offset"))];
    each_ledger(|fixture| {
        let (mut day, mut feed) = (Day::default(), fixture.feed());
        let mut now = NIGHT - 21 * HOUR;
        while now < NIGHT {
            now += random.random_range(0..40 * MINUTE);
            let fresh = (0..random.random_range(1..6)).map(|_| day.event(now, &mut random)).collect();
            feed.apply(fresh);
            match random.random_range(0..5) {
                0 => {
                    let late = now - random.random_range(0..now + DAY / 2 - NIGHT + DAY / 2);
                    feed.apply(vec![day.event(late.min(now), &mut random)]);
                    check(fixture, &day, "late");
                }
                1 => {
                    feed.apply(vec![day.erase(now, &mut random)]);
                    check(fixture, &day, "erased");
                }
                _ => {
                    feed.writer.fold(now, &zones[usize::from(random.random_range(0..4) == 0)]).expect("folds");
                    check(fixture, &day, "folded");
                }
            }
        }
        assert!(fixture.number("SELECT count(*) FROM visitor_bitmap WHERE hours = 1") > 0, "{}", fixture.name);
        // A day later it is a point like others.
        let tomorrow = NIGHT + DAY;
        feed.apply(vec![day.event(tomorrow - HOUR, &mut random)]);
        for _ in 0..3 {
            feed.writer.fold(tomorrow, &zones[0]).expect("folds");
        }
        check(fixture, &day, "over");
        let (begin, length) = ((NIGHT - NIGHT.rem_euclid(DAY)) / MINUTE, DAY / MINUTE);
        let point = format!("SELECT count(*) FROM series WHERE minutes = {length} AND at = {begin} AND event_type = 0");
        assert_eq!(fixture.number(&point), 1, "{}", fixture.name);
    });
}
