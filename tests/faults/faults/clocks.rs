//! A wall clock that is wrong for one start, or for a while: nothing is deleted by it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::support::bench::{Bench, Ledger, Live, MAIN_PAIRS, MIXED_PAIRS, items};
use crate::support::wall_clock::WallClock;
use crate::support::{eventually, now_ms, wait_until};

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 24 * HOUR_S;
const ID: &str = "0190c2b0-0000-7000-8000-000000000001";
const WAIT: Duration = Duration::from_secs(20);
/// What is deleted by time.
const TABLES: [&str; 6] = ["event_id_a", "event_id_b", "rollup_minute", "recent_forgotten", "events", "user_hour"];

fn post_once(bench: &Bench) -> bool {
    let event = json!({"eventId": ID, "eventType": "SEARCH", "userId": "u", "metadata": {"keyword": "oak"}});
    bench.client().post("/api/events?wait=true", &event).expect(201).json()["duplicate"] == true
}

fn rows_of_tables(bench: &Bench) -> Vec<i64> {
    TABLES.iter().map(|table| bench.number(&format!("SELECT count(*) FROM {table}"))).collect()
}

/// Waits until the lists and the list of recent searches show the one search; a list may be a second old.
fn wait_until_shown(bench: &Bench) {
    let mut client = bench.client();
    eventually(WAIT, || {
        for window in ["1h", "24h", "7d"] {
            let list = client.read(&format!("/api/statistics/popular/keywords?window={window}"));
            if list["source"] != "live" || items(&list, "keyword") != [("oak".to_owned(), 1)] {
                return Err(list.to_string());
            }
        }
        let recent = client.read("/api/search/recent/u");
        if recent["keywords"] == json!(["oak"]) { Ok(()) } else { Err(recent.to_string()) }
    });
}

/// Waits until housekeeping has had its turn by a clock that is ahead: it folds the current hour, after all deletions.
fn wait_for_housekeeping(bench: &Bench) {
    let hour = now_ms() / 1_000 / HOUR_S;
    wait_until(WAIT, || bench.number("SELECT until_hour FROM rollup_state"), |until| *until > hour);
}

/// A started program with a clock of the test's own, and the event that is posted once.
fn with_clock(ledger: Ledger, live: Live) -> (Bench, WallClock) {
    let (mut bench, clock) = (Bench::new(ledger, live), WallClock::new());
    clock.lend_to(&mut bench);
    bench.start();
    assert!(!post_once(&bench));
    (bench, clock)
}

fn one_start_with_the_clock_ahead(ledger: Ledger, live: Live, ahead_s: i64) {
    let (mut bench, clock) = with_clock(ledger, live);
    eprintln!("-- {}, {ahead_s} s ahead", bench.name);
    bench.client().send("DELETE", "/api/search/recent/u?keyword=elm", &[], b"").expect(204);
    bench.settle();
    wait_until_shown(&bench);
    let rows = rows_of_tables(&bench);
    assert!(bench.stop().success());

    clock.set_ahead(ahead_s);
    bench.start();
    bench.settle();
    wait_for_housekeeping(&bench);
    assert!(bench.stop().success());

    clock.set_ahead(0);
    bench.start();
    bench.settle();
    assert_eq!(rows_of_tables(&bench), rows, "{TABLES:?}");
    wait_until_shown(&bench);
    assert!(post_once(&bench), "the same id counts once");
    bench.check_sums();
}

#[test]
fn one_start_with_the_clock_ahead_deletes_nothing() {
    for (ledger, live) in MAIN_PAIRS {
        // Longer than ids are remembered, and than lists keep days.
        for ahead_s in [DAY_S + HOUR_S / 2, 10 * DAY_S] {
            one_start_with_the_clock_ahead(ledger, live, ahead_s);
        }
    }
    for (ledger, live) in MIXED_PAIRS {
        // Longer than lists keep hours.
        one_start_with_the_clock_ahead(ledger, live, 50 * HOUR_S);
    }
}

#[test]
fn lists_are_whole_again_once_a_clock_that_was_ahead_is_right() {
    for (ledger, live) in MAIN_PAIRS {
        let (bench, clock) = with_clock(ledger, live);
        eprintln!("-- {}", bench.name);
        bench.settle();
        wait_until_shown(&bench);
        clock.set_ahead(10 * DAY_S);
        wait_for_empty_lists(&bench);
        clock.set_ahead(0);
        wait_until_shown(&bench);
    }
}

/// Waits until lists are empty and the live store was tended by that clock, which happens every second.
fn wait_for_empty_lists(bench: &Bench) {
    let mut client = bench.client();
    let mut first = None;
    eventually(WAIT, || {
        let list = client.read("/api/statistics/popular/keywords?window=7d");
        let as_of: Timestamp = list["asOf"].as_str().and_then(|at| at.parse().ok()).ok_or(list.to_string())?;
        let is_ahead = as_of.as_millisecond() > now_ms() + DAY_S * 1_000;
        if !is_ahead || !list["items"].as_array().is_some_and(Vec::is_empty) {
            return Err(list.to_string());
        }
        let since = as_of.duration_since(*first.get_or_insert(as_of));
        if since.as_millis() > 1_500 { Ok(()) } else { Err(format!("{since} since the clock was set")) }
    });
}
