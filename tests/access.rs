//! Who may ask: keys, origins of browsers, rates of addresses, proxies whose word counts.

mod support;

use serde_json::{Value, json};
use support::bench::Bench;
use support::client::{Answer, Client};

const KEYWORDS: &str = "/api/statistics/popular/keywords";
const SHOP: (&str, &str) = ("Origin", "https://shop.example");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn started(settings: &[(&str, &str)]) -> Bench {
    let mut bench = Bench::on(None, None);
    settings.iter().for_each(|(name, value)| bench.set(name, value));
    bench.start();
    bench
}

fn click() -> Value {
    json!({"eventType": "CLICK", "userId": 1, "metadata": {"componentId": 1}})
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

fn post(bench: &Bench, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = [&[JSON], headers].concat();
    bench.client().send("POST", "/api/events", &headers, body.as_bytes())
}

#[test]
fn a_page_of_any_origin_may_send_events_and_reads_nothing_unless_it_is_listed() {
    let open = started(&[]);
    let taken = post(&open, &[SHOP], &click().to_string()).expect(202);
    assert_eq!(allowed(&taken), Some("*"));
    assert_eq!(allowed(&post(&open, &[SHOP], "{").expect(400)), Some("*"), "the page may read why");
    assert_eq!(allowed(&post(&open, &[], &click().to_string()).expect(202)), None, "not from another origin");
    assert_eq!(allowed(&open.client().send("GET", KEYWORDS, &[SHOP], b"").expect(200)), None);

    let listed = started(&[("ALLOWED_ORIGINS", "https://shop.example,http://localhost:3000")]);
    let read = listed.client().send("GET", KEYWORDS, &[SHOP], b"").expect(200);
    assert_eq!((allowed(&read), read.header("vary")), (Some("https://shop.example"), Some("Origin")));
    let other = [("Origin", "https://shop.example.evil.example")];
    assert_eq!(allowed(&listed.client().send("GET", KEYWORDS, &other, b"").expect(200)), None);
    assert_eq!(allowed(&post(&listed, &other, &click().to_string()).expect(202)), None);
    assert_eq!(read.header("access-control-allow-credentials"), None);
}

#[test]
fn a_foreign_page_changes_nothing_but_by_sending_events() {
    let bench = started(&[("ALLOWED_ORIGINS", "https://shop.example")]);
    let put = |origin: &str| {
        // What a page may send without asking first.
        let headers = [("Content-Type", "text/plain"), ("Origin", origin)];
        let body = json!({"postId": "p", "userId": 1, "content": "x"}).to_string();
        bench.client().send("POST", "/api/posts", &headers, body.as_bytes())
    };
    assert_eq!(put("https://evil.example").expect(403).json()["error"], "origin_refused");
    assert_eq!(put("null").status, 403);
    put("https://shop.example").expect(201);
    // The client asks for that host: a page of the server itself.
    put("http://localhost").expect(200);
    let delete = bench.client().send("DELETE", "/api/search/recent/1", &[("Origin", "https://evil.example")], b"");
    assert_eq!(delete.status, 403);
}

#[test]
fn a_preflight_is_answered_for_a_day() {
    let bench = started(&[]);
    let ask = |path: &str| {
        let headers =
            [SHOP, ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type")];
        bench.client().send("OPTIONS", path, &headers, b"").expect(204)
    };
    let answer = ask("/api/events");
    assert_eq!(allowed(&answer), Some("*"));
    // Two of them would be `*, *`, which browsers refuse.
    let origins = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("access-control-allow-origin"));
    assert_eq!(origins.count(), 1, "{:?}", answer.headers);
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(answer.header("access-control-max-age"), Some("86400"));
    assert!(answer.header("access-control-allow-headers").expect("headers").contains("Content-Type"));
    let answer = ask(KEYWORDS);
    assert_eq!((allowed(&answer), answer.header("allow")), (None, Some("GET, HEAD")));
    // An OPTIONS that is no preflight.
    let plain = bench.client().send("OPTIONS", "/api/events", &[], b"").expect(204);
    assert_eq!((plain.header("allow"), allowed(&plain)), (Some("POST"), None));
}

#[test]
fn an_address_past_its_rate_is_told_when_to_come_again() {
    let bench = started(&[("RATE_LIMIT", "3"), ("TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.1")]);
    let from = |forwarded: &str| {
        let headers = [("X-Forwarded-For", forwarded)];
        post(&bench, &headers, &click().to_string())
    };
    let answers: Vec<Answer> = (0..8).map(|_| from("192.0.2.1")).collect();
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!((3..=5).contains(&refused.len()), "{}", refused.len());
    assert!(answers[..3].iter().all(|answer| answer.status == 202));
    let told = refused[0];
    assert_eq!(told.json()["error"], "rate_limited");
    assert_eq!(told.header("x-ratelimit-limit"), Some("3"));
    assert_eq!(told.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(told.header("x-ratelimit-reset"), Some("1"));
    assert_eq!(told.header("retry-after"), Some("1"));
    // What a client says itself is not believed; what proxies of ours add is.
    assert_eq!(from("198.51.100.7, 192.0.2.2, 10.0.0.1").status, 202);
    let hidden = (0..8).map(|i| from(&format!("198.51.100.{i}, 192.0.2.2, 10.0.0.1")).status);
    assert!(hidden.filter(|status| *status == 429).count() >= 4);
    // Health is never refused.
    for _ in 0..20 {
        bench.client().send("GET", "/healthz/ready", &[("X-Forwarded-For", "192.0.2.1")], b"").expect(200);
    }
}

const FIRST: [u8; 4] = [127, 0, 0, 1];
const SECOND: [u8; 4] = [127, 0, 0, 2];

/// Events until one is refused, from an address of this machine: how many were taken, and the refusal.
fn until_refused(bench: &Bench, from: [u8; 4], forwarded: impl Fn(usize) -> String) -> (usize, Answer) {
    let mut client = Client::coming_from(from, bench.address());
    for taken in 0..50 {
        let headers = [JSON, ("X-Forwarded-For", &forwarded(taken))];
        let answer = client.send("POST", "/api/events", &headers, click().to_string().as_bytes());
        if answer.status != 202 {
            return (taken, answer.expect(429));
        }
        // A request before, it was told so.
        assert_eq!(answer.header("x-ratelimit-limit"), Some("4"));
        let remaining: usize = answer.header("x-ratelimit-remaining").expect("told").parse().expect("a number");
        assert!(remaining <= 3 && (taken > 0 || remaining == 3), "{remaining} after {taken}");
    }
    panic!("50 requests at once and none was refused");
}

fn assert_says_when_to_come_again(refused: &Answer) {
    let told = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"];
    assert_eq!(told.map(|name| refused.header(name)), [Some("4"), Some("0"), Some("1"), Some("1")]);
    assert_eq!(refused.json()["error"], "rate_limited");
}

#[test]
fn each_address_has_its_own_rate_whatever_it_says_of_itself() {
    let bench = started(&[("RATE_LIMIT", "4")]);
    // Another name with each request changes nothing: nobody said that this end may be believed.
    let (taken, refused) = until_refused(&bench, FIRST, |number| format!("192.0.2.{number}"));
    assert!((4..=8).contains(&taken), "{taken}");
    assert_says_when_to_come_again(&refused);
    // The name that the first one gave itself last belongs to somebody who is not affected, nor is who comes from elsewhere.
    let (of_second, _) = until_refused(&bench, SECOND, |_| "127.0.0.1".to_owned());
    assert!((4..=8).contains(&of_second), "{of_second}");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    Client::coming_from(FIRST, bench.address()).post("/api/events", &click()).expect(202);
}

#[test]
fn behind_a_trusted_proxy_the_rate_is_that_of_who_it_names_and_nobody_else_is_believed() {
    let bench = started(&[("RATE_LIMIT", "4"), ("TRUSTED_PROXIES", "127.0.0.2")]);
    let (taken, refused) = until_refused(&bench, SECOND, |_| "192.0.2.1".to_owned());
    assert!((4..=8).contains(&taken), "{taken}");
    assert_says_when_to_come_again(&refused);
    // The next client of the same proxy has all of its own.
    let (of_next, _) = until_refused(&bench, SECOND, |_| "192.0.2.1, 192.0.2.9".to_owned());
    assert!((4..=8).contains(&of_next), "{of_next}");
    // Who is no proxy is itself, whomever it names: neither refused for them nor able to use up what is theirs.
    let (of_first, _) = until_refused(&bench, FIRST, |_| "192.0.2.7".to_owned());
    assert!((4..=8).contains(&of_first), "{of_first}");
    let (of_seven, _) = until_refused(&bench, SECOND, |_| "192.0.2.7".to_owned());
    assert!((4..=8).contains(&of_seven), "{of_seven}");
}

#[test]
fn each_right_has_its_keys_and_health_has_none() {
    let [write, read, admin] = ["write-key-0123456", "read-key-01234567", "admin-key-0123456"];
    let bench = started(&[("WRITE_KEYS", write), ("READ_KEYS", read), ("ADMIN_KEYS", admin), ("LISTEN", "0.0.0.0:0")]);
    let ask = |method: &str, path: &str, key: &str| {
        let headers = [JSON, ("X-Api-Key", key)];
        let headers = if key.is_empty() { &headers[..1] } else { &headers[..] };
        let body = if method == "POST" { click().to_string() } else { String::new() };
        bench.client().send(method, path, headers, body.as_bytes()).status
    };
    for (method, path, right, done) in [
        ("POST", "/api/events", write, 202),
        ("DELETE", "/api/search/recent/1", write, 204),
        ("GET", "/api/search/recent/1", read, 200),
        ("GET", KEYWORDS, read, 200),
        ("HEAD", "/api/statistics", read, 200),
        ("GET", "/metrics", read, 200),
        ("GET", "/api/export", admin, 200),
    ] {
        assert_eq!(ask(method, path, ""), 401, "{method} {path}");
        for key in [write, read, admin, "of-somebody-else-0"] {
            assert_eq!(ask(method, path, key), if key == right { done } else { 403 }, "{method} {path} {key}");
        }
    }
    assert_eq!(ask("GET", "/healthz/live", ""), 200);
    // A beacon cannot set headers; nothing but sending events takes a key from the query.
    assert_eq!(ask("POST", &format!("/api/events?key={write}"), ""), 202);
    assert_eq!(ask("POST", "/api/events?key=of-somebody-else-0", ""), 403);
    assert_eq!(ask("GET", &format!("{KEYWORDS}?key={read}"), ""), 401);
    let list = bench.client().send("GET", KEYWORDS, &[("X-Api-Key", read)], b"").expect(200);
    assert_eq!(list.header("cache-control"), Some("private, max-age=1, stale-while-revalidate=10"));
    assert!(!bench.log().contains("key-0"), "a key is in the log");
}
