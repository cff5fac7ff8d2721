//! Many persons who go in one batch: each is gone, and all together cost about what one does.

use std::time::{Duration, Instant};

use event_tracker::events::{Erase, Event, EventType, Forget, PostDelete, PostPut, Record};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::support::ledgers::{DAY, Fixture, HOUR, NOW, click, each_ledger, event, seeded};

const USERS: i64 = 20_000;
const ROWS: i64 = 200_000;
/// What is filled in is older than the erasures, and spread over so many days.
const DAYS: i64 = 10;

/// Rows of `user_hour`, one event each, changes of likes, and letters; all of [`USERS`] users.
fn fill(fixture: &Fixture) {
    // The days' partitions are made by what comes through a journal.
    fixture.feed().apply((0..=DAYS + 1).map(|day| click(1, NOW - day * DAY)).collect());
    let numbers = |rows: i64| match fixture.name {
        "postgres" => format!("(SELECT g AS n FROM generate_series(0, {rows} - 1) AS g) AS numbers"),
        _ => format!(
            "(WITH RECURSIVE g(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM g WHERE n < {rows} - 1) SELECT n FROM g) \
             AS numbers"
        ),
    };
    let hour = NOW.div_euclid(HOUR);
    let hour_of = format!("{hour} - 1 - (n / {USERS}) * 23 - n % 5");
    let (time, id, bytes, stream) = match fixture.name {
        "postgres" => (
            format!("'epoch'::timestamptz + interval '1 hour' * ({hour_of})"),
            "gen_random_uuid()",
            "decode(repeat(md5(n::text), 6), 'hex')",
            "gen_random_uuid()",
        ),
        _ => (
            format!("({hour_of}) * 3600000"),
            "lower(hex(randomblob(16)))",
            "randomblob(96)",
            "lower(hex(randomblob(16)))",
        ),
    };
    let at = if fixture.name == "postgres" { "now()" } else { "0" };
    let user = format!("'u' || (n % {USERS})");
    let run = |sql: String| _ = fixture.rows(&sql);
    run(format!(
        "INSERT INTO user_hour SELECT {hour_of}, 1, {user} FROM {} WHERE true ON CONFLICT DO NOTHING",
        numbers(ROWS)
    ));
    run(format!(
        "INSERT INTO events (event_id, event_type, user_id, event_time, received_at, stream, position) \
         SELECT {id}, 'CLICK', {user}, {time}, {time}, 0, n FROM {}",
        numbers(ROWS)
    ));
    run(format!(
        "INSERT INTO post_like_log (stream, position, post_id, user_id, action, like_count, version, changed_at) \
         SELECT {stream}, n, 'p' || n, {user}, 'LIKE', 1, 1, {time} FROM {}",
        numbers(ROWS)
    ));
    run(format!("INSERT INTO post_like SELECT {user}, 'p' || n, {time} FROM {}", numbers(USERS)));
    run(format!("INSERT INTO post_stat (post_id, like_count, version) SELECT 'p' || n, 1, 1 FROM {}", numbers(USERS)));
    run(format!(
        "INSERT INTO dead_letter (stream, position, reason, record, at) SELECT {stream}, n, '', {bytes}, {at} FROM {}",
        numbers(2_000)
    ));
    if fixture.name == "postgres" {
        fixture.rows("ANALYZE");
    }
}

fn erase(fixture: &Fixture, users: std::ops::Range<i64>) -> Duration {
    let mut feed = fixture.feed();
    let begun = Instant::now();
    feed.apply(users.map(|user| Record::Erase(Erase { user_id: format!("u{user}").into(), at_ms: NOW })).collect());
    begun.elapsed()
}

/// `ERASURES` (500) at once beside one alone, on a ledger of 200,000 user hours, events and changes of likes.
#[test]
#[ignore = "half a million rows"]
fn many_erasures_of_one_batch_cost_about_what_one_does() {
    let many: i64 = std::env::var("ERASURES").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    each_ledger(|fixture| {
        fill(fixture);
        let one = erase(fixture, 0..1);
        let all = erase(fixture, 1..1 + many);
        eprintln!("{}: one erasure {one:?}, {many} in one batch {all:?}", fixture.name);
        for table in ["events", "user_hour", "post_like", "post_like_log"] {
            let left = format!("SELECT count(DISTINCT user_id) FROM {table} WHERE user_id LIKE 'u%'");
            // `u1` is also whose the clicks are that made the days, the last of them behind the erasure.
            assert!((USERS - many - 1..=USERS - many).contains(&fixture.number(&left)), "{table}");
        }
        // A scan of each table for each of them would be as many times the one.
        assert!(all < one * 20 + Duration::from_secs(5), "{many} take {all:?}, one {one:?}");
    });
}

