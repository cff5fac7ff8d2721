//! What is left after calls that failed, after crashes, and beside housekeeping.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use event_tracker::adapters::postgres::{self, PostgresLedger};
use event_tracker::adapters::sqlite::SqliteLedger;
use event_tracker::events::{Dimension, EventType};
use event_tracker::ports::{CountFilter, Ledger, StoreError, TopQuery, Verdict, Watermark};
use uuid::Uuid;

use crate::support::faulty::{Call, Fault, Faults, FaultyLedger};
use crate::support::ledgers::{DAY, Feed, Fixture, HOUR, MINUTE, NOW, click, each_ledger, like, search, with_id};
use crate::support::model::WINDOWS;
use crate::support::postgres::Server;

const TABLES: [&str; 9] = [
    "events",
    "rollup_hour",
    "rollup_minute",
    "rollup_total",
    "user_hour",
    "post_like",
    "post_like_log",
    "verdict",
    "recent_forgotten",
];

// claims: L1, L2, L3
#[test]
fn a_call_that_failed_left_all_or_nothing_and_the_watermark_tells_which() {
    each_ledger(|fixture| {
        let faults = Faults::default();
        let mut feed = fixture.feed();
        feed.writer = FaultyLedger::new(fixture.ledger.clone(), &faults).open_writer().expect("a writer");
        let sizes = || TABLES.map(|table| fixture.number(&format!("SELECT count(*) FROM {table}")));
        let mut stored = 0;
        // One statement, a transaction of several, and one with COPY.
        for size in [3, 40, 1_500] {
            let id = Uuid::new_v4();
            let mut records: Vec<_> = (0..size).map(|n| click(1 + n % 5, NOW - n)).collect();
            if size > 3 {
                let doubled = with_id(like(EventType::Toggle, "u", "p", NOW), id);
                records.extend([doubled.clone(), doubled, search("u", "k", NOW)]);
            }
            let before = sizes();
            let batch = feed.batch(records);
            faults.next(Call::Apply, Fault::Before);
            assert!(matches!(feed.writer.apply(&batch, &BTreeMap::new()), Err(StoreError::Retry(_))));
            assert_eq!(feed.writer.watermark(feed.stream).expect("answers"), Some(feed.at), "nothing");
            assert_eq!(sizes(), before);
            faults.next(Call::Apply, Fault::LostReply);
            assert!(matches!(feed.writer.apply(&batch, &BTreeMap::new()), Err(StoreError::Retry(_))));
            assert_eq!(feed.writer.watermark(feed.stream).expect("answers"), Some(batch.to), "all");
            assert_eq!(fixture.ledger.watermark(feed.stream).expect("answers"), Some(batch.to));
            let after = sizes();
            stored += batch.records.len() as i64 - i64::from(size > 3);
            assert_eq!(after[0], stored);
            let again = feed.writer.apply(&batch, &BTreeMap::new());
            assert!(matches!(again, Err(StoreError::Fenced { found: Some(at) }) if at == batch.to), "{again:?}");
            assert_eq!(sizes(), after, "once");
            if size > 3 {
                let told = fixture.ledger.verdicts(feed.stream, feed.at.position, batch.to.position);
                let told = told.expect("answers").expect("not pruned");
                assert!(matches!(told[..], [(_, Verdict::Like(_)), (_, Verdict::Duplicate)]), "{told:?}");
            }
            feed.at = batch.to;
        }
    });
}

