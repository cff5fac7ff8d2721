//! Two programs on one PostgreSQL and one Redis count as one; and what `ACK` says about when an event is answered.

#[path = "instances/metrics.rs"]
mod metrics;
#[path = "instances/operations.rs"]
mod operations;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use support::bench::{Bench, Ledger, Live, MAIN_PAIRS, on_pairs};
use support::client::Client;
use support::seed;
use uuid::Uuid;

#[test]
fn two_instances_count_as_one_whichever_gets_an_event_and_whichever_is_killed() {
    let seed = seed();
    let Some(mut first) = Bench::new(Ledger::Postgres, Live::Redis) else { return };
    let mut second = first.beside();
    first.start();
    second.start();
    let mut random = StdRng::seed_from_u64(seed);
    let mut ids = BTreeSet::new();
    for round in 0..30 {
        if round % 10 == 5 {
            let victim = if random.random_bool(0.5) { &mut first } else { &mut second };
            victim.kill();
            victim.start();
        }
        // Each batch goes to both, in an order of its own: every id is a duplicate on one of them.
        let mut events = Vec::new();
        for _ in 0..random.random_range(1..60) {
            let id = Uuid::from_u128(random.random());
            ids.insert(id);
            let user = random.random_range(0..5);
            let post = random.random_range(0..3);
            events.push(match random.random_range(0..4) {
                0 => json!({"eventType":"SEARCH","eventId":id.to_string(),"userId":user,"metadata":{"keyword":format!("k{post}")}}),
                1 => json!({"eventType":"LIKE","eventId":id.to_string(),"userId":user,"metadata":{"postId":post}}),
                2 => json!({"eventType":"UNLIKE","eventId":id.to_string(),"userId":user,"metadata":{"postId":post}}),
                _ => json!({"eventType":"PAGE_VIEW","eventId":id.to_string(),"userId":user,"metadata":{"url":format!("/p{post}")}}),
            });
        }
        let body = json!(events);
        let addresses = [first.address(), second.address()];
        std::thread::scope(|scope| {
            for address in addresses {
                let body = &body;
                scope.spawn(move || {
                    let answer = support::client::Client::new(address).post("/api/events", body);
                    assert_eq!(answer.status, 202, "{}", answer.text());
                });
            }
        });
    }
    first.settle();
    second.settle();
    assert_eq!(first.event_rows(), ids.len() as i64, "each id is stored once");
    first.check_sums();
    let likes = first.rows("SELECT post_id, count(*) FROM post_like GROUP BY post_id ORDER BY post_id");
    let counts = first.rows("SELECT post_id, like_count FROM post_stat WHERE like_count > 0 ORDER BY post_id");
    assert_eq!(likes, counts, "a post's count is its rows");
    let fold = first.rows(
        "SELECT post_id, sum(CASE action WHEN 'LIKE' THEN 1 ELSE -1 END) FROM post_like_log GROUP BY post_id \
         HAVING sum(CASE action WHEN 'LIKE' THEN 1 ELSE -1 END) > 0 ORDER BY post_id",
    );
    assert_eq!(fold, likes, "and the fold of its log");
    assert_eq!(first.number("SELECT count(*) FROM post_like_log WHERE like_count < 0"), 0);
}

/// What clients of a rolling restart saw.
#[derive(Default)]
struct Seen {
    acknowledged: BTreeSet<Uuid>,
    /// Why a request got no answer: nobody listened, or the connection ended before the first byte of one.
    passed_over: Vec<String>,
}

/// Events by turns to both servers, each with an id of its own; who gives no answer is passed over for the other one.
fn alternate(addresses: &Mutex<[SocketAddr; 2]>, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut clients: [Option<(SocketAddr, Client)>; 2] = [None, None];
    let mut failed_before = false;
    for turn in 0usize.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let at = turn % 2;
        let address = addresses.lock().unwrap()[at];
        if clients[at].as_ref().is_none_or(|(to, _)| *to != address) {
            clients[at] = Some((address, Client::new(address)));
        }
        let (_, client) = clients[at].as_mut().expect("just made");
        // Never the same event again: one that was taken and not answered would show up as a row of nobody's.
        let ids: Vec<Uuid> = (0..1 + turn % 3).map(|_| Uuid::new_v4()).collect();
        let event =
            |id: &Uuid| json!({"eventType":"CLICK","eventId":id.to_string(),"userId":at,"metadata":{"componentId":1}});
        let body = json!(ids.iter().map(event).collect::<Vec<_>>()).to_string();
        match client.try_send("POST", "/api/events", &[("Content-Type", "application/json")], body.as_bytes()) {
            Ok(answer) => {
                assert_eq!(answer.status, 202, "whoever answers takes it: {}", answer.text());
                seen.acknowledged.extend(ids);
                failed_before = false;
            }
            Err(error) => {
                assert!(!failed_before, "neither answers: {error}, after {:?}", seen.passed_over.last());
                seen.passed_over.push(format!("{:?}", error.kind()));
                failed_before = true;
            }
        }
    }
    seen
}

