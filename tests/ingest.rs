//! The main job through the front door, on every pair of stores: events in, safe, stored and counted once, read back.

#[path = "ingest/asking.rs"]
mod asking;
mod support;
#[path = "ingest/values.rs"]
mod values;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::bench::{Bench, MAIN_PAIRS, MIXED_PAIRS, items, on_pairs};
use support::client::Client;
use support::load::check_like_tables;
use support::{eventually, now_ms};
use uuid::Uuid;

const EVENTS: &str = "/api/events";
const WAIT: &str = "/api/events?wait=true";
const DAY_MS: i64 = 86_400_000;
/// Lists are computed once a second.
const LIST_WAIT: Duration = Duration::from_secs(5);

fn click(user: &str) -> Value {
    json!({"eventType": "CLICK", "userId": user, "metadata": {"componentId": 1}})
}

fn search(user: &str, keyword: &str) -> Value {
    json!({"eventType": "SEARCH", "userId": user, "metadata": {"keyword": keyword, "resultCount": 3}})
}

fn like(event_type: &str, user: &str, post: &str) -> Value {
    json!({"eventType": event_type, "userId": user, "metadata": {"postId": post}})
}

fn with(mut event: Value, field: &str, value: Value) -> Value {
    event[field] = value;
    event
}

/// An id as a client chooses it.
fn id() -> String {
    Uuid::new_v4().to_string()
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

#[track_caller]
fn expect_list(client: &mut Client, path: &str, field: &str, expected: &[(&str, i64)]) {
    let expected: Vec<(String, i64)> = expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    eventually(LIST_WAIT, || {
        let answer = client.read(&format!("/api/statistics/popular/{path}"));
        let is_it = answer["source"] == "live" && answer["stale"] == false && items(&answer, field) == expected;
        if is_it { Ok(()) } else { Err(format!("{path}: {answer} is not {expected:?}")) }
    });
}

#[track_caller]
fn expect_recent(client: &mut Client, user: &str, expected: &[&str]) {
    eventually(LIST_WAIT, || {
        let answer = client.read(&format!("/api/search/recent/{user}"));
        assert_eq!(answer["userId"], user);
        if answer["keywords"] == json!(expected) { Ok(()) } else { Err(format!("{answer} is not {expected:?}")) }
    });
}

#[track_caller]
fn expect_count(client: &mut Client, query: &str, expected: i64) {
    let answer = client.read(&format!("/api/statistics?{query}"));
    let said = ["count", "source", "stale"].map(|field| &answer[field]);
    assert_eq!(said, [&json!(expected), &json!("ledger"), &json!(false)], "{query}");
}

#[test]
fn an_event_of_every_type_is_taken_under_an_id_and_stored() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        let events = [
            json!({"eventType": "CLICK", "userId": 42, "metadata": {"elementId": "buy"}}),
            json!({"eventType": "page_view", "sessionId": "s", "metadata": {"url": "https://example.org/a?b#c"}}),
            json!({"eventType": "Search", "userId": "u", "metadata": {"keyword": " Cat "}, "properties": {"a": [1, {}]}}),
            like("LIKE", "u", "p"),
            like("UNLIKE", "u", "p"),
        ];
        for (path, event) in events.iter().flat_map(|event| [(EVENTS, event), ("/api/users/events", event)]) {
            let answer = client.post(path, event).expect(202);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let body = answer.json();
            assert_eq!(body.as_object().expect("an object").len(), 1, "{body}");
            let id: Uuid = body["eventId"].as_str().expect("text").parse().expect("a UUID");
            assert_eq!(id.get_version_num(), 7);
        }
        for event in &events {
            let body = client.post(WAIT, event).expect(201).json();
            assert_eq!(body["duplicate"], false, "{body}");
            let row = format!("SELECT event_type FROM events WHERE event_id = '{}'", body["eventId"].as_str().unwrap());
            assert_eq!(bench.rows(&row)[0][0], event["eventType"].as_str().unwrap().to_uppercase());
        }
        assert_eq!(bench.event_rows(), 15);
        assert_eq!(bench.number("SELECT count(*) FROM events WHERE user_id = '42' AND element_id = 'buy'"), 3);
        assert_eq!(bench.number("SELECT count(*) FROM events WHERE session_id = 's' AND user_id IS NULL"), 3);
        assert_eq!(bench.number("SELECT count(*) FROM events WHERE keyword = 'Cat' AND properties IS NOT NULL"), 3);
        bench.check_sums();
    });
}

