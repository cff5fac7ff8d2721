//! Visitor bitmaps: distinct users of any range are exact, whatever is counted, late or erased.

use std::ops::Range;

use jiff::tz::TimeZone;
use rand::RngExt;
use rand::rngs::StdRng;

use super::living::{Pace, Past, live_through};
use crate::support::ledgers::{DAY, Fixture, HOUR, NOW, each_ledger, seeded};

/// Several spans of 32 days are over by then.
const BEGIN: i64 = NOW - 129 * DAY;

fn users(past: &Past, range: &Range<i64>) -> Option<u64> {
    Some(past.model.point(None, range.start, range.end).users)
}

fn check(fixture: &Fixture, past: &Past, now: i64, random: &mut StdRng, of: &str) {
    let mut end = || {
        let at = random.random_range(BEGIN - DAY..now + 2 * HOUR);
        at - at.rem_euclid([32 * DAY, 4 * DAY, DAY, HOUR, 1][random.random_range(0..5)])
    };
    for _ in 0..4 {
        let (one, other) = (end(), end());
        let range = one.min(other)..one.max(other);
        let read = fixture.ledger.users(range.start, range.end).expect("answers");
        assert_eq!(read, users(past, &range), "{} {of} {range:?}", fixture.name);
    }
    let forgotten = "SELECT count(*) FROM visitor WHERE substr(key, 3) NOT IN (SELECT user_id FROM user_hour)";
    let left = fixture.number(forgotten);
    assert_eq!(left, 0, "{} {of}: every ordinal is of a user who is named elsewhere", fixture.name);
}

// claims: L23
#[test]
fn distinct_users_of_any_range_are_exact_whatever_is_counted_late_or_erased() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let spans = [4 * HOUR, 40 * HOUR, 100 * HOUR];
        let pace = Pace { lasts: BEGIN..NOW, spans, events: 1..5, late: 1, back: 50 * DAY };
        let check = |past: &Past, now, random: &mut StdRng, of: &str| check(fixture, past, now, random, of);
        let (past, mut feed) = live_through(fixture, &pace, &mut random, check);
        feed.fold_all();
        check(&past, NOW, &mut random, "folded whole");
        for (hours, least) in [(1, 40), (24, 40), (32 * 24, 2)] {
            let kept = fixture
                .number(&format!("SELECT count(*) FROM visitor_bitmap WHERE hours = {hours} AND event_type = 0"));
            assert!(kept >= least, "{}: {kept} bitmaps of {hours} hours", fixture.name);
        }
        let without = "SELECT count(*) FROM series AS s WHERE minutes = 60 AND event_type = 0 \
                       AND NOT EXISTS (SELECT 1 FROM visitor_bitmap AS b WHERE b.hours = 1 AND b.at = s.at / 60)";
        assert_eq!(fixture.number(without), 0, "{}: every hour that was counted has one", fixture.name);
    });
}

/// A damaged bitmap is not used and is made again; erased users stay erased.
#[test]
fn a_set_that_cannot_be_read_changes_no_answer() {
    each_ledger(|fixture| {
        let (mut past, mut feed, mut random) = (Past::default(), fixture.feed(), seeded());
        let at = NOW - 3 * DAY;
        feed.apply((0..40).map(|hour| past.event(at + hour * HOUR, &mut random)).collect());
        let range = at - DAY..NOW;
        let check = |past: &Past, of: &str| {
            let read = fixture.ledger.users(range.start, range.end).expect("answers");
            assert_eq!(read, users(past, &range), "{} {of}", fixture.name);
        };
        let days = || fixture.number("SELECT count(*) FROM visitor_bitmap WHERE hours = 24");
        feed.fold_all();
        check(&past, "whole");
        let broken = if fixture.name == "postgres" { "'broken'::bytea" } else { "x'00'" };
        fixture.rows(&format!("UPDATE visitor_bitmap SET members = {broken} WHERE hours = 1"));
        fixture.rows("DELETE FROM visitor_bitmap WHERE hours > 1");
        check(&past, "broken");
        // Another housekeeper: this one knows that it has made every bitmap.
        fixture.feed().fold_all();
        assert!(days() > 0, "{}", fixture.name);
        check(&past, "made anew");
        let up_to = at + 20 * HOUR;
        feed.apply(vec![past.erase(up_to, &mut random), past.erase(up_to, &mut random)]);
        fixture.rows(&format!("UPDATE visitor_bitmap SET members = {broken} WHERE hours = 0"));
        check(&past, "who is gone is not known");
        feed.apply((0..25).map(|_| past.erase(up_to, &mut random)).collect());
        check(&past, "erased behind it");
        fixture.feed().fold_all();
        assert!(days() > 0, "{}", fixture.name);
        check(&past, "made anew once more");
    });
}

#[test]
fn an_hour_whose_set_cannot_be_made_keeps_no_other_from_it() {
    each_ledger(|fixture| {
        let (mut past, mut feed, mut random) = (Past::default(), fixture.feed(), seeded());
        let at = NOW - 2 * DAY;
        let bad = (at + 5 * HOUR).div_euclid(HOUR);
        feed.apply((0..10).map(|hour| past.event(at + hour * HOUR, &mut random)).collect());
        let (refuse, allow) = match fixture.name {
            "postgres" => (
                format!("ALTER TABLE visitor_bitmap ADD CONSTRAINT refused CHECK (hours <> 1 OR at <> {bad})"),
                "ALTER TABLE visitor_bitmap DROP CONSTRAINT refused",
            ),
            _ => (
                format!(
                    "CREATE TRIGGER refused BEFORE INSERT ON visitor_bitmap WHEN NEW.hours = 1 AND NEW.at = {bad} \
                     BEGIN SELECT RAISE(ABORT, 'refused'); END"
                ),
                "DROP TRIGGER refused",
            ),
        };
        fixture.rows(&refuse);
        assert!(feed.writer.fold(NOW, &TimeZone::UTC).is_err(), "{}: it is said", fixture.name);
        let hours = || fixture.number("SELECT count(*) FROM visitor_bitmap WHERE hours = 1 AND event_type = 0");
        assert_eq!(hours(), 9, "{}", fixture.name);
        assert!(!feed.writer.fold(NOW, &TimeZone::UTC).expect("it waits"), "{}", fixture.name);
        fixture.rows(allow);
        // Another housekeeper does not wait for what this one could not do.
        let mut other = fixture.feed();
        other.fold_all();
        assert_eq!(hours(), 10, "{}", fixture.name);
        let range = at - DAY..NOW;
        let read = fixture.ledger.users(range.start, range.end).expect("answers");
        assert_eq!(read, users(&past, &range), "{}", fixture.name);
    });
}
