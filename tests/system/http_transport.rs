//! What the HTTP server promises with and without TLS: each test runs over both transports.

use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::http_support::*;
use crate::support::certificate::Files;
use crate::support::chunked;
use event_tracker::http::{Config, Running};

/// TCP alone, or TLS with these files.
struct Transport(Option<Files>);

enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

fn over_both(claim: impl Fn(&Transport)) {
    for transport in [Transport(None), Transport(Some(Files::ecdsa()))] {
        eprintln!("-- {}", if transport.is_tls() { "TLS" } else { "TCP" });
        claim(&transport);
    }
}

impl Transport {
    fn is_tls(&self) -> bool {
        self.0.is_some()
    }

    fn config(&self) -> Config {
        self.0.as_ref().map_or_else(Config::default, Files::config)
    }

    fn connect(&self, server: &Running) -> Link {
        match &self.0 {
            None => Link::Plain(connect(server)),
            Some(files) => Link::Tls(Box::new(connect_tls(files, server))),
        }
    }

    fn sent(&self, server: &Running, bytes: impl AsRef<[u8]>) -> Link {
        let mut link = self.connect(server);
        send(&mut link, bytes);
        link
    }
}

impl Link {
    fn socket(&mut self) -> &mut TcpStream {
        match self {
            Link::Plain(socket) => socket,
            Link::Tls(session) => &mut session.sock,
        }
    }

    /// Ends the client's side of the session, if there is one.
    fn notify_close(&mut self) {
        if let Link::Tls(session) = self {
            session.conn.send_close_notify();
            session.flush().expect("write");
        }
    }

    /// Ends the client's side of the socket.
    fn shut_down(&mut self) {
        self.socket().shutdown(Shutdown::Write).expect("shutdown");
    }

    /// The server ended the connection, of TLS the session too, and nothing more came.
    fn has_ended(&mut self, within_ms: u64) -> bool {
        match self {
            Link::Plain(socket) => is_closed(socket, within_ms),
            Link::Tls(session) => {
                session.sock.set_read_timeout(Some(Duration::from_millis(within_ms))).expect("time-out");
                matches!(session.read(&mut [0; 1]), Ok(0))
            }
        }
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Link::Plain(socket) => socket.read(buffer),
            Link::Tls(session) => session.read(buffer),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Link::Plain(socket) => socket.write(bytes),
            Link::Tls(session) => session.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Link::Plain(socket) => socket.flush(),
            Link::Tls(session) => session.flush(),
        }
    }
}

