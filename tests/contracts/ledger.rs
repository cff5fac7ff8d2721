//! The contract of the ledger, run over PostgreSQL and SQLite: one suite, one set of answers. `// claims:` names what
//! src/ports.rs says.

#![allow(clippy::print_stdout, reason = "measurements are for whoever reads the test's output")]

mod adding_up;
mod erasing;
mod erasing_many;
mod exporting;
mod failing;
mod folding;
mod leading;
mod living;
mod open_day;
mod open_minutes;
mod posting;
mod products;
mod retiring;
mod searching;
mod several_filters;
mod user_sets;

use std::collections::BTreeMap;

use crate::support::ledgers::{
    DAY, HOUR, MINUTE, NOW, click, each_ledger, event, like, random_event, received, search, seeded, with_id,
};
use crate::support::model::Model;
use event_tracker::events::{Dimension, Event, EventType, Forget, Record};
use event_tracker::ports::{CountFilter, LikeOutcome, Position, StoreError, TopQuery, Verdict, Watermark, Window};
use jiff::tz::TimeZone;
use rand::RngExt;
use uuid::Uuid;

// claims: L1, L2, L3, L6
#[test]
fn a_batch_is_applied_exactly_once_whatever_its_size() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let mut total = 0;
        for size in [1, 3, 1_000, 1_001, 2_500] {
            let batch = feed.batch((0..size).map(|i| click(1 + i % 7, NOW - i % MINUTE)).collect());
            assert!(feed.writer.apply(&batch, &BTreeMap::new()).expect("applies").is_empty());
            feed.at = batch.to;
            total += size;
            let again = feed.writer.apply(&batch, &BTreeMap::new());
            assert!(matches!(again, Err(StoreError::Fenced { found: Some(at) }) if at == batch.to), "{again:?}");
            assert_eq!(feed.writer.watermark(feed.stream).expect("answers"), Some(batch.to));
            assert_eq!(fixture.ledger.watermark(feed.stream).expect("answers"), Some(batch.to));
            assert_eq!(fixture.number("SELECT count(*) FROM events"), total);
            assert_eq!(fixture.ledger.count(&CountFilter::default()).expect("counts"), total.cast_unsigned());
        }
        // Another checksum at the same position is another journal.
        let mut batch = feed.batch(vec![click(1, NOW)]);
        batch.from.crc ^= 1;
        assert!(matches!(feed.writer.apply(&batch, &BTreeMap::new()), Err(StoreError::Fenced { found: Some(_) })));
        batch.stream = Uuid::new_v4();
        assert!(matches!(feed.writer.apply(&batch, &BTreeMap::new()), Err(StoreError::Fenced { found: None })));
        // Registering again moves nothing; a batch without events moves the watermark.
        feed.writer.register(feed.stream).expect("registers");
        assert_eq!(feed.writer.watermark(feed.stream).expect("answers"), Some(feed.at));
        assert_eq!(fixture.ledger.watermark(Uuid::new_v4()).expect("answers"), None);
        assert_eq!(fixture.ledger.dead_letters().expect("answers"), 0);
    });
}

