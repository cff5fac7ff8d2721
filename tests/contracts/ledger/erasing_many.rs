//! Many persons who go in one batch: each is gone, and all together cost about what one does.

use std::time::{Duration, Instant};

use event_tracker::events::{Erase, Event, EventType, Forget, PostDelete, PostPut, Record};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::support::ledgers::{DAY, Fixture, HOUR, NOW, each_ledger, event, like, put, seeded};

const USERS: i64 = 20_000;
const ROWS: i64 = 200_000;
/// What is filled in is older than the erasures, and spread over so many days.
const DAYS: i64 = 10;

/// Likes of all of [`USERS`] users on so many days before the erasures, and dead letters.
fn fill(fixture: &Fixture) {
    let mut feed = fixture.feed();
    let like_of = |n: i64| {
        let at = NOW - HOUR - n % DAYS * DAY - n % 5 * HOUR;
        like(EventType::Like, &format!("u{}", n % USERS), &format!("p{n}"), at)
    };
    for first in (0..ROWS).step_by(10_000) {
        feed.apply((first..first + 10_000).map(like_of).collect());
    }
    let dead: Vec<(u64, &str)> = (1..=2_000).map(|n| (feed.at.position + n, "refused")).collect();
    feed.try_apply((0..2_000).map(like_of).collect(), &dead).expect("applies");
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

/// `ERASURES` (500) at once beside one alone, on a ledger of 200,000 likes.
#[test]
#[ignore = "200,000 likes"]
fn many_erasures_of_one_batch_cost_about_what_one_does() {
    let many = crate::support::setting("ERASURES", 500).cast_signed();
    each_ledger(|fixture| {
        fill(fixture);
        let one = erase(fixture, 0..1);
        let all = erase(fixture, 1..1 + many);
        eprintln!("{}: one erasure {one:?}, {many} in one batch {all:?}", fixture.name);
        for table in ["events", "user_hour", "post_like", "post_like_log"] {
            let left = format!("SELECT count(DISTINCT user_id) FROM {table} WHERE user_id LIKE 'u%'");
            assert_eq!(fixture.number(&left), USERS - many - 1, "{table}");
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
            let created_at_ms = (random.random_range(0..2) == 0).then_some(created);
            Record::PostPut(PostPut { created_at_ms, ..put(&user, &post, &format!("by {user}"), now_ms) })
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
