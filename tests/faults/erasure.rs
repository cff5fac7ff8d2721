//! A person goes, by the front door: over all four pairs of stores, on two instances, and after the live store was lost.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::instances::two_programs;
use crate::support::bench::{Bench, Ledger, Live, MAIN_PAIRS, MIXED_PAIRS, on_pairs};
use crate::support::client::{Answer, Client};
use crate::support::eventually;
use crate::support::hold::Hold;
use serde_json::json;

const USER: &str = "zoe-who-goes";

fn erase(client: &mut Client, query: &str) -> Answer {
    client.send("DELETE", &format!("/api/users/{USER}{query}"), &[], b"")
}

/// Everything that a person can do; nine events.
fn live_a_life(client: &mut Client) {
    for event in [
        json!({"eventType":"PAGE_VIEW","userId":USER,"sessionId":"s-zoe-who-goes","properties":{"a":USER},
               "metadata":{"url":format!("/u?id={USER}"),"referrer":format!("/u/{USER}"),"postId":"own"}}),
        json!({"eventType":"CLICK","userId":USER,"metadata":{"componentId":1,"postId":"own"}}),
        json!({"eventType":"SEARCH","userId":USER,"metadata":{"keyword":"oak"}}),
        json!({"eventType":"SEARCH","userId":USER,"metadata":{"keyword":"elm"}}),
        json!({"eventType":"PAGE_VIEW","userId":"ann","metadata":{"postId":"liked","url":"/b"}}),
    ] {
        client.post("/api/events?wait=true", &event).expect(201);
    }
    client.post("/api/posts", &json!({"userId":USER,"postId":"own","content":"mine","hashtags":["tag"]})).expect(201);
    for (user, post) in [(USER, "liked"), ("ann", "liked"), (USER, "own"), ("ann", "own")] {
        client.post("/api/posts/like", &json!({"userId":user,"postId":post})).expect(200);
    }
    client.send("DELETE", &format!("/api/search/recent/{USER}?keyword=elm"), &[], b"").expect(204);
}

/// Texts of the ledger that say the name, by table; the list of who was erased left out.
fn named(bench: &Bench) -> BTreeMap<&'static str, usize> {
    let tables = ["events", "post", "post_like", "post_like_log", "recent_forgotten", "user_hour", "rollup_hour"];
    let rows = |table: &&'static str| {
        let rows = bench.rows(&format!("SELECT * FROM {table}"));
        (*table, rows.iter().filter(|row| row.iter().any(|text| text.contains(USER))).count())
    };
    // A page is counted by its path, which stays as a name of what was looked at.
    tables.iter().map(rows).filter(|(table, count)| *count > 0 && *table != "rollup_hour").collect()
}

/// Keys of Redis that say the name, but for the note that searches of before are forgotten, which lasts an hour.
fn named_keys(bench: &Bench) -> Vec<String> {
    let Some(redis) = &bench.redis else { return Vec::new() };
    let keys: Vec<String> = ::redis::from_redis_value(redis.admin("KEYS *").expect("answers")).expect("keys");
    keys.into_iter().filter(|key| key.contains(USER)).collect()
}

fn check_gone(bench: &Bench) {
    let mut client = bench.client();
    assert_eq!((named(bench), named_keys(bench)), (BTreeMap::new(), Vec::new()), "{}", bench.name);
    assert_eq!(client.read(&format!("/api/search/recent/{USER}"))["keywords"], json!([]));
    client.get("/api/posts/own").expect(404);
    assert_eq!(client.read("/api/posts/own/like")["likeCount"], 0);
    assert_eq!(
        client.read(&format!("/api/posts/liked/like?userId={USER}")),
        json!({"postId":"liked","likeCount":1,"liked":false})
    );
    assert_eq!(client.read("/api/search?keyword=tag")["posts"], json!([]));
    // The search is an event itself, which nobody waits for: sums are looked at once it is in.
    std::thread::sleep(Duration::from_millis(100));
    bench.settle();
    let mut count = |query: &str| client.get(&format!("/api/statistics{query}")).expect(200).json()["count"].clone();
    assert_eq!(count("?eventType=SEARCH&keyword=oak"), 1, "counts stay");
    assert_eq!(count("?eventType=PAGE_VIEW&postId=own"), 1);
    assert_eq!(count("?eventType=LIKE"), 4);
}

fn places(bench: &Bench) -> Vec<String> {
    let answer = bench.client().read("/api/statistics/popular/posts?window=24h&by=score");
    let items = answer["items"].as_array().expect("a list");
    items.iter().map(|item| item["postId"].as_str().expect("a name").to_owned()).collect()
}

/// A list may be a second old.
fn only_liked_has_a_place(bench: &Bench) {
    eventually(Duration::from_secs(5), || match places(bench) {
        places if places == ["liked"] => Ok(()),
        places => Err(format!("{places:?}")),
    });
}

