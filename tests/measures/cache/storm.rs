//! Load on several programs while their stores come and go: the failure table of cache.md, row by row.
//!
//! Whatever happens, each answer is a 200 or a 503, no request outlives its deadline, and nothing is left when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::slow::{Slow, await_quiet};
use super::{cached, count, how, instances};
use crate::support::bench::Bench;
use crate::support::client::Client;
use crate::support::relay::{self, Filter};
use crate::support::{eventually, eventually_is, wait_until};

const KEYS: u64 = 8;
const DEADLINE: Duration = Duration::from_millis(1_500 + 50);
/// What a busy machine of two cores adds to a client's own clock.
const NOISE: Duration = Duration::from_millis(300);

struct Told {
    at: Instant,
    took: Duration,
    status: u16,
    how: Option<String>,
    likes: Option<i64>,
}

/// Clients that ask for a few keys, of all programs in turn, until the storm is over.
struct Storm {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<Told>>>,
}

fn path(key: u64) -> String {
    format!("/api/posts/key-{key}/like")
}

fn likes_of(key: u64) -> i64 {
    key as i64 + 1
}

impl Storm {
    fn over(all: &[Bench]) -> Storm {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |number: usize| {
            let (mut client, stop, answers) = (all[number % all.len()].client(), stop.clone(), answers.clone());
            std::thread::spawn(move || {
                let mut told = Vec::new();
                let mut key = number as u64;
                while !stop.load(Ordering::Relaxed) {
                    key = (key + 1) % KEYS;
                    let at = Instant::now();
                    let answer = client.get(&path(key));
                    let took = at.elapsed();
                    answers.fetch_add(1, Ordering::Relaxed);
                    let likes = (answer.status == 200).then(|| count(&answer));
                    assert!(likes.is_none_or(|likes| likes == likes_of(key)), "{likes:?} of key {key}");
                    let how = answer.header("x-cache").map(str::to_owned);
                    told.push(Told { at, took, status: answer.status, how, likes });
                    std::thread::sleep(Duration::from_millis(10));
                }
                told
            })
        };
        Storm { clients: (0..6).map(client).collect(), stop, answers }
    }

    fn goes_on(&self, answers: u64) {
        let target = self.answers.load(Ordering::Relaxed) + answers;
        wait_until(Duration::from_secs(20), || self.answers.load(Ordering::Relaxed), |count| *count >= target);
    }

    fn end(self, name: &str) -> Vec<Told> {
        self.stop.store(true, Ordering::Relaxed);
        let told: Vec<Told> = self.clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        let slowest = told.iter().map(|told| told.took).max().expect("requests");
        let refused = told.iter().filter(|told| told.likes.is_none()).count();
        let of = |how: &str| told.iter().filter(|told| told.how.as_deref() == Some(how)).count();
        let ways: Vec<String> =
            ["fresh", "early", "stale", "miss", "direct"].iter().map(|how| format!("{how} {}", of(how))).collect();
        println!("{name}: {} requests, {}, refused {refused}, slowest {slowest:?}", told.len(), ways.join(", "));
        assert!(told.iter().all(|told| matches!(told.status, 200 | 503)), "{name}");
        assert!(slowest < DEADLINE + NOISE, "{name}: {slowest:?}");
        told
    }
}

fn likes(bench: &Bench) {
    let rows: Vec<String> = (0..KEYS).map(|key| format!("('key-{key}', {}, 1)", likes_of(key))).collect();
    bench.execute(&format!("INSERT INTO post_stat (post_id, like_count, version) VALUES {}", rows.join(", ")));
}

