//! Seven days are seven days of `TIME_ZONE`: after a rebuild, from the ledger, and after the setting has changed.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::support::bench::{Bench, Ledger, Live, items};
use crate::support::{eventually, now_ms};

const MINUTE_MS: i64 = 60_000;
const PATH: &str = "/api/statistics/popular/keywords?window=7d&limit=100";

/// Where the oldest day of `window=7d` begins, milliseconds.
fn oldest_day(zone: &str) -> i64 {
    let zone = TimeZone::get(zone).expect("a zone");
    let today = Timestamp::from_millisecond(now_ms()).expect("a time").to_zoned_datetime(zone.clone()).date();
    let oldest = today.checked_sub(6.days()).expect("a date");
    oldest.to_zoned_datetime(zone).expect("a time").timestamp().as_millisecond()
}

/// Searches around where a day begins, each with a keyword of its own: 25 and 3 minutes before it, 3 and 25 after.
fn searches_around(at_ms: i64) -> Vec<(String, i64)> {
    [-25, -3, 3, 25].map(|minutes| at_ms + minutes * MINUTE_MS).map(|at| (format!("at {at}"), at)).into()
}

/// The keywords that belong to the seven days of a zone, in the order of lists.
fn expected(searches: &[(String, i64)], zone: &str) -> Vec<(String, i64)> {
    let since = oldest_day(zone);
    let mut names: Vec<_> = searches.iter().filter(|(_, at)| *at >= since).map(|(name, _)| (name.clone(), 1)).collect();
    names.sort();
    names
}

fn post(bench: &Bench, searches: &[(String, i64)]) {
    let event = |(number, (keyword, at)): (usize, &(String, i64))| json!({"eventType": "SEARCH", "userId": number, "timestamp": at, "metadata": {"keyword": keyword}});
    let events: Value = searches.iter().enumerate().map(event).collect();
    bench.client().post("/api/events?wait=true", &events).expect(201);
}

#[track_caller]
fn wait_for_list(bench: &Bench, source: &str, expected: &[(String, i64)]) {
    let mut client = bench.client();
    eventually(std::time::Duration::from_secs(20), || {
        let list = client.read(PATH);
        let visitors = client.read("/api/statistics/users?window=7d")["users"].clone();
        let is_it = list["source"] == source && items(&list, "keyword") == expected && visitors == expected.len();
        if is_it { Ok(()) } else { Err(format!("{list} and {visitors} visitors are not {expected:?}")) }
    });
}

fn after_a_rebuild_and_from_the_ledger(ledger: Ledger, live: Live, zone: &str) {
    let mut bench = Bench::new(ledger, live);
    eprintln!("-- {}, {zone}", bench.name);
    bench.set("TIME_ZONE", zone);
    bench.start();
    // Around the middle day, too: its hour is divided between two days of the list.
    let mut searches = searches_around(oldest_day(zone));
    searches.extend(searches_around(oldest_day(zone) + 3 * 86_400_000));
    post(&bench, &searches);
    bench.settle();
    let expected = expected(&searches, zone);
    assert!(expected.len() >= 6, "{expected:?}");
    wait_for_list(&bench, "live", &expected);
    bench.kill();
    if let Some(redis) = &bench.redis {
        redis.admin("FLUSHALL").expect("Redis answers");
    }
    bench.start();
    bench.settle();
    wait_for_list(&bench, "live", &expected);
    if let Some(redis) = &mut bench.redis {
        redis.stop();
        wait_for_list(&bench, "ledger", &expected);
    }
}

#[test]
fn seven_days_are_local_days_after_a_rebuild_and_from_the_ledger() {
    let (sqlite, postgres, redis, memory) = (Ledger::Sqlite, Ledger::Postgres, Live::Redis, Live::Memory);
    after_a_rebuild_and_from_the_ledger(postgres, redis, "Asia/Kolkata");
    after_a_rebuild_and_from_the_ledger(sqlite, redis, "Asia/Kathmandu");
    after_a_rebuild_and_from_the_ledger(sqlite, memory, "Australia/Lord_Howe");
    after_a_rebuild_and_from_the_ledger(postgres, memory, "America/St_Johns");
    after_a_rebuild_and_from_the_ledger(sqlite, redis, "Asia/Seoul");
}

#[test]
fn another_time_zone_reads_no_days_of_the_one_before() {
    for ledger in [Ledger::Postgres, Ledger::Sqlite] {
        let mut bench = Bench::new(ledger, Live::Redis);
        eprintln!("-- {}", bench.name);
        let zones = ["UTC", "Asia/Seoul", "Asia/Kolkata", "America/Los_Angeles"];
        let searches: Vec<_> = zones.iter().flat_map(|zone| searches_around(oldest_day(zone))).collect();
        for (turn, zone) in zones.iter().chain(&zones[..2]).enumerate() {
            bench.set("TIME_ZONE", zone);
            bench.start();
            if turn == 0 {
                post(&bench, &searches);
            }
            bench.settle();
            wait_for_list(&bench, "live", &expected(&searches, zone));
            assert!(bench.stop().success());
        }
    }
}
