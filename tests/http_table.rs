//! The server's promises as one table, a row each with the tests that hold it, and the tests of rows that have no other
//! place.

mod http_support;
mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use event_tracker::http::Config;
use http_support::*;
use support::bench::Bench;

/// What is promised, and what holds it: a file with the names of tests in it, or requests by their name in
/// `http_support::violations`, which tests/http.rs and tests/tls.rs send to the server one by one.
#[rustfmt::skip]
const TABLE: &[(&str, &[&str])] = &[
    ("request line of 8,192 B, a target of 8,000 B passes: 414", &[
        "violations: a long target, a long line without end",
        "tests/http.rs: what_is_just_within_the_bounds_passes",
    ]),
    ("head of 16 KiB, checked before parsing: 431", &[
        "violations: a large head",
        "tests/http.rs: what_is_just_within_the_bounds_passes",
    ]),
    ("100 header fields: 431", &[
        "violations: 101 headers",
        "tests/http.rs: what_is_just_within_the_bounds_passes",
    ]),
    ("body of 1 MiB, declared or counted: 413, lingering", &[
        "violations: a large declared body, a huge declared body, a large chunk",
        "tests/http_table.rs: a_refusal_reaches_a_client_that_is_still_writing",
    ]),
    ("chunk size, extensions, trailers: 400", &[
        "violations: an extension without a name, an extension that is no token, an extension without a value, an extension with two values, an extension of two words, an extension that ends with a blank, a second extension without a name, a quote without end, a quote that ends escaped, text after a quote, a control byte in a quote, an extension of the last chunk",
        "violations: nine digits, a long extension, many extensions, many trailers, a size line without end",
        "tests/http_models.rs: chunks_are_decoded_as_their_model_does",
    ]),
    ("first byte within 10 s, silent; head within 10 s: 408", &[
        "tests/http.rs: slow_clients_are_given_up, a_head_that_trickles_is_given_up_too",
        "tests/tls.rs: a_handshake_that_never_ends_is_given_up_and_holds_up_nobody, slow_clients_are_told_or_left_as_without_tls",
    ]),
    ("body within 30 s and 500 B/s after 5 s: 408", &[
        "tests/http.rs: slow_clients_are_given_up",
        "tests/abuse.rs: who_behaves_is_answered_while_others_trickle_hoard_and_drop",
    ]),
    ("idle for 75 s, silent", &[
        "tests/http.rs: slow_clients_are_given_up",
    ]),
    ("a write that stalls for 15 s: reset", &[
        "tests/http.rs: a_reader_that_never_reads_is_reset",
        "tests/tls.rs: what_is_not_whole_does_not_end_as_if_it_were",
    ]),
    ("64 pipelined requests, then others; 256 KiB unsent, then no reading", &[
        "tests/http.rs: a_busy_pipeline_leaves_others_their_turn",
        "tests/http_table.rs: who_does_not_read_is_not_read_from",
    ]),
    ("connections: the longest idle one is shed, else 503", &[
        "tests/http.rs: past_the_cap_the_longest_idle_connection_makes_room, past_the_cap_with_nobody_idle_a_newcomer_gets_503",
        "tests/tls.rs: who_is_turned_away_learns_why",
        "tests/abuse.rs: ten_thousand_idle_connections_that_were_served_take_little_memory",
    ]),
    ("connections of one address: 429, never loopback's", &[
        "src/http/registry.rs: an_address_has_no_more_connections_than_it_may",
        "tests/http.rs: a_thousand_connections_of_one_address_are_all_served",
    ]),
    ("bodies in memory, 256 MiB: 503 and Retry-After", &[
        "tests/http.rs: bodies_in_memory_are_bounded",
    ]),
    ("shutdown: not ready, no accepting, the rest finished, 25 s; a second signal at once", &[
        "tests/http.rs: a_stop_loses_no_request_under_load, a_stop_cuts_what_outlasts_its_grace",
        "tests/tls.rs: a_stop_loses_no_request_under_load_and_ends_every_session",
        "tests/http_table.rs: a_stop_says_so_finishes_what_is_under_way_and_yields_to_a_second_signal",
    ]),
    ("malformed line or field: 400", &[
        "violations: no target, no version, a space in the target, two spaces, no colon, a strange protocol",
        "tests/http_models.rs: a_head_says_and_breaks_what_its_model_says",
    ]),
    ("bare CR or LF, NUL or control byte: 400", &[
        "violations: a bare LF, a bare LF in the headers, a bare CR, a NUL in a value, a control byte in a value, DEL in a value",
    ]),
    ("space before a colon, folded line, empty name, leading white space: 400", &[
        "violations: a space before the colon, a folded line, an empty name, leading white space, a leading space, two empty lines first",
    ]),
    ("non-ASCII or # in the target: 400", &[
        "violations: a fragment, non-ASCII in the target, a relative target, a star for GET, a strange scheme",
        "tests/http.rs: every_target_form_is_understood",
    ]),
    ("Host missing, repeated or invalid: 400", &[
        "violations: no Host, two Hosts, an empty Host, a Host with a space, a Host with a path, a Host with a user, a Host with a wrong port",
    ]),
    ("Content-Length empty, signed, no digits, a list, repeated: 400", &[
        "violations: an empty length, a signed length, a negative length, a hexadecimal length, a list of lengths, two lengths",
    ]),
    ("both framings; Transfer-Encoding in 1.0, repeated, chunked not last: 400", &[
        "violations: both framings, chunks in 1.0, two codings, chunked twice, chunked not last, an empty coding",
    ]),
    ("other transfer coding: 501", &[
        "violations: another coding, another coding first",
    ]),
    ("other HTTP version: 505", &[
        "violations: version 2.0, version 1.2",
    ]),
    ("unknown method: 501; known but not here: 405 and Allow", &[
        "violations: an unknown method, a lower-case method, a method of 33 bytes, a method of 100 KB, a method without end, a start that is no method",
        "tests/http_table.rs: the_api_keeps_a_connection_whose_framing_it_kept",
    ]),
    ("CONNECT: 405; OPTIONS *: 204 and Allow", &[
        "violations: a tunnel",
        "tests/access.rs: the_server_itself_has_options_and_no_tunnels",
    ]),
    ("a Host that is not served: 421", &[
        "tests/access.rs: a_foreign_host_is_served_nothing_while_a_right_is_open_on_loopback",
        "tests/access.rs: the_hosts_that_are_allowed_are_served_beside_this_machine",
    ]),
    ("nosniff on every answer", &[
        "tests/access.rs: every_json_answer_ends_with_a_newline_and_no_answer_is_sniffed",
        "tests/http.rs: a_broken_request_is_refused_after_the_answers_before_it",
    ]),
    ("unknown path: 404, connection and framing kept", &[
        "tests/http_table.rs: the_api_keeps_a_connection_whose_framing_it_kept",
    ]),
    ("ingest POST without length: 411", &[
        "tests/http_table.rs: the_api_keeps_a_connection_whose_framing_it_kept",
    ]),
    ("unsupported content type or coding: 415 and what is supported", &[
        "tests/http_table.rs: the_api_keeps_a_connection_whose_framing_it_kept",
        "tests/bad_input.rs: bad_input_is_answered_by_the_contract_and_nothing_of_it_is_stored",
    ]),
    ("bad JSON or UTF-8: 400, connection kept", &[
        "tests/http_table.rs: the_api_keeps_a_connection_whose_framing_it_kept",
    ]),
    ("Expect: 100 once the head is good and a body is to come; other: 417", &[
        "violations: a strange expectation",
        "tests/http.rs: a_client_that_expects_continue_gets_it_once",
    ]),
    ("EOF inside a request: nothing is ingested", &[
        "tests/http.rs: the_end_inside_a_request_reaches_no_handler",
        "tests/tls.rs: the_end_inside_a_request_reaches_no_handler",
        "tests/bad_input.rs: bad_input_is_answered_by_the_contract_and_nothing_of_it_is_stored",
    ]),
    ("panic in a handler: 500 with a request id, the process lives", &[
        "tests/http.rs: a_panic_is_one_answer_and_no_more",
    ]),
    ("HEAD, 204, 304: no body, no Content-Length where it is forbidden", &[
        "tests/http.rs: head_has_the_headers_of_get_and_no_body",
    ]),
    ("answers in order; those before an error are sent", &[
        "tests/http.rs: pipelined_answers_come_in_order, a_broken_request_is_refused_after_the_answers_before_it",
        "tests/tls.rs: a_broken_request_is_refused_after_the_answers_before_it",
    ]),
    ("after an error: half-close, drain 256 KiB or 1 s, close", &[
        "tests/http_table.rs: a_refusal_reaches_a_client_that_is_still_writing, what_follows_an_error_is_drained_within_bounds",
    ]),
    ("HTTP/1.0 and Connection: close are honoured", &[
        "tests/http.rs: a_connection_ends_when_the_client_says_so_or_is_old",
    ]),
    ("TCP_NODELAY is on", &[
        "tests/http_table.rs: small_answers_are_not_held_back_by_the_kernel",
    ]),
    ("EMFILE never spins: back off, shed, go on", &[
        "tests/http_descriptors.rs: without_a_descriptor_the_server_sheds_waits_and_goes_on",
    ]),
    ("streams: 64 KiB behind is dropped, closed at shutdown", &[
        "tests/http.rs: a_live_stream_drops_who_falls_behind_and_ends_with_the_server",
        "tests/tls.rs: a_live_stream_drops_who_falls_behind_and_reaches_who_does_not",
    ]),
];

