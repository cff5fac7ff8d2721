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
    // Nobody is kept there who is not in the hours of the day.
    let nobody = "SELECT count(*) FROM user_day AS d WHERE NOT EXISTS (SELECT 1 FROM user_hour AS h \
                  WHERE h.user_id = d.user_id AND h.hour * 60 >= d.at AND d.event_type IN (0, h.event_type))";
    assert_eq!(fixture.number(nobody), 0, "{} {of}", fixture.name);
    check_open(fixture, of);
}

/// Whoever is in `user_open` was seen in the hour, has that number, and is in the days that keep it.
pub(crate) fn check_open(fixture: &Fixture, of: &str) {
    let unseen = "SELECT count(*) FROM user_open AS o WHERE NOT EXISTS (SELECT 1 FROM user_hour AS h \
                  WHERE h.hour = o.hour AND h.event_type = o.event_type AND h.user_id = o.user_id)";
    let another = "SELECT count(*) FROM user_open AS o WHERE NOT EXISTS (SELECT 1 FROM user_number AS n \
                   WHERE n.user_id = o.user_id AND n.number = o.number AND n.day >= o.hour / 24)";
    let unkept = "SELECT count(*) FROM user_open AS o JOIN series AS s \
                  ON s.minutes < 0 AND s.event_type = 0 AND s.at <= o.hour * 60 AND s.at - s.minutes > o.hour * 60 \
                  WHERE (SELECT count(*) FROM user_day AS d WHERE d.at = s.at AND d.user_id = o.user_id \
                           AND d.event_type IN (0, o.event_type)) < 2";
    let over = "SELECT count(*) FROM user_open AS o WHERE hour < (SELECT until_hour FROM rollup_folded) \
                AND EXISTS (SELECT 1 FROM user_set AS s WHERE s.hours = 1 AND s.at = o.hour)";
    for (what, sql) in [("not seen", unseen), ("another number", another), ("in no day", unkept), ("over", over)] {
        assert_eq!(fixture.number(sql), 0, "{} {of}: {what}", fixture.name);
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
        let (mut known, mut kept, mut open) = (0, 0, 0);
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
            known = known.max(fixture.number("SELECT coalesce(max(users), 0) FROM series WHERE minutes < 0"));
            kept = kept.max(fixture.number("SELECT count(*) FROM user_day"));
            open = open.max(fixture.number("SELECT count(*) FROM user_open"));
        }
        assert!(known > 4 && kept > 8, "{}: {known} users were known, in {kept} rows", fixture.name);
        assert!(open > 3, "{}: {open} rows of hours that were not over", fixture.name);
        // A day later it is a point like others, and nobody is kept for it.
        let tomorrow = NIGHT + DAY;
        feed.apply(vec![day.event(tomorrow - HOUR, &mut random)]);
        for _ in 0..3 {
            feed.writer.fold(tomorrow, &zones[0]).expect("folds");
        }
        check(fixture, &day, "over");
        let (begin, length) = ((NIGHT - NIGHT.rem_euclid(DAY)) / MINUTE, DAY / MINUTE);
        let point = format!("SELECT count(*) FROM series WHERE minutes = {length} AND at = {begin} AND event_type = 0");
        assert_eq!(fixture.number(&point), 1, "{}", fixture.name);
        assert_eq!(fixture.number(&format!("SELECT count(*) FROM user_day WHERE at = {begin}")), 0);
    });
}
