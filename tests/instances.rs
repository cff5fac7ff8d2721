//! Two programs on one PostgreSQL and one Redis count as one; and what `ACK` says about when an event is answered.

mod support;

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use support::bench::{Bench, Ledger, Live, MAIN_PAIRS, on_pairs};
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
