//! Retention: old rows go by whole days, what was summed up of them stays, and a clock that was set removes nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use event_tracker::events::{Dimension, Event, EventType, Record};
use event_tracker::ports::{CountFilter, Interval, StoreError};
use event_tracker::sinks::Steady;
use jiff::tz::TimeZone;

use crate::support::ledgers::{
    DAY, Feed, Fixture, HOUR, NOW, click, each_ledger, event, random_event, ranking_of, search, seeded,
};
use crate::support::model::Model;

const RETENTION: i64 = 30;
/// The start of a UTC day.
const TODAY: i64 = NOW - NOW % DAY;

fn filled(feed: &mut Feed, days: i64) -> Model {
    let mut model = Model::default();
    let mut random = seeded();
    for day in 0..days {
        let mut one = |n: i64| {
            let event_time_ms = (TODAY - day * DAY + n * 5 * HOUR + 1).min(NOW);
            Event { event_time_ms, ..random_event(&mut random) }
        };
        let events: Vec<_> = (0..5).map(&mut one).collect();
        events.iter().for_each(|event| model.take(event));
        feed.apply(events.into_iter().map(Record::Event).collect());
    }
    model
}

fn days_of(fixture: &Fixture) -> Vec<i64> {
    let day =
        if fixture.name == "sqlite" { "event_time / 86400000" } else { "extract(epoch FROM event_time)::int8 / 86400" };
    let rows = fixture.rows(&format!("SELECT DISTINCT {day} FROM events ORDER BY 1"));
    rows.iter().map(|row| row[0].parse().expect("a day")).collect()
}

fn retire_all(feed: &mut Feed, now_ms: i64) {
    for _ in 0..12 {
        feed.writer.retire(now_ms, RETENTION).expect("retires");
    }
}

/// What is answered from whole hours, whether or not their rows are there.
fn check_answers(fixture: &Fixture, model: &Model, days: i64) {
    let (from, to) = (TODAY - days * DAY, NOW + HOUR - NOW % HOUR);
    let count = fixture.ledger.count(&CountFilter { from_ms: Some(from), to_ms: Some(to), ..CountFilter::default() });
    assert_eq!(count.expect("counts"), model.point(None, from, to).count, "{}", fixture.name);
    let query = ranking_of(&[(Dimension::PostViews, 1), (Dimension::PostLikes, 10)], from..to, 10);
    let ranked = fixture.ranking(&query);
    assert_eq!(ranked, model.ranking(&query), "{}", fixture.name);
    for (interval, unit) in [(Interval::Hour, HOUR), (Interval::Day, DAY)] {
        model.check_series(fixture, None, (interval, unit), from, days * DAY / unit);
    }
}

// claims: L25
#[test]
fn old_rows_go_once_they_are_folded_and_counted_and_what_was_summed_up_stays() {
    const DAYS: i64 = 45;
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let model = filled(&mut feed, DAYS);
        retire_all(&mut feed, NOW);
        assert_eq!(days_of(fixture).len() as i64, DAYS, "{}: nothing is folded yet", fixture.name);
        feed.fold_all();
        fixture.rows("UPDATE series SET users = NULL WHERE minutes = 60 AND event_type = 0");
        retire_all(&mut feed, NOW);
        assert_eq!(days_of(fixture).len() as i64, DAYS, "{}: nothing is counted yet", fixture.name);
        feed.fold_all();
        // A step takes some days, the oldest first.
        feed.writer.retire(NOW, RETENTION).expect("retires");
        let left = days_of(fixture);
        assert!((left.len() as i64) < DAYS && left.len() as i64 > RETENTION + 3, "{}: {left:?}", fixture.name);
        if fixture.name == "postgres" {
            // One who died between the two steps: nobody is told of the table.
            let day = jiff::Timestamp::from_second(left[0] * 86_400).expect("a day");
            fixture.rows(&format!("ALTER TABLE events DETACH PARTITION {}", day.strftime("events_%Y%m%d")));
        }
        let oldest = TODAY / DAY - RETENTION - 2;
        retire_all(&mut feed, NOW);
        assert_eq!(days_of(fixture), (oldest..=TODAY / DAY).collect::<Vec<_>>(), "{}", fixture.name);
        for (table, hour) in [("user_hour", "hour"), ("visitor_bitmap", "at")] {
            let of = |compare: &str| {
                fixture.number(&format!("SELECT count(*) FROM {table} WHERE {hour} {compare} {oldest} * 24"))
            };
            assert_eq!(of("<"), 0, "{}: {table}", fixture.name);
            assert!(of(">=") > 0, "{}: {table}", fixture.name);
        }
        check_answers(fixture, &model, DAYS);
        // Rows of days that are there are what the rollups say.
        let rolled = format!("SELECT sum(count) FROM rollup_hour WHERE dimension = 1 AND bucket >= {oldest} * 24");
        assert_eq!(fixture.number("SELECT count(*) FROM events"), fixture.number(&rolled), "{}", fixture.name);
        if fixture.name == "postgres" {
            let tables = "SELECT count(*) FROM pg_class WHERE relname ~ '^events_2' AND relkind = 'r'";
            let attached = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
            assert_eq!(fixture.number(tables), fixture.number(attached), "what was detached was dropped");
        }
        // What comes for a day whose rows are gone is set aside, and makes no partition; also if the rows are still on their
        // way out.
        fixture.rows(&format!("UPDATE rollup_state SET rows_since = {oldest} + 2"));
        let on_its_way = feed.batch(vec![click(1, (oldest + 1) * DAY + HOUR)]);
        let refused = feed.writer.apply(&on_its_way, &BTreeMap::new());
        assert!(matches!(refused, Err(StoreError::Poison(_))), "{refused:?}");
        fixture.rows(&format!("UPDATE rollup_state SET rows_since = {oldest}"));
        let late = vec![click(1, NOW), click(1, TODAY - 40 * DAY), click(1, NOW)];
        let batch = feed.batch(late);
        let refused = feed.writer.apply(&batch, &BTreeMap::new());
        assert!(matches!(refused, Err(StoreError::Poison(_))), "{refused:?}");
        assert!(matches!(feed.writer.probe(&batch, 1..2), Err(StoreError::Poison(_))));
        feed.writer.probe(&batch, 0..1).expect("can be stored");
        let position = batch.from.position + 2;
        feed.writer.apply(&batch, &BTreeMap::from([(position, "too old".to_owned())])).expect("applies");
        feed.at = batch.to;
        assert_eq!(fixture.number("SELECT count(*) FROM dead_letter"), 1);
        assert_eq!(days_of(fixture)[0], oldest);
        check_rows_of_a_late_event(fixture, &mut feed);
    });
}

