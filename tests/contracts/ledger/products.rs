//! What only one of the products can do: partitions, dumps, versions, servers that stop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use event_tracker::adapters::postgres::{self, PostgresLedger};
use event_tracker::adapters::sqlite::SqliteLedger;
use event_tracker::events::EventType;
use event_tracker::limits::STORE_CALL_MS_MAX;
use event_tracker::ports::{Ledger, StoreError, Verdict};
use uuid::Uuid;

use crate::support::ledgers::{DAY, Fixture, NOW, click, like, with_id};
use crate::support::postgres::Server;

#[test]
fn postgres_makes_partitions_ahead_and_where_a_batch_needs_them() {
    let fixture = Fixture::postgres();
    let mut feed = fixture.feed();
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
    feed.writer.maintain(NOW).expect("maintains");
    assert_eq!(fixture.number(partitions), 8);
    feed.apply(vec![click(1, NOW), click(1, NOW - 30 * DAY)]);
    assert_eq!(fixture.number(partitions), 9);
    assert_eq!(fixture.number("SELECT count(*) FROM events_20261023"), 1);
    // One that the writer knew is gone: it is made again.
    fixture.rows("DROP TABLE events_20261023");
    feed.apply(vec![click(1, NOW - 30 * DAY)]);
    assert_eq!(fixture.number("SELECT count(*) FROM events_20261023"), 1);
    // One that somebody detached is attached again: nothing of its day is refused.
    fixture.rows("ALTER TABLE events DETACH PARTITION events_20261023");
    feed.apply(vec![click(1, NOW - 30 * DAY)]);
    assert_eq!(fixture.number("SELECT count(*) FROM events_20261023"), 2);
    assert_eq!(fixture.number("SELECT count(*) FROM dead_letter"), 0);
}

#[test]
fn postgres_reads_of_likes_and_posts_only_what_a_batch_names_however_they_have_grown() {
    let fixture = Fixture::postgres();
    let mut feed = fixture.feed();
    feed.writer.maintain(NOW).expect("maintains");
    let user = |i: usize| format!("u{i}");
    // While the tables are small the server keeps plans; half of the later likes are taken back again.
    for batch in 0..60 {
        let toggles = (0..100).map(|i| {
            let pair = if i % 2 == 0 { batch * 100 + i } else { batch * 50 + i };
            like(EventType::Toggle, &user(pair), &format!("p{}", pair % 1_500), NOW)
        });
        feed.apply(toggles.collect());
    }
    drop(feed);
    let read = "SELECT coalesce(sum(seq_tup_read), 0)::int8 FROM pg_stat_user_tables WHERE relname IN ('post_like', 'post_stat')";
    let read = fixture.number(read);
    // One look at all of them would be more than this; a batch that looks each time reads some 100,000.
    assert!(read < 2_000, "{read} rows in passing");
}

// claims: L17
#[test]
fn postgres_housekeeping_gives_up_soon_where_a_dump_holds_a_table() {
    let fixture = Fixture::postgres();
    let mut feed = fixture.feed();
    feed.writer.maintain(NOW).expect("maintains");
    let mut dump = ::postgres::Client::connect(&fixture.url, ::postgres::NoTls).expect("connects");
    let mut dumping = dump.transaction().expect("begins");
    dumping.batch_execute("LOCK TABLE event_id_a, event_id_b IN ACCESS SHARE MODE").expect("locks");
    let begun = Instant::now();
    let held = feed.writer.maintain(NOW + DAY);
    assert!(matches!(held, Err(StoreError::Retry(_))), "{held:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let id = Uuid::new_v4();
    assert_eq!(feed.apply(vec![with_id(click(1, NOW), id), with_id(click(1, NOW), id)]), [(2, Verdict::Duplicate)]);
    dumping.rollback().expect("ends");
    feed.writer.maintain(NOW + DAY).expect("maintains again");
    assert_eq!(feed.apply(vec![with_id(click(1, NOW), id)]), [(3, Verdict::Duplicate)]);
}

#[test]
fn postgres_refuses_a_newer_schema_and_another_encoding_with_what_mends_it() {
    let fixture = Fixture::postgres();
    let prepare_together = |url: &str| {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(|| postgres::prepare(url))).collect();
            all.into_iter().for_each(|one| one.join().expect("a thread").expect("one makes it, the others wait"));
        });
    };
    prepare_together(&fixture.url);
    fixture.rows("INSERT INTO schema_version VALUES (999)");
    let error = postgres::prepare(&fixture.url).expect_err("newer");
    assert!(matches!(&error, postgres::PrepareError::Refused(text) if text.contains("999")), "{error}");
    fixture.rows("UPDATE schema_version SET version = 1");
    let error = postgres::prepare(&fixture.url).expect_err("older");
    assert!(matches!(&error, postgres::PrepareError::Refused(text) if text.contains("schema 1")), "{error}");
    let server = Server::shared();
    prepare_together(&server.database("together", ""));
    let ascii = server.database("ascii", "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let error = postgres::prepare(&ascii).expect_err("another encoding");
    assert!(error.to_string().contains("TEMPLATE template0"), "{error}");
    let away = PostgresLedger::new("postgres://nobody@127.0.0.1:1/nothing", 2).expect("lazy");
    assert!(matches!(away.dead_letters(), Err(StoreError::Retry(_))));
    assert!(matches!(postgres::prepare("postgres://nobody@127.0.0.1:1/x"), Err(postgres::PrepareError::Retry(_))));
    assert!(matches!(PostgresLedger::new("postgres://host:port", 2), Err(StoreError::Fatal(_))));
}

