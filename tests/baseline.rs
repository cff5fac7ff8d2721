//! What may_minihttp does with bad bytes, alone and under the design card taken literally, and what the tracker does with
//! the same: why the card's HTTP server is a baseline here and no part of the program. The baselines are built from
//! perf/baselines, workspaces of their own.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::bench::{Bench, Ledger, Live};

const LIVE: &str = "GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
const PATIENCE: Duration = Duration::from_millis(700);

/// A server process that ends with its test.
struct Baseline {
    child: Child,
    address: SocketAddr,
    /// A path whose handler reads the body, and what it says to one that is no JSON.
    reads: &'static str,
    to_nonsense: &'static str,
    _stores: Option<Bench>,
}

impl Drop for Baseline {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Baseline {
    /// may_minihttp with trivial handlers.
    fn minihttp() -> Baseline {
        // An unoptimised one would be the slower baseline; `perf/http` measures this very program.
        let (child, address) = start("minihttp", "release", &[]);
        Baseline { child, address, reads: "/length", to_nonsense: "200", _stores: None }
    }

    /// The card taken literally, on stores of its own; `None`, with a line that says why, without PostgreSQL.
    fn card() -> Option<Baseline> {
        let stores = Bench::new(Ledger::Postgres, Live::Redis)?;
        let database = stores.database_url.clone().expect("PostgreSQL");
        let redis = stores.redis.as_ref().expect("Redis").url();
        // What it does with bytes does not depend on the optimiser, and this profile builds in half the time.
        let (child, address) = start("card", "debug", &[("DATABASE_URL", &database), ("REDIS_URL", &redis)]);
        Some(Baseline { child, address, reads: "/api/posts/like", to_nonsense: "400", _stores: Some(stores) })
    }
}

fn start(name: &str, profile: &str, environment: &[(&str, &str)]) -> (Child, SocketAddr) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = root.join("target/baselines");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--quiet", "--profile", if profile == "debug" { "dev" } else { profile }]);
    cargo.arg("--target-dir").arg(&target);
    cargo.arg("--manifest-path").arg(root.join(format!("perf/baselines/{name}/Cargo.toml")));
    assert!(cargo.status().expect("cargo runs").success());
    let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let mut command = Command::new(target.join(profile).join(format!("baseline-{name}")));
    command.arg(address.to_string()).envs(environment.iter().copied()).stderr(Stdio::null());
    let child = command.spawn().expect("it was built");
    support::eventually(Duration::from_secs(20), || TcpStream::connect(address).map(drop).map_err(|e| e.to_string()));
    (child, address)
}

fn tracker() -> Bench {
    let mut bench = Bench::on(None, None);
    bench.start();
    bench
}

/// What a server says to these bytes until it closes or is silent, and whether it closed.
fn tell(address: SocketAddr, bytes: &[u8]) -> (String, bool) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes it");
    // It may close before it has read everything.
    let _ = stream.write_all(bytes);
    read_all(&mut stream)
}

fn read_all(stream: &mut TcpStream) -> (String, bool) {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    let closed = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(n) => said.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break false,
            Err(_) => break true,
        }
    };
    (String::from_utf8_lossy(&said).into_owned(), closed)
}

/// The statuses of the answers in a text, in order.
fn statuses(said: &str) -> Vec<&str> {
    let codes = said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]);
    // The text of an error may name the version too.
    codes.filter(|code| code.bytes().all(|b| b.is_ascii_digit())).collect()
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{body}")
}

#[test]
fn each_defect_of_the_baseline_is_on_it_and_not_on_the_tracker() {
    let (baseline, bench) = (Baseline::minihttp(), tracker());
    each_shared_defect_is_on(&baseline, bench.address());

    // A body that no handler read becomes the next request.
    let hidden = post("/nowhere", &format!("Content-Length: {}", LIVE.len()), LIVE);
    let (theirs, _) = tell(baseline.address, hidden.as_bytes());
    let (said, closed) = tell(bench.address(), hidden.as_bytes());
    assert_eq!((statuses(&theirs), statuses(&said), closed), (vec!["404", "200"], vec!["404"], false));
}

