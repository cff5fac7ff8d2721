//! A client of bytes, small servers, and the table of requests that the server must refuse.

#![allow(dead_code, reason = "each test target uses some of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Once;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::certificate::Files;
pub(crate) use crate::support::client::{self, Answer as Answered};
use crate::support::eventually_is;
use event_tracker::http::{Answer, Config, Exchange, Request, Running, Server};
use event_tracker::runtime;
use rustls::{ClientConnection, DEFAULT_VERSIONS, StreamOwned};

pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn start<H>(config: Config, handler: H) -> Running
where
    H: Fn(&Request<'_>, &mut Exchange<'_>) + Send + Sync + 'static,
{
    static RUNTIME: Once = Once::new();
    RUNTIME.call_once(|| runtime::start(2, false));
    Server::bind(config).expect("a free port").start(handler)
}

/// The head and first bytes of a streamed answer.
pub(crate) fn streamed(body: &[u8]) -> Answer<'_> {
    Answer { status: 200, content_type: "text/plain", headers: &[], body }
}

pub(crate) fn echo(config: Config) -> Running {
    start(config, |request, exchange| {
        let body = String::from_utf8_lossy(request.body);
        let text = format!("{:?} {} ?{} [{body}]", request.method, request.path, request.query);
        ok(exchange, text.as_bytes());
    })
}

pub(crate) fn ok(exchange: &mut Exchange<'_>, body: &[u8]) {
    respond(exchange, 200, &[], body);
}

pub(crate) fn respond(exchange: &mut Exchange<'_>, status: u16, headers: &[(&str, &str)], body: &[u8]) {
    exchange.respond(Answer { status, content_type: "text/plain", headers, body });
}

/// Holds the answer back until something on another thread ends.
pub(crate) fn hold_for(exchange: &mut Exchange<'_>, after_ms: u64, succeeds: bool) {
    finish_later(exchange, after_ms, succeeds);
    exchange.hold();
}

pub(crate) fn finish_later(exchange: &Exchange<'_>, after_ms: u64, succeeds: bool) {
    let ticket = exchange.ticket().clone();
    ticket.add();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(after_ms));
        runtime::complete([ticket], succeeds);
    });
}

pub(crate) fn connect(server: &Running) -> TcpStream {
    let stream = TcpStream::connect(server.local_addr()).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("time-out");
    stream.set_nodelay(true).expect("no delay");
    stream
}

pub(crate) fn connect_tls(files: &Files, server: &Running) -> TlsStream {
    StreamOwned::new(files.session(DEFAULT_VERSIONS), connect(server))
}

/// Connections that share a worker.
pub(crate) fn same_worker(server: &Running, count: usize) -> Vec<TcpStream> {
    let (mut of_first, mut others) = (Vec::new(), Vec::new());
    let of_worker = || server.stats().connections_of_worker[0].load(Ordering::Relaxed);
    while of_first.len() < count {
        let (before, mut stream) = (of_worker(), connect(server));
        assert_eq!(get(&mut stream, "/").status, 200);
        if of_worker() > before { of_first.push(stream) } else { others.push(stream) }
    }
    of_first
}

/// A request of this line, without a body.
pub(crate) fn head_of(line: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// A new connection on which these bytes were sent.
pub(crate) fn sent(server: &Running, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut stream = connect(server);
    send(&mut stream, bytes);
    stream
}

pub(crate) fn send(stream: &mut impl Write, bytes: impl AsRef<[u8]>) {
    stream.write_all(bytes.as_ref()).expect("write");
}

pub(crate) fn get(stream: &mut (impl Read + Write), path: &str) -> Answered {
    ask(stream, head_of(&format!("GET {path}")))
}

/// The answers to GETs of these paths, sent at once.
pub(crate) fn get_all(stream: &mut (impl Read + Write), paths: &[&str]) -> Vec<Answered> {
    send(stream, paths.iter().map(|path| head_of(&format!("GET {path}"))).collect::<String>());
    paths.iter().map(|_| read_answer(stream)).collect()
}

pub(crate) fn ask(stream: &mut (impl Read + Write), bytes: impl AsRef<[u8]>) -> Answered {
    send(stream, bytes);
    read_answer(stream)
}

pub(crate) fn ask_head(stream: &mut (impl Read + Write), bytes: impl AsRef<[u8]>) -> Answered {
    send(stream, bytes);
    read_head(stream)
}

pub(crate) fn read_answer(stream: &mut impl Read) -> Answered {
    try_read_answer(stream).expect("an answer")
}

/// None: the connection ended before an answer began.
pub(crate) fn try_read_answer(stream: &mut impl Read) -> Option<Answered> {
    let mut answer = try_read_head(stream)?;
    let length = answer.header("content-length").map_or(0, |value| value.parse().expect("a length"));
    answer.body = vec![0; length];
    stream.read_exact(&mut answer.body).expect("the whole body");
    Some(answer)
}

pub(crate) fn read_head(stream: &mut impl Read) -> Answered {
    try_read_head(stream).expect("an answer")
}

fn try_read_head(stream: &mut impl Read) -> Option<Answered> {
    match client::read_head(stream) {
        Err(error) if error.kind() == ErrorKind::InvalidData => panic!("{error}"),
        head => head.ok(),
    }
}

/// Clients that ask again and again until the server ends their connections; each returns the number of its answers.
pub(crate) fn ask_until_the_end<S: Read + Write + Send + 'static>(clients: Vec<S>) -> Vec<JoinHandle<u64>> {
    let ask = |mut stream: S| {
        let mut answered = 0;
        while stream.write_all(head_of("GET /").as_bytes()).is_ok() {
            // A connection that ends between two requests has lost none.
            let Some(answer) = try_read_answer(&mut stream) else { break };
            assert_eq!(answer.text(), "done");
            answered += 1;
            if answer.header("connection") == Some("close") {
                break;
            }
        }
        answered
    };
    clients.into_iter().map(|client| std::thread::spawn(move || ask(client))).collect()
}

