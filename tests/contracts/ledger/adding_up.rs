//! Pending counts: in every answer, and added once, by any instance at any time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use event_tracker::events::{Dimension, Event, EventType, PostDelete, Record};
use event_tracker::ports::{CountFilter, Interval, SeriesPoint, TopQuery, Window};
use jiff::tz::TimeZone;
use rand::RngExt;

use crate::support::ledgers::{
    Feed, Fixture, HOUR, MINUTE, NOW, click, each_ledger, event, like, ranking_of, search, seeded,
};

fn pending(fixture: &Fixture) -> i64 {
    fixture.number("SELECT count(*) FROM rollup_delta")
}

fn add_up(fixture: &Fixture) {
    fixture.ledger.open_writer().expect("a writer").add_up().expect("adds up");
}

fn view(post: &str, at: i64) -> Record<'static> {
    Record::Event(Event { post_id: Some(post.to_owned().into()), ..event(EventType::PageView, at) })
}

// claims: L26, L15
#[test]
fn pending_counts_are_in_every_answer_and_are_added_once() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let mut fill = || {
            feed.apply(vec![search("u", "word", NOW), click(7, NOW), view("p", NOW)]);
            feed.apply(vec![search("v", "Word", NOW), like(EventType::Like, "u", "p", NOW)]);
        };
        let count = || fixture.ledger.count(&CountFilter::default()).expect("counts") as i64;
        let ranking = || fixture.ranking(&ranking_of(&[(Dimension::Keyword, 1)], NOW - HOUR..NOW + HOUR, 10));
        let hour = NOW - NOW.rem_euclid(HOUR);
        let series = || fixture.series(Some(EventType::Search), Interval::Hour, vec![hour, hour + HOUR]);
        let listed =
            |dimension, window| fixture.top(&TopQuery { parts: vec![(dimension, 1.0)], window, hot: false, limit: 10 });
        let mut rounds = 0;
        let mut check = |read: &dyn Fn(i64)| {
            fill();
            rounds += 1;
            let before = pending(fixture);
            assert!(before > 0, "{}: every batch leaves its counts", fixture.name);
            read(rounds);
            assert_eq!(pending(fixture), before, "{}: a read writes nothing", fixture.name);
            if rounds % 2 == 0 {
                add_up(fixture);
                assert_eq!(pending(fixture), 0);
                read(rounds);
            }
        };
        check(&|rounds| assert_eq!(count(), 5 * rounds));
        check(&|rounds| assert_eq!(ranking(), [("word".to_owned(), 2 * rounds)]));
        check(&|rounds| assert_eq!(series(), [SeriesPoint { count: 2 * rounds as u64, users: 2 }]));
        check(&|rounds| assert_eq!(listed(Dimension::PostViews, Window::Hour), [("p".to_owned(), rounds as f64)]));
        check(&|rounds| assert_eq!(listed(Dimension::Component, Window::Day), [("7".to_owned(), rounds as f64)]));
        // A snapshot, which writes nothing, is the same before and after.
        fill();
        let sums = || {
            let snapshot = fixture.snapshot(NOW);
            let of = |rows: &[(Dimension, i64, String, i64)]| {
                let mut sums = BTreeMap::new();
                for (_, at, name, count) in rows.iter().filter(|(dimension, ..)| *dimension == Dimension::Keyword) {
                    *sums.entry((*at, name.clone())).or_insert(0) += count;
                }
                sums
            };
            (of(&snapshot.minutes), of(&snapshot.hours), snapshot.totals)
        };
        let before = sums();
        assert_ne!(pending(fixture), 0, "{}: a snapshot writes nothing", fixture.name);
        add_up(fixture);
        assert_eq!(pending(fixture), 0);
        assert_eq!(before, sums());
        assert_eq!(before.0.values().sum::<i64>(), 12);
    });
}