#[test]
fn a_batch_comes_in_every_shape_and_coding() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        let events: Vec<Value> = (0..7).map(|number| search(&format!("u{number}"), "batch")).collect();
        let array = Value::Array(events.clone()).to_string().into_bytes();
        let envelope = json!({ "events": events }).to_string().into_bytes();
        let ndjson = lines(&events).into_bytes();
        let (json, plain) = (("Content-Type", "application/json"), ("Content-Type", "text/plain;charset=UTF-8"));
        let nd = ("Content-Type", "application/x-ndjson");
        let coded = |name| ("Content-Encoding", name);
        let none: Vec<(&str, &str)> = Vec::new();
        for (path, headers, body) in [
            (EVENTS, vec![json], array.clone()),
            (EVENTS, none, array.clone()),
            (EVENTS, vec![json], envelope.clone()),
            (EVENTS, vec![nd], ndjson.clone()),
            (EVENTS, vec![plain], ndjson.clone()),
            (EVENTS, vec![plain], array.clone()),
            ("/api/events/batch", vec![json], array.clone()),
            ("/api/events/batch", vec![json], envelope.clone()),
            ("/api/events/batch", vec![nd], ndjson.clone()),
            (EVENTS, vec![json, coded("gzip")], gzip(&array)),
            (EVENTS, vec![nd, coded("gzip")], gzip(&ndjson)),
            (EVENTS, vec![json, coded("deflate")], deflate(&envelope)),
            (EVENTS, vec![json, coded("zstd")], zstd::encode_all(&array[..], 3).unwrap()),
            (EVENTS, vec![json, coded("identity")], array.clone()),
        ] {
            let body = client.send("POST", path, &headers, &body).expect(202).json();
            let expected = json!({"received": 7, "accepted": 7, "rejected": 0, "duplicates": 0, "results": []});
            assert_eq!(body, expected, "{path} {headers:?}");
        }
        bench.settle();
        assert_eq!(bench.event_rows(), 14 * 7);
        // In chunks, their borders anywhere; the last with an extension and a trailer.
        let mut chunked =
            b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in array.chunks(11) {
            chunked.extend_from_slice(format!("{:x};ext=1\r\n", piece.len()).as_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\nX-Trailer: t\r\n\r\n");
        client.write(&chunked).expect("writes");
        assert_eq!(client.read_answer(false).expect("an answer").expect(202).json()["accepted"], 7);
        assert_eq!(client.post(WAIT, &Value::Array(events)).expect(201).json()["accepted"], 7);
        assert_eq!(bench.event_rows(), 16 * 7);
        bench.check_sums();
    });
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("compresses")
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("compresses")
}

#[test]
fn fifty_posts_in_one_go_are_answered_in_order() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        let ids: Vec<String> = (0..50).map(|_| id()).collect();
        let mut bytes = Vec::new();
        for (number, id) in ids.iter().enumerate() {
            let body = with(click("u"), "eventId", json!(id)).to_string();
            // One in ten waits for the ledger: those behind it must not overtake it.
            let path = if number % 10 == 5 { WAIT } else { EVENTS };
            let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(body.as_bytes());
        }
        client.write(&bytes).expect("writes");
        for (number, id) in ids.iter().enumerate() {
            let answer = client.read_answer(false).expect("an answer");
            let answer = answer.expect(if number % 10 == 5 { 201 } else { 202 });
            assert_eq!(answer.json()["eventId"], json!(id), "answer {number}");
        }
        bench.check_sums();
        assert_eq!(bench.event_rows(), 50);
    });
}

