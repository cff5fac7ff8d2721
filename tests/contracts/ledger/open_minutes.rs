//! Minutes of hours that are open: counted soon after they are over, and exact whatever comes late or is erased.

use std::collections::BTreeSet;

use event_tracker::events::{Erase, Event, EventType, Record};
use event_tracker::ports::{Interval, SeriesPoint, SeriesQuery};
use jiff::tz::TimeZone;

use crate::support::ledgers::{DAY, Fixture, HOUR, MINUTE, NOW, click, each_ledger, event};

const BEGIN: i64 = NOW - NOW.rem_euclid(HOUR);
/// Counted: every minute of type 0 has such a row.
const COUNTED: &str = "SELECT count(*) FROM series WHERE minutes = 1 AND event_type = 0";

/// Rows, each with its user while it has one.
#[derive(Default)]
struct Hour(Vec<(i64, EventType, Option<String>)>);

impl Hour {
    fn event(&mut self, kind: EventType, user: &str, at: i64) -> Record<'static> {
        self.0.push((at, kind, Some(user.to_owned())));
        Record::Event(Event { user_id: Some(user.to_owned().into()), component_id: Some(1), ..event(kind, at) })
    }

    fn erase(&mut self, user: &str, at: i64) -> Record<'static> {
        let theirs = self.0.iter_mut().filter(|(when, _, whose)| *when <= at && whose.as_deref() == Some(user));
        theirs.for_each(|(.., whose)| *whose = None);
        Record::Erase(Erase { user_id: user.to_owned().into(), at_ms: at })
    }

    fn check(&self, fixture: &Fixture, of: &str) {
        for event_type in [None, Some(EventType::Click), Some(EventType::PageView), Some(EventType::Search)] {
            let edges_ms: Vec<i64> = (0..=60).map(|minute| BEGIN + minute * MINUTE).collect();
            let point = |from: i64| {
                let of_minute = |row: &&(i64, EventType, Option<String>)| {
                    (from..from + MINUTE).contains(&row.0) && event_type.is_none_or(|kind| kind == row.1)
                };
                let rows: Vec<_> = self.0.iter().filter(of_minute).collect();
                let users: BTreeSet<&String> = rows.iter().filter_map(|row| row.2.as_ref()).collect();
                SeriesPoint { count: rows.len() as u64, users: users.len() as u64 }
            };
            let expected: Vec<SeriesPoint> = edges_ms[..60].iter().map(|edge| point(*edge)).collect();
            let query = SeriesQuery { event_type, interval: Interval::Minute, edges_ms };
            let read = fixture.ledger.series(&query).expect("answers").expect("in time");
            assert_eq!(read, expected, "{} {of} {event_type:?}", fixture.name);
        }
    }
}

// claims: L22
#[test]
fn a_late_event_in_an_empty_hour_of_a_counted_day_is_in_its_day() {
    each_ledger(|fixture| {
        let (day, mut feed) = (NOW - NOW.rem_euclid(DAY) - 3 * DAY, fixture.feed());
        feed.apply(vec![click(1, day + HOUR), click(1, NOW - DAY)]);
        while feed.writer.fold(NOW, &TimeZone::UTC).expect("folds") {}
        let counted = format!("SELECT count(*) FROM series WHERE minutes = 1440 AND at = {}", day / MINUTE);
        assert!(fixture.number(&counted) > 0, "{}", fixture.name);
        feed.apply(vec![click(1, day + 5 * HOUR)]);
        feed.writer.add_up().expect("adds up");
        for event_type in [None, Some(EventType::Click)] {
            let query = SeriesQuery { event_type, interval: Interval::Day, edges_ms: vec![day, day + DAY] };
            let read = fixture.ledger.series(&query).expect("answers").expect("in time");
            assert_eq!(read[0].count, 2, "{} {event_type:?}", fixture.name);
        }
    });
}

// claims: L22
#[test]
fn minutes_of_an_open_hour_are_counted_once_and_exact_whatever_is_late_or_erased() {
    each_ledger(|fixture| {
        let (mut hour, mut feed) = (Hour::default(), fixture.feed());
        let in_minute = |minute: i64| BEGIN + minute * MINUTE + 1_000;
        // Minute 4 is without events.
        let kinds = [EventType::Click, EventType::PageView];
        for (n, minute) in (0..12).filter(|minute| *minute != 4).flat_map(|minute| [minute; 5]).enumerate() {
            let event = hour.event(kinds[n % 2], &format!("u{}", n % 3), in_minute(minute));
            feed.apply(vec![event]);
        }
        hour.check(fixture, "pending");
        let fold = |feed: &mut crate::support::ledgers::Feed, now: i64| {
            while feed.writer.fold(now, &TimeZone::UTC).expect("folds") {}
        };
        fold(&mut feed, BEGIN + 9 * MINUTE + 5_000);
        assert_eq!(fixture.number(COUNTED), 7, "{}: minutes 0 to 7 are over for 10 s, 4 is empty", fixture.name);
        hour.check(fixture, "counted");

        // Points are what is read: not the rows.
        let count_more = |by: i64| {
            fixture
                .rows(&format!("UPDATE series SET count = count + {by} WHERE minutes = 1 AND at = {}", BEGIN / MINUTE));
        };
        let first = || {
            let query =
                SeriesQuery { event_type: None, interval: Interval::Minute, edges_ms: vec![BEGIN, BEGIN + MINUTE] };
            fixture.ledger.series(&query).expect("answers").expect("in time")[0].count
        };
        count_more(1_000);
        assert_eq!(first(), 1_005, "{}", fixture.name);
        count_more(-1_000);

        let late = vec![
            hour.event(EventType::Search, "late", in_minute(2)),
            hour.event(EventType::Click, "late", in_minute(4)),
        ];
        feed.apply(late);
        hour.check(fixture, "late and pending");
        fold(&mut feed, BEGIN + 9 * MINUTE + 6_000);
        assert_eq!(fixture.number(COUNTED), 8, "{}: minute 4 has an event now", fixture.name);
        hour.check(fixture, "late and counted");

        let erase = hour.erase("u1", in_minute(5));
        feed.apply(vec![erase]);
        assert_eq!(fixture.number(COUNTED), 0, "{}", fixture.name);
        hour.check(fixture, "erased");
        fold(&mut feed, BEGIN + 12 * MINUTE + 10_000);
        assert_eq!(fixture.number(COUNTED), 12, "{}", fixture.name);
        hour.check(fixture, "erased and counted");

        // Closing counts the hour and its minutes again.
        fixture.rows(&format!("UPDATE series SET count = 77 WHERE minutes = 1 AND at >= {}", BEGIN / MINUTE));
        fold(&mut feed, BEGIN + 2 * HOUR);
        hour.check(fixture, "closed");
        feed.apply(vec![hour.event(EventType::Click, "later", in_minute(7))]);
        hour.check(fixture, "closed, late and pending");
        fold(&mut feed, BEGIN + 2 * HOUR);
        hour.check(fixture, "closed, late and counted");
    });
}