/// The server ends the connection, and nothing more comes.
pub(crate) fn is_closed(stream: &mut TcpStream, within_ms: u64) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(within_ms))).expect("time-out");
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

pub(crate) fn wait_for(condition: impl FnMut() -> bool) {
    eventually_is(Duration::from_secs(10), &true, condition);
}

/// Name, bytes and status of requests that break a rule.
pub(crate) fn violations() -> Vec<(&'static str, Vec<u8>, u16)> {
    let get = |rest: &str| format!("GET / HTTP/1.1\r\n{rest}\r\n\r\n").into_bytes();
    let post = |rest: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{rest}").into_bytes();
    let line = |line: &str| format!("{line}\r\nHost: h\r\n\r\n").into_bytes();
    let chunks =
        |rest: &str| format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{rest}").into_bytes();
    let many: String = (0..100).map(|at| format!("X-{at}: v\r\n")).collect();
    vec![
        // The request line.
        ("no target", line("GET HTTP/1.1"), 400),
        ("no version", line("GET /"), 400),
        ("a space in the target", line("GET /a b HTTP/1.1"), 400),
        ("two spaces", line("GET  / HTTP/1.1"), 400),
        // Non-ASCII or `#` in the target, and forms that are none.
        ("a fragment", line("GET /a#b HTTP/1.1"), 400),
        ("non-ASCII in the target", line("GET /ä HTTP/1.1"), 400),
        ("a relative target", line("GET a HTTP/1.1"), 400),
        ("a star for GET", line("GET * HTTP/1.1"), 400),
        ("a strange scheme", line("GET ftp://h/ HTTP/1.1"), 400),
        // White space and line ends.
        ("a leading space", line(" GET / HTTP/1.1"), 400),
        ("two empty lines first", line("\r\n\r\nGET / HTTP/1.1"), 400),
        ("a bare LF", b"GET / HTTP/1.1\nHost: h\r\n\r\n".to_vec(), 400),
        ("a bare LF in the headers", get("Host: h\nX: y"), 400),
        ("a bare CR", get("Host: h\r\nX: a\rb"), 400),
        // NUL and control bytes.
        ("a NUL in a value", get("Host: h\r\nX: a\0b"), 400),
        ("a control byte in a value", get("Host: h\r\nX: a\x07b"), 400),
        ("DEL in a value", get("Host: h\r\nX: a\x7fb"), 400),
        // Field lines.
        ("a space before the colon", get("Host: h\r\nX : a"), 400),
        ("a folded line", get("Host: h\r\nX: a\r\n b"), 400),
        ("an empty name", get("Host: h\r\n: a"), 400),
        ("leading white space", get(" Host: h"), 400),
        ("no colon", get("Host: h\r\nX"), 400),
        // Host missing, repeated or invalid.
        ("no Host", get("X: y"), 400),
        ("two Hosts", get("Host: h\r\nHost: h"), 400),
        ("an empty Host", get("Host: "), 400),
        ("a Host with a space", get("Host: a b"), 400),
        ("a Host with a path", get("Host: a/b"), 400),
        ("a Host with a user", get("Host: u@h"), 400),
        ("a Host with a wrong port", get("Host: h:80x"), 400),
        // Content-Length: only digits, once.
        ("an empty length", post("Content-Length: \r\n\r\n"), 400),
        ("a signed length", post("Content-Length: +4\r\n\r\nfour"), 400),
        ("a negative length", post("Content-Length: -4\r\n\r\nfour"), 400),
        ("a hexadecimal length", post("Content-Length: 0x4\r\n\r\nfour"), 400),
        ("a list of lengths", post("Content-Length: 4, 4\r\n\r\nfour"), 400),
        ("two lengths", post("Content-Length: 4\r\nContent-Length: 4\r\n\r\nfour"), 400),
        // Transfer-Encoding: not in 1.0, once, `chunked` last.
        ("both framings", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        ("chunks in 1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), 400),
        ("two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), 400),
        ("chunked not last", post("Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"), 400),
        ("an empty coding", post("Transfer-Encoding: \r\n\r\n0\r\n\r\n"), 400),
        // Other transfer codings.
        ("another coding", post("Transfer-Encoding: gzip\r\n\r\n"), 501),
        ("another coding first", post("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 501),
        // Chunk sizes, extensions and trailers.
        ("a chunk without a size", chunks("\r\nfour\r\n0\r\n\r\n"), 400),
        ("a chunk of no number", chunks("x\r\nfour\r\n0\r\n\r\n"), 400),
        ("a signed chunk", chunks("+4\r\nfour\r\n0\r\n\r\n"), 400),
        ("a space after the size", chunks("4 \r\nfour\r\n0\r\n\r\n"), 400),
        ("nine digits", chunks("000000004\r\nfour\r\n0\r\n\r\n"), 400),
        ("a chunk that is too long", chunks("3\r\nfour\r\n0\r\n\r\n"), 400),
        ("a bare LF after a size", chunks("4\nfour\r\n0\r\n\r\n"), 400),
        ("a bare LF after the data", chunks("4\r\nfour\n0\r\n\r\n"), 400),
        ("an extension without a name", chunks("4;\r\nfour\r\n0\r\n\r\n"), 400),
        ("an extension that is no token", chunks("4;bad[=x\r\nfour\r\n0\r\n\r\n"), 400),
        ("an extension without a value", chunks("4;a=\r\nfour\r\n0\r\n\r\n"), 400),
        ("an extension with two values", chunks("4;a=b=c\r\nfour\r\n0\r\n\r\n"), 400),
        ("an extension of two words", chunks("4;a b\r\nfour\r\n0\r\n\r\n"), 400),
        ("an extension that ends with a blank", chunks("4;a \r\nfour\r\n0\r\n\r\n"), 400),
        ("a second extension without a name", chunks("4;a=b;\r\nfour\r\n0\r\n\r\n"), 400),
        ("a quote without end", chunks("4;a=\"b\r\nfour\r\n0\r\n\r\n"), 400),
        ("a quote that ends escaped", chunks("4;a=\"b\\\"\r\nfour\r\n0\r\n\r\n"), 400),
        ("text after a quote", chunks("4;a=\"b\"c\r\nfour\r\n0\r\n\r\n"), 400),
        ("a control byte in a quote", chunks("4;a=\"\x07\"\r\nfour\r\n0\r\n\r\n"), 400),
        ("an extension of the last chunk", chunks("4\r\nfour\r\n0;=\r\n\r\n"), 400),
        ("a long extension", chunks(&format!("4;{}\r\nfour\r\n0\r\n\r\n", "x".repeat(256))), 400),
        ("many extensions", chunks(&format!("1;{}\r\nf\r\n", "x".repeat(200)).repeat(30)), 400),
        ("a size line without end", chunks(&"4;".repeat(300)), 400),
        ("many trailers", chunks(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(1_000))), 400),
        ("a broken trailer", chunks("0\r\nno colon\r\n\r\n"), 400),
        // Bodies of more than 1 MiB, declared or counted.
        ("a large declared body", post("Content-Length: 1048577\r\n\r\n"), 413),
        ("a huge declared body", post("Content-Length: 99999999999999999999999999\r\n\r\n"), 413),
        ("a large chunk", chunks("00100001\r\n"), 413),
        // A request line of more than 8,192 bytes.
        ("a long target", line(&format!("GET /{} HTTP/1.1", "a".repeat(8_200))), 414),
        ("a long line without end", format!("GET /{}", "a".repeat(8_300)).into_bytes(), 414),
        // Methods.
        ("a method of 33 bytes", line(&format!("{} / HTTP/1.1", "A".repeat(33))), 501),
        ("a method of 100 KB", line(&format!("{} / HTTP/1.1", "A".repeat(100_000))), 501),
        ("a method without end", "A".repeat(40).into_bytes(), 501),
        ("a start that is no method", line(&format!("{} / HTTP/1.1", "\u{1}".repeat(100_000))), 400),
        ("an unknown method", line("BREW / HTTP/1.1"), 501),
        ("a lower-case method", line("get / HTTP/1.1"), 501),
        ("a tunnel", line("CONNECT example.org:443 HTTP/1.1"), 405),
        ("a strange expectation", post("Expect: more\r\nContent-Length: 4\r\n\r\nfour"), 417),
        // Versions.
        ("version 2.0", line("GET / HTTP/2.0"), 505),
        ("version 1.2", line("GET / HTTP/1.2"), 505),
        ("a strange protocol", line("GET / HTCPCP/1.0"), 400),
        // A head of more than 16 KiB or 100 fields.
        ("a large head", get(&format!("Host: h\r\nX: {}", "v".repeat(17_000))), 431),
        ("101 headers", get(&format!("Host: h\r\n{}", many.trim_end())), 431),
    ]
}