#[test]
fn sqlite_refuses_a_newer_schema() {
    let fixture = Fixture::sqlite();
    fixture.rows("PRAGMA user_version = 999");
    let error = SqliteLedger::open(std::path::Path::new(&fixture.url)).err().expect("newer");
    assert!(matches!(&error, StoreError::Fatal(text) if text.contains("999")), "{error}");
    fixture.rows("PRAGMA user_version = 1");
    let error = SqliteLedger::open(std::path::Path::new(&fixture.url)).err().expect("older");
    assert!(matches!(&error, StoreError::Fatal(text) if text.contains("schema 1")), "{error}");
}

// claims: L18
#[test]
fn postgres_that_is_stopped_ends_in_retry_and_is_used_again_later() {
    let fixture = Fixture::postgres();
    fixture.ledger.dead_letters().expect("a connection");
    let pids = backends(&fixture);
    signal(&pids, libc::SIGSTOP);
    let start = Instant::now();
    let answer = fixture.ledger.watermark(Uuid::new_v4());
    let took = start.elapsed();
    signal(&pids, libc::SIGCONT);
    assert!(matches!(answer, Err(StoreError::Retry(_))), "{answer:?}");
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    fixture.ledger.dead_letters().expect("another connection");
}

/// Takes as long as a call may.
#[test]
#[ignore = "half a minute of waiting"]
fn a_writer_of_a_stopped_postgres_gives_up_and_a_late_commit_counts_once() {
    let fixture = Fixture::postgres();
    let mut feed = fixture.feed();
    feed.apply(vec![click(1, NOW)]);
    let pids = backends(&fixture);
    signal(&pids, libc::SIGSTOP);
    let batch = feed.batch(vec![click(2, NOW), click(3, NOW)]);
    let start = Instant::now();
    let answer = feed.writer.apply(&batch, &BTreeMap::new());
    let took = start.elapsed();
    signal(&pids, libc::SIGCONT);
    assert!(matches!(answer, Err(StoreError::Retry(_))), "{answer:?}");
    assert!(took < Duration::from_millis(STORE_CALL_MS_MAX), "{took:?}");
    // The abandoned statement commits now, or its connection is gone: one of the two applies it.
    match feed.writer.apply(&batch, &BTreeMap::new()) {
        Ok(_) => {}
        Err(StoreError::Fenced { found }) => assert_eq!(found, Some(batch.to)),
        Err(other) => panic!("{other}"),
    }
    assert_eq!(fixture.number("SELECT count(*) FROM events"), 3);
}

/// Server processes of our own connections.
fn backends(fixture: &Fixture) -> Vec<i32> {
    let database = fixture.url.split('?').next().and_then(|url| url.rsplit('/').next()).expect("a name");
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'event-tracker' AND datname";
    let rows = fixture.rows(&format!("{sql} = '{database}'"));
    assert!(!rows.is_empty());
    rows.iter().map(|row| row[0].parse().expect("a process id")).collect()
}

fn signal(pids: &[i32], signal: i32) {
    pids.iter().for_each(|pid| crate::support::signal(*pid, signal));
}
