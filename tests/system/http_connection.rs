//! Connections to the HTTP server: bytes that arrive in pieces, refusals, clients that do not read, and the stop.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::http_support::*;
use crate::support::bench::Bench;
use event_tracker::http::Config;

#[test]
fn a_request_cut_in_three_is_the_same_request() {
    let server = echo(Config::default());
    let requests: [&[u8]; 3] = [
        b"GET /a%20b?x=1 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello world",
        b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
            5;name=value;a ; b = \"\\\";[ \xe9\"\r\nhello\r\n1 ;a\r\n \r\n05\r\nworld\r\n0;z\r\nX-Trailer: t\r\n\r\n",
    ];
    let answers = ["Get /a%20b ?x=1 []", "Post /p ? [hello world]", "Post /p ? [hello world]"];
    // Every pair of cuts, on connections that have served others, from several threads.
    let try_cuts = |request: &[u8], expected: &str, part: usize| {
        let mut stream = connect(&server);
        for first in (part..request.len()).step_by(8) {
            for second in first..=request.len() {
                send_in_three(&mut stream, request, first, second);
                let answer = read_answer(&mut stream);
                assert_eq!((answer.status, answer.text()), (200, expected), "cut at {first} and {second}");
            }
        }
    };
    for (request, expected) in requests.into_iter().zip(answers) {
        std::thread::scope(|scope| {
            (0..8).for_each(|part| drop(scope.spawn(move || try_cuts(request, expected, part))));
        });
    }
}

/// Three writes, each seen by the server before the next one: a pause that it may sleep through costs too much for all
/// pairs, so it is a moment in which it is free to run.
fn send_in_three(stream: &mut TcpStream, request: &[u8], first: usize, second: usize) {
    for piece in [&request[..first], &request[first..second], &request[second..]] {
        send(stream, piece);
        std::thread::sleep(Duration::from_micros(60));
    }
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_writing() {
    let server = echo(Config::default());
    for head in ["Content-Length: 1048577\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n00100001\r\n"] {
        let mut stream = sent(&server, format!("POST / HTTP/1.1\r\nHost: h\r\n{head}"));
        for _ in 0..20 {
            stream.write_all(&[b'x'; 10_000]).expect("it is drained");
            std::thread::sleep(Duration::from_millis(5));
        }
        // An early close would have reset the connection and thrown the answer away.
        let answer = read_answer(&mut stream);
        assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
        assert!(is_closed(&mut stream, 2_000));
    }
}

#[test]
fn what_follows_an_error_is_drained_within_bounds() {
    let server = echo(Config { linger_close_ms: 300, ..Config::default() });
    let mut silent = sent(&server, head_of("BREW /"));
    assert_eq!(read_answer(&mut silent).status, 501);
    assert!(is_closed(&mut silent, 1_000), "our side ends at once");
    let since = Instant::now();
    wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
    assert!(since.elapsed() < Duration::from_millis(900), "{:?}", since.elapsed());
    let server = echo(Config { linger_close_ms: 10_000, ..Config::default() });
    let mut flood = sent(&server, head_of("BREW /"));
    let since = Instant::now();
    let sent: usize = (0..1_000).map_while(|_| flood.write(&[b'x'; 16_384]).ok()).sum();
    // What the kernel's buffers hold comes on top.
    assert!(since.elapsed() < Duration::from_secs(5) && sent < 12 << 20, "{sent} bytes were taken");
    wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
}

#[test]
fn who_does_not_read_is_not_read_from() {
    let server = start(Config::default(), |_, exchange| ok(exchange, &[b'x'; 100_000]));
    let mut stream = sent(&server, head_of("GET /").repeat(1_000));
    let handled = || server.stats().requests();
    let mut before = u64::MAX;
    wait_for(|| {
        std::thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut before, handled()) == handled()
    });
    // One turn's bound, and what both kernels' buffers took.
    assert!(handled() < 200, "{} of 1,000 were answered to nobody", handled());
    for _ in 0..1_000 {
        assert_eq!(read_answer(&mut stream).body.len(), 100_000);
    }
}