#[test]
fn an_event_id_is_stored_and_counted_once_however_often_it_comes() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        let event = |id: &String| with(search("u", "once"), "eventId", json!(id));
        let [a, b, c, d, e] = [(); 5].map(|()| id());
        let [a, b, c, d, e] = [&a, &b, &c, &d, &e];
        // One by one, without and with waiting; in capitals it is the same id.
        assert_eq!(client.post(EVENTS, &event(a)).expect(202).json(), json!({ "eventId": a }));
        assert_eq!(client.post(EVENTS, &event(a)).expect(202).json(), json!({ "eventId": a }));
        assert_eq!(client.post(WAIT, &event(a)).expect(201).json(), json!({"eventId": a, "duplicate": true}));
        assert_eq!(client.post(WAIT, &event(b)).expect(201).json(), json!({"eventId": b, "duplicate": false}));
        let capitals = with(event(b), "eventId", json!(b.to_uppercase()));
        assert_eq!(client.post(WAIT, &capitals).expect(201).json(), json!({"eventId": b, "duplicate": true}));
        // Within one batch, and across batches.
        let body = client.post(WAIT, &json!([event(c), event(c), event(d)])).expect(201).json();
        assert_eq!(body, json!({"received": 3, "accepted": 3, "rejected": 0, "duplicates": 1, "results": []}));
        client.post(EVENTS, &json!([event(c), event(d), event(d), event(e)])).expect(202);
        let body = client.post(WAIT, &json!([event(a), event(b), event(c), event(d), event(e)])).expect(201).json();
        assert_eq!(body["duplicates"], 5);
        assert_eq!(bench.event_rows(), 5);
        bench.check_sums();
        expect_list(&mut client, "keywords", "keyword", &[("once", 5)]);
        // After a restart it is remembered.
        bench.kill();
        bench.start();
        let mut client = bench.client();
        assert_eq!(client.post(WAIT, &event(e)).expect(201).json()["duplicate"], true);
        bench.check_sums();
        assert_eq!(bench.event_rows(), 5);
    });
}

#[test]
fn a_bad_row_is_named_by_its_index_and_spoils_nothing() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        let bad = json!({"eventType": "SEARCH", "userId": "u", "metadata": {}});
        let rows = json!([click("u"), click("u"), bad, click("u"), json!({"eventType": "DANCE", "userId": "u"})]);
        for (path, status) in [(EVENTS, 202), (WAIT, 201)] {
            let body = client.post(path, &rows).expect(status).json();
            assert_eq!((&body["received"], &body["accepted"], &body["rejected"]), (&json!(5), &json!(3), &json!(2)));
            let results = body["results"].as_array().expect("results");
            let named: Vec<(&Value, &Value, &Value)> =
                results.iter().map(|row| (&row["index"], &row["status"], &row["error"])).collect();
            let rejected = json!("rejected");
            let expected =
                [(&json!(2), &rejected, &json!("missing_field")), (&json!(4), &rejected, &json!("unknown_event_type"))];
            assert_eq!(named, expected);
            assert!(results.iter().all(|row| !row["message"].as_str().expect("a message").is_empty()));
        }
        let body = client.post(EVENTS, &json!([bad, bad])).expect(400).json();
        assert_eq!((&body["received"], &body["accepted"], &body["rejected"]), (&json!(2), &json!(0), &json!(2)));
        let indexes: Vec<&Value> = body["results"].as_array().unwrap().iter().map(|row| &row["index"]).collect();
        assert_eq!(indexes, [&json!(0), &json!(1)]);
        bench.check_sums();
        assert_eq!(bench.event_rows(), 6);
    });
}