fn sleep(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn refused(told: &[Told]) -> usize {
    told.iter().filter(|told| told.likes.is_none()).count()
}

/// Keys that nobody has asked for yet, with the breaker open: all but the one that finds out, once a second, are refused
/// within 50 ms.
fn refused_at_once(client: &mut Client, name: &str) {
    let mut took: Vec<Duration> = (0..9)
        .map(|_| {
            let began = Instant::now();
            let key = uuid::Uuid::new_v4();
            let refused = client.get(&format!("/api/posts/{key}/like")).expect(503);
            assert!(refused.header("retry-after").is_some());
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    println!("{name}: refused after {took:?}");
    assert!(took[4] < Duration::from_millis(50), "{name}: {took:?}");
    assert!(took[8] < DEADLINE + NOISE, "{name}: {took:?}");
}

#[test]
fn redis_is_stopped_started_emptied_and_hangs_under_load_and_every_request_has_its_answer() {
    let bench = cached();
    let mut all = instances(bench, 3, &[("CACHE_LIKES", "fresh=500")]);
    likes(&all[0]);
    let slow = Slow::set(&all[0], 20);
    let storm = Storm::over(&all);
    storm.goes_on(500);
    let (before, began) = (slow.queries(), Instant::now());
    all[0].redis.as_mut().expect("Redis").stop();
    sleep(2_500);
    let (queries, took) = (slow.queries() - before, began.elapsed());
    all[0].redis.as_mut().expect("Redis").spawn();
    let told = storm.end("Redis down");
    assert_eq!(refused(&told), 0, "the ledger is there");
    // Each program fills each key once a time to live, the shortest of which is 450 ms; and those under way at the ends.
    let most = 3 * KEYS as i64 * (took.as_millis() as i64 / 450 + 2);
    println!("{queries} queries in {took:?} without Redis, {most} allowed");
    assert!(queries <= most, "{queries} queries in {took:?}");
    let entries = || all[0].redis.as_ref().expect("Redis").keys("et:{c*}:e:*").len();
    let storm = Storm::over(&all);
    eventually_is(Duration::from_secs(10), &(KEYS as usize), entries);
    for _ in 0..10 {
        all[0].redis.as_ref().expect("Redis").admin("FLUSHALL").expect("it answers");
        sleep(100);
    }
    all[0].redis.as_ref().expect("Redis").admin("SCRIPT FLUSH").expect("it answers");
    storm.goes_on(200);
    assert_eq!(refused(&storm.end("Redis emptied")), 0);
    let storm = Storm::over(&all);
    all[0].redis.as_ref().expect("Redis").signal(libc::SIGSTOP);
    sleep(3_000);
    all[0].redis.as_ref().expect("Redis").signal(libc::SIGCONT);
    assert_eq!(refused(&storm.end("Redis hangs")), 0, "the ledger is there");
    eventually_is(Duration::from_secs(10), &(KEYS as usize), entries);
    await_quiet(&all);
}

/// Holds each reply back for as long as it is told to.
fn slowed(delay_ms: Arc<AtomicU64>) -> Filter {
    Box::new(move |_, piece| {
        sleep(delay_ms.load(Ordering::Relaxed));
        piece.len()
    })
}

#[test]
fn postgresql_is_slowed_stopped_and_started_under_load_and_no_request_outlives_its_deadline() {
    let mut server = crate::support::postgres::Server::private();
    let url = server.tcp(&server.database("tracker", ""));
    let delay_ms = Arc::new(AtomicU64::new(0));
    let delay = delay_ms.clone();
    let relay = relay::start(server.address(), move || [relay::all(), slowed(delay.clone())]);
    let through = url.replace(&server.address().to_string(), &relay.to_string());
    let mut bench = Bench::on(Some(through), Some(crate::support::redis::Server::start()));
    bench.cached();
    let mut all = instances(bench, 2, &[("CACHE_LIKES", "fresh=300,stale=300")]);
    likes(&all[0]);
    let storm = Storm::over(&all);
    storm.goes_on(500);
    delay_ms.store(2_000, Ordering::Relaxed);
    sleep(4_000);
    // A key of which there is nothing: its deadline, or less where the breaker is open.
    let began = Instant::now();
    let cold = all[0].client().get("/api/posts/cold/like").expect(503);
    assert!(cold.header("retry-after").is_some() && began.elapsed() < DEADLINE + NOISE, "{:?}", began.elapsed());
    let told = storm.end("PostgreSQL 2 s slower");
    assert_eq!(refused(&told), 0, "there is something stale of each");
    let stale = told.iter().filter(|told| told.how.as_deref() == Some("stale"));
    let slowest = stale.map(|told| told.took).max().expect("stale answers");
    assert!(slowest < Duration::from_millis(100) + NOISE, "stale after {slowest:?}");
    delay_ms.store(0, Ordering::Relaxed);
    let storm = Storm::over(&all);
    storm.goes_on(500);
    server.kill();
    let killed = Instant::now();
    sleep(3_000);
    let mut client = all[1].client();
    (0..8).for_each(|n| drop(client.get(&format!("/api/posts/cold-{n}/like")).expect(503)));
    refused_at_once(&mut client, "PostgreSQL down");
    // Both away: the last known values, and for the rest a refusal at once.
    all[0].redis.as_mut().expect("Redis").stop();
    sleep(2_000);
    refused_at_once(&mut client, "both down");
    let told = storm.end("PostgreSQL down, then Redis too");
    assert_eq!(refused(&told), 0, "there is something stale of each");
    let late = told.iter().filter(|told| told.at > killed + Duration::from_millis(1_000));
    let slowest = late.map(|told| told.took).max().expect("requests");
    assert!(slowest < Duration::from_millis(100) + NOISE, "with the ledger away, after {slowest:?}");
    all[0].redis.as_mut().expect("Redis").spawn();
    server.revive();
    for bench in &all {
        let mut client = bench.client();
        eventually(Duration::from_secs(20), || {
            let answer = client.get("/api/posts/cold/like");
            let fresh = client.get(&path(0));
            let is_back = answer.status == 200 && how(&fresh) != "stale";
            if is_back { Ok(()) } else { Err(format!("{} with the ledger back", answer.status)) }
        });
    }
    await_quiet(&all);
}
