//! The main job through the front door, on every pair of stores: events in, safe, stored and counted once, read back.

mod asking;
mod values;

use std::time::Duration;

use crate::support::bench::{Bench, MAIN_PAIRS, each_pair, items, on_pairs};
use crate::support::client::Client;
use crate::support::{chunked, click, encode, eventually, eventually_is, now_ms, wait_until};
use serde_json::{Value, json};
use uuid::Uuid;

const EVENTS: &str = "/api/events";
const WAIT: &str = "/api/events?wait=true";
const DAY_MS: i64 = 86_400_000;
/// Lists are computed once a second.
const LIST_WAIT: Duration = Duration::from_secs(5);

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

fn id() -> String {
    Uuid::new_v4().to_string()
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn owned(counts: &[(&str, i64)]) -> Vec<(String, i64)> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[track_caller]
fn expect_list(client: &mut Client, path: &str, field: &str, expected: &[(&str, i64)]) {
    let expected = owned(expected);
    eventually(LIST_WAIT, || {
        let answer = client.read(&format!("/api/statistics/popular/{path}"));
        let is_it = answer["source"] == "live" && answer["stale"] == false && items(&answer, field) == expected;
        if is_it { Ok(()) } else { Err(format!("{path}: {answer} is not {expected:?}")) }
    });
}

#[track_caller]
fn expect_recent(client: &mut Client, user: &str, expected: &[impl serde::Serialize]) {
    let expected = json!({"userId": user, "keywords": expected});
    let path = format!("/api/search/recent/{user}");
    eventually_is(LIST_WAIT, &expected, || {
        let answer = client.read(&path);
        json!({"userId": answer["userId"], "keywords": answer["keywords"]})
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
    each_pair(|bench, client| {
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
    each_pair(|bench, client| {
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
            (EVENTS, vec![json, coded("gzip")], encode("gzip", &array)),
            (EVENTS, vec![nd, coded("gzip")], encode("gzip", &ndjson)),
            (EVENTS, vec![json, coded("deflate")], encode("deflate", &envelope)),
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
        let head = "POST /api/events HTTP/1.1\r\nHost: localhost";
        client.write(&chunked(head, array.chunks(11), ";ext=1", "X-Trailer: t\r\n")).expect("writes");
        assert_eq!(client.read_answer(false).expect("an answer").expect(202).json()["accepted"], 7);
        assert_eq!(client.post(WAIT, &Value::Array(events)).expect(201).json()["accepted"], 7);
        assert_eq!(bench.event_rows(), 16 * 7);
        bench.check_sums();
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
fn an_event_counts_in_its_own_time_and_never_in_the_future() {
    each_pair(|bench, client| {
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
        expect_list(client, "keywords?window=1h", "keyword", &[("future", 1), ("slow", 1)]);
        expect_list(client, "keywords?window=7d", "keyword", &[("future", 1), ("slow", 1)]);
        expect_recent(client, "u", &["slow", "future"]);
        let day = month_ago - month_ago.rem_euclid(DAY_MS);
        expect_count(client, &format!("keyword=old&from={}&to={}", at(day), at(day + DAY_MS)), 1);
        expect_count(client, &format!("keyword=old&from={}", at(day + DAY_MS)), 0);
        expect_count(client, &format!("eventType=SEARCH&from={day}&to={}", day + DAY_MS), 1);
        expect_count(client, &format!("keyword=future&from={}", now + 61_000), 0);
        expect_count(client, "keyword=future", 1);
        bench.check_sums();
    });
}

#[test]
fn health_and_metrics_tell_how_it_is() {
    each_pair(|bench, client| {
        client.post(WAIT, &json!([click("u"), json!({}), click("v")])).expect(201);
        assert_eq!(client.read("/healthz/live")["status"], "ok");
        assert_eq!(client.read("/healthz/ready")["status"], "ok");
        bench.settle();
        let deps = client.read("/healthz/deps");
        assert_eq!((&deps["status"], &deps["journal"]["position"]), (&json!("ok"), &json!(2)), "{deps}");
        for sink in ["ledger", "live"] {
            let sink = &deps["sinks"][sink];
            assert_eq!((&sink["state"], &sink["store"]), (&json!("following"), &json!("up")), "{deps}");
            assert_eq!(json!([sink["position"], sink["lagEvents"], sink["lastError"]]), json!([2, 0, null]));
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
    each_pair(|bench, client| {
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
