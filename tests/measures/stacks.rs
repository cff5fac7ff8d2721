//! How deep the stacks of connections get for the requests that need most, on the real program, with and without TLS.
//!
//! A stack is memory that nobody has touched until a call reaches it, so the kernel knows how far each one was ever used:
//! the pages that are there (`/proc/PID/pagemap`). That is exact to a page, needs nothing of the program, and counts what a
//! library does as well. `cargo test --locked --test measures stacks -- --nocapture` prints the table; with `--release` that of the
//! program as it is shipped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::support::bench::Bench;
use crate::support::certificate::Files;
use crate::support::{encode, eventually};
use event_tracker::limits::{JSON_DEPTH_MAX, REQUEST_EVENTS_MAX, STACK_WORDS};
use rustls::StreamOwned;
use serde_json::{Value, json};

const STACK_BYTES: usize = STACK_WORDS * 8;
/// A thread's stack has a guard as well, and is larger.
const MAPPING_BYTES_MAX: usize = 1024 * 1024;
const PAGE_BYTES: usize = 4096;
/// The name of the one request that is answered for ever.
const STREAM: &str = "a live stream";
const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;

/// How many bytes of each coroutine's stack were ever used, by the address at which it begins.
fn depths(pid: i32) -> BTreeMap<usize, usize> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("the program runs");
    let pages = File::open(format!("/proc/{pid}/pagemap")).expect("our own process");
    let mut guard_end = 0;
    let mut found = BTreeMap::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next().expect("a range"), words.next().expect("a mode"));
        let (from, to) = range.split_once('-').expect("a range");
        let [from, to] = [from, to].map(|hex| usize::from_str_radix(hex, 16).expect("an address"));
        // What lies behind a guard page; a neighbour may have been merged into its upper end.
        if mode == "rw-p" && from == guard_end && (STACK_BYTES..=MAPPING_BYTES_MAX).contains(&(to - from)) {
            found.insert(from, depth(&pages, from, from + STACK_BYTES));
        }
        guard_end = if mode == "---p" && to - from == PAGE_BYTES { to } else { 0 };
    }
    found
}

/// From the end of a stack down to the lowest page that was touched. The very lowest holds a mark that is written when
/// the stack is made.
fn depth(pages: &File, from: usize, to: usize) -> usize {
    let is_there = |page: &usize| {
        let mut entry = [0; 8];
        pages.read_exact_at(&mut entry, (page / PAGE_BYTES * 8) as u64).expect("an entry");
        u64::from_le_bytes(entry) & PRESENT_OR_SWAPPED != 0
    };
    (from + PAGE_BYTES..to).step_by(PAGE_BYTES).find(is_there).map_or(0, |lowest| to - lowest)
}

fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{length}{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn post(path: &str, body: &Value) -> Vec<u8> {
    request("POST", path, "Content-Type: application/json\r\n", body.to_string().as_bytes())
}

fn get(path: &str) -> Vec<u8> {
    request("GET", path, "Accept-Encoding: gzip\r\n", b"")
}

fn event(number: usize) -> Value {
    let about = json!({"keyword": format!("oak desk {number}"), "resultCount": 3, "componentId": number + 1, "url": "/a?b",
        "postId": format!("p{number}"), "elementId": "e", "referrer": "https://example.org/"});
    let kind = ["SEARCH", "CLICK", "PAGE_VIEW", "LIKE", "UNLIKE"][number % 5];
    json!({"eventType": kind, "userId": number % 50, "metadata": about, "properties": {"a": [1, 2.5, null]}})
}

fn nested(levels: usize) -> Value {
    let mut event = event(1);
    event["properties"] = (2..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
    event
}

fn largest_head() -> Vec<u8> {
    let fields: String = (0..97).map(|at| format!("X-{at}: {}\r\n", "v".repeat(140))).collect();
    request("GET", "/healthz/live", &fields, b"")
}

/// Name, bytes and the status that shows that they came where they should.
fn requests() -> Vec<(&'static str, Vec<u8>, u16)> {
    let batch = json!((0..REQUEST_EVENTS_MAX).map(event).collect::<Vec<_>>());
    let posts: Vec<Value> = (0..3)
        .map(|at| json!({"postId": format!("p{at}"), "userId": 1, "content": "oak desk ".repeat(50), "hashtags": ["oak"]}))
        .collect();
    let whole = batch.to_string();
    let packed = |coding: &str, body: &[u8]| {
        let headers = format!("Content-Type: application/json\r\nContent-Encoding: {coding}\r\n");
        request("POST", "/api/events", &headers, body)
    };
    let mut all = vec![
        ("a trivial GET", get("/healthz/live"), 200),
        ("the largest head", largest_head(), 200),
        ("a broken head", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n".to_vec(), 400),
        ("an event", post("/api/events", &event(0)), 202),
        ("an event, waited for", post("/api/events?wait=true", &event(0)), 201),
        ("JSON as deep as it may be", post("/api/events", &nested(JSON_DEPTH_MAX)), 202),
        (
            "JSON far too deep",
            request("POST", "/api/events", "Content-Type: application/json\r\n", &[b'['; 100_000]),
            400,
        ),
        ("a batch of 1,000", post("/api/events", &batch), 202),
        ("the same, waited for", post("/api/events?wait=true", &batch), 201),
        ("the same in gzip", packed("gzip", &encode("gzip", whole.as_bytes())), 202),
        ("the same in zstd", packed("zstd", &zstd::encode_all(whole.as_bytes(), 19).expect("memory")), 202),
        ("a like", post("/api/posts/like", &json!({"userId": 1, "postId": "p1"})), 200),
    ];
    all.extend(posts.iter().map(|body| ("a post", post("/api/posts", body), 201)));
    let reads = [
        ("a search", "/api/search?keyword=oak&userId=1&limit=20"),
        ("recent searches", "/api/search/recent/1"),
        ("a list, gzip", "/api/statistics/popular/keywords?limit=100"),
        ("a ranking", "/api/statistics/rankings/keywords?limit=100"),
        ("a count", "/api/statistics?eventType=SEARCH&keyword=oak"),
        ("a time series", "/api/statistics/timeseries?eventType=SEARCH"),
        ("users", "/api/statistics/users"),
        ("dependencies", "/healthz/deps"),
        ("metrics", "/metrics"),
        ("an export", "/api/export"),
        (STREAM, "/api/statistics/stream"),
    ];
    all.extend(reads.map(|(name, path)| (name, get(path), 200)));
    all
}

/// How one asks: a stream over a fresh connection, which the server ends.
type Connect<'c> = &'c dyn Fn(SocketAddr) -> Box<dyn Stream>;

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a socket takes it");
    stream
}

/// Asks everything once, prints how deep each connection's stack was used, and returns the deepest.
fn deepest(bench: &mut Bench, how: &str, connect: Connect<'_>) -> usize {
    let (pid, address) = (bench.tracker().pid(), bench.address());
    let mut deepest = (0, "");
    // Kept: a stack that is free again would be the next connection's.
    let mut kept = Vec::new();
    for (name, bytes, status) in requests() {
        let before = depths(pid);
        let mut stream = connect(address);
        let _ = stream.write_all(&bytes);
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{name}: {error}"));
        if name == STREAM {
            // It never ends, and is written by a coroutine of its own: its first message is enough.
            let mut piece = [0; 4_096];
            while !String::from_utf8_lossy(&answer).contains("\ndata: ") {
                let length = stream.read(&mut piece).expect("a message");
                answer.extend_from_slice(&piece[..length]);
            }
        } else {
            let _ = stream.read_to_end(&mut answer);
        }
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {text}");
        let after = depths(pid);
        let changed = after.iter().filter(|(at, depth)| before.get(at) != Some(depth)).map(|(_, depth)| *depth);
        let used = changed.max().unwrap_or(0);
        eprintln!("{how}, {name}: {} KiB", used / 1024);
        deepest = deepest.max((used, name));
        kept.push(stream);
    }
    assert!(deepest.0 > PAGE_BYTES, "no stack was seen");
    eprintln!("{how}, deepest: {} of {} KiB, {}", deepest.0 / 1024, STACK_BYTES / 1024, deepest.1);
    deepest.0
}

/// Of an idle connection: its frames down to the wait, in a debug build.
const IDLE_STACK_BYTES_MAX: usize = 24 * 1024;

#[test]
fn gzip_leaves_no_stack_pages_behind_on_idle_connections() {
    let mut bench = Bench::on(None, None);
    bench.start();
    let pid = bench.tracker().pid();
    let batch = json!((0..REQUEST_EVENTS_MAX).map(event).collect::<Vec<_>>()).to_string();
    let batch = encode("gzip", batch.as_bytes());
    let mut senders: Vec<_> = (0..20).map(|_| bench.client()).collect();
    for sender in &mut senders {
        sender.send("POST", "/api/events", &[("Content-Encoding", "gzip")], &batch).expect(202);
    }
    let mut readers: Vec<_> = (0..20).map(|_| bench.client()).collect();
    eventually(Duration::from_secs(20), || {
        let path = "/api/statistics/popular/keywords?limit=100";
        let answer = readers[0].send("GET", path, &[("Accept-Encoding", "gzip")], b"").expect(200);
        answer.header("content-encoding").map(|_| ()).ok_or_else(|| "no list that is worth packing".to_owned())
    });
    for (number, reader) in readers.iter_mut().enumerate() {
        // Each list is packed once, so that each reader asks for another one.
        let path = format!("/api/statistics/popular/keywords?limit={}", 100 - number);
        let answer = reader.send("GET", &path, &[("Accept-Encoding", "gzip")], b"").expect(200);
        assert!(answer.header("content-encoding").is_some(), "{path}");
    }
    // Every stack of the program: those of connections, and those that are kept for the next ones.
    eventually(Duration::from_secs(10), || {
        let depths = depths(pid);
        let deepest = depths.values().max().copied().unwrap_or(0);
        let shown = format!("{} stacks, the deepest uses {} KiB", depths.len(), deepest / 1024);
        if depths.len() >= 40 && deepest <= IDLE_STACK_BYTES_MAX { Ok(()) } else { Err(shown) }
    });
}

#[test]
fn the_deepest_request_leaves_a_quarter_of_its_stack_untouched() {
    let mut plain = Bench::on(None, None);
    plain.start();
    let without = deepest(&mut plain, "plain", &|address| Box::new(tcp(address)));

    let files = Files::ecdsa();
    let mut secured = Bench::on(None, None);
    for (setting, path) in [("TLS_CERT", files.certificate()), ("TLS_KEY", files.key())] {
        secured.set(setting, path.to_str().expect("a path"));
    }
    secured.start();
    let with = deepest(&mut secured, "TLS", &|address| {
        Box::new(StreamOwned::new(files.session(rustls::DEFAULT_VERSIONS), tcp(address)))
    });
    assert!(without.max(with) <= STACK_BYTES / 4 * 3, "{without} and {with} of {STACK_BYTES} bytes");
}