#[test]
fn likes_are_idempotent_and_state_log_and_count_agree() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        for (event_type, user, post) in [
            ("LIKE", "a", "p1"),
            ("LIKE", "a", "p1"),
            ("LIKE", "b", "p1"),
            ("UNLIKE", "c", "p1"),
            ("LIKE", "a", "p2"),
            ("UNLIKE", "a", "p2"),
            ("UNLIKE", "a", "p2"),
            ("LIKE", "a", "p2"),
            ("LIKE", "a", "p3"),
            ("UNLIKE", "a", "p3"),
        ] {
            client.post(EVENTS, &like(event_type, user, post)).expect(202);
        }
        // The same within one batch.
        let batch = ["LIKE", "LIKE", "UNLIKE", "LIKE"].map(|event_type| like(event_type, "d", "p2"));
        client.post(WAIT, &json!(batch)).expect(201);
        expect_list(&mut client, "posts?by=likes", "postId", &[("p1", 2), ("p2", 2)]);
        bench.check_sums();
        check_like_tables(bench);
        assert_eq!(bench.number("SELECT count(*) FROM events"), 14);
        assert_eq!(bench.number("SELECT count(*) FROM post_like"), 4);
        assert_eq!(bench.number("SELECT count(*) FROM post_like_log"), 10);
        assert_eq!(bench.number("SELECT like_count FROM post_stat WHERE post_id = 'p1'"), 2);
        assert_eq!(bench.number("SELECT like_count FROM post_stat WHERE post_id = 'p3'"), 0);
    });
}

#[test]
fn recent_searches_are_the_last_ten_each_once_and_can_be_forgotten() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        expect_recent(&mut client, "nobody", &[]);
        for number in 0..12 {
            client.post(EVENTS, &search("u", &format!("k{number}"))).expect(202);
        }
        client.post(EVENTS, &search("u", "K5")).expect(202);
        client.post(EVENTS, &search("other", "secret")).expect(202);
        client
            .post(WAIT, &json!({"eventType": "SEARCH", "sessionId": "u", "metadata": {"keyword": "no user"}}))
            .expect(201);
        expect_recent(&mut client, "u", &["K5", "k11", "k10", "k9", "k8", "k7", "k6", "k4", "k3", "k2"]);
        let answer = client.read("/api/search/recent/u?limit=2");
        assert_eq!((&answer["keywords"], &answer["source"]), (&json!(["K5", "k11"]), &json!("live")));
        // Who deletes and then reads sees it gone: at once, without waiting.
        client.send("DELETE", "/api/search/recent/u?keyword=K10", &[], b"").expect(204);
        let left = json!(["K5", "k11", "k9", "k8", "k7", "k6", "k4", "k3", "k2"]);
        assert_eq!(client.read("/api/search/recent/u")["keywords"], left);
        for wrong in ["", "%20", &"k".repeat(201)] {
            // An empty keyword is none, and never all of them.
            client.send("DELETE", &format!("/api/search/recent/u?keyword={wrong}"), &[], b"").expect(400);
        }
        client.send("DELETE", "/api/search/recent/u", &[], b"").expect(204);
        assert_eq!(client.read("/api/search/recent/u")["keywords"], json!([]));
        assert_eq!(client.read("/api/search/recent/other")["keywords"], json!(["secret"]));
        client.post(WAIT, &search("u", "again")).expect(201);
        expect_recent(&mut client, "u", &["again"]);
        // An id is opaque: slashes, spaces and letters of any script.
        client.post(WAIT, &search("고/양 이", "hello")).expect(201);
        let path = "/api/search/recent/%EA%B3%A0%2F%EC%96%91%20%EC%9D%B4";
        eventually(LIST_WAIT, || {
            let answer = client.read(path);
            if answer["keywords"] == json!(["hello"]) { Ok(()) } else { Err(answer.to_string()) }
        });
        // Searches of one request have one time, and its order.
        let words = ["d", "a", "c", "b", "e"];
        client.post(WAIT, &json!(words.map(|word| search("batch", word)))).expect(201);
        expect_recent(&mut client, "batch", &["e", "b", "c", "a", "d"]);
        // What is forgotten stays forgotten where the live store is built anew.
        bench.kill();
        if let Some(redis) = &bench.redis {
            redis.admin("FLUSHALL").expect("flushes");
        }
        bench.start();
        bench.settle();
        expect_recent(&mut bench.client(), "u", &["again"]);
        expect_recent(&mut bench.client(), "batch", &["e", "b", "c", "a", "d"]);
        bench.check_sums();
    });
}