fn claim(bench: &mut Bench) {
    let mut client = bench.client();
    live_a_life(&mut client);
    bench.settle();
    assert!(named(bench).len() > 4 && places(bench).contains(&"own".to_owned()));
    let told = erase(&mut client, "?wait=true").expect(200).json();
    assert_eq!(told, json!({"userId":USER,"status":"erased"}));
    check_gone(bench);
    bench.check_sums();
    only_liked_has_a_place(bench);
    // Again, later, without waiting; and nobody in particular.
    assert_eq!(erase(&mut client, "").expect(202).json(), json!({"userId":USER,"status":"queued"}));
    client.send("DELETE", "/api/users/nobody?wait=true", &[], b"").expect(200);
    // What happened before is not taken back by sending it again.
    let old = json!({"eventType":"CLICK","userId":USER,"timestamp":1_790_000_000_000_i64,"metadata":{"componentId":1}});
    let refused = client.post("/api/events?wait=true", &old);
    assert!([400, 410].contains(&refused.status), "{}", refused.text());
    bench.check_sums();
    check_gone(bench);
    // The live store is lost, or its process; what is built anew knows nothing either.
    if let Some(redis) = &bench.redis {
        redis.admin("FLUSHALL").expect("answers");
    }
    bench.kill();
    bench.start();
    bench.check_sums();
    check_gone(bench);
    only_liked_has_a_place(bench);
    // Who comes back begins anew.
    let mut client = bench.client();
    client.post("/api/posts/like", &json!({"userId":USER,"postId":"liked"})).expect(200);
    assert_eq!(client.read("/api/posts/liked/like")["likeCount"], 2);
    assert_eq!(bench.number(&format!("SELECT count(*) FROM events WHERE user_id = '{USER}'")), 1);
    assert_eq!(bench.number("SELECT count(*) FROM events WHERE user_id IS NULL AND session_id IS NULL"), 6);
}

#[test]
fn whoever_is_erased_is_gone_from_every_store_and_every_count_stays() {
    on_pairs(MAIN_PAIRS, claim);
    on_pairs(MIXED_PAIRS, claim);
}

#[test]
fn what_another_instance_still_has_in_its_journal_is_dropped_when_it_comes() {
    let (first, mut second) = two_programs();
    live_a_life(&mut first.client());
    let click = |user: &str| json!({"eventType":"CLICK","userId":user,"metadata":{"componentId":1,"postId":"late"}});
    // The ledger stands still: all of this is in journals, the person's events in both.
    let held = Hold::of(first.database_url.as_deref(), &first.data_dir);
    for bench in [&first, &second] {
        for event in [click(USER), json!({"eventType":"SEARCH","userId":USER,"metadata":{"keyword":"ash"}})] {
            bench.client().post("/api/events", &event).expect(202);
        }
    }
    assert_eq!(erase(&mut first.client(), "").expect(202).json()["status"], "queued");
    first.client().post("/api/events", &click("ann")).expect(202);
    held.release();
    for bench in [&first, &second] {
        bench.settle();
        check_gone(bench);
    }
    first.check_sums();
    // One that was down all the while: its journal is older than the erasure.
    let held = Hold::of(first.database_url.as_deref(), &first.data_dir);
    second.client().post("/api/events", &click(USER)).expect(202);
    second.kill();
    held.release();
    erase(&mut first.client(), "?wait=true").expect(200);
    let stored = first.event_rows();
    second.start();
    second.settle();
    assert_eq!(first.event_rows(), stored, "dropped");
    assert!(first.number("SELECT count(*) FROM verdict WHERE kind = 7") > 0);
    check_gone(&first);
    first.check_sums();
}

#[test]
fn only_an_admin_key_erases_and_odd_names_are_told_apart() {
    let mut bench = Bench::new(Ledger::Sqlite, Live::Memory);
    bench.set("ADMIN_KEYS", "a-key-for-admins-123");
    bench.set("WRITE_KEYS", "a-key-for-writing-1");
    bench.start();
    let mut client = bench.client();
    let mut send = |method: &str, path: &str, key: &str| {
        let headers = [("X-Api-Key", key)];
        client.send(method, path, if key.is_empty() { &[] } else { &headers }, b"").status
    };
    assert_eq!(send("DELETE", "/api/users/u", ""), 401);
    assert_eq!(send("DELETE", "/api/users/u", "a-key-for-writing-1"), 403);
    assert_eq!(send("DELETE", "/api/users/u", "a-key-for-admins-123"), 202);
    assert_eq!(send("DELETE", "/api/users/a%2Fb%20%C3%A9?wait=true", "a-key-for-admins-123"), 200);
    assert_eq!(send("DELETE", "/api/users/undefined", "a-key-for-admins-123"), 400);
    assert_eq!(send("DELETE", "/api/users/", "a-key-for-admins-123"), 404);
    assert_eq!(send("DELETE", "/api/users/events", "a-key-for-admins-123"), 405, "that is the path of events");
    assert_eq!(send("DELETE", "/api/users/%65vents", "a-key-for-admins-123"), 202);
    assert_eq!(send("GET", "/api/users/u", "a-key-for-admins-123"), 405);
    bench.settle();
    let users = "SELECT substr(id, 3) FROM erased ORDER BY id";
    assert_eq!(bench.rows(users), [["a/b é"], ["events"], ["u"]]);
}