// claims: L7, L9
#[test]
fn an_id_that_a_client_chose_is_stored_once_within_and_across_batches() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let (a, b, c) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let first = feed.apply(vec![with_id(click(1, NOW), a), click(1, NOW), with_id(search("u", "x", NOW), a)]);
        assert_eq!(first, [(3, Verdict::Duplicate)]);
        let second = feed.apply(vec![
            with_id(click(1, NOW), b),
            with_id(click(1, NOW), a),
            with_id(like(EventType::Toggle, "u", "p", NOW), c),
            with_id(like(EventType::Toggle, "u", "p", NOW), c),
        ]);
        let liked = LikeOutcome { liked: true, changed: true, like_count: 1, version: 1 };
        let expected = [(5, Verdict::Duplicate), (6, Verdict::Like(liked)), (7, Verdict::Duplicate)];
        assert_eq!(second, expected);
        // The same id from another journal, and again a day and a switch of the tables later.
        let mut other = fixture.feed();
        assert_eq!(other.apply(vec![with_id(click(1, NOW), b)]), [(1, Verdict::Duplicate)]);
        feed.writer.maintain(NOW).expect("maintains");
        feed.writer.maintain(NOW + DAY - 1).expect("maintains");
        assert_eq!(other.apply(vec![with_id(click(1, NOW), c)]), [(2, Verdict::Duplicate)]);
        feed.writer.maintain(NOW + DAY).expect("maintains");
        assert_eq!(other.apply(vec![with_id(click(1, NOW), c)]), [(3, Verdict::Duplicate)]);
        feed.writer.maintain(NOW + 2 * DAY).expect("maintains");
        feed.writer.maintain(NOW + 3 * DAY).expect("maintains");
        assert_eq!(other.apply(vec![with_id(click(1, NOW), a)]), [], "forgotten after two switches");
        assert_eq!(fixture.number("SELECT count(*) FROM events"), 5);
        assert_eq!(fixture.ledger.count(&CountFilter::default()).expect("counts"), 5);
        let stored = fixture.ledger.verdicts(feed.stream, 0, 100).expect("answers").expect("not pruned");
        assert_eq!(stored, [first, second].concat());
        feed.writer.prune_verdicts(feed.stream, 5).expect("prunes");
        assert_eq!(fixture.ledger.verdicts(feed.stream, 4, 100).expect("answers"), None, "nobody may guess");
        assert_eq!(fixture.ledger.verdicts(feed.stream, 5, 100).expect("answers").expect("not pruned"), expected[1..]);
        assert_eq!(fixture.ledger.verdicts(feed.stream, 6, 100).expect("answers").expect("not pruned"), expected[2..]);
    });
}

// claims: L5, L8, L9
#[test]
fn likes_are_the_fold_of_their_journal() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let mut model = Model::default();
        for _ in 0..25 {
            let count = random.random_range(1..60);
            let one = |_| {
                let (user, post) = (random.random_range(0..6).to_string(), random.random_range(0..4).to_string());
                let kind = [EventType::Like, EventType::Unlike, EventType::Toggle][random.random_range(0..3)];
                like(kind, &user, &post, NOW - random.random_range(0..HOUR))
            };
            let records: Vec<_> = (0..count).map(one).collect();
            let first = feed.at.position + 1;
            for (position, record) in (first..).zip(&records) {
                model.take_record(feed.stream, position, record);
            }
            let decided = model.verdicts.range((feed.stream, first)..);
            assert_eq!(feed.apply(records), decided.map(|((_, at), verdict)| (*at, *verdict)).collect::<Vec<_>>());
        }
        let read = fixture.ledger.verdicts(feed.stream, 0, feed.at.position).expect("answers").expect("not pruned");
        let is_change = |verdict: &Verdict| matches!(verdict, Verdict::Like(outcome) if outcome.changed);
        let changes = model.verdicts.iter().filter(|(_, verdict)| is_change(verdict));
        assert_eq!(read, changes.map(|((_, at), verdict)| (*at, *verdict)).collect::<Vec<_>>());
        model.check_ledger(fixture, NOW, &TimeZone::UTC, &BTreeMap::new());
        assert_eq!(fixture.number("SELECT count(*) FROM events WHERE event_type NOT IN ('LIKE', 'UNLIKE')"), 0);
    });
}

