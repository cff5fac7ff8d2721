//! The read path end to end: several programs on one PostgreSQL and one Redis, queries counted at the database.
//!
//! What is read is the like count of a post, through a view that counts and slows each query (`slow.rs`). The measurement
//! of cache.md's table is `make bench-cache`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures are for whoever reads the output")]

mod bounds;
mod measure;
mod slow;
mod storm;

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::support::bench::{Bench, Ledger, Live, MAIN_PAIRS, each_pair};
use crate::support::client::{Answer, Client};
use crate::support::{eventually, wait_until};
use serde_json::json;
use slow::{POST, Slow, await_quiet, like_path};

/// PostgreSQL and Redis with the cache on, not started.
fn cached() -> Bench {
    let mut bench = Bench::new(Ledger::Postgres, Live::Redis);
    bench.cached();
    bench
}

/// The same, started, with a client.
fn started(settings: &[(&str, &str)]) -> (Bench, Client) {
    let bench = instances(cached(), 1, settings).remove(0);
    let client = bench.client();
    (bench, client)
}

/// Started programs on one pair of stores, the first of them the pair's.
fn instances(first: Bench, count: usize, settings: &[(&str, &str)]) -> Vec<Bench> {
    let mut all = vec![first];
    for _ in 1..count {
        let mut next = all[0].beside();
        next.cached();
        all.push(next);
    }
    for bench in &mut all {
        settings.iter().for_each(|(name, value)| bench.set(name, value));
        bench.start();
    }
    all
}

fn like(client: &mut Client, user: u64) -> Answer {
    client.post("/api/posts/like", &json!({ "userId": user, "postId": POST, "action": "like" }))
}

fn count(answer: &Answer) -> i64 {
    answer.json()["likeCount"].as_i64().expect("a count")
}

fn how(answer: &Answer) -> String {
    answer.header("x-cache").expect("X-Cache").to_owned()
}

#[test]
fn answers_say_how_they_came_about_and_how_old_they_are() {
    for (ledger, live) in MAIN_PAIRS {
        let mut bench = Bench::new(ledger, live);
        bench.cached();
        bench.set("CACHE_LIKES", "fresh=60000");
        bench.start();
        let mut client = bench.client();
        like(&mut client, 1).expect(200);
        let first = client.get(&like_path()).expect(200);
        assert_eq!(
            (count(&first), how(&first).as_str(), first.header("age")),
            (1, "miss", Some("0")),
            "{}",
            bench.name
        );
        // The own copy is looked after: the shared one is still fresh.
        eventually(Duration::from_secs(5), || {
            let second = client.get(&like_path()).expect(200);
            assert_eq!((count(&second), how(&second).as_str()), (1, "fresh"));
            second.header("age").filter(|age| *age == "1").map(drop).ok_or_else(|| "it has no age yet".to_owned())
        });
        for path in [
            "/api/search?keyword=none",
            "/api/statistics?keyword=none",
            "/api/statistics/popular/keywords",
            "/api/statistics/rankings/posts",
            "/api/statistics/timeseries",
            "/api/statistics/users",
            "/api/statistics/users?from=2026-11-01T00:00:00Z",
        ] {
            assert_eq!(how(&client.get(path).expect(200)), "miss", "{path}");
            let again = client.get(path).expect(200);
            assert_eq!(how(&again), "fresh", "{path}");
            let body = again.json();
            assert!(body["asOf"].is_string() && body["stale"] == false && body["source"].is_string(), "{path}: {body}");
        }
    }
}