#[test]
fn lists_rank_by_count_then_name() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        let view = |url: &str, post: &str| json!({"eventType": "PAGE_VIEW", "userId": "u", "metadata": {"url": url, "postId": post}});
        let on_post = |component: i64, post: &str| json!({"eventType": "CLICK", "userId": "u", "metadata": {"componentId": component, "postId": post}});
        let nothing = json!({"eventType": "SEARCH", "userId": "u", "metadata": {"keyword": "Nix", "resultCount": 0}});
        let mut events = vec![nothing.clone(), nothing, search("u", "nix")];
        events.extend(["Red Chair", "RED chair", "red chair", "École", "éCOLE", "apple"].map(|word| search("u", word)));
        events.extend([view("/a?x=1", "p1"), view("/a#y", "p1"), view("https://h/b", "p1"), view("/a", "p2")]);
        events.extend([on_post(7, "p2"), on_post(7, "p2"), on_post(3, "p1"), click("u")]);
        events.extend([like("LIKE", "a", "p3"), like("LIKE", "b", "p3"), like("LIKE", "a", "p1")]);
        client.post(WAIT, &Value::Array(events)).expect(201);
        let client = &mut client;
        expect_list(client, "keywords", "keyword", &[("nix", 3), ("red chair", 3), ("école", 2), ("apple", 1)]);
        expect_list(client, "keywords?window=10m&limit=2", "keyword", &[("nix", 3), ("red chair", 3)]);
        expect_list(client, "keywords?mode=zero-result", "keyword", &[("nix", 2)]);
        expect_list(client, "posts?window=24h", "postId", &[("p1", 3), ("p2", 1)]);
        expect_list(client, "posts?by=views", "postId", &[("p1", 3), ("p2", 1)]);
        expect_list(client, "posts?by=clicks&window=7d", "postId", &[("p2", 2), ("p1", 1)]);
        expect_list(client, "posts?by=likes", "postId", &[("p3", 2), ("p1", 1)]);
        expect_list(client, "posts?by=score", "postId", &[("p3", 20), ("p1", 3 + 3 + 10), ("p2", 1 + 6)]);
        expect_list(client, "pages", "url", &[("/a", 3), ("/b", 1)]);
        expect_list(client, "components", "componentId", &[("7", 2), ("1", 1), ("3", 1)]);
        let hot = client.read("/api/statistics/popular/keywords?mode=hot");
        assert_eq!(hot["items"][3]["keyword"], "apple", "{hot}");
        for (query, field) in
            [("window=2h", "window"), ("limit=101", "limit"), ("limit=0", "limit"), ("mode=cold", "mode")]
        {
            let body = client.get(&format!("/api/statistics/popular/keywords?{query}")).expect(400).json();
            assert!(body["error"] == "invalid_parameter" && body["errors"][field].is_string(), "{body}");
        }
        client.get("/api/statistics/popular/posts?by=shares").expect(400);
        bench.check_sums();
    });
}

