//! The day that is not over: its users are exact whatever is counted of it, comes late or is erased.

use event_tracker::events::EventType;
use event_tracker::ports::Interval;
use jiff::tz::TimeZone;

use super::living::{Pace, Past, live_through};
use crate::support::ledgers::{DAY, Fixture, HOUR, MINUTE, NOW, each_ledger, seeded};

/// Half past eight in the evening, UTC.
const NIGHT: i64 = NOW - NOW.rem_euclid(DAY) - 3 * HOUR - HOUR / 2;

fn check(fixture: &Fixture, past: &Past, of: &str) {
    eprintln!("{of}");
    for shift in [0, 9 * HOUR] {
        let from = NIGHT - (NIGHT + shift).rem_euclid(DAY);
        for event_type in [None, Some(EventType::Click), Some(EventType::Search), Some(EventType::Like)] {
            past.model.check_series(fixture, event_type, (Interval::Day, DAY), from, 1);
        }
    }
}

// claims: L22, L23
#[test]
fn users_of_the_day_that_is_not_over_are_exact_whatever_is_counted_late_or_erased() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let lasts = NIGHT - 21 * HOUR..NIGHT;
        let pace = Pace { lasts, spans: [40 * MINUTE; 3], events: 1..6, late: 1, back: DAY };
        let (mut past, mut feed) = live_through(fixture, &pace, &mut random, |past, _, _, of| check(fixture, past, of));
        assert!(fixture.number("SELECT count(*) FROM visitor_bitmap WHERE hours = 1") > 0, "{}", fixture.name);
        // A day later it is a point like others.
        let tomorrow = NIGHT + DAY;
        feed.apply(vec![past.event(tomorrow - HOUR, &mut random)]);
        for _ in 0..3 {
            feed.writer.fold(tomorrow, &TimeZone::UTC).expect("folds");
        }
        check(fixture, &past, "over");
        let (begin, length) = ((NIGHT - NIGHT.rem_euclid(DAY)) / MINUTE, DAY / MINUTE);
        let point = format!("SELECT count(*) FROM series WHERE minutes = {length} AND at = {begin} AND event_type = 0");
        assert_eq!(fixture.number(&point), 1, "{}", fixture.name);
    });
}
