//! Who may ask: keys, origins of browsers, rates of addresses, proxies whose word counts.

use crate::support::bench::{Bench, SETTLE_WAIT};
use crate::support::client::{Answer, Client};
use crate::support::program::run;
use crate::support::{click, eventually_is, gunzip, wait_until};
use serde_json::json;

const KEYWORDS: &str = "/api/statistics/popular/keywords";
const SHOP: (&str, &str) = ("Origin", "https://shop.example");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

fn post(bench: &Bench, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = [&[JSON], headers].concat();
    bench.client().send("POST", "/api/events", &headers, body.as_bytes())
}

const OTHER: (&str, &str) = ("Origin", "https://shop.example.evil.example");

/// What a page of that origin may see: the origin that is allowed, and whether with credentials.
fn seen(answer: &Answer) -> (Option<&str>, Option<&str>) {
    (allowed(answer), answer.header("access-control-allow-credentials"))
}

#[test]
fn a_page_of_any_origin_may_send_events_and_reads_nothing_unless_it_is_listed() {
    for settings in [&[][..], &[("ALLOWED_ORIGINS", "https://shop.example,http://localhost:3000")]] {
        let bench = Bench::embedded(settings);
        for path in ["/api/events", "/api/users/events", "/api/events/batch", "/api/events/"] {
            for origin in ["https://shop.example", "https://other.example", "null"] {
                // What a beacon of a page brings along.
                let fetch = [("Cookie", "a=b"), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "cors")];
                let headers = [&[JSON, ("Origin", origin)], &fetch[..]].concat();
                let taken = bench.client().send("POST", path, &headers, click(1).to_string().as_bytes()).expect(202);
                assert_eq!(seen(&taken), (Some(origin), Some("true")), "{path} {origin}");
                assert_eq!(taken.header("vary"), Some("Origin"));
            }
        }
        let refused = post(&bench, &[SHOP], "{").expect(400);
        assert_eq!(seen(&refused), (Some("https://shop.example"), Some("true")), "the page may read why");
        assert_eq!(allowed(&post(&bench, &[], &click(1).to_string()).expect(202)), None, "not from another origin");
        assert_eq!(allowed(&bench.client().send("GET", KEYWORDS, &[OTHER], b"").expect(200)), None);
    }
    let open = Bench::embedded(&[]);
    assert_eq!(allowed(&open.client().send("GET", KEYWORDS, &[SHOP], b"").expect(200)), None);
}

#[test]
fn the_origins_that_are_listed_read_and_write_and_no_others() {
    let lists = "https://Shop.example:443, http://localhost:3000, https://*.shop.example, null, http://[::1]:3000, \
                 capacitor://localhost";
    let bench = Bench::embedded(&[("ALLOWED_ORIGINS", lists)]);
    let allowed = "https://shop.example http://localhost:3000 https://a.shop.example https://b.a.shop.example null \
                   http://[::1]:3000 capacitor://localhost";
    let others = "http://shop.example https://shop.example:8443 http://localhost:3001 https://.shop.example \
                  https://evilshop.example https://a.shop.example.evil.example https://evil.example/.shop.example \
                  https://evil.example:1.shop.example http://a.shop.example https://a.shop.example:1";
    for (origin, is_allowed) in yes_and_no(allowed, others).chain([("", false)]) {
        let headers = [JSON, ("Origin", origin)];
        let read = bench.client().send("GET", KEYWORDS, &headers, b"").expect(200);
        assert_eq!(seen(&read), (is_allowed.then_some(origin), None), "{origin}");
        assert!(read.all("vary").any(|value| value == "Origin"), "{origin}");
        let like = json!({"userId": 1, "postId": "p"}).to_string();
        let written = bench.client().send("POST", "/api/posts/like", &headers, like.as_bytes());
        assert_eq!(written.status == 403, !is_allowed, "{origin}: {}", written.text());
    }
    let every = Bench::embedded(&[("ALLOWED_ORIGINS", " https://shop.example , * ")]);
    let read = every.client().send("GET", KEYWORDS, &[OTHER], b"").expect(200);
    assert_eq!(seen(&read), (Some("*"), None));
}