#[test]
fn who_wrote_sees_it_at_once_and_other_instances_soon() {
    let bench = cached();
    let all = instances(bench, 2, &[("CACHE_LIKES", "fresh=60000"), ("CACHE_SEARCH", "fresh=60000")]);
    let (mut here, mut there) = (all[0].client(), all[1].client());
    for user in 1..=20 {
        like(&mut here, user).expect(200);
        assert_eq!(count(&here.get(&like_path()).expect(200)), user as i64, "right after the like");
        wait_until(
            Duration::from_millis(1_500),
            || count(&there.get(&like_path()).expect(200)),
            |seen| *seen == user as i64,
        );
    }
    // A like may come as an event, too, and its sender may wait for the ledger.
    for (path, user) in [("/api/events?wait=true", 21), ("/api/events/batch?wait=true", 22)] {
        let event = json!({ "eventType": "LIKE", "userId": user, "metadata": { "postId": POST } });
        let body = if user == 21 { event } else { json!({ "events": [event] }) };
        here.post(path, &body).expect(201);
        assert_eq!(count(&here.get(&like_path()).expect(200)), user, "right after the event");
    }
    let found = |client: &mut Client| client.read("/api/search?keyword=%23tea")["posts"].as_array().unwrap().len();
    assert_eq!((found(&mut here), found(&mut there)), (0, 0), "an empty search is cached as empty");
    let put = |client: &mut Client, tag: &str| {
        let post = json!({ "userId": 1, "postId": POST, "content": "x", "hashtags": [tag] });
        assert!(client.post("/api/posts", &post).status < 300);
    };
    put(&mut here, "tea");
    assert_eq!(found(&mut here), 1, "a post with the hashtag");
    put(&mut here, "coffee");
    assert_eq!(found(&mut here), 0, "the post that replaced it has another");
    put(&mut here, "tea");
    here.send("DELETE", &format!("/api/posts/{POST}"), &[], b"").expect(204);
    assert_eq!(found(&mut here), 0, "it was deleted");
    assert_eq!(count(&here.get(&like_path()).expect(200)), 0, "and its likes with it");
}

#[test]
fn a_cold_key_that_all_instances_want_at_once_is_one_query() {
    let took = cold_key(60);
    println!("last answer after {took:?}");
}

#[test]
#[ignore = "a limit of 50 ms, for a machine that is left alone: make bench-cache"]
fn of_a_cold_key_a_thousand_requests_at_once_are_one_query_and_the_last_answer_comes_with_it() {
    let took: Vec<Duration> = (0..5).map(|_| cold_key(250)).collect();
    println!("cold key, 4 programs x 250 requests, fill 300 ms: last answers after {took:?}");
    assert!(*took.iter().min().unwrap() <= Duration::from_millis(300 + 50), "{took:?}");
}

/// Four programs, so many requests each, nothing cached: when the last answer came.
fn cold_key(clients: usize) -> Duration {
    let bench = cached();
    let all = instances(bench, 4, &[]);
    like(&mut all[0].client(), 1).expect(200);
    let slow = Slow::set(&all[0], 300);
    let before = slow.queries();
    let start = Arc::new(Barrier::new(4));
    let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", like_path());
    // A thread a program: its connections are there already, all requests are sent before the first answer is read.
    let ask_all = |bench: &Bench| {
        let mut clients: Vec<Client> = (0..clients).map(|_| bench.client()).collect();
        clients.iter_mut().for_each(|client| drop(client.get("/healthz/live").expect(200)));
        let (start, request) = (start.clone(), request.clone());
        std::thread::spawn(move || {
            start.wait();
            let began = Instant::now();
            clients.iter_mut().for_each(|client| client.write(request.as_bytes()).expect("it is written"));
            let answers = clients.iter_mut().map(|client| client.read_answer(false).expect("an answer").expect(200));
            let bodies: BTreeSet<String> = answers.map(|answer| answer.text().to_owned()).collect();
            (bodies, began, Instant::now())
        })
    };
    let threads: Vec<_> = all.iter().map(ask_all).collect();
    let told: Vec<(BTreeSet<String>, Instant, Instant)> =
        threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let bodies: BTreeSet<&String> = told.iter().flat_map(|(bodies, _, _)| bodies).collect();
    assert_eq!((slow.queries() - before, bodies.len()), (1, 1), "queries, bodies");
    await_quiet(&all);
    let first = told.iter().map(|(_, began, _)| *began).min().expect("requests");
    told.iter().map(|(_, _, ended)| *ended - first).max().expect("requests")
}