#[test]
fn counts_are_exact_by_one_filter_or_by_several_within_a_range() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        let view = |url: &str, post: &str| json!({"eventType": "PAGE_VIEW", "userId": "u", "metadata": {"url": url, "postId": post}});
        let mut events: Vec<Value> =
            (0..4).map(|n| with(click("u"), "metadata", json!({"componentId": n % 2 + 1}))).collect();
        events.extend([
            search("u", "Red"),
            search("u", "red"),
            view("/a?1", "p"),
            view("/a?2", "q"),
            like("LIKE", "u", "p"),
        ]);
        client.post(WAIT, &Value::Array(events)).expect(201);
        let client = &mut client;
        expect_count(client, "", 9);
        for (name, count) in [("CLICK", 4), ("search", 2), ("PAGE_VIEW", 2), ("LIKE", 1), ("UNLIKE", 0)] {
            expect_count(client, &format!("eventType={name}"), count);
        }
        expect_count(client, "keyword=RED", 2);
        expect_count(client, "keyword=%20red%20", 2);
        expect_count(client, "componentId=2", 2);
        expect_count(client, "url=https://h/a?9", 2);
        expect_count(client, "eventType=PAGE_VIEW&postId=p", 1);
        let (from, to) = (now_ms() - DAY_MS, now_ms() + 60_000);
        expect_count(client, &format!("eventType=CLICK&from={from}&to={to}"), 4);
        expect_count(client, &format!("eventType=CLICK&from={from}&to={}", from + 1_000), 0);
        expect_count(client, &format!("postId=p&url=/a&from={from}&to={to}"), 1);
        let long = format!("postId=p&url=/a&from={}&to={to}", to - 31 * DAY_MS - 1);
        for query in ["postId=p&url=/a", &long, "componentId=1&keyword=red&from=0"] {
            let body = client.get(&format!("/api/statistics?{query}")).expect(400).json();
            assert_eq!(body["error"], "missing_range", "{query}: {body}");
        }
        for query in ["eventType=DANCE", "componentId=0", "from=yesterday", "postId=undefined", "from=2&to=1"] {
            let body = client.get(&format!("/api/statistics?{query}")).expect(400).json();
            assert_eq!(body["error"], "invalid_parameter", "{query}: {body}");
        }
    });
}

#[test]
fn an_event_counts_in_its_own_time_and_never_in_the_future() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        let at = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
        let now = now_ms();
        let month_ago = now - 30 * DAY_MS;
        client.post(WAIT, &with(search("u", "old"), "timestamp", json!(at(month_ago)))).expect(201);
        client.post(WAIT, &with(search("u", "future"), "timestamp", json!(now + 3_600_000))).expect(201);
        // The client's clock is an hour slow, and says so.
        let slow =
            with(with(search("u", "slow"), "timestamp", json!(now - 3_600_000)), "sentAt", json!(now - 3_600_000));
        client.post(WAIT, &slow).expect(201);
        let too_old = with(search("u", "ancient"), "timestamp", json!(now - 500 * DAY_MS));
        assert_eq!(client.post(EVENTS, &too_old).expect(400).json()["error"], "too_old");
        expect_list(&mut client, "keywords?window=1h", "keyword", &[("future", 1), ("slow", 1)]);
        expect_list(&mut client, "keywords?window=7d", "keyword", &[("future", 1), ("slow", 1)]);
        expect_recent(&mut client, "u", &["slow", "future"]);
        let day = month_ago - month_ago.rem_euclid(DAY_MS);
        expect_count(&mut client, &format!("keyword=old&from={}&to={}", at(day), at(day + DAY_MS)), 1);
        expect_count(&mut client, &format!("keyword=old&from={}", at(day + DAY_MS)), 0);
        expect_count(&mut client, &format!("eventType=SEARCH&from={day}&to={}", day + DAY_MS), 1);
        expect_count(&mut client, &format!("keyword=future&from={}", now + 61_000), 0);
        expect_count(&mut client, "keyword=future", 1);
        bench.check_sums();
    });
}