// claims: L1, L10
#[test]
fn what_the_ledger_refuses_is_found_by_probing_and_set_aside() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let bad = |keyword: &'static str, properties: Option<&'static str>| {
            let (keyword, properties) = (Some(keyword.into()), properties.map(Into::into));
            Record::Event(Event { keyword, properties, ..event(EventType::Search, NOW) })
        };
        let mut records: Vec<Record<'_>> = (0..40).map(|i| search("u", &format!("k{i}"), NOW)).collect();
        records[17] = bad("nul\0", None);
        records[29] = bad("json", Some("{not json"));
        records[31] = Record::Event(event(EventType::Search, i64::MAX));
        records.push(with_id(like(EventType::Like, "u", "p", NOW), Uuid::new_v4()));
        let batch = feed.batch(records.clone());
        let mut dead = Vec::new();
        for index in 0..records.len() {
            match feed.writer.probe(&batch, index..index + 1) {
                Ok(()) => {}
                Err(StoreError::Poison(reason)) => dead.push((batch.position(index), reason)),
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(dead.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [18, 30, 32]);
        feed.writer.probe(&batch, 0..17).expect("the good ones pass together");
        assert!(matches!(feed.writer.probe(&batch, 0..41), Err(StoreError::Poison(_))));
        assert!(matches!(feed.try_apply(records.clone(), &[]), Err(StoreError::Poison(_))));
        assert_eq!(feed.writer.watermark(feed.stream).expect("answers"), Some(Watermark::default()));
        for table in ["events", "rollup_hour", "rollup_minute", "event_id_a", "post_like", "post_like_log", "verdict"] {
            assert_eq!(fixture.number(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
        }
        let mut many: Vec<Record<'_>> = (0..1_500).map(|_| click(1, NOW)).collect();
        feed.writer.probe(&feed.batch(many.clone()), 0..1_500).expect("a large batch passes");
        many.push(bad("nul\0", None));
        assert!(matches!(feed.writer.probe(&feed.batch(many), 0..1_501), Err(StoreError::Poison(_))));
        let dead: Vec<(Position, &str)> = dead.iter().map(|(at, why)| (*at, why.as_str())).collect();
        let verdicts = feed.try_apply(records, &dead).expect("the rest is stored");
        assert_eq!(verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Dead).count(), 3);
        assert_eq!(fixture.number("SELECT count(*) FROM events"), 38);
        assert_eq!(fixture.number("SELECT count(*) FROM dead_letter WHERE position IN (18, 30, 32)"), 3);
        assert_eq!(fixture.ledger.verdicts(feed.stream, 0, 99).expect("answers").expect("not pruned"), verdicts);
    });
}

// claims: L11, L12
#[test]
fn rows_are_the_sum_of_the_rollups_and_counts_are_exact() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let mut model = Model::default();
        for size in [1, 30, 400, 1_500] {
            let events: Vec<_> = (0..size).map(|_| random_event(&mut random)).collect();
            events.iter().for_each(|event| model.take(event));
            feed.apply(events.into_iter().map(Record::Event).collect());
        }
        model.check_rows(fixture);
        model.check_sums(fixture, NOW);
        let oldest = NOW.div_euclid(MINUTE) - 180;
        assert!(fixture.number("SELECT min(bucket) FROM rollup_minute") > oldest);
        assert_eq!(
            fixture.ledger.count(&CountFilter::default()).expect("counts"),
            model.count(&CountFilter::default())
        );
    });
}

// claims: L14
#[test]
fn recent_searches_are_ten_without_repeats_and_can_be_forgotten() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let recent = |user: &str, now: i64| fixture.ledger.recent(user, now).expect("answers");
        let forget = |keyword: Option<&'static str>, at_ms: i64| {
            Record::Forget(Forget { user_id: "u".into(), keyword: keyword.map(Into::into), at_ms })
        };
        feed.apply((0..12).map(|i| search("u", &format!("k{i}"), NOW - 20 * MINUTE + i)).collect());
        feed.apply(vec![
            search("u", "K5", NOW - 10 * MINUTE),
            search("v", "other", NOW - 10 * MINUTE),
            search("u", "late", NOW - 30 * MINUTE),
            search("u", "too old", NOW - HOUR),
        ]);
        assert_eq!(recent("u", NOW), ["K5", "k11", "k10", "k9", "k8", "k7", "k6", "k4", "k3", "k2"]);
        let snapshot = fixture.snapshot(NOW);
        let ours: Vec<_> = snapshot.recent.iter().filter(|row| row.0 == "u").map(|row| row.1.as_str()).collect();
        assert_eq!(ours, ["k2", "k3", "k4", "k6", "k7", "k8", "k9", "k10", "k11", "K5"], "oldest first");
        feed.apply(vec![forget(Some("K11"), NOW), forget(Some("k11"), NOW - DAY), forget(Some("k10"), NOW - HOUR)]);
        assert_eq!(recent("u", NOW), ["K5", "k10", "k9", "k8", "k7", "k6", "k4", "k3", "k2", "k1"]);
        feed.apply(vec![forget(None, NOW - 15 * MINUTE)]);
        assert_eq!(recent("u", NOW), ["K5"]);
        assert_eq!(recent("v", NOW), ["other"]);
        let mut forgotten = fixture.snapshot(NOW).forgotten;
        forgotten.sort();
        let expected = [("", NOW - 15 * MINUTE), ("k11", NOW)];
        assert_eq!(
            forgotten,
            expected.map(|(keyword, at)| ("u".to_owned(), keyword.to_owned(), at)),
            "of the last hour"
        );
        let again = received(search("u", "k11", NOW + 1), NOW + 1);
        let all_of_w = Record::Forget(Forget { user_id: "w".into(), keyword: None, at_ms: NOW });
        feed.apply(vec![search("w", "by a clock that is ahead", NOW + 30_000), all_of_w, again]);
        assert!(recent("w", NOW + 1).is_empty(), "forgotten after it was taken");
        assert_eq!(recent("u", NOW + 1), ["k11", "K5"], "searched again after it was forgotten");
        assert_eq!(recent("u", NOW + 50 * MINUTE), ["k11"]);
        assert!(recent("u", NOW + 2 * HOUR).is_empty());
        feed.apply(vec![search("x", "by a clock that is ahead", NOW + 30_000)]);
        assert_eq!(recent("x", NOW + HOUR - 1).len(), 1);
        assert!(recent("x", NOW + HOUR).is_empty(), "an hour after it was taken");
        feed.writer.maintain(NOW + 2 * HOUR).expect("maintains");
        assert_eq!(fixture.number("SELECT count(*) FROM recent_forgotten"), 0);
    });
}