#[test]
fn a_client_that_only_ends_its_side_gets_its_answer() {
    over_both(|transport| {
        let server = echo(transport.config());
        for shuts_down in [!transport.is_tls(), true] {
            let mut client = transport.sent(&server, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok");
            client.notify_close();
            if shuts_down {
                client.shut_down();
            }
            assert_eq!(read_answer(&mut client).text(), "Post / ? [ok]");
            assert!(client.has_ended(1_000), "shuts_down: {shuts_down}");
        }
    });
}

#[test]
fn the_end_inside_a_request_reaches_no_handler() {
    over_both(|transport| {
        let server = echo(transport.config());
        for part in [
            "GET / HTTP/1.1\r\nHost: h\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nfour",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n",
        ] {
            for notifies in [false, true] {
                let mut client = transport.sent(&server, part);
                if notifies {
                    client.notify_close();
                }
                client.shut_down();
                assert!(client.has_ended(1_000), "{part}");
            }
        }
        assert_eq!(server.stats().requests(), 0);
    });
}

#[test]
fn a_broken_request_is_refused_after_the_answers_before_it() {
    over_both(|transport| {
        let server = echo(transport.config());
        for (name, request, status) in violations() {
            let mut client = transport.connect(&server);
            let [before, after] = ["before", "after"].map(|path| head_of(&format!("GET /{path}")));
            assert_eq!(
                ask(&mut client, [before.as_bytes(), &request, after.as_bytes()].concat()).text(),
                "Get /before ? []",
                "{name}"
            );
            let answer = read_answer(&mut client);
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{name}");
            let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(body["status"], status, "{name}");
            assert!(body["error"].is_string() && body["message"].is_string(), "{name}");
            assert!(answer.body.ends_with(b"}\n"), "{name}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{name}");
            assert!(client.has_ended(2_000), "{name}");
        }
        let handled = server.stats().requests();
        assert_eq!(handled, violations().len() as u64, "only those before were handled");
        let refused = server.stats().responses(4) + server.stats().responses(5);
        assert_eq!(refused, violations().len() as u64);
    });
}

/// Its length and the sum of its bytes.
fn digest(body: &[u8]) -> String {
    format!("{} {}", body.len(), body.iter().map(|&byte| u64::from(byte)).sum::<u64>())
}

#[test]
fn large_bodies_come_in_and_go_out_whole_and_give_their_memory_back() {
    over_both(|transport| {
        let server = start(transport.config(), |request, exchange| match request.path {
            "/stream" => exchange.stream(streamed(b""), |stream| {
                (0..100u8).for_each(|piece| stream.write(&[piece; 60_000]).expect("a reader"));
            }),
            "/much" => ok(exchange, &vec![b'm'; 8 << 20]),
            _ => ok(exchange, digest(request.body).as_bytes()),
        });
        let body: Vec<u8> = (0..1 << 20).map(|at| (at % 251) as u8).collect();
        let by_length = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        let by_length = [by_length.as_bytes(), &body].concat();
        let in_chunks = chunked("POST / HTTP/1.1\r\nHost: h", body.chunks(10_007), "", "");
        let mut client = transport.connect(&server);
        for request in [&by_length, &in_chunks].repeat(3) {
            // The next request comes with the end of this one.
            assert_eq!(ask(&mut client, [request, head_of("GET /").as_bytes()].concat()).text(), digest(&body));
            assert_eq!(read_answer(&mut client).text(), "0 0");
        }
        assert_eq!(server.stats().bodies_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(get(&mut client, "/much").body, vec![b'm'; 8 << 20]);
        assert_eq!(ask_head(&mut client, "GET /stream HTTP/1.0\r\n\r\n").status, 200);
        let mut streamed = Vec::new();
        // Without a length only the proper end of the connection says that it is whole.
        client.read_to_end(&mut streamed).expect("a proper end");
        assert_eq!(streamed.len(), 100 * 60_000);
        assert!(streamed.chunks(60_000).zip(0u8..).all(|(chunk, piece)| chunk.iter().all(|&byte| byte == piece)));
    });
}

#[test]
fn a_reader_that_never_reads_is_reset() {
    over_both(|transport| {
        let config = Config { write_stall_ms: 200, ..transport.config() };
        let server = start(config, |_, exchange| ok(exchange, &vec![b'x'; 1 << 20]));
        let mut lags = transport.sent(&server, head_of("GET /").repeat(64));
        wait_for(|| server.stats().timeouts.load(Ordering::Relaxed) == 1);
        wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
        assert!(lags.read_to_end(&mut Vec::new()).is_err(), "reset");
    });
}

#[test]
fn idle_clients_are_left_and_slow_ones_are_told() {
    over_both(|transport| {
        let config = Config { head_ms: 150, idle_ms: 200, body_rate_after_ms: 100, body_ms: 300, ..transport.config() };
        let server = echo(config);
        let [mut idle, mut head, mut body] = [(); 3].map(|()| transport.connect(&server));
        assert_eq!(get(&mut idle, "/").status, 200);
        send(&mut head, b"GET / HT");
        send(&mut body, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx");
        assert_eq!(read_answer(&mut head).status, 408);
        assert_eq!(read_answer(&mut body).status, 408);
        assert!([head, body, idle].iter_mut().all(|client| client.has_ended(1_500)));
        assert_eq!(server.stats().timeouts.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn past_the_cap_with_nobody_idle_a_newcomer_gets_503() {
    over_both(|transport| {
        let server = echo(Config { connections_max: 2, ..transport.config() });
        let mut busy = [(); 2].map(|()| transport.connect(&server));
        for client in &mut busy {
            send(client, b"GET / HTTP/1.1\r\n");
            client.flush().expect("write");
        }
        wait_for(|| server.stats().bytes_in() == 2 * 16);
        let mut third = transport.connect(&server);
        // What a client has sent before it reads the refusal does no harm to it.
        let answer = get(&mut third, "/");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert!(third.has_ended(2_000));
        // One that says nothing is not waited for, neither is its handshake.
        let mut mute = connect(&server);
        let since = Instant::now();
        let _ = mute.read_to_end(&mut Vec::new());
        assert!(since.elapsed() < Duration::from_millis(2_500), "{:?}", since.elapsed());
        assert_eq!(ask(&mut busy[0], b"Host: h\r\n\r\n").status, 200);
    });
}

#[test]
fn a_stop_loses_no_request_under_load_and_ends_every_connection() {
    over_both(|transport| {
        let server = start(transport.config(), |_, exchange| {
            hold_for(exchange, 5, true);
            ok(exchange, b"done");
        });
        let (address, stats) = (server.local_addr(), server.stats());
        let mut idle = transport.connect(&server);
        assert_eq!(get(&mut idle, "/").status, 200);
        let clients = ask_until_the_end((0..8).map(|_| transport.connect(&server)).collect());
        wait_for(|| stats.requests() > 100);
        let since = Instant::now();
        assert!(server.stop(Duration::from_secs(5)), "all done");
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        assert!(idle.has_ended(1_000));
        let answered: u64 = clients.into_iter().map(|client| client.join().expect("client")).sum();
        assert_eq!(answered + 1, stats.requests(), "each request that was handled was answered");
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
    });
}

#[test]
fn a_live_stream_drops_who_falls_behind_and_ends_with_the_server() {
    over_both(|transport| {
        let server = start(transport.config(), |request, exchange| {
            let pause_ms = if request.path == "/flood" { 5 } else { 20 };
            exchange.stream(streamed(b""), move |stream| {
                while stream.is_open() && stream.offer(&[b'x'; 30_000]).is_ok() {
                    stream.pause(pause_ms);
                }
            });
        });
        let mut lags = transport.sent(&server, head_of("GET /flood"));
        // Of TLS, what the handshake needs has been read; the stream is not.
        assert_eq!(read_head(&mut lags).status, 200);
        wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
        let mut follows = transport.sent(&server, head_of("GET /"));
        assert_eq!(read_head(&mut follows).status, 200);
        let reader = std::thread::spawn(move || {
            let mut body = Vec::new();
            follows.read_to_end(&mut body).expect("a proper end");
            assert!(body.ends_with(b"0\r\n\r\n"));
        });
        assert!(server.stop(Duration::from_secs(5)));
        reader.join().expect("reader");
    });
}