#[test]
fn a_foreign_page_changes_nothing_but_by_sending_events() {
    let bench = Bench::embedded(&[("ALLOWED_ORIGINS", "https://shop.example")]);
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

fn preflight(bench: &Bench, path: &str, origin: &str, wanted: &str) -> Answer {
    let headers =
        [("Origin", origin), ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", wanted)];
    let headers = if wanted.is_empty() { &headers[..2] } else { &headers[..] };
    bench.client().send("OPTIONS", path, headers, b"").expect(204)
}

#[test]
fn a_preflight_is_answered_for_a_day_whatever_headers_it_asks_for() {
    let bench = Bench::embedded(&[("INGEST_KEYS", "ingest-key-012345"), ("ALLOWED_ORIGINS", "https://shop.example")]);
    for wanted in ["content-type", "baggage,sentry-trace,traceparent", "authorization, X-Anything-1"] {
        for origin in ["https://shop.example", "https://other.example", "null"] {
            let answer = preflight(&bench, "/api/events", origin, wanted);
            assert_eq!(seen(&answer), (Some(origin), Some("true")), "{origin}");
            // Two of them would be a list, which browsers refuse.
            assert_eq!(answer.all("access-control-allow-origin").count(), 1, "{:?}", answer.headers);
            assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
            assert_eq!(answer.header("access-control-allow-headers"), Some(wanted));
            assert_eq!(answer.header("access-control-max-age"), Some("86400"));
            let varies: Vec<&str> = answer.all("vary").collect();
            assert!(varies.contains(&"Origin") && varies.join(",").contains("Access-Control-Request-Headers"));
        }
    }
    let listed = preflight(&bench, "/api/posts", "https://shop.example", "traceparent");
    assert_eq!(listed.header("access-control-allow-headers"), Some("traceparent"));
    let other = preflight(&bench, "/api/posts", "https://other.example", "traceparent");
    assert_eq!((allowed(&other), other.header("access-control-allow-headers")), (None, None));
    assert_eq!(preflight(&bench, "/api/events", "null", "").header("access-control-allow-headers"), None);
    let read = preflight(&bench, KEYWORDS, "https://other.example", "");
    assert_eq!((allowed(&read), read.header("allow")), (None, Some("GET, HEAD")));
    // An OPTIONS that is no preflight.
    let plain = bench.client().send("OPTIONS", "/api/events", &[], b"").expect(204);
    assert_eq!((plain.header("allow"), allowed(&plain)), (Some("POST"), None));
}

#[test]
fn a_link_on_a_foreign_page_records_no_search() {
    let bench = Bench::embedded(&[("ALLOWED_ORIGINS", "https://shop.example")]);
    let search = |path: &str, headers: &[(&str, &str)]| bench.client().send("GET", path, headers, b"").status;
    let from = |site: &'static str| ("Sec-Fetch-Site", site);
    for path in ["/api/search?keyword=oak", "/api/search/?keyword=oak"] {
        for headers in [&[from("cross-site")][..], &[from("cross-site"), OTHER], &[from("Cross-Site")]] {
            assert_eq!(search(path, headers), 403, "{path} {headers:?}");
        }
    }
    assert_eq!(search("/api/search?keyword=oak&record=maybe", &[]), 400);
    assert_eq!(search("/api/search?keyword=oak&rec%6Frd=true&record=false", &[from("cross-site")]), 403);
    assert_eq!(search("/api/search?keyword=oak&record=false", &[from("cross-site")]), 200, "this one records nothing");
    let path = "/api/search?keyword=elm";
    assert_eq!(search(path, &[from("cross-site"), SHOP]), 200);
    for site in ["same-origin", "same-site", "none"] {
        assert_eq!(search(path, &[from(site)]), 200, "{site}");
    }
    assert_eq!(search(path, &[]), 200);
    assert_eq!(search(KEYWORDS, &[from("cross-site")]), 200, "this one records nothing");
    let searches = |keyword| bench.number(&format!("SELECT count(*) FROM events WHERE keyword = '{keyword}'"));
    eventually_is(SETTLE_WAIT, &5, || searches("elm"));
    assert_eq!(searches("oak"), 0);
}

const FIRST: [u8; 4] = [127, 0, 0, 1];
const SECOND: [u8; 4] = [127, 0, 0, 2];

/// Sends events until one is refused, from an address of this machine: a rate's worth is taken, and perhaps what it
/// regains meanwhile. The refusal says when to come again.
fn uses_up_its_rate(bench: &Bench, from: [u8; 4], forwarded: impl Fn(usize) -> String) {
    let mut client = Client::coming_from(from, bench.address());
    for taken in 0..50 {
        let headers = [JSON, ("X-Forwarded-For", &forwarded(taken))];
        let answer = client.send("POST", "/api/events", &headers, click(1).to_string().as_bytes());
        if answer.status != 202 {
            assert!((4..=8).contains(&taken), "{taken}");
            let told = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"];
            assert_eq!(told.map(|name| answer.header(name)), [Some("4"), Some("0"), Some("1"), Some("1")]);
            return assert_eq!(answer.expect(429).json()["error"], "rate_limited");
        }
        // A request before, it was told so.
        assert_eq!(answer.header("x-ratelimit-limit"), Some("4"));
        let remaining: usize = answer.header("x-ratelimit-remaining").expect("told").parse().expect("a number");
        assert!(remaining <= 3 && (taken > 0 || remaining == 3), "{remaining} after {taken}");
    }
    panic!("50 requests at once and none was refused");
}

#[test]
fn each_address_has_its_own_rate_whatever_it_says_of_itself() {
    let bench = Bench::embedded(&[("RATE_LIMIT", "4")]);
    // Another name with each request changes nothing: nobody said that this end may be believed.
    uses_up_its_rate(&bench, FIRST, |number| format!("192.0.2.{number}"));
    // The name that the first one gave itself last belongs to somebody who is not affected, nor is who comes from elsewhere.
    uses_up_its_rate(&bench, SECOND, |_| "127.0.0.1".to_owned());
    let mut client = Client::coming_from(FIRST, bench.address());
    eventually_is(std::time::Duration::from_secs(5), &202, || client.post("/api/events", &click(1)).status);
}

#[test]
fn behind_a_trusted_proxy_the_rate_is_that_of_who_it_names_and_nobody_else_is_believed() {
    let bench = Bench::embedded(&[("RATE_LIMIT", "4"), ("TRUSTED_PROXIES", "127.0.0.2, 10.0.0.1")]);
    uses_up_its_rate(&bench, SECOND, |_| "192.0.2.1".to_owned());
    // The next client of the same proxy has all of its own.
    uses_up_its_rate(&bench, SECOND, |_| "192.0.2.1, 192.0.2.9".to_owned());
    // Who is no proxy is itself, whomever it names: neither refused for them nor able to use up what is theirs.
    uses_up_its_rate(&bench, FIRST, |_| "192.0.2.7".to_owned());
    uses_up_its_rate(&bench, SECOND, |_| "192.0.2.7".to_owned());
    // A client's own claim changes nothing in front of a chain of proxies.
    uses_up_its_rate(&bench, SECOND, |number| format!("198.51.100.{number}, 192.0.2.3, 10.0.0.1"));
    // Health is never refused.
    let mut client = Client::coming_from(SECOND, bench.address());
    for _ in 0..20 {
        client.send("GET", "/healthz/ready", &[("X-Forwarded-For", "192.0.2.1")], b"").expect(200);
    }
}

#[test]
fn a_client_of_ipv6_is_its_network() {
    let bench = Bench::embedded(&[("RATE_LIMIT", "4"), ("TRUSTED_PROXIES", "127.0.0.1")]);
    let address = |number: usize| format!("2001:db8:0:7:{number:x}::{number:x}");
    uses_up_its_rate(&bench, FIRST, address);
    uses_up_its_rate(&bench, FIRST, |_| "[2001:db8:0:8::1]:99".to_owned());
}

const INGEST: &str = "ingest-key-012345";
const WRITE: &str = "write-key-0123456";
const READ: &str = "read-key-01234567";
const ADMIN: &str = "admin-key-0123456";
const KEYS: [(&str, &str); 4] =
    [("INGEST_KEYS", INGEST), ("WRITE_KEYS", WRITE), ("READ_KEYS", READ), ("ADMIN_KEYS", ADMIN)];

/// Keys, and the routes that take these and no others.
const ROUTES: [(&[&str], &str); 5] = [
    (&[INGEST, WRITE, ADMIN], "POST /api/events|POST /api/users/events|POST /api/events/batch|POST /collect"),
    (
        &[WRITE, ADMIN],
        "POST /api/posts|POST /api/posts/like|PUT /api/posts/p/like?userId=1|DELETE /api/posts/p/like?userId=1|\
         DELETE /api/posts/other|DELETE /api/search/recent/1",
    ),
    (
        &[READ, ADMIN],
        // GET of the stream never ends.
        "GET /api/posts/p|GET /api/posts/p/like|GET /api/search?keyword=oak|GET /api/search/recent/1|\
         GET /api/statistics|GET /api/statistics/users?window=1h|GET /api/statistics/timeseries?interval=hour|\
         GET /api/statistics/popular/keywords|GET /api/statistics/popular/posts|GET /api/statistics/popular/pages|\
         GET /api/statistics/popular/components|GET /api/statistics/rankings/keywords|\
         GET /api/statistics/rankings/posts|GET /api/statistics/rankings/pages|\
         GET /api/statistics/rankings/components|HEAD /api/statistics/stream|GET /metrics",
    ),
    (&[ADMIN], "GET /api/export|DELETE /api/users/9"),
    (&["", "of-somebody-else-0", INGEST, WRITE, READ, ADMIN], "GET /healthz/live|GET /healthz/ready|GET /healthz/deps"),
];

/// What a route gets that needs a body.
fn body_of(method: &str, path: &str) -> String {
    match path {
        "/api/posts" => json!({"postId": "p", "userId": 1, "content": "oak"}).to_string(),
        "/api/posts/like" => json!({"postId": "p", "userId": 1}).to_string(),
        _ if method == "POST" => click(1).to_string(),
        _ => String::new(),
    }
}

#[test]
fn every_route_takes_the_keys_of_its_right_and_no_others() {
    let mut settings = KEYS.to_vec();
    settings.extend([("LISTEN", "0.0.0.0:0"), ("EVENTS_ALIAS", "/collect")]);
    let bench = Bench::embedded(&settings);
    let routes = ROUTES.iter().flat_map(|(takes, routes)| routes.split('|').map(move |route| (takes, route)));
    for (takes, route) in routes {
        let (method, path) = route.split_once(' ').expect("two words");
        let slashed = path.split_once('?').map_or(format!("{path}/"), |(path, query)| format!("{path}/?{query}"));
        for path in [path, &slashed] {
            let body = body_of(method, path.trim_end_matches('/'));
            for key in ["", "of-somebody-else-0", INGEST, WRITE, READ, ADMIN] {
                let headers = [JSON, ("X-Api-Key", key)];
                let headers = if key.is_empty() { &headers[..1] } else { &headers[..] };
                let status = bench.client().send(method, path, headers, body.as_bytes()).status;
                let expected = match key {
                    _ if takes.contains(&key) => 200..300,
                    "" => 401..402,
                    _ => 403..404,
                };
                assert!(expected.contains(&status), "{method} {path} with `{key}`: {status}");
            }
        }
    }
    // A key for reading records a search: twice for each key that may, the second with a slash at the end.
    eventually_is(SETTLE_WAIT, &4, || bench.number("SELECT count(*) FROM events WHERE keyword = 'oak'"));
    let list = bench.client().send("GET", KEYWORDS, &[("X-Api-Key", READ)], b"").expect(200);
    assert_eq!(list.header("cache-control"), Some("private, max-age=1, stale-while-revalidate=10"));
    assert!(!bench.log().contains("-key-0"), "a key is in the log");
}

#[test]
fn a_right_is_open_as_long_as_it_has_no_keys() {
    // What is set, then what sending an event, a like, a read and an export answer without a key.
    for (set, expected) in [
        (&[][..], [202, 200, 200, 200]),
        (&[0][..], [401, 200, 200, 200]),
        (&[1], [401, 401, 200, 200]),
        (&[0, 1], [401, 401, 200, 200]),
        (&[2], [202, 200, 401, 200]),
        (&[3], [202, 200, 200, 401]),
    ] {
        let settings: Vec<(&str, &str)> = set.iter().map(|at: &usize| KEYS[*at]).collect();
        let bench = Bench::embedded(&settings);
        let send = |method: &str, path: &str| {
            bench.client().send(method, path, &[JSON], body_of(method, path).as_bytes()).status
        };
        let asked = [("POST", "/api/events"), ("POST", "/api/posts/like"), ("GET", KEYWORDS), ("GET", "/api/export")];
        assert_eq!(asked.map(|(method, path)| send(method, path)), expected, "{settings:?}");
    }
    // Beyond loopback each right needs a key; one for sending events alone leaves posts open.
    let mut bench = Bench::on(None, None);
    [KEYS[0], KEYS[2], KEYS[3], ("LISTEN", "0.0.0.0:0")].iter().for_each(|(name, value)| bench.set(name, value));
    bench.run(&[]).says(2, &["WRITE_KEYS"]);
}

#[test]
fn a_key_of_pages_that_gives_another_right_is_warned_of() {
    for (name, _) in &KEYS[1..] {
        let mut command = Bench::on(None, None).command();
        let said = run(command.envs([("INGEST_KEYS", INGEST), (name, INGEST)]).args(["check", "--json"])).out;
        assert!(said.contains(&format!("a key of INGEST_KEYS is in {name}, too")) && !said.contains(INGEST), "{said}");
    }
}

#[test]
fn keys_come_in_lists_and_from_files_too_and_none_is_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::on(None, None);
    bench.set("LOG", "trace");
    bench.set("ADMIN_KEYS", "first-key-of-admins, second-key-of-admins");
    for (name, key) in KEYS {
        let file = directory.path().join(name);
        std::fs::write(&file, format!("another-key-of-{name}\n{key}\n")).expect("writes");
        bench.set(&format!("{name}_FILE"), file.to_str().expect("a path"));
    }
    bench.start();
    let send = |method: &str, path: &str, key: &str| {
        let headers = [JSON, ("X-Api-Key", key)];
        bench.client().send(method, path, &headers, body_of(method, path).as_bytes())
    };
    for (method, path, key, status) in [
        ("POST", "/api/events", INGEST, 202),
        ("POST", "/api/events", "another-key-of-INGEST_KEYS", 202),
        ("POST", "/api/posts/like", WRITE, 200),
        ("POST", "/api/posts/like", INGEST, 403),
        ("GET", KEYWORDS, READ, 200),
        ("GET", "/api/export", ADMIN, 200),
        ("GET", "/api/export", "first-key-of-admins", 200),
        ("GET", "/api/export", "second-key-of-admins", 200),
        ("GET", "/api/export", "second-key-of-admin", 403),
    ] {
        assert_eq!(send(method, path, key).status, status, "{method} {path} {key}");
    }
    assert_eq!(send("GET", "/api/export", "").expect(401).header("www-authenticate"), Some("Bearer"));
    let shown = bench.log() + &bench.run(&["serve", "--help"]).printed();
    assert!(!shown.contains("-key-"), "{shown}");
    for (name, value) in [("ADMIN_KEYS", "tooshort"), ("ADMIN_KEYS", ","), ("ADMIN_KEYS_FILE", "/dev/null")] {
        let ended = run(bench.command().env(name, value));
        ended.says(2, &[name]);
        assert!(!ended.err.contains("tooshort"), "{}", ended.err);
    }
}

#[test]
fn a_key_comes_in_three_headers_and_events_take_it_from_the_query() {
    let odd = "odd+key/with=%26&#;";
    let bench = Bench::embedded(&[KEYS[0], KEYS[2], ("WRITE_KEYS", odd)]);
    let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
        let headers = [&[JSON], headers].concat();
        bench.client().send(method, path, &headers, body_of(method, path).as_bytes()).status
    };
    let bearer = format!("Bearer {READ}");
    // `read-key-01234567:`, the same with a password, without a colon, without padding; then a user of a proxy.
    let basic = ["cmVhZC1rZXktMDEyMzQ1Njc6", "cmVhZC1rZXktMDEyMzQ1Njc6YTpi", "cmVhZC1rZXktMDEyMzQ1Njc="];
    for headers in [
        &[("Authorization", bearer.as_str())][..],
        &[("authorization", &format!("BEARER  {READ} "))],
        &[("X-Api-Key", READ)],
        &[("Authorization", &format!("Basic {}", basic[0]))],
        &[("Authorization", &format!("basic {}", basic[1]))],
        &[("Authorization", &format!("Basic {}", basic[2]))],
        &[("Authorization", &format!("Basic {}", basic[2].trim_end_matches('=')))],
        &[("Authorization", "Basic dXNlcjpzZWNyZXQ="), ("X-Api-Key", READ)],
        &[("Authorization", &bearer), ("X-Api-Key", "of-somebody-else-0")],
    ] {
        assert_eq!(ask("GET", KEYWORDS, headers), 200, "{headers:?}");
    }
    for none in [READ, "Bearer", "Bearer ", "Basic :::", "Basic Og==", "Digest username=\"x\""] {
        assert_eq!(ask("GET", KEYWORDS, &[("Authorization", none)]), 401, "{none}");
    }
    assert_eq!([ask("GET", KEYWORDS, &[]), ask("GET", KEYWORDS, &[("X-Api-Key", "")])], [401; 2]);
    for other in ["Basic dXNlcjpzZWNyZXQ=", "Bearer of-somebody-else-0"] {
        assert_eq!(ask("GET", KEYWORDS, &[("Authorization", other)]), 403, "{other}");
    }
    for (method, path, status) in [
        ("POST", format!("/api/events?key={INGEST}"), 202),
        ("POST", format!("/api/events/?wait=true&key={INGEST}"), 201),
        ("POST", "/api/events?key=odd%2Bkey%2Fwith%3D%2526%26%23%3B".to_owned(), 202),
        ("POST", "/api/events?key=of-somebody-else-0".to_owned(), 403),
        ("POST", "/api/events?key=".to_owned(), 401),
        ("POST", format!("/api/posts/like?key={odd}").replace(['#', '&', '+'], ""), 401),
        ("GET", format!("{KEYWORDS}?key={READ}"), 401),
    ] {
        assert_eq!(ask(method, &path, &[]), status, "{method} {path}");
    }
}

