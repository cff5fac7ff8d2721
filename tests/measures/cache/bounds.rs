//! Bounds of what is cached, and what a wrong or slow read costs the others.

use std::time::Duration;

use serde_json::json;

use super::{like, started};
use crate::support::bench::{Bench, Ledger, Live};
use crate::support::eventually;

/// More failures than open a breaker.
const FAILURES: usize = 8;

#[test]
fn wrong_statements_are_500_and_leave_other_reads_alone() {
    let (bench, mut client) = started(&[]);
    like(&mut client, 1).expect(200);
    bench.execute("ALTER TABLE post_stat RENAME COLUMN like_count TO likes_counted");
    for n in 0..FAILURES {
        for path in ["", "/like", "/like?userId=1"] {
            let answer = client.get(&format!("/api/posts/wrong-{n}{path}")).expect(500);
            assert_eq!(answer.json()["error"], "internal", "{path}");
        }
        assert_eq!(client.read(&format!("/api/statistics?eventType=LIKE&keyword=none{n}"))["count"], 0);
    }
    bench.says("42703");
}

#[test]
fn cancelled_statements_are_400_and_leave_other_reads_alone() {
    let (bench, mut client) = started(&[]);
    like(&mut client, 1).expect(200);
    bench.settle();
    let url = bench.database_url.as_ref().expect("PostgreSQL");
    let mut holder = postgres::Client::connect(url, postgres::NoTls).expect("connects");
    holder.batch_execute("BEGIN; LOCK TABLE post, events IN ACCESS EXCLUSIVE MODE").expect("locks");
    for n in 0..FAILURES {
        let several =
            format!("/api/statistics?keyword=k{n}&componentId=1&from=2026-11-01T00:00:30Z&to=2026-11-02T00:00:30Z");
        for (path, tag) in [(format!("/api/search?keyword=k{n}"), "search_too_broad"), (several, "range_too_large")] {
            assert_eq!(client.get(&path).expect(400).json()["error"], tag, "{path}");
        }
        assert_eq!(client.get(&format!("/api/posts/other-{n}/like")).expect(200).json()["likeCount"], 0);
    }
}

#[test]
fn local_entries_are_bounded_in_bytes() {
    let mut bench = Bench::new(Ledger::Sqlite, Live::Memory);
    bench.cached();
    bench.set("CACHE_SEARCH", "fresh=600000");
    bench.start();
    let mut client = bench.client();
    let words: Vec<String> = (0..80).map(|n| format!("word{n:02}")).collect();
    let content = format!("{} {}", words.join(" "), "\u{1}".repeat(15_000));
    let url = format!("https://images.example/{}", "\u{1}".repeat(2_000));
    for n in 0..8 {
        let post = json!({"postId":n,"userId":1,"content":content,"imageUrls":vec![&url; 20]});
        client.post("/api/posts", &post).expect(201);
    }
    for word in &words {
        client.get(&format!("/api/search?keyword={word}")).expect(200);
        let bytes = client.metric("cache_copies_bytes");
        assert!(bytes <= 64.0 * 1024.0 * 1024.0, "{bytes} bytes of local entries");
    }
    let entries = client.metric("cache_copies ");
    assert!((10.0..80.0).contains(&entries), "{entries} entries");
}

/// Milliseconds that each key of a pattern has left, by name.
fn lifetimes(bench: &Bench, pattern: &str) -> Vec<(String, i64)> {
    let server = bench.redis.as_ref().expect("Redis");
    let names = server.keys(pattern);
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_connection().expect("connects");
    let left = |name: &String| redis::cmd("PTTL").arg(name).query(&mut connection).expect("a time");
    let left: Vec<i64> = names.iter().map(left).collect();
    names.into_iter().zip(left).collect()
}

#[test]
fn shared_entries_of_keys_that_are_read_once_live_for_seconds_and_fences_for_minutes() {
    let (bench, mut client) = started(&[]);
    for n in 0..20 {
        client.read(&format!("/api/statistics/rankings/keywords?limit={}", n + 1));
    }
    let entries = lifetimes(&bench, "et:{c*}:e:*");
    assert_eq!(entries.len(), 20);
    assert!(entries.iter().all(|(_, left_ms)| (1..=10_000).contains(left_ms)), "{entries:?}");
    let fences = lifetimes(&bench, "et:{c*}:f:*");
    assert!(fences.iter().all(|(_, left_ms)| (30_000..=600_000).contains(left_ms)), "{fences:?}");
    // Read again and again, one of them is kept for the stale cap.
    eventually(Duration::from_secs(15), || {
        client.read("/api/statistics/rankings/keywords?limit=7");
        let kept = lifetimes(&bench, "et:{c*}:e:*");
        let kept: Vec<i64> = kept.into_iter().map(|(_, left_ms)| left_ms).filter(|left_ms| *left_ms > 10_000).collect();
        if kept.len() == 1 && kept[0] > 590_000 { Ok(()) } else { Err(format!("{kept:?}")) }
    });
}

#[test]
fn long_keys_are_hashed_and_filters_beyond_their_limit_refused() {
    let (bench, mut client) = started(&[]);
    let page = format!("/{}", "p".repeat(500));
    client
        .post("/api/events?wait=true", &json!({"eventType":"PAGE_VIEW","userId":1,"metadata":{"url":page}}))
        .expect(201);
    let other = format!("/{}q", "p".repeat(499));
    assert_eq!(client.read(&format!("/api/statistics?url={page}"))["count"], 1);
    assert_eq!(client.read(&format!("/api/statistics?url={other}"))["count"], 0, "keys of one length differ");
    assert_eq!(client.read(&format!("/api/statistics?url={page}"))["count"], 1);
    client.read(&format!("/api/search?keyword={}", "k".repeat(200)));
    let names = lifetimes(&bench, "et:{c*}:*");
    let longest = names.iter().map(|(name, _)| name.len()).max().expect("entries");
    assert!(longest <= 200, "{longest} bytes in a key");
    for query in [format!("keyword={}", "k".repeat(201)), format!("url=/{}", "u".repeat(2_048))] {
        let answer = client.get(&format!("/api/statistics?{query}")).expect(400).json();
        assert_eq!(answer["error"], "invalid_parameter", "{query}");
    }
}