#[test]
fn health_and_metrics_tell_how_it_is() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        client.post(WAIT, &json!([click("u"), json!({}), click("v")])).expect(201);
        assert_eq!(client.read("/healthz/live")["status"], "ok");
        assert_eq!(client.read("/healthz/ready")["status"], "ok");
        bench.settle();
        let deps = client.read("/healthz/deps");
        assert_eq!((&deps["status"], &deps["journal"]["position"]), (&json!("ok"), &json!(2)), "{deps}");
        for sink in ["ledger", "live"] {
            let sink = &deps["sinks"][sink];
            assert_eq!((&sink["state"], &sink["store"]), (&json!("following"), &json!("up")), "{deps}");
            assert_eq!(
                (&sink["position"], &sink["lagEvents"], &sink["lastError"]),
                (&json!(2), &json!(0), &Value::Null)
            );
        }
        let answer = client.get("/metrics").expect(200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        // A metric without labels may have empty braces.
        let text = answer.text().replace("{}", "");
        for line in [
            r#"event_tracker_events_total{outcome="accepted"} 2"#,
            r#"event_tracker_events_total{outcome="rejected"} 1"#,
            r#"event_tracker_events_decoded_total{type="CLICK"} 2"#,
            "event_tracker_journal_records_total 2",
            "event_tracker_journal_position 2",
            "event_tracker_journal_writable 1",
            r#"event_tracker_sink_position{sink="ledger"} 2"#,
            r#"event_tracker_sink_position{sink="live"} 2"#,
            r#"event_tracker_sink_lag_events{sink="ledger"} 0"#,
            r#"event_tracker_sink_following{sink="live"} 1"#,
            r#"event_tracker_sink_dead_records_total{sink="ledger"} 0"#,
            "event_tracker_http_handler_panics_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        for family in ["http_requests_total ", r#"http_responses_total{class="2xx"} "#, "http_connections "] {
            assert!(text.contains(family), "{family} is not in\n{text}");
        }
    });
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        for path in ["/healthz/live", "/api/statistics/popular/keywords", "/api/search/recent/u", "/metrics"] {
            let whole = client.get(path).expect(200);
            let head = client.send("HEAD", path, &[], b"").expect(200);
            assert_eq!(head.header("content-type"), whole.header("content-type"), "{path}");
            assert!(head.header("content-length").is_some_and(|length| length != "0"), "{path}");
        }
        for path in ["/", "/api", "/api/event", "/api/events/x", "/healthz", "/api/statistics/popular"] {
            let body = client.get(path).expect(404).json();
            assert_eq!((&body["status"], &body["error"]), (&json!(404), &json!("not_found")), "{path}");
        }
        for (method, path, allow) in [
            ("GET", "/api/events", "POST"),
            ("DELETE", "/api/users/events", "POST"),
            ("POST", "/api/statistics", "GET, HEAD"),
            ("POST", "/api/search/recent/u", "GET, HEAD, DELETE"),
            ("PUT", "/metrics", "GET, HEAD"),
        ] {
            let answer = client.send(method, path, &[], b"").expect(405);
            assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
            assert_eq!(answer.json()["error"], "method_not_allowed");
        }
        assert_eq!(client.send("OPTIONS", "/api/events", &[], b"").expect(204).header("allow"), Some("POST"));
        bench.settle();
        assert_eq!(bench.event_rows(), 0);
    });
}

#[test]
fn a_restart_changes_nothing_that_can_be_read() {
    on_pairs(MAIN_PAIRS, |bench| {
        fill_and_restart(bench, 200);
    });
}

/// Everything once, on the pairs that few will run.
#[test]
fn the_mixed_pairs_take_count_list_and_restart_too() {
    on_pairs(MIXED_PAIRS, |bench| {
        fill_and_restart(bench, 60);
        let mut client = bench.client();
        let once = with(search("x", "once"), "eventId", json!(id()));
        client.post(EVENTS, &once).expect(202);
        assert_eq!(client.post(WAIT, &once).expect(201).json()["duplicate"], true);
        expect_recent(&mut client, "x", &["once"]);
        client.send("DELETE", "/api/search/recent/x", &[], b"").expect(204);
        assert_eq!(client.read("/api/search/recent/x")["keywords"], json!([]));
        bench.check_sums();
        check_like_tables(bench);
    });
}

/// Fills the stores, ends the program both ways, and compares what is read before and after.
fn fill_and_restart(bench: &mut Bench, events: usize) {
    let mut client = bench.client();
    let kinds = ["CLICK", "PAGE_VIEW", "SEARCH", "LIKE", "UNLIKE"];
    let mut all = Vec::new();
    for number in 0..events {
        let metadata = json!({
            "componentId": number % 3 + 1, "url": format!("/p{}", number % 4), "keyword": format!("K{}", number % 6),
            "postId": format!("post{}", number % 7), "resultCount": number % 2,
        });
        all.push(json!({"eventType": kinds[number % 5], "userId": number % 10, "metadata": metadata}));
    }
    for batch in all.chunks(50) {
        client.post(WAIT, &json!(batch)).expect(201);
    }
    bench.check_sums();
    let before = readable(bench);
    for killed in [false, true] {
        if killed {
            bench.kill()
        } else {
            assert_eq!(bench.stop().code(), Some(0))
        }
        bench.start();
        bench.check_sums();
        assert_eq!(bench.event_rows() as usize, events);
        for (after, before) in readable(bench).iter().zip(&before) {
            assert_eq!(after, before, "after a restart (killed: {killed})");
        }
    }
}

