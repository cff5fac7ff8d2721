//! The access log and request ids: what is told, what is never told, and that nobody pays for what is off.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, LazyLock};

use crate::http_support::*;
use event_tracker::http::{Config, Running};
use serde_json::{Value, json};

/// What this process logs, as JSON. One subscriber a process: tests find their lines by path.
static LOG: LazyLock<Arc<File>> = LazyLock::new(|| {
    let file = Arc::new(tempfile::tempfile().expect("a file"));
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(file.clone()).init();
    file
});

fn log() -> String {
    let mut bytes = vec![0; LOG.metadata().expect("a file").len() as usize];
    LOG.read_exact_at(&mut bytes, 0).expect("what is written stays");
    String::from_utf8(bytes).expect("text")
}

/// The lines of the access log whose path contains `word`, once there are so many.
fn told(word: &str, count: usize) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    wait_for(|| {
        let is_ours = |line: &Value| line["path"].as_str().is_some_and(|path| path.contains(word));
        found = log().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        found.retain(|line| line["target"] == "access" && is_ours(line));
        found.len() >= count
    });
    assert_eq!(found.len(), count, "{found:?}");
    found
}

fn logged(access_log: u64) -> Running {
    LazyLock::force(&LOG);
    let config = Config { access_log, private_paths: &["/people/"], ..Config::default() };
    start(config, |request, exchange| {
        let last = request.path.rsplit('/').next().unwrap_or_default();
        match last {
            "panics" => panic!("asked for"),
            "fails" => {
                hold_for(exchange, 5, false);
                ok(exchange, b"never");
            }
            "streams" => exchange.stream(streamed(b""), |stream| {
                (0..10).for_each(|_| stream.write(&[b'x'; 10_000]).expect("a reader"));
            }),
            _ => respond(exchange, last.parse().unwrap_or(200), &[], b"body"),
        }
    })
}

/// The answer to a request on a connection of its own.
fn answer_to(server: &Running, request: impl AsRef<[u8]>) -> Answered {
    ask(&mut connect(server), request)
}

#[test]
fn an_id_of_the_client_comes_back_on_every_answer() {
    let server = logged(0);
    let long = "x".repeat(128);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: ID\r\n\r\n", 200),
        ("GET /503 HTTP/1.1\r\nHost: h\r\nx-request-id:ID\r\n\r\n", 503),
        ("GET /fails HTTP/1.1\r\nHost: h\r\nX-Request-Id: ID\r\n\r\n", 503),
        ("GET /panics HTTP/1.1\r\nHost: h\r\nX-Request-Id: ID\r\n\r\n", 500),
        ("POST / HTTP/1.1\r\nHost: h\r\nX-Request-Id: ID\r\nContent-Length: 9999999\r\n\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: h\r\nX-Request-Id: ID\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    ] {
        for id in ["7", "a\"b\\c", long.as_str()] {
            let answer = answer_to(&server, request.replace("ID", id));
            assert_eq!((answer.status, answer.header("x-request-id")), (status, Some(id)), "{request}");
            assert_eq!(answer.all("x-request-id").count(), 1, "{request}");
            if status != 200 && status != 503 {
                serde_json::from_slice::<Value>(&answer.body).expect("JSON");
            }
        }
    }
    for wrong in ["a b", "\u{e9}", &"x".repeat(129), ""] {
        let answer = answer_to(&server, format!("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: {wrong}\r\n\r\n"));
        assert_eq!((answer.status, answer.header("x-request-id")), (200, None), "{wrong}");
    }
}

#[test]
fn an_id_is_made_for_an_error_of_ours_and_for_no_other_answer() {
    let server = logged(0);
    for (path, has_id) in [("/200", false), ("/404", false), ("/503", true), ("/fails", true), ("/panics", true)] {
        let answer = answer_to(&server, head_of(&format!("GET {path}")));
        assert_eq!(answer.header("x-request-id").is_some(), has_id, "{path}");
    }
    assert_eq!(answer_to(&server, "GET / HTTP/1.1\r\n\r\n").header("x-request-id"), None);
    let ids = [(); 2].map(|()| answer_to(&server, head_of("BREW /")).header("x-request-id").map(str::to_owned));
    assert!(ids[0].is_some() && ids[0] != ids[1], "{ids:?}");
}

#[test]
fn one_in_so_many_is_told_and_every_refusal() {
    let server = logged(10);
    let mut stream = connect(&server);
    get_all(&mut stream, &["/sampled?key=secret"; 100]);
    for line in told("/sampled", 10) {
        let told = ["method", "path", "status", "peer"].map(|field| &line[field]);
        assert_eq!(json!(told), json!(["GET", "/sampled", 200, "127.0.0.1"]));
        assert!(line["request_id"].as_str().is_some_and(|id| id.len() == 32) && line["us"].is_u64(), "{line}");
        assert!(line.get("refusal").is_none(), "{line}");
    }
    for _ in 0..15 {
        assert_eq!(get(&mut stream, "/refused/403").status, 403);
    }
    assert_eq!(told("/refused", 15).len(), 15);
    assert!(!log().contains("secret"));
}

#[test]
fn a_line_says_what_the_client_got() {
    let server = logged(1);
    let plain = answer_to(&server, "GET /plain/201 HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\n\r\n");
    assert_eq!(plain.header("x-request-id"), Some("mine"));
    let line = &told("/plain", 1)[0];
    assert_eq!((&line["status"], &line["request_id"]), (&201.into(), &"mine".into()));
    assert!(line["bytes"].as_u64().is_some_and(|bytes| (100..250).contains(&bytes)), "{line}");
    // What was held and failed, a panic, a broken body: as they were answered, found by the id in the answer.
    for (request, word, status) in [
        ("GET /held/fails HTTP/1.1\r\nHost: h\r\n\r\n", "/held", 503),
        ("GET /odd/panics HTTP/1.1\r\nHost: h\r\n\r\n", "/odd", 500),
        ("POST /large HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999\r\n\r\n", "/large", 413),
    ] {
        let answer = answer_to(&server, request);
        let line = &told(word, 1)[0];
        assert_eq!((answer.status, &line["status"]), (status, &status.into()));
        assert_eq!(line["request_id"].as_str(), answer.header("x-request-id"), "{line}");
    }
    assert_eq!(told("/large", 1)[0]["refusal"], "body_too_large");
    // A head that cannot be read has no path.
    let broken = answer_to(&server, "GET / HTTP/1.1\r\nX: y\r\n\r\n");
    let id = broken.header("x-request-id").expect("an id").to_owned();
    wait_for(|| log().contains(&id));
    let mut stream = sent(&server, b"GET /streams HTTP/1.0\r\n\r\n");
    stream.read_to_end(&mut Vec::new()).expect("all");
    assert!(told("/streams", 1)[0]["bytes"].as_u64().is_some_and(|bytes| (100_100..100_400).contains(&bytes)));
    answer_to(&server, head_of("GET /people/alice?q=x"));
    assert_eq!(told("/people", 1)[0]["path"], "/people/…");
}

#[test]
fn nothing_is_told_while_it_is_off() {
    let (off, on) = (logged(0), logged(1));
    for path in ["/quiet", "/quiet/403", "/quiet/503"] {
        answer_to(&off, head_of(&format!("GET {path}")));
    }
    answer_to(&on, head_of("GET /quiet/last"));
    assert_eq!(told("/quiet", 1)[0]["path"], "/quiet/last");
}