#[test]
fn a_holder_of_the_lock_that_is_killed_costs_a_query_an_instance_at_most() {
    kill_holders(2);
}

#[test]
#[ignore = "a minute: the same 20 times"]
fn twenty_holders_of_the_lock_that_are_killed_cost_a_query_an_instance_at_most() {
    kill_holders(20);
}

fn kill_holders(rounds: usize) {
    let bench = cached();
    let mut all = instances(bench, 3, &[]);
    like(&mut all[0].client(), 1).expect(200);
    let slow = Slow::set(&all[0], 400);
    for round in 0..rounds {
        slow.forget(&all[0]);
        let before = slow.queries();
        let mut victim = all[2].client();
        let doomed = std::thread::spawn(move || drop(victim.try_send("GET", &like_path(), &[], b"")));
        wait_until(Duration::from_secs(2), || slow.queries(), |queries| *queries > before);
        all[2].kill();
        let waiting: Vec<_> = (0..2)
            .map(|number| {
                let mut client = all[number].client();
                std::thread::spawn(move || {
                    let began = Instant::now();
                    client.get(&like_path()).expect(200);
                    began.elapsed()
                })
            })
            .collect();
        let took: Vec<Duration> = waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
        doomed.join().unwrap();
        let queries = slow.queries() - before;
        println!("round {round}: {queries} queries, {took:?}");
        assert!((2..=3).contains(&queries), "{queries} queries");
        assert!(took.iter().all(|took| *took < Duration::from_millis(1_550)), "{took:?}");
        all[2].start();
    }
    await_quiet(&all);
}

#[test]
fn with_redis_away_an_instance_asks_the_ledger_once_at_a_time_and_goes_back_by_itself() {
    let (mut bench, mut client) = started(&[("CACHE_LIKES", "fresh=60000")]);
    like(&mut client, 1).expect(200);
    assert_eq!(how(&client.get(&like_path()).expect(200)), "miss");
    bench.redis.as_mut().unwrap().stop();
    let mut ways = BTreeSet::new();
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        let answer = client.get(&like_path()).expect(200);
        assert_eq!(count(&answer), 1);
        ways.insert(how(&answer));
        std::thread::sleep(Duration::from_millis(20));
    }
    let direct = client.metric("cache_fills_total{lock=\"none\"}");
    println!("{ways:?}, {direct} direct fills in 4 s");
    assert!((2.0..=8.0).contains(&direct), "one a second or so: {direct}");
    // A write meanwhile is seen here, and after the return too.
    like(&mut client, 2).expect(200);
    assert_eq!(count(&client.get(&like_path()).expect(200)), 2);
    bench.redis.as_mut().unwrap().spawn();
    eventually(Duration::from_secs(10), || {
        assert_eq!(count(&client.get(&like_path()).expect(200)), 2, "never the old one");
        let is_shared = !bench.redis.as_ref().unwrap().keys("et:{c*}:e:*").is_empty();
        is_shared.then_some(()).ok_or_else(|| "nothing is shared yet".to_owned())
    });
    bench.redis.as_ref().unwrap().admin("FLUSHALL").unwrap();
    bench.redis.as_ref().unwrap().admin("SCRIPT FLUSH").unwrap();
    for _ in 0..100 {
        assert_eq!(count(&client.get(&like_path()).expect(200)), 2);
        std::thread::sleep(Duration::from_millis(20));
    }
    await_quiet(std::slice::from_ref(&bench));
}

#[test]
fn what_is_switched_off_is_read_each_time() {
    each_pair(|_, client| {
        for user in 1..=3 {
            like(client, user).expect(200);
            let answer = client.get(&like_path()).expect(200);
            assert_eq!((count(&answer), how(&answer).as_str()), (user as i64, "miss"));
        }
    });
}
