//! Times of exact reads while events come in: for `perf/reads`, which starts the servers.
//! Environment: DATABASE_URL, REDIS_URL; READS_SECONDS (30); READS_RATE: events per second (20,000), 0 for as many as are taken.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::bench::Bench;
use crate::support::client::Client;
use crate::support::setting;
use rand::RngExt;

const BATCH: u64 = 100;
/// Connections that send, each a batch at a time.
const SENDERS: u64 = 8;
const USERS: u32 = 10_000;
const NAMES: u32 = 5_000;
const KINDS: usize = 7;
const PAUSE: Duration = Duration::from_millis(20);

/// A body of clicks, page views and searches, as `perf/batch.lua` sends them.
fn body() -> String {
    let mut random = rand::rng();
    let mut name = || {
        let skewed: f64 = random.random();
        (skewed * skewed * f64::from(NAMES)) as u32
    };
    let mut rows = String::from("[");
    for n in 0..BATCH {
        let user = rand::random_range(0..USERS);
        let row = match n % 3 {
            0 => format!(r#"{{"eventType":"CLICK","userId":"u{user}","metadata":{{"componentId":{}}}}}"#, name() % 200),
            1 => {
                let post = name();
                format!(
                    r#"{{"eventType":"PAGE_VIEW","userId":"u{user}","metadata":{{"postId":"p{post}","url":"/posts/{post}"}}}}"#
                )
            }
            _ => {
                format!(r#"{{"eventType":"SEARCH","userId":"u{user}","metadata":{{"keyword":"keyword {}"}}}}"#, name())
            }
        };
        let comma = if n == 0 { "" } else { "," };
        write!(rows, "{comma}{row}").expect("a string takes it");
    }
    rows + "]"
}

/// Sends batches at its share of the rate until it is over.
fn send(address: SocketAddr, bodies: &[String], rate: u64, sent: &AtomicU64, is_over: &AtomicBool) {
    let (mut client, begun, mut own) = (Client::new(address), Instant::now(), 0u64);
    while !is_over.load(Ordering::Relaxed) {
        let body = &bodies[own as usize % bodies.len()];
        let status =
            client.send("POST", "/api/events", &[("Content-Type", "application/json")], body.as_bytes()).status;
        own += u64::from(status == 202);
        sent.fetch_add(if status == 202 { BATCH } else { 0 }, Ordering::Relaxed);
        let due = own * BATCH * SENDERS * 1_000 / rate.max(1);
        let wait = Duration::from_millis(due).saturating_sub(begun.elapsed());
        std::thread::sleep(if rate == 0 { Duration::ZERO } else { wait });
    }
}

/// Exact reads until now; each begins at another minute or hour, so that no cached answer serves it.
fn paths(now_ms: i64) -> [(&'static str, String); KINDS] {
    let (hour, minute) = (3_600_000, now_ms - now_ms.rem_euclid(60_000));
    let random = rand::random_range(0..i64::from(NAMES));
    let since =
        |unit: i64| format!("from={}&to={now_ms}", minute - minute.rem_euclid(unit) - 2 * hour - random % 600 * unit);
    let series = |interval: &str, unit: i64, points: i64| {
        let to = minute - minute.rem_euclid(unit) + unit;
        format!("/api/statistics/timeseries?interval={interval}&from={}&to={to}", to - points * unit)
    };
    [
        ("count of a keyword", format!("/api/statistics?keyword=keyword+{random}&{}", since(60_000))),
        ("count of a type", format!("/api/statistics?eventType=CLICK&{}", since(60_000))),
        ("keywords", format!("/api/statistics/rankings/keywords?limit=10&{}", since(60_000))),
        ("posts by score", format!("/api/statistics/rankings/posts?by=score&limit=10&{}", since(60_000))),
        ("users", format!("/api/statistics/users?{}", since(hour))),
        ("points by hour", series("hour", hour, 20 + random % 400)),
        ("points by minute", series("minute", 60_000, 30 + random % 400)),
    ]
}

#[test]
#[ignore = "needs durable servers: perf/reads"]
fn exact_reads_beside_events() {
    let (Ok(database), Ok(redis)) = (std::env::var("DATABASE_URL"), std::env::var("REDIS_URL")) else { return };
    let (seconds, rate) = (setting("READS_SECONDS", 30), setting("READS_RATE", 20_000));
    let mut bench = Bench::on(Some(database), None);
    bench.set("REDIS_URL", &redis);
    bench.start();
    let bodies: Vec<String> = (0..400).map(|_| body()).collect();
    let (address, sent, is_over) = (bench.address(), AtomicU64::new(0), AtomicBool::new(false));
    let mut times: std::collections::BTreeMap<&str, Vec<f64>> = Default::default();
    let (mut refused, mut lags) = (std::collections::BTreeMap::<&str, u32>::new(), Vec::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| send(address, &bodies, rate, &sent, &is_over));
        }
        let mut client = Client::new(address);
        // Something is there to read.
        std::thread::sleep(Duration::from_secs(seconds.min(10) / 2));
        while begun.elapsed() < Duration::from_secs(seconds) {
            for kind in 0..KINDS {
                let (kind, path) = paths(event_tracker::clock::Clock::System.now_ms())[kind].clone();
                let asked = Instant::now();
                let answer = client.get(&path);
                times.entry(kind).or_default().push(asked.elapsed().as_secs_f64() * 1e3);
                *refused.entry(kind).or_default() += u32::from(answer.status != 200);
                std::thread::sleep(PAUSE);
            }
            lags.push(client.metric("sink_lag_events"));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let events = sent.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    println!(
        "\n{events:.0} events/s; followers at most {:.0} events behind\n",
        lags.iter().fold(0.0, |a: f64, b| a.max(*b))
    );
    println!("| exact read | reads | median ms | p99 ms | refused |\n|---|---|---|---|---|");
    for (kind, mut times) in times {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        println!("| {kind} | {} | {:.0} | {:.0} | {} |", times.len(), at(0.5), at(0.99), refused[kind]);
    }
}