#[test]
fn every_row_of_the_table_has_its_tests() {
    let known: BTreeSet<&str> = violations().into_iter().map(|(name, ..)| name).collect();
    let mut used = BTreeSet::new();
    for (row, tests) in TABLE {
        assert!(!tests.is_empty(), "{row}");
        for line in *tests {
            let (place, names) = line.split_once(": ").expect("a place");
            if place == "violations" {
                used.extend(names.split(", "));
                continue;
            }
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{place}: {error}"));
            for name in names.split(", ") {
                assert!(text.contains(&format!("fn {name}(")), "{row}: {place} has no {name}");
            }
        }
    }
    let of_chunks: BTreeSet<&str> = known.iter().copied().filter(|name| !used.contains(name)).collect();
    assert!(used.is_subset(&known), "{:?}", used.difference(&known));
    // Requests that no row names are more of the same row.
    assert!(
        of_chunks.iter().all(|name| name.contains("chunk") || name.contains("after") || name.contains("trailer")),
        "{of_chunks:?}"
    );
}

#[test]
fn a_request_cut_in_three_is_the_same_request() {
    let server = echo(Config::default());
    let requests = [
        "GET /a%20b?x=1 HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello world",
        "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;n=v\r\nhello\r\n6\r\n world\r\n0\r\nT: t\r\n\r\n",
    ];
    let answers = ["Get /a%20b ?x=1 []", "Post /p ? [hello world]", "Post /p ? [hello world]"];
    for (request, expected) in requests.map(str::as_bytes).into_iter().zip(answers) {
        // Every pair of cuts, each on a connection that has served others, from several threads at once.
        std::thread::scope(|scope| {
            for part in 0..8 {
                let server = &server;
                scope.spawn(move || {
                    let mut stream = connect(server);
                    for first in (part..request.len()).step_by(8) {
                        for second in first..=request.len() {
                            send_in_three(&mut stream, request, first, second);
                            let answer = read_answer(&mut stream);
                            assert_eq!((answer.status, answer.text()), (200, expected), "cut at {first} and {second}");
                        }
                    }
                });
            }
        });
    }
}