#[test]
fn each_defect_of_the_card_is_on_it_and_not_on_the_tracker() {
    let Some(card) = Baseline::card() else { return };
    let Some(mut bench) = Bench::new(Ledger::Postgres, Live::Redis) else { return };
    bench.start();
    let event = json!({"eventType": "CLICK", "userId": 1, "metadata": {"componentId": 7}}).to_string();
    let whole = post("/api/events", &format!("Content-Length: {}", event.len()), &event);
    assert_eq!(statuses(&tell(card.address, whole.as_bytes()).0), ["201"], "what is well-formed it does take");
    each_shared_defect_is_on(&card, bench.address());

    // An event in chunks is an empty body, and its bytes the next request: nobody gets an answer.
    let chunked =
        post("/api/events", "Transfer-Encoding: chunked", &format!("{:x}\r\n{event}\r\n0\r\n\r\n", event.len()));
    assert_eq!(tell(card.address, chunked.as_bytes()), (String::new(), true));
    assert_eq!(statuses(&tell(bench.address(), chunked.as_bytes()).0), ["202"]);

    // Its handler reads a body before it looks at anything, so none becomes a request; and it reads it however long.
    let length = 4_000_000;
    let large = post("/nowhere", &format!("Content-Length: {length}"), &"x".repeat(length));
    assert_eq!(statuses(&tell(card.address, large.as_bytes()).0), ["404"], "after all of it was in memory");
    let (said, closed) = tell(bench.address(), large.as_bytes());
    assert_eq!((statuses(&said), closed), (vec!["413"], true), "after its head");
}

/// What comes with the library, whatever the handlers do.
fn each_shared_defect_is_on(baseline: &Baseline, ours: SocketAddr) {
    let both = |bytes: &str| (tell(baseline.address, bytes.as_bytes()), tell(ours, bytes.as_bytes()));

    // A head without bound is taken, and parsed again from its start at each read.
    let ((theirs, _), (said, closed)) =
        both(&format!("GET /healthz/live HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "y".repeat(300_000)));
    assert_eq!((statuses(&theirs), statuses(&said), closed), (vec!["200"], vec!["431"], true));

    // A length that is no number panics: no answer at all.
    for length in ["abc", "-1", ""] {
        let header = format!("Content-Length: {length}");
        let (theirs, theirs_closed) = tell(baseline.address, post(baseline.reads, &header, "").as_bytes());
        assert!(theirs.is_empty() && theirs_closed, "{length}: {theirs}");
        let (said, closed) = tell(ours, post("/api/events", &header, "").as_bytes());
        assert_eq!((statuses(&said), closed), (vec!["400"], true), "{length}: {said}");
    }

    // A chunked body is not seen, and what follows is taken for the next request.
    let chunked = "b\r\n{\"eventType\r\n0\r\n\r\n";
    let (theirs, closed) =
        tell(baseline.address, post(baseline.reads, "Transfer-Encoding: chunked", chunked).as_bytes());
    assert!(closed && theirs.is_empty(), "{theirs}");
    let (said, closed) = tell(ours, (post("/api/events", "Transfer-Encoding: chunked", chunked) + LIVE).as_bytes());
    assert_eq!((statuses(&said), closed), (vec!["400", "200"], false), "bad JSON, whole; the next request is answered");

    // Two lengths that disagree: a request smuggled past whoever believes the chunks. Its body is the rest of them.
    let hidden = post(baseline.reads, "Content-Length: 7", "");
    let chunk = format!("{:x}\r\n", hidden.len());
    let lengths = format!("Content-Length: {}\r\nTransfer-Encoding: chunked", chunk.len());
    let (theirs, _) =
        tell(baseline.address, post(baseline.reads, &lengths, &format!("{chunk}{hidden}\r\n0\r\n\r\n")).as_bytes());
    assert_eq!(statuses(&theirs), [baseline.to_nonsense; 2]);
    let hidden = post("/api/posts/like", "Content-Length: 7", "");
    let body = format!("{chunk}{hidden}\r\n0\r\n\r\n");
    let (said, closed) = tell(ours, post("/api/posts/like", &lengths, &body).as_bytes());
    assert_eq!((statuses(&said), closed), (vec!["400"], true));

    // A malformed request takes the answers of those before it along.
    let ((theirs, _), (said, closed)) = both(&format!("{LIVE}{LIVE}nonsense\r\n\r\n"));
    assert!(theirs.is_empty(), "{theirs}");
    assert_eq!((statuses(&said), closed), (vec!["200", "200", "400"], true));
}

#[test]
fn the_baselines_wait_for_a_head_for_ever_and_the_tracker_ten_seconds() {
    let bench = tracker();
    let baselines: Vec<Baseline> = [Some(Baseline::minihttp()), Baseline::card()].into_iter().flatten().collect();
    let begun = Instant::now();
    let begin = |address: SocketAddr| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(b"GET /healthz/live HTTP/1.1\r\nHost:").expect("it reads");
        stream.set_read_timeout(Some(Duration::from_secs(12))).expect("a socket takes it");
        stream
    };
    let theirs: Vec<TcpStream> = baselines.iter().map(|baseline| begin(baseline.address)).collect();
    let (said, closed) = read_all(&mut begin(bench.address()));
    assert_eq!((statuses(&said), closed), (vec!["408"], true));
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    for mut stream in theirs {
        stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket takes it");
        assert_eq!(read_all(&mut stream), (String::new(), false), "still open, still silent");
    }
}