// claims: L4
#[test]
fn postgres_keeps_what_it_has_answered_through_a_crash_of_the_server() {
    let mut server = Server::private();
    let url = server.database("durable", "");
    postgres::prepare(&url).expect("a fresh database takes the schema");
    let ledger = PostgresLedger::new(&url, 2).expect("the URL is one");
    // What is added up need not be durable then: what is to be added is.
    for (crashes, adds_up) in [(1, false), (2, true)] {
        let mut feed = Feed::on(&ledger);
        feed.apply((0..50).map(|n| click(1, NOW - n)).collect());
        if adds_up {
            feed.writer.add_up().expect("adds up");
        }
        server.kill();
        server.revive();
        let deadline = Instant::now() + Duration::from_secs(10);
        let found = loop {
            match ledger.watermark(feed.stream) {
                Ok(found) => break found,
                Err(error) => assert!(matches!(error, StoreError::Retry(_)) && Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(found, Some(feed.at));
        assert_eq!(ledger.count(&CountFilter::default()).expect("counts"), 50 * crashes);
    }
}

// claims: L4
#[test]
fn sqlite_keeps_what_it_has_answered_through_a_crash_of_the_program() {
    let fixture = Fixture::sqlite();
    let mut feed = fixture.feed();
    feed.apply((0..50).map(|n| click(1, NOW - n)).collect());
    // What the disk has at this moment: the connections are open, nothing was closed or put in order.
    let copy = tempfile::tempdir().expect("a directory");
    for suffix in ["", "-wal"] {
        std::fs::copy(format!("{}{suffix}", fixture.url), copy.path().join(format!("ledger.db{suffix}")))
            .expect("a copy");
    }
    let ledger = SqliteLedger::open(&copy.path().join("ledger.db")).expect("it recovers");
    assert_eq!(ledger.watermark(feed.stream).expect("answers"), Some(feed.at));
    assert_eq!(ledger.count(&CountFilter::default()).expect("counts"), 50);
}

// claims: L9
#[test]
fn verdicts_are_pruned_by_stream_and_likes_stay_in_their_log() {
    each_ledger(|fixture| {
        let (mut feed, mut other) = (fixture.feed(), fixture.feed());
        let id = Uuid::new_v4();
        let mut told = Vec::new();
        for feed in [&mut feed, &mut other] {
            let toggle = like(EventType::Toggle, "u", "p", NOW);
            told.push(feed.apply(vec![with_id(click(1, NOW), id), with_id(click(1, NOW), id), toggle]));
        }
        feed.writer.prune_verdicts(feed.stream, 1).expect("prunes");
        feed.writer.prune_verdicts(feed.stream, 2).expect("prunes");
        feed.writer.prune_verdicts(feed.stream, 1).expect("never back");
        let verdicts = |stream, after| fixture.ledger.verdicts(stream, after, 9).expect("answers");
        assert_eq!(verdicts(feed.stream, 0), None);
        assert_eq!(verdicts(feed.stream, 1), None);
        assert_eq!(verdicts(feed.stream, 2), Some(told[0][1..].to_vec()));
        assert_eq!(verdicts(other.stream, 0), Some(told[1].clone()));
        assert_eq!(verdicts(other.stream, 1), Some(told[1][1..].to_vec()));
        assert_eq!(fixture.number("SELECT count(*) FROM post_like_log"), 2);
        // The watermark is none of pruning's business.
        assert_eq!(fixture.ledger.watermark(feed.stream).expect("answers"), Some(feed.at));
    });
}

// claims: L17
#[test]
fn housekeeping_beside_batches_changes_no_answer() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let ages = [0, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 3 * DAY];
        feed.apply(ages.iter().map(|age| search("u", "k", NOW - age)).collect());
        let answers = |fixture: &Fixture| {
            let keyword = || vec![(Dimension::Keyword, 1.0)];
            let lists = WINDOWS.map(|window| fixture.top(&TopQuery { parts: keyword(), window, hot: false, limit: 9 }));
            let snapshot = fixture.snapshot(NOW);
            (lists, snapshot.minutes, snapshot.hours, snapshot.totals, snapshot.recent)
        };
        feed.writer.add_up().expect("adds up");
        let before = answers(fixture);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let mut writer = fixture.ledger.open_writer().expect("a writer");
                scope.spawn(move || {
                    for _ in 0..5 {
                        let done = writer.maintain(NOW);
                        assert!(matches!(done, Ok(()) | Err(StoreError::Retry(_))), "{done:?}");
                    }
                });
            }
            let mut other = fixture.feed();
            scope.spawn(move || {
                (0..20).for_each(|_| drop(other.apply(vec![like(EventType::Like, "u", "p", NOW - 40 * DAY)])))
            });
        });
        feed.writer.maintain(NOW).expect("maintains");
        let mut after = answers(fixture);
        assert_eq!(
            after.3.iter().map(|(.., count)| count).sum::<i64>(),
            before.3.iter().map(|(.., n)| n).sum::<i64>() + 21
        );
        after.3.clone_from(&before.3);
        assert_eq!(after, before);
    });
}

// claims: L18
#[test]
fn sqlite_that_is_held_by_another_program_is_waited_for_within_a_bound() {
    let fixture = Fixture::sqlite();
    let mut feed = fixture.feed();
    let holder = rusqlite::Connection::open(&fixture.url).expect("opens");
    holder.execute_batch("BEGIN IMMEDIATE").expect("holds");
    let begun = Instant::now();
    let held = feed.try_apply(vec![click(1, NOW)], &[]);
    assert!(matches!(held, Err(StoreError::Retry(_))), "{held:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(fixture.ledger.watermark(feed.stream).expect("readers go on"), Some(Watermark::default()));
    holder.execute_batch("ROLLBACK").expect("lets go");
    feed.apply(vec![click(1, NOW)]);
}
