//! Two programs on one PostgreSQL and one Redis count as one; and what `ACK` says about when an event is answered.

mod metrics;
mod operations;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::bench::{Bench, Ledger, Live, MAIN_PAIRS};
use crate::support::client::Client;
use crate::support::wait_until;
use serde_json::json;
use uuid::Uuid;

pub(crate) fn two_programs() -> (Bench, Bench) {
    let mut first = Bench::new(Ledger::Postgres, Live::Redis);
    let mut second = first.beside();
    first.start();
    second.start();
    (first, second)
}

#[derive(Default)]
struct Seen {
    acknowledged: BTreeSet<Uuid>,
    /// Why a request got no answer: nobody listened, or the connection ended before the first byte of one.
    passed_over: Vec<String>,
}

/// Events by turns to both servers, each with an id of its own; who gives no answer is passed over for the other one.
fn alternate(addresses: &Mutex<[SocketAddr; 2]>, is_over: &AtomicBool, answers: &AtomicU64) -> Seen {
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
                answers.fetch_add(1, Ordering::Relaxed);
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
    let (mut first, mut second) = two_programs();
    let addresses = Mutex::new([first.address(), second.address()]);
    let (is_over, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let goes_on = || {
        let target = answers.load(Ordering::Relaxed) + 200;
        wait_until(Duration::from_secs(20), || answers.load(Ordering::Relaxed), |count| *count >= target);
    };
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(|| alternate(&addresses, &is_over, &answers))).collect();
        let over = OverAtTheEnd(&is_over);
        for at in [0, 1, 0, 1] {
            let bench = if at == 0 { &mut first } else { &mut second };
            goes_on();
            assert_eq!(bench.stop().code(), Some(0));
            bench.start();
            addresses.lock().unwrap()[at] = bench.address();
        }
        goes_on();
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
        let mut bench = Bench::new(ledger, live);
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
        let mut bench = Bench::new(ledger, live);
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