/// Ends the load also where the test panics: its threads are waited for.
struct OverAtTheEnd<'f>(&'f AtomicBool);

impl Drop for OverAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_rolling_restart_under_load_stores_what_it_answered_and_answers_what_it_stored() {
    let Some(mut first) = Bench::new(Ledger::Postgres, Live::Redis) else { return };
    let mut second = first.beside();
    first.start();
    second.start();
    let addresses = Mutex::new([first.address(), second.address()]);
    let is_over = AtomicBool::new(false);
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(|| alternate(&addresses, &is_over))).collect();
        let over = OverAtTheEnd(&is_over);
        for at in [0, 1, 0, 1] {
            let bench = if at == 0 { &mut first } else { &mut second };
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(bench.stop().code(), Some(0));
            bench.start();
            addresses.lock().unwrap()[at] = bench.address();
        }
        std::thread::sleep(Duration::from_millis(300));
        drop(over);
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    first.settle();
    second.settle();
    let acknowledged: BTreeSet<Uuid> = seen.iter().flat_map(|seen| seen.acknowledged.iter().copied()).collect();
    let stored = first.rows("SELECT event_id FROM events");
    let stored: BTreeSet<Uuid> = stored.iter().map(|row| row[0].parse().expect("a UUID")).collect();
    let why: BTreeMap<&String, usize> =
        seen.iter().flat_map(|seen| &seen.passed_over).fold(BTreeMap::new(), |mut why, kind| {
            *why.entry(kind).or_default() += 1;
            why
        });
    eprintln!("4 restarts: {} events acknowledged, {} stored; passed over: {why:?}", acknowledged.len(), stored.len());
    assert!(acknowledged.len() > 500, "that was no load");
    assert_eq!(acknowledged.difference(&stored).count(), 0, "answered, and not stored");
    assert_eq!(stored.difference(&acknowledged).count(), 0, "stored, and its request was lost or reset");
    first.check_sums();
}

#[test]
fn ack_ledger_answers_after_the_commit() {
    for (ledger, live) in MAIN_PAIRS {
        let Some(mut bench) = Bench::new(ledger, live) else { continue };
        bench.set("ACK", "ledger");
        bench.start();
        for number in 1..=5 {
            let event = json!({"eventType":"CLICK","userId":1,"metadata":{"componentId":number}});
            let answer = bench.client().post("/api/events", &event);
            assert_eq!((answer.status, &answer.json()["duplicate"]), (201, &json!(false)));
            assert_eq!(bench.event_rows(), number, "it is there when it is answered");
        }
    }
}

#[test]
fn ack_memory_still_writes_everything_that_a_graceful_stop_finds() {
    for (ledger, live) in MAIN_PAIRS {
        let Some(mut bench) = Bench::new(ledger, live) else { continue };
        bench.set("ACK", "memory");
        bench.start();
        let event = json!({"eventType":"CLICK","userId":1,"metadata":{"componentId":1}});
        let mut client = bench.client();
        for _ in 0..500 {
            assert_eq!(client.post("/api/events", &event).status, 202);
        }
        assert!(bench.stop().success());
        bench.start();
        bench.settle();
        assert_eq!(bench.event_rows(), 500);
    }
}

#[test]
fn metrics_are_lines_that_grep_finds() {
    on_pairs(MAIN_PAIRS, |bench| {
        let event = json!({"eventType":"CLICK","userId":1,"metadata":{"componentId":1}});
        assert_eq!(bench.client().post("/api/events?wait=true", &event).status, 201);
        let lines = [
            "event_tracker_journal_records_total 1",
            "event_tracker_events_total{outcome=\"accepted\"} 1",
            // Counted once the answer is written, when its client may have it already.
            "event_tracker_http_request_duration_seconds_bucket{le=\"+Inf\"} 1",
        ];
        std::thread::sleep(std::time::Duration::from_millis(50));
        let answer = bench.client().get("/metrics");
        for line in lines {
            let text = answer.text();
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    });
}