// claims: L26, L22
#[test]
fn an_hour_is_closed_with_its_pending_counts() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        for hour in 0..3 {
            let at = NOW + hour * HOUR;
            feed.apply(vec![search("u", "word", at), view("p", at)]);
            fixture.ledger.open_writer().expect("a writer").fold(at + 3 * HOUR, &TimeZone::UTC).expect("folds");
            let folded = fixture.number("SELECT sum(count) FROM rollup_day WHERE dimension = 1");
            assert_eq!(folded, 2 * (hour + 1), "{}", fixture.name);
        }
    });
}

// claims: L26, L16, L22
#[test]
fn adding_up_beside_batches_folding_and_deletions_misses_and_doubles_nothing() {
    const ROUNDS: i64 = 150;
    let seed: u64 = seeded().random_range(0..1 << 32);
    each_ledger(|fixture| {
        let (is_over, time, stored) = (AtomicBool::new(false), AtomicI64::new(NOW), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let (is_over, time, stored) = (&is_over, &time, &stored);
            let writers: Vec<_> =
                (0..2).map(|number| scope.spawn(move || storm(fixture, seed + number, ROUNDS, time, stored))).collect();
            for number in 0..2 {
                scope.spawn(move || {
                    let mut writer = fixture.ledger.open_writer().expect("a writer");
                    while !is_over.load(Ordering::Relaxed) {
                        if number == 0 {
                            writer.add_up().expect("nobody is in the way for ever");
                        }
                        // A clock that is ahead folds what still comes in.
                        let ahead = [0, 90 * MINUTE][number];
                        let _ = writer.fold(time.load(Ordering::Relaxed) + ahead, &TimeZone::UTC);
                    }
                });
            }
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let before = stored.load(Ordering::Acquire);
                    let counted = fixture.ledger.count(&CountFilter::default()).expect("counts");
                    assert!(counted >= before, "{}: {counted} of {before} that were told", fixture.name);
                }
            });
            writers.into_iter().for_each(|writer| writer.join().expect("writes"));
            is_over.store(true, Ordering::Relaxed);
        });
        let rows = fixture.number("SELECT count(*) FROM events");
        assert_eq!(rows, stored.load(Ordering::Relaxed) as i64);
        for table in ["rollup_hour", "rollup_minute", "rollup_total"] {
            let of =
                |dimension: u8| format!("SELECT coalesce(sum(count), 0) FROM {table} WHERE dimension = {dimension}");
            assert_eq!(fixture.number(&of(1)), rows, "{} {table}", fixture.name);
            let likes = fixture.number("SELECT count(*) FROM post_like");
            assert_eq!(fixture.number(&of(6)), likes, "{} {table}: net likes", fixture.name);
        }
        let days = "SELECT sum(count) FROM rollup_day WHERE dimension = 1";
        let hours =
            "SELECT sum(count) FROM rollup_hour WHERE dimension = 1 AND bucket < (SELECT until_hour FROM rollup_state)";
        fixture.ledger.open_writer().expect("a writer").fold(NOW + 30 * 24 * HOUR, &TimeZone::UTC).expect("folds");
        assert_eq!(fixture.number(days), fixture.number(hours), "{}", fixture.name);
        assert_eq!(fixture.number(days), rows, "{}", fixture.name);
    });
}

fn storm(fixture: &Fixture, seed: u64, rounds: i64, time: &AtomicI64, stored: &AtomicU64) {
    use rand::SeedableRng;
    let (mut feed, mut random) = (Feed::on(&*fixture.ledger), rand::rngs::StdRng::seed_from_u64(seed));
    for round in 0..rounds {
        let now = NOW + round * MINUTE;
        time.store(now, Ordering::Relaxed);
        let mut at = || now - [0, 0, 0, random.random_range(0..100 * MINUTE)][random.random_range(0..4)];
        let times = [at(), at(), at()];
        let post = format!("p{}", random.random_range(0..4));
        let user = format!("u{}", random.random_range(0..5));
        feed.apply(vec![view(&post, times[0]), click(random.random_range(0..3), times[1])]);
        feed.apply(vec![like(EventType::Toggle, &user, &post, times[2])]);
        stored.fetch_add(3, Ordering::Release);
        if random.random_range(0..20) == 0 {
            feed.apply(vec![Record::PostDelete(PostDelete { post_id: post.into(), at_ms: now })]);
        }
    }
}