fn check_rows_of_a_late_event(fixture: &Fixture, feed: &mut Feed) {
    let old = TODAY - 20 * DAY + HOUR;
    let before = fixture.number("SELECT count(*) FROM events");
    feed.apply(vec![search("late", "late", old)]);
    assert_eq!(fixture.number("SELECT count(*) FROM events"), before + 1);
    let ranked = fixture.ranking(&ranking_of(&[(Dimension::Keyword, 1)], old - HOUR..old - HOUR + DAY, 100));
    assert!(ranked.contains(&("late".to_owned(), 1)), "{ranked:?}");
}

// claims: L25
#[test]
fn a_clock_that_jumped_removes_no_rows() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        filled(&mut feed, RETENTION + 5);
        feed.fold_all();
        let days = days_of(fixture).split_off(2);
        // Ahead, behind; and with events of that time, as a server with such a clock takes them.
        for ahead in [0, 500 * DAY, -500 * DAY] {
            if ahead > 0 {
                for day in 0..2 {
                    let at = NOW + ahead + day * DAY;
                    let event = event(EventType::Click, at);
                    feed.apply(vec![Record::Event(Event { received_at_ms: at, ..event })]);
                }
                feed.writer.fold(NOW + ahead + 3 * DAY, &TimeZone::UTC).expect("folds");
            }
            let now_ms = NOW + ahead + DAY;
            if ahead != 0 {
                retire_all(&mut feed, now_ms);
            }
            let due = TODAY / DAY - RETENTION - 2;
            let left: Vec<i64> = days_of(fixture).into_iter().filter(|day| (due..=TODAY / DAY).contains(day)).collect();
            assert_eq!(left, days, "{} {ahead}", fixture.name);
        }
        // The clock is right again: what is due goes, what was taken meanwhile stays.
        retire_all(&mut feed, NOW);
        assert_eq!(days_of(fixture)[0], TODAY / DAY - RETENTION - 2, "{}", fixture.name);
        assert!(*days_of(fixture).last().expect("days") > TODAY / DAY + 400);
    });
}

#[test]
fn a_clock_is_believed_once_it_has_gone_steadily() {
    let begun = Instant::now();
    let mut steady = Steady::default();
    let mut look = |seconds: u64, ahead_ms: i64| {
        steady.is_trusted(begun + Duration::from_secs(seconds), NOW + seconds as i64 * 1_000 + ahead_ms)
    };
    assert!(!look(0, 0));
    assert!(!look(60, 10));
    assert!(look(601, -20));
    assert!(!look(660, 400 * DAY), "ahead");
    assert!(!look(720, 400 * DAY));
    assert!(!look(780, 0), "back");
    assert!(!look(1_300, 0));
    assert!(look(1_400, 0));
}

// claims: L17
#[test]
fn minutes_that_a_wrong_clock_has_removed_are_read_from_rows() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let at = NOW - 30 * 60_000;
        feed.apply(vec![search("a", "word", at), search("b", "word", at - 60_000)]);
        let ranked = || fixture.ranking(&ranking_of(&[(Dimension::Keyword, 1)], at - HOUR / 2..NOW, 5));
        assert_eq!(ranked(), [("word".to_owned(), 2)]);
        feed.writer.maintain(NOW + 300 * DAY).expect("maintains");
        assert_eq!(fixture.number("SELECT count(*) FROM rollup_minute"), 0);
        assert_eq!(ranked(), [("word".to_owned(), 2)], "{}", fixture.name);
        feed.writer.maintain(NOW).expect("maintains");
        feed.apply(vec![search("c", "word", at)]);
        assert_eq!(ranked(), [("word".to_owned(), 3)], "{}", fixture.name);
    });
}