/// An answer to bytes that the test writes itself.
fn raw(bench: &Bench, request: &str) -> Answer {
    let mut client = bench.client();
    client.write(request.as_bytes()).expect("writes");
    client.read_answer(request.starts_with("HEAD ")).unwrap_or_else(|error| panic!("{request}: {error}"))
}

fn with_host(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// Hosts that are served while the check is on, and others.
const SERVED: &str = "localhost LocalHost:8080 localhost. a.localhost a.b.localhost:1 127.0.0.1 127.0.0.1:8080 127.0.0.1. \
    127.255.1.2 [::1] [::1]:8080 [0:0:0:0:0:0:0:1]";
const FOREIGN: &str = "evil.example evil.example:8080 localhost.evil.example evillocalhost .localhost \
    127.0.0.1.evil.example 128.0.0.1 127.0.0.256 0.0.0.0 [::2] [::] %6cocalhost";

/// The words of both lists, each with whether it is of the first.
fn yes_and_no(yes: &'static str, no: &'static str) -> impl Iterator<Item = (&'static str, bool)> {
    let no = no.split_whitespace().map(|word| (word, false));
    yes.split_whitespace().map(|word| (word, true)).chain(no)
}

#[test]
fn a_foreign_host_is_served_nothing_while_a_right_is_open_on_loopback() {
    let bench = Bench::embedded(&[("WRITE_KEYS", WRITE), ("READ_KEYS", READ), ("INGEST_KEYS", INGEST)]);
    for (host, is_served) in yes_and_no(SERVED, FOREIGN) {
        let answer = raw(&bench, &with_host("/api/export", host));
        assert_eq!(answer.status, if is_served { 200 } else { 421 }, "{host}");
        if !is_served {
            assert_eq!(answer.json()["error"], "misdirected");
            assert!(answer.text().contains("ALLOWED_HOSTS"), "{}", answer.text());
            assert_eq!(answer.header("connection"), None, "its framing is known");
        }
    }
    for (request, status) in [
        ("GET http://evil.example/api/export HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
        ("GET http://evil.example:80/api/export HTTP/1.1\r\nHost: evil.example:80\r\n\r\n", 421),
        ("GET http://localhost/api/export HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ("GET http://localhost:8080/api/export HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET /api/export HTTP/1.0\r\n\r\n", 200),
        ("GET /api/export HTTP/1.0\r\nHost: evil.example\r\n\r\n", 421),
        ("GET http://evil.example/api/export HTTP/1.0\r\n\r\n", 421),
        ("OPTIONS * HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ("GET /nowhere HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ("GET /healthz/live HTTP/1.1\r\nHost: evil.example\r\n\r\n", 200),
        ("GET /healthz/ready/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 200),
        ("GET http://evil.example/healthz/live HTTP/1.1\r\nHost: evil.example\r\n\r\n", 200),
        ("GET /healthzz HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
    ] {
        assert_eq!(raw(&bench, request).status, status, "{request}");
    }
    // The attack itself: a page whose name was bound to 127.0.0.1 erases a person.
    let erase = "DELETE /api/users/1 HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n";
    assert_eq!(raw(&bench, erase).status, 421);
}

#[test]
fn the_hosts_that_are_allowed_are_served_beside_this_machine() {
    let names = "Events.Example.org, *.example.net, 192.0.2.7, [2001:db8::7], 2001:db8::8";
    let allowing = Bench::embedded(&[("ALLOWED_HOSTS", names)]);
    let served = "events.example.org EVENTS.example.org:443 events.example.org. a.example.net 192.0.2.7:1 [2001:db8::7] \
                  [2001:DB8:0:0::8]:80 localhost 127.0.0.1";
    let foreign = "example.org a.events.example.org example.net evilexample.net 192.0.2.8";
    for (host, is_served) in yes_and_no(served, foreign) {
        let status = raw(&allowing, &with_host("/api/export", host)).status;
        assert_eq!(status, if is_served { 200 } else { 421 }, "{host}");
    }
    // With a key for every right a foreign page has none; beyond loopback a server has many names.
    let outside = [("LISTEN", "0.0.0.0:0"), ("INSECURE_OPEN", "true")];
    for (settings, host, status) in [
        (&[("ALLOWED_HOSTS", "*")][..], "evil.example", 200),
        (&KEYS, "evil.example", 401),
        (&outside, "tracker.internal", 200),
        (&[&outside[..], &[("ALLOWED_HOSTS", "localhost")]].concat(), "evil.example", 421),
    ] {
        let bench = Bench::embedded(settings);
        assert_eq!(raw(&bench, &with_host("/api/export", host)).status, status, "{settings:?}");
    }
}

#[test]
fn a_trailing_slash_changes_nothing_and_ids_keep_theirs() {
    let (bench, mut client) = Bench::with_client(&[]);
    let mut ask = |method: &str, path: &str, body: &str| client.send(method, path, &[JSON], body.as_bytes());
    ask("POST", "/api/posts/", r#"{"postId":"p1","userId":1,"content":"oak"}"#).expect(201);
    assert_eq!(ask("GET", "/api/posts/p1/", "").expect(200).json()["postId"], "p1");
    ask("PUT", "/api/posts/p1/like/?userId=7", "").expect(200);
    assert_eq!(ask("GET", "/api/posts/p1/like/", "").expect(200).json()["likeCount"], 1);
    ask("POST", "/api/posts/like/", r#"{"postId":"p2","userId":1}"#).expect(200);
    // An id may hold a slash of its own, encoded.
    ask("POST", "/api/posts", r#"{"postId":"a/","userId":1,"content":"elm"}"#).expect(201);
    for path in ["/api/posts/a%2F", "/api/posts/a%2F/", "/api/posts/a%2f"] {
        assert_eq!(ask("GET", path, "").expect(200).json()["postId"], "a/", "{path}");
    }
    ask("GET", "/api/posts/a", "").expect(404);
    for user in ["u", "u/"] {
        let body = format!(r#"{{"eventType":"SEARCH","userId":"{user}","metadata":{{"keyword":"of {user}"}}}}"#);
        ask("POST", "/api/events/?wait=true", &body).expect(201);
    }
    bench.settle();
    for (path, user) in [("u", "u"), ("u/", "u"), ("u%2F", "u/"), ("u%2F/", "u/")] {
        let answer = ask("GET", &format!("/api/search/recent/{path}"), "").expect(200).json();
        assert_eq!((&answer["userId"], &answer["keywords"]), (&json!(user), &json!([format!("of {user}")])), "{path}");
    }
    for path in "/healthz/live/ /healthz/ready/ /metrics/ /api/statistics/ /api/statistics/popular/keywords/".split(' ')
    {
        ask("GET", path, "").expect(200);
    }
    // One slash, and no more: half a path erases no person.
    let get = "/ // /api/statistics// /api/posts/ /api/posts/p1// /api/posts//like /api/search/recent/ \
               /api/search/recent/u// /api/search/recent/u/v";
    let delete = "/api/search/recent/u// /api/users/ /api/users/u// /api/users/u/v";
    for (method, path) in get.split(' ').map(|path| ("GET", path)).chain(delete.split(' ').map(|path| ("DELETE", path)))
    {
        let status = ask(method, path, "").status;
        assert!(matches!(status, 404 | 405), "{method} {path}: {status}");
    }
    for path in ["/api/search/recent//", "/api/users//"] {
        assert_eq!(ask("DELETE", path, "").expect(400).json()["status"], 400);
    }
}

#[test]
fn every_json_answer_ends_with_a_newline_and_no_answer_is_sniffed() {
    let bench = Bench::embedded(&[("READ_KEYS", READ)]);
    let gzip = ("Accept-Encoding", "gzip");
    let key = ("X-Api-Key", READ);
    let is_packed = |answer: &Answer| answer.header("content-encoding") == Some("gzip");
    for at in 0..60 {
        let body = json!({"eventType": "SEARCH", "userId": 1, "metadata": {"keyword": format!("keyword {at}")}});
        post(&bench, &[], &body.to_string()).expect(202);
    }
    for (method, path, headers, body, status) in [
        ("POST", "/api/events", &[][..], click(1).to_string(), 202),
        ("POST", "/api/events?wait=true", &[], click(1).to_string(), 201),
        ("POST", "/api/events", &[], "[{}]".to_owned(), 400),
        ("POST", "/api/events", &[], "{".to_owned(), 400),
        ("POST", "/api/posts/like", &[], json!({"postId": "p", "userId": 1}).to_string(), 200),
        ("GET", KEYWORDS, &[], String::new(), 401),
        ("GET", KEYWORDS, &[key], String::new(), 200),
        ("GET", KEYWORDS, &[key, gzip], String::new(), 200),
        ("HEAD", KEYWORDS, &[key], String::new(), 200),
        ("GET", "/api/search?keyword=oak", &[key], String::new(), 200),
        ("GET", "/api/search/recent/1", &[key], String::new(), 200),
        ("GET", "/api/posts/p", &[key], String::new(), 404),
        ("GET", "/nowhere", &[], String::new(), 404),
        ("PUT", "/metrics", &[], String::new(), 405),
        ("GET", "/healthz/live", &[], String::new(), 200),
        ("GET", "/healthz/ready", &[], String::new(), 200),
        ("GET", "/healthz/deps", &[], String::new(), 200),
        ("BREW", "/", &[], String::new(), 501),
        ("GET", "/metrics", &[key], String::new(), 200),
        ("GET", "/api/export", &[], String::new(), 200),
        ("HEAD", "/api/statistics/stream", &[key], String::new(), 200),
        ("OPTIONS", "/api/events", &[], String::new(), 204),
        ("DELETE", "/api/search/recent/1", &[], String::new(), 204),
    ] {
        let headers = [&[JSON], headers].concat();
        let answer = bench.client().send(method, path, &headers, body.as_bytes()).expect(status);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{method} {path}");
        let is_json = answer.header("content-type") == Some("application/json");
        if is_json && method != "HEAD" {
            let text = if is_packed(&answer) { gunzip(&answer.body) } else { answer.body };
            assert!(text.ends_with(b"}\n"), "{method} {path}: {:?}", String::from_utf8_lossy(&text));
        }
    }
    let path = format!("{KEYWORDS}?limit=100");
    let list = || bench.client().send("GET", &path, &[key, gzip], b"").expect(200);
    // Once the live store has them all.
    wait_until(SETTLE_WAIT, list, is_packed);
    let packed = list();
    assert!(gunzip(&packed.body).ends_with(b"}\n"));
    let known = packed.header("etag").expect("an ETag").to_owned();
    let same = bench.client().send("GET", &path, &[key, ("If-None-Match", &known)], b"").expect(304);
    assert_eq!(same.header("x-content-type-options"), Some("nosniff"));
    let [whole, head] = ["GET", "HEAD"].map(|method| bench.client().send(method, KEYWORDS, &[key], b"").expect(200));
    assert_eq!(head.header("content-length"), Some(whole.body.len().to_string().as_str()));
}

#[test]
fn the_server_itself_has_options_and_no_tunnels() {
    let bench = Bench::embedded(&[]);
    let all = "GET, HEAD, POST, PUT, DELETE, OPTIONS";
    for target in ["*", "http://localhost", "http://localhost:8080"] {
        let answer = raw(&bench, &format!("OPTIONS {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!((answer.status, answer.header("allow")), (204, Some(all)), "{target}");
    }
    for target in ["localhost:443", "/api/events", "evil.example:443", "[::1]:1"] {
        let answer = raw(&bench, &format!("CONNECT {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!((answer.status, answer.header("allow")), (405, Some(all)), "{target}");
        assert_eq!(answer.header("connection"), Some("close"), "{target}");
    }
}