// claims: L13
#[test]
fn a_ranked_list_orders_by_score_then_name() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let view = |post: &'static str, at_ms: i64| {
            Record::Event(Event { post_id: Some(post.into()), ..event(EventType::PageView, at_ms) })
        };
        let mut records = Vec::new();
        for (keyword, times) in [("b", 3), ("Z", 3), ("a", 3), ("é", 1), ("가", 4)] {
            records.extend((0..times).map(|_| search("u", keyword, NOW)));
        }
        records.extend([search("u", "old", NOW - 30 * MINUTE), search("u", "older", NOW - 5 * HOUR)]);
        records.extend([search("u", "week", NOW - 5 * DAY), search("u", "gone", NOW - 8 * DAY)]);
        records.extend([view("p1", NOW), view("p1", NOW), view("p2", NOW), view("p3", NOW - 5 * MINUTE)]);
        records.push(like(EventType::Like, "u", "p2", NOW));
        records.push(like(EventType::Like, "u", "p4", NOW - 2 * HOUR));
        records.push(like(EventType::Unlike, "u", "p4", NOW));
        feed.apply(records);
        let top = |parts: &[(Dimension, f64)], window, hot, limit| {
            fixture.top(&TopQuery { parts: parts.to_vec(), window, hot, limit })
        };
        let names = |window| {
            let list = top(&[(Dimension::Keyword, 1.0)], window, false, 100);
            list.into_iter().map(|(name, score)| format!("{name}:{score}")).collect::<Vec<_>>()
        };
        let now = ["가:4", "a:3", "b:3", "z:3", "é:1"];
        assert_eq!(names(Window::TenMinutes), now);
        assert_eq!(names(Window::Hour), [&now[..4], &["old:1", "é:1"]].concat());
        assert_eq!(names(Window::Day), [&now[..4], &["old:1", "older:1", "é:1"]].concat());
        assert_eq!(names(Window::Week), [&now[..4], &["old:1", "older:1", "week:1", "é:1"]].concat());
        assert_eq!(top(&[(Dimension::Keyword, 1.0)], Window::Hour, false, 2).len(), 2);
        let parts = [(Dimension::PostViews, 1.0), (Dimension::PostClicks, 3.0), (Dimension::PostLikes, 10.0)];
        let score = top(&parts, Window::TenMinutes, false, 10);
        assert_eq!(score, [("p2".to_owned(), 11.0), ("p1".to_owned(), 2.0), ("p3".to_owned(), 1.0)]);
        let hot = top(&[(Dimension::PostViews, 1.0)], Window::TenMinutes, true, 10);
        assert_eq!(hot[2].0, "p3");
        assert!((hot[2].1 - 0.25).abs() < 1e-9, "two half-lives of 2.5 minutes: {}", hot[2].1);
        let unliked = top(&[(Dimension::PostLikes, 1.0)], Window::TenMinutes, false, 10);
        assert_eq!(unliked, [("p2".to_owned(), 1.0)], "a negative score is not listed");
    });
}