/// Three writes, each seen by the server before the next one: a pause that it may sleep through costs too much for all
/// pairs, so it is a moment in which it is free to run.
fn send_in_three(stream: &mut TcpStream, request: &[u8], first: usize, second: usize) {
    for piece in [&request[..first], &request[first..second], &request[second..]] {
        stream.write_all(piece).expect("write");
        std::thread::sleep(Duration::from_micros(60));
    }
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_writing() {
    let server = echo(Config::default());
    for head in ["Content-Length: 1048577\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n00100001\r\n"] {
        let mut stream = connect(&server);
        stream.write_all(format!("POST / HTTP/1.1\r\nHost: h\r\n{head}").as_bytes()).expect("write");
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
    let mut silent = connect(&server);
    silent.write_all(b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n").expect("write");
    assert_eq!(read_answer(&mut silent).status, 501);
    assert!(is_closed(&mut silent, 1_000), "our side ends at once");
    let since = Instant::now();
    wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
    assert!(since.elapsed() < Duration::from_millis(900), "{:?}", since.elapsed());
    let server = echo(Config { linger_close_ms: 10_000, ..Config::default() });
    let mut flood = connect(&server);
    flood.write_all(b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n").expect("write");
    let since = Instant::now();
    let sent: usize = (0..1_000).map_while(|_| flood.write(&[b'x'; 16_384]).ok()).sum();
    // What the kernel's buffers hold comes on top.
    assert!(since.elapsed() < Duration::from_secs(5) && sent < 12 << 20, "{sent} bytes were taken");
    wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
}

#[test]
fn who_does_not_read_is_not_read_from() {
    let server = start(Config::default(), |_, exchange| ok(exchange, &[b'x'; 100_000]));
    let mut stream = connect(&server);
    stream.write_all("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1_000).as_bytes()).expect("write");
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
    let mut bench = Bench::on(None, None);
    bench.start();
    let mut stream = TcpStream::connect(bench.address()).expect("connect");
    let post = |path: &str, rest: &str| format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{rest}");
    for (request, status, header) in [
        (post("/nowhere", "Content-Length: 4\r\n\r\nbody"), 404, None),
        (post("/nowhere", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"), 404, None),
        (post("/metrics", "Content-Length: 4\r\n\r\nbody"), 405, Some(("allow", "GET, HEAD"))),
        (post("/api/events", "\r\n"), 411, None),
        (
            post("/api/events", "Content-Type: text/html\r\nContent-Length: 2\r\n\r\n{}"),
            415,
            Some(("accept-post", "json")),
        ),
        (
            post("/api/events", "Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}"),
            415,
            Some(("accept-encoding", "gzip")),
        ),
        (post("/api/events", "Content-Length: 2\r\n\r\n{]"), 400, None),
        (post("/api/events", "Content-Length: 2\r\n\r\n{\u{e9}"), 400, None),
    ] {
        // Its follower comes with it: what was left of a body would be read as the next request.
        stream
            .write_all(format!("{request}GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
            .expect("write");
        // The last body is three bytes long, one of which belongs to nobody.
        let is_last = request.ends_with('\u{e9}');
        let answer = read_answer(&mut stream);
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
    let mut bench = Bench::on(None, None);
    bench.start();
    let [mut busy, mut probe] = [(); 2].map(|()| TcpStream::connect(bench.address()).expect("connect"));
    // Both have begun a request, so neither is idle.
    busy.write_all(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbo").expect("write");
    probe.write_all(b"GET /healthz/ready HTTP/1.1\r\n").expect("write");
    std::thread::sleep(Duration::from_millis(100));
    let pid = bench.tracker().pid();
    // SAFETY: signals a child that the bench has not waited for, so its id is still its own.
    let signal = || assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    signal();
    wait_for(|| TcpStream::connect(bench.address()).is_err());
    probe.write_all(b"Host: localhost\r\n\r\n").expect("write");
    let ready = read_answer(&mut probe);
    assert_eq!((ready.status, ready.header("connection")), (503, Some("close")));
    signal();
    let mut rest = Vec::new();
    let _ = busy.read_to_end(&mut rest);
    assert!(rest.is_empty(), "cut, not answered");
    let path = format!("/proc/{pid}/stat");
    // Ended: gone, or a zombie until the bench looks at it.
    wait_for(|| std::fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z ")));
}
