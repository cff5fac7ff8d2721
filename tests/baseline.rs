//! What may_minihttp does with bad bytes, and what the tracker does with the same: why the design card's HTTP server is a
//! baseline here and no part of the program. The baseline is built from perf/baselines, a workspace of its own.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::bench::Bench;

const LIVE: &str = "GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n";
const PATIENCE: Duration = Duration::from_millis(700);

/// A server process that ends with its test.
struct Baseline {
    child: Child,
    address: SocketAddr,
}

impl Drop for Baseline {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Baseline {
    fn start() -> Baseline {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = root.join("target/baselines");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--quiet", "--target-dir"])
            .arg(&target)
            .arg("--manifest-path")
            .arg(root.join("perf/baselines/minihttp/Cargo.toml"))
            .status();
        assert!(built.expect("cargo runs").success());
        let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let mut command = Command::new(target.join("release/baseline-minihttp"));
        let child = command.arg(address.to_string()).stderr(Stdio::null()).spawn().expect("it was built");
        let baseline = Baseline { child, address };
        support::eventually(Duration::from_secs(10), || {
            TcpStream::connect(baseline.address).map(drop).map_err(|e| e.to_string())
        });
        baseline
    }
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
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{body}")
}

#[test]
fn each_defect_of_the_baseline_is_on_it_and_not_on_the_tracker() {
    let baseline = Baseline::start();
    let mut bench = Bench::on(None, None);
    bench.start();
    let ours = bench.address();
    let both = |bytes: &str| (tell(baseline.address, bytes.as_bytes()), tell(ours, bytes.as_bytes()));

    // A head without bound is taken, and parsed again from its start at each read.
    let ((theirs, _), (said, closed)) =
        both(&format!("GET /healthz/live HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(300_000)));
    assert_eq!((statuses(&theirs), statuses(&said), closed), (vec!["200"], vec!["431"], true));

    // A length that is no number panics: no answer at all.
    for length in ["abc", "-1", ""] {
        let header = format!("Content-Length: {length}");
        let (theirs, theirs_closed) = tell(baseline.address, post("/length", &header, "").as_bytes());
        assert!(theirs.is_empty() && theirs_closed, "{length}: {theirs}");
        let (said, closed) = tell(ours, post("/api/events", &header, "").as_bytes());
        assert_eq!((statuses(&said), closed), (vec!["400"], true), "{length}: {said}");
    }

    // A chunked body is not seen, and what follows is taken for the next request.
    let chunked = "b\r\n{\"eventType\r\n0\r\n\r\n";
    let (theirs, closed) = tell(baseline.address, post("/length", "Transfer-Encoding: chunked", chunked).as_bytes());
    assert!(closed && !theirs.contains("\r\n\r\n11"), "{theirs}");
    let (said, closed) = tell(ours, (post("/api/events", "Transfer-Encoding: chunked", chunked) + LIVE).as_bytes());
    assert_eq!((statuses(&said), closed), (vec!["400", "200"], false), "bad JSON, whole; the next request is answered");

    // Two lengths that disagree, the door to request smuggling: one of them is believed.
    let both_lengths = "Content-Length: 5\r\nTransfer-Encoding: chunked";
    let (theirs, _) = tell(baseline.address, post("/length", both_lengths, "0\r\n\r\n").as_bytes());
    assert_eq!(statuses(&theirs), ["200"]);
    let (said, closed) = tell(ours, post("/api/events", both_lengths, "0\r\n\r\n").as_bytes());
    assert_eq!((statuses(&said), closed), (vec!["400"], true));

    // A body that no handler read becomes the next request.
    let hidden = post("/nowhere", &format!("Content-Length: {}", LIVE.len()), LIVE);
    let ((theirs, _), (said, closed)) = both(&hidden);
    assert_eq!((statuses(&theirs), statuses(&said), closed), (vec!["404", "200"], vec!["404"], false));

    // A malformed request takes the answers of those before it along.
    let ((theirs, _), (said, closed)) = both(&format!("{LIVE}{LIVE}nonsense\r\n\r\n"));
    assert!(theirs.is_empty(), "{theirs}");
    assert_eq!((statuses(&said), closed), (vec!["200", "200", "400"], true));
}

#[test]
fn the_baseline_waits_for_a_head_for_ever_and_the_tracker_ten_seconds() {
    let baseline = Baseline::start();
    let mut bench = Bench::on(None, None);
    bench.start();
    let begun = Instant::now();
    let mut waiting = [baseline.address, bench.address()].map(|address| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(b"GET /healthz/live HTTP/1.1\r\nHost:").expect("it reads");
        stream.set_read_timeout(Some(Duration::from_secs(12))).expect("a socket takes it");
        stream
    });
    let (said, closed) = read_all(&mut waiting[1]);
    assert_eq!((statuses(&said), closed), (vec!["408"], true));
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    waiting[0].set_read_timeout(Some(Duration::from_secs(1))).expect("a socket takes it");
    assert_eq!(read_all(&mut waiting[0]), (String::new(), false), "still open, still silent");
}