// claims: L15
#[test]
fn a_snapshot_is_what_was_applied() {
    each_ledger(|fixture| {
        let (mut feed, mut other) = (fixture.feed(), fixture.feed());
        feed.apply(vec![search("u", "A", NOW), search("u", "a", NOW - 2 * HOUR), click(7, NOW)]);
        other.apply(vec![like(EventType::Toggle, "u", "p", NOW), search("v", "b", NOW - 30 * DAY)]);
        let snapshot = fixture.snapshot(NOW);
        let mut watermarks = vec![(feed.stream, feed.at), (other.stream, other.at)];
        watermarks.sort_unstable_by_key(|(stream, _)| *stream);
        assert_eq!(snapshot.watermarks, watermarks);
        let minute = NOW.div_euclid(MINUTE);
        let expected = [
            (Dimension::Type, minute, "CLICK".to_owned(), 1),
            (Dimension::Type, minute, "LIKE".to_owned(), 1),
            (Dimension::Type, minute, "SEARCH".to_owned(), 1),
            (Dimension::Keyword, minute, "a".to_owned(), 1),
            (Dimension::PostLikes, minute, "p".to_owned(), 1),
            (Dimension::Component, minute, "7".to_owned(), 1),
        ];
        let mut minutes = snapshot.minutes;
        minutes.sort_unstable_by(|one, other| (one.0 as u8, &one.2).cmp(&(other.0 as u8, &other.2)));
        assert_eq!(minutes, expected);
        assert_eq!(snapshot.hours.len(), 8, "the old search is out of the hours: {:?}", snapshot.hours);
        let totals = [
            (Dimension::Type, "CLICK".to_owned(), 1),
            (Dimension::Type, "LIKE".to_owned(), 1),
            (Dimension::Type, "SEARCH".to_owned(), 3),
            (Dimension::Keyword, String::new(), 3),
            (Dimension::PostLikes, String::new(), 1),
            (Dimension::Component, String::new(), 1),
        ];
        assert_eq!(snapshot.totals, totals);
        assert_eq!(snapshot.recent, [("u".to_owned(), "A".to_owned(), NOW)]);
        // Minutes are kept for three hours.
        feed.writer.maintain(NOW + 4 * HOUR).expect("maintains");
        assert_eq!(fixture.number("SELECT count(*) FROM rollup_minute"), 0);
    });
}

// claims: L16, L11
#[test]
fn two_writers_add_up() {
    each_ledger(|fixture| {
        let feeds = [fixture.feed(), fixture.feed()];
        let threads: Vec<_> = feeds
            .into_iter()
            .map(|mut feed| {
                std::thread::spawn(move || {
                    for round in 0..20 {
                        let records = || {
                            let likes = (0..10).map(|i| like(EventType::Toggle, "u", &format!("p{}", i % 5), NOW));
                            likes.chain((0..50).map(|i| click(1 + (i + round) % 9, NOW))).collect()
                        };
                        while let Err(error) = feed.try_apply(records(), &[]) {
                            assert!(matches!(error, StoreError::Retry(_)), "{error}");
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("a writer"));
        assert_eq!(fixture.number("SELECT count(*) FROM events"), 2 * 20 * 60);
        let sums = ["rollup_total", "rollup_hour"].map(|table| {
            fixture.number(&format!("SELECT CAST(sum(count) AS bigint) FROM {table} WHERE dimension <> 1"))
        });
        assert_eq!(sums[0], sums[1], "totals are the sum of the hours");
        assert_eq!(fixture.number("SELECT sum(count) FROM rollup_hour WHERE dimension = 1"), 2 * 20 * 60);
        assert_eq!(fixture.number("SELECT sum(count) FROM rollup_minute WHERE dimension = 8"), 2 * 20 * 50);
        assert_eq!(fixture.number("SELECT sum(version) FROM post_stat"), 2 * 20 * 10, "every toggle changed its post");
        assert_eq!(fixture.number("SELECT sum(like_count) FROM post_stat"), 0);
        assert_eq!(fixture.number("SELECT count(*) FROM post_like"), 0);
    });
}