/// What somebody does at a time of ours; clients' clocks are late, or up to a minute ahead.
fn deed(random: &mut StdRng, now_ms: i64) -> Record<'static> {
    let user = format!("u{}", random.random_range(0..3));
    let post = format!("p{}", random.random_range(0..3));
    let skewed = |random: &mut StdRng, by: [i64; 4]| now_ms + by[random.random_range(0..4)];
    match random.random_range(0..10) {
        0 => Record::Erase(Erase { user_id: user.into(), at_ms: skewed(random, [0, 20_000, -40_000, -40_000]) }),
        1 => Record::PostDelete(PostDelete { post_id: post.into(), at_ms: now_ms }),
        2 | 3 => {
            let created = skewed(random, [0, -HOUR, -30_000, 50_000]);
            Record::PostPut(PostPut {
                post_id: post.into(),
                user_id: user.clone().into(),
                content: format!("by {user}").into(),
                hashtags: vec![],
                image_urls: vec![],
                created_at_ms: (random.random_range(0..2) == 0).then_some(created),
                at_ms: now_ms,
            })
        }
        4 => Record::Forget(Forget { user_id: user.into(), keyword: None, at_ms: now_ms }),
        _ => {
            let kinds = [EventType::PageView, EventType::Like, EventType::Like, EventType::Unlike, EventType::Toggle];
            let event = event(kinds[random.random_range(0..5)], skewed(random, [0, -HOUR, -30_000, 50_000]));
            let (user_id, post_id) = (Some(user.into()), Some(post.into()));
            Record::Event(Event { user_id, post_id, received_at_ms: now_ms, ..event })
        }
    }
}

/// What a ledger has of persons and posts. Who of those whose likes go with a post is first may differ.
fn state(fixture: &Fixture) -> Vec<Vec<Vec<String>>> {
    let tables = [
        "SELECT event_id, event_type, coalesce(user_id, ''), post_id FROM events",
        "SELECT * FROM user_hour",
        "SELECT post_id, user_id, content, created_at, written_at FROM post",
        "SELECT * FROM post_stat WHERE version > 0",
        "SELECT * FROM post_like",
        "SELECT position, post_id, user_id, action, changed_at, happened_at FROM post_like_log",
        "SELECT id, at FROM erased",
        "SELECT post_id, version, at_ms, position FROM tombstone",
        "SELECT position, reason, user_id, happened_ms FROM dead_letter",
        "SELECT * FROM recent_forgotten",
        "SELECT position, kind, created_at_ms, likes FROM verdict",
        "SELECT dimension, bucket, key, count FROM rollup_hour WHERE count <> 0",
    ];
    let sorted = |sql: &&str| {
        let mut rows = fixture.rows(sql);
        rows.sort();
        rows
    };
    tables.iter().map(sorted).collect()
}

// claims: L5, L23
#[test]
fn an_erasure_takes_the_same_however_its_journal_is_cut_into_batches() {
    let mut random = seeded();
    for _ in 0..3 {
        let mut now_ms = NOW;
        let records: Vec<Record<'static>> = (0..120)
            .map(|_| {
                now_ms += random.random_range(0..15_000);
                deed(&mut random, now_ms)
            })
            .collect();
        let dead: Vec<u64> = (1..=records.len() as u64).filter(|_| random.random_range(0..15) == 0).collect();
        let cuts: Vec<usize> = (0..records.len()).map(|_| random.random_range(1..40)).collect();
        each_ledger(|fixture| {
            let cut = |sizes: &mut dyn Iterator<Item = usize>| {
                let fixture = if fixture.name == "sqlite" { Fixture::sqlite() } else { Fixture::postgres() };
                let mut feed = fixture.feed();
                let mut rest = &records[..];
                while !rest.is_empty() {
                    let (batch, behind) = rest.split_at(sizes.next().expect("a size").min(rest.len()));
                    let range = feed.at.position + 1..=feed.at.position + batch.len() as u64;
                    let dead: Vec<(u64, &str)> =
                        dead.iter().filter(|at| range.contains(at)).map(|at| (*at, "dead")).collect();
                    feed.try_apply(batch.to_vec(), &dead).expect("applies");
                    rest = behind;
                }
                state(&fixture)
            };
            let one_by_one = cut(&mut std::iter::repeat(1));
            for (found, expected) in cut(&mut cuts.iter().copied()).iter().zip(&one_by_one) {
                assert_eq!(found, expected);
            }
        });
    }
}