#[test]
fn small_answers_are_not_held_back_by_the_kernel() {
    let server = echo(Config::default());
    let mut stream = connect(&server);
    assert_eq!(get(&mut stream, "/").status, 200);
    let client = stream.local_addr().expect("an address");
    let mut found = 0;
    for entry in std::fs::read_dir("/proc/self/fd").expect("descriptors").flatten() {
        let Ok(number) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        // SAFETY: the number is only asked about; a socket of another test that closes meanwhile answers with an error.
        let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        let socket = socket2::SockRef::from(&socket);
        if socket.peer_addr().ok().and_then(|peer| peer.as_socket()) == Some(client) {
            found += 1;
            assert!(socket.tcp_nodelay().expect("an option"));
        }
    }
    assert_eq!(found, 1, "the server's end");
}

#[test]
fn the_api_keeps_a_connection_whose_framing_it_kept() {
    let bench = Bench::embedded(&[]);
    let mut stream = TcpStream::connect(bench.address()).expect("connect");
    let post = |path: &str, rest: &str| format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{rest}");
    let odd = |header: &str| post("/api/events", &format!("{header}\r\nContent-Length: 2\r\n\r\n{{}}"));
    for (request, status, header) in [
        (post("/nowhere", "Content-Length: 4\r\n\r\nbody"), 404, None),
        (post("/nowhere", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"), 404, None),
        (post("/metrics", "Content-Length: 4\r\n\r\nbody"), 405, Some(("allow", "GET, HEAD"))),
        (post("/api/events", "\r\n"), 411, None),
        (odd("Content-Type: text/html"), 415, Some(("accept-post", "json"))),
        (odd("Content-Encoding: br"), 415, Some(("accept-encoding", "gzip"))),
        (post("/api/events", "Content-Length: 2\r\n\r\n{]"), 400, None),
        (post("/api/events", "Content-Length: 2\r\n\r\n{\u{e9}"), 400, None),
    ] {
        // Its follower comes with it: what was left of a body would be read as the next request.
        let follower = "GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = ask(&mut stream, format!("{request}{follower}"));
        // The last body is three bytes long, one of which belongs to nobody.
        let is_last = request.ends_with('\u{e9}');
        assert_eq!(answer.status, status, "{request}: {}", answer.text());
        if let Some((name, value)) = header {
            assert!(answer.header(name).is_some_and(|found| found.contains(value)), "{request}: {name}");
        }
        if !is_last {
            assert_eq!(answer.header("connection"), None, "{request}");
            assert_eq!(read_answer(&mut stream).status, 200, "{request}");
        }
    }
}

#[test]
fn a_stop_says_so_finishes_what_is_under_way_and_yields_to_a_second_signal() {
    let mut bench = Bench::embedded(&[]);
    let [mut busy, mut probe] = [(); 2].map(|()| TcpStream::connect(bench.address()).expect("connect"));
    // Both have begun a request, so neither is idle.
    send(&mut busy, b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbo");
    probe.write_all(b"GET /healthz/ready HTTP/1.1\r\n").expect("write");
    std::thread::sleep(Duration::from_millis(100));
    let pid = bench.tracker().pid();
    let signal = || crate::support::signal(pid, libc::SIGTERM);
    signal();
    wait_for(|| TcpStream::connect(bench.address()).is_err());
    let ready = ask(&mut probe, b"Host: localhost\r\n\r\n");
    assert_eq!((ready.status, ready.header("connection")), (503, Some("close")));
    signal();
    let mut rest = Vec::new();
    let _ = busy.read_to_end(&mut rest);
    assert!(rest.is_empty(), "cut, not answered");
    let path = format!("/proc/{pid}/stat");
    // Ended: gone, or a zombie until the bench looks at it.
    wait_for(|| std::fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z ")));
}