/// What a client can read, without what names the moment.
fn readable(bench: &Bench) -> Vec<Value> {
    // A list may be a second old.
    std::thread::sleep(Duration::from_millis(1_100));
    let mut client = bench.client();
    let mut paths: Vec<String> = (0..10).map(|user| format!("/api/search/recent/{user}")).collect();
    for list in ["keywords?", "keywords?mode=zero-result&", "posts?", "posts?by=clicks&", "posts?by=score&", "pages?"] {
        paths.extend(["1h", "24h", "7d"].map(|window| format!("/api/statistics/popular/{list}window={window}")));
    }
    paths.extend(["", "eventType=CLICK", "keyword=k1", "postId=post1"].map(|query| format!("/api/statistics?{query}")));
    let read = paths.iter().map(|path| {
        let mut answer = client.read(path);
        answer.as_object_mut().expect("an object").remove("asOf");
        let source = if path.starts_with("/api/statistics?") { "ledger" } else { "live" };
        assert!(answer.get("source").is_none_or(|named| named == source), "{path}: {answer}");
        answer
    });
    read.collect()
}

#[test]
fn real_input_is_counted_as_sort_and_uniq_count_it() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let mut files: Vec<_> = std::fs::read_dir(&directory).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(".ndjson.gz"));
    if files.is_empty() {
        return eprintln!("skipped: no real input in {}", directory.display());
    }
    let text: String = files.iter().map(|path| unpacked(path)).collect();
    let lines: Vec<&str> = text.lines().collect();
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        let started = Instant::now();
        let mut accepted = 0;
        for batch in lines.chunks(500) {
            let nd = [("Content-Type", "application/x-ndjson")];
            let body = client.send("POST", EVENTS, &nd, batch.join("\n").as_bytes()).expect(202).json();
            assert_eq!(body["rejected"], 0, "{body}");
            accepted += body["accepted"].as_u64().expect("a count");
        }
        bench.check_sums();
        eprintln!("{}: {accepted} lines in {:?}", bench.name, started.elapsed());
        assert_eq!(bench.event_rows() as u64, accepted);
        assert_eq!(accepted, lines.len() as u64);
        let field = |line: &str, name: &str| {
            let event: Value = serde_json::from_str(line).expect("JSON");
            event["metadata"][name].as_str().map(str::to_owned)
        };
        let keywords = ranked(lines.iter().filter_map(|line| field(line, "keyword")).map(|k| k.trim().to_lowercase()));
        // One line has `//favicon.ico`, which names a host.
        let no_query = |url: String| match url.split(['?', '#']).next().expect("a first part") {
            host if host.starts_with("//") => "/".to_owned(),
            path => path.replace("%20", " "),
        };
        let pages = ranked(lines.iter().filter_map(|line| field(line, "url")).map(no_query));
        for (list, name, expected) in [("keywords", "keyword", keywords), ("pages", "url", pages)] {
            let expected: Vec<(&str, i64)> = expected.iter().take(10).map(|(k, n)| (k.as_str(), *n)).collect();
            expect_list(&mut client, &format!("{list}?window=24h"), name, &expected);
            expect_list(&mut client, &format!("{list}?window=7d"), name, &expected);
        }
    });
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(path).expect("real input");
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).expect("unpacks");
    text
}

/// `sort | uniq -c | sort`, by count, then by name.
fn ranked(names: impl Iterator<Item = String>) -> Vec<(String, i64)> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_insert(0) += 1;
    }
    let mut ranked: Vec<(String, i64)> = counts.into_iter().collect();
    ranked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    ranked
}
