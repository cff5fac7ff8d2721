//! TLS over real sockets, with a client of rustls and one of OpenSSL: what the plain server promises holds here too, and
//! what only TLS can do wrong ends as it should.

mod http_support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use event_tracker::http::{Answer, Config, Running, Tls};
use http_support::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

type Client = StreamOwned<ClientConnection, TcpStream>;

/// A certificate for `localhost` and its key, as files of a directory that goes away.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(algorithm: &'static rcgen::SignatureAlgorithm) -> Files {
        let files = Files { directory: tempfile::tempdir().expect("a directory") };
        files.renew(algorithm);
        files
    }

    fn renew(&self, algorithm: &'static rcgen::SignatureAlgorithm) {
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        let parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        std::fs::write(self.certificate(), certificate.pem()).expect("write");
        std::fs::write(self.key(), key.serialize_pem()).expect("write");
    }

    fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    fn tls(&self) -> Arc<Tls> {
        Arc::new(Tls::load(self.certificate(), self.key()).expect("TLS"))
    }

    fn config(&self) -> Config {
        Config { tls: Some(self.tls()), ..Config::default() }
    }

    /// A session that trusts this certificate alone, and offers `http/1.1`.
    fn session(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.certificate()).expect("PEM") {
            roots.add(certificate.expect("a certificate")).expect("a root");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").expect("a name")).expect("a session")
    }

    fn connect(&self, server: &Running) -> Client {
        StreamOwned::new(self.session(rustls::DEFAULT_VERSIONS), connect(server))
    }
}

fn ecdsa() -> Files {
    Files::new(&rcgen::PKCS_ECDSA_P256_SHA256)
}

/// The server ended the session properly, and nothing more came.
fn has_ended(client: &mut Client, within_ms: u64) -> bool {
    client.sock.set_read_timeout(Some(Duration::from_millis(within_ms))).expect("time-out");
    matches!(client.read(&mut [0; 1]), Ok(0))
}

#[test]
fn both_versions_and_every_kind_of_key_speak_http_1_1() {
    let of_rsa = ["2048", "4096"].map(openssl_rsa);
    let of_curves =
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519].map(Files::new);
    for files in of_rsa.into_iter().flatten().chain(of_curves) {
        let server = echo(files.config());
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mut client = StreamOwned::new(files.session(&[version]), connect(&server));
            for _ in 0..3 {
                assert_eq!(get(&mut client, "/a?b").text(), "Get /a ?b []");
            }
            assert_eq!(client.conn.protocol_version(), Some(version.version));
            assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
    }
}

/// Where OpenSSL is installed: keys that the library of the tests does not make.
fn openssl_rsa(bits: &str) -> Option<Files> {
    let files = Files { directory: tempfile::tempdir().expect("a directory") };
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-newkey", &format!("rsa:{bits}"), "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(files.key())
        .arg("-out")
        .arg(files.certificate())
        .stderr(Stdio::null())
        .status();
    made.is_ok_and(|status| status.success()).then_some(files)
}

#[test]
fn pipelined_answers_come_in_order() {
    let files = ecdsa();
    let server = echo(files.config());
    let mut client = files.connect(&server);
    let requests: String = (0..500).map(|at| format!("GET /{at} HTTP/1.1\r\nHost: h\r\n\r\n")).collect();
    client.write_all(requests.as_bytes()).expect("write");
    for at in 0..500 {
        assert_eq!(read_answer(&mut client).text(), format!("Get /{at} ? []"));
    }
}

#[test]
fn large_bodies_come_in_and_go_out_whole() {
    let files = ecdsa();
    let server = start(files.config(), |request, exchange| match request.path {
        "/stream" => {
            let answer = Answer { status: 200, content_type: "text/plain", headers: &[], body: b"" };
            exchange.stream(answer, |stream| {
                for piece in 0..100u8 {
                    stream.write(&[piece; 60_000]).expect("a reader");
                }
            });
        }
        "/much" => ok(exchange, &vec![b'm'; 8 << 20]),
        _ => ok(exchange, format!("{} {}", request.body.len(), sum(request.body)).as_bytes()),
    });
    let body: Vec<u8> = (0..1 << 20).map(|at| (at % 251) as u8).collect();
    let mut client = files.connect(&server);
    for _ in 0..3 {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        client.write_all(&[head.as_bytes(), &body].concat()).expect("write");
        assert_eq!(read_answer(&mut client).text(), format!("{} {}", body.len(), sum(&body)));
    }
    assert_eq!(server.stats().bodies_bytes.load(Ordering::Relaxed), 0);
    assert_eq!(get(&mut client, "/much").body, vec![b'm'; 8 << 20]);
    client.write_all(b"GET /stream HTTP/1.0\r\n\r\n").expect("write");
    assert_eq!(read_head(&mut client).status, 200);
    let mut streamed = Vec::new();
    // Without a length only the proper end of the session says that it is whole.
    client.read_to_end(&mut streamed).expect("a proper end");
    assert_eq!(streamed.len(), 100 * 60_000);
    assert!(streamed.chunks(60_000).zip(0u8..).all(|(chunk, piece)| chunk.iter().all(|&byte| byte == piece)));
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte)).sum()
}

#[test]
fn a_handshake_and_a_request_arrive_a_byte_at_a_time() {
    let files = ecdsa();
    let server = echo(files.config());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (mut session, mut socket) = (files.session(&[version]), connect(&server));
        session.writer().write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("write");
        let mut answer = Vec::new();
        while !answer.ends_with(b"]") {
            let mut bytes = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut bytes).expect("bytes");
            }
            for byte in bytes {
                socket.write_all(&[byte]).expect("write");
            }
            session.read_tls(&mut socket).expect("read");
            session.process_new_packets().expect("TLS");
            let _ = session.reader().read_to_end(&mut answer);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"Get / ? []"));
    }
}

#[test]
fn a_handshake_that_never_ends_is_given_up_and_holds_up_nobody() {
    let files = ecdsa();
    let server = echo(Config { first_byte_ms: 300, ..files.config() });
    let mut hello = Vec::new();
    files.session(rustls::DEFAULT_VERSIONS).write_tls(&mut hello).expect("a hello");
    let mut stuck: Vec<TcpStream> = (0..20).map(|_| connect(&server)).collect();
    for (socket, length) in stuck.iter_mut().zip([0, 1, 5, 100, hello.len()].into_iter().cycle()) {
        socket.write_all(&hello[..length]).expect("write");
    }
    let since = Instant::now();
    for _ in 0..4 {
        assert_eq!(get(&mut files.connect(&server), "/").status, 200);
    }
    assert!(since.elapsed() < Duration::from_millis(250), "{:?}", since.elapsed());
    wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
    assert_eq!(server.stats().timeouts.load(Ordering::Relaxed), 20);
    for socket in &mut stuck {
        let mut rest = Vec::new();
        // What comes is a handshake's: no answer of HTTP.
        let _ = socket.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP"));
    }
}

#[test]
fn slow_clients_are_told_or_left_as_without_tls() {
    let files = ecdsa();
    let config = Config { head_ms: 150, idle_ms: 200, body_rate_after_ms: 100, body_ms: 300, ..files.config() };
    let server = echo(config);
    let [mut idle, mut head, mut body] = [(); 3].map(|()| files.connect(&server));
    assert_eq!(get(&mut idle, "/").status, 200);
    head.write_all(b"GET / HT").expect("write");
    body.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx").expect("write");
    assert_eq!(read_answer(&mut head).status, 408);
    assert_eq!(read_answer(&mut body).status, 408);
    assert!(has_ended(&mut head, 1_500) && has_ended(&mut body, 1_500) && has_ended(&mut idle, 1_500));
    assert_eq!(server.stats().timeouts.load(Ordering::Relaxed), 3);
}

#[test]
fn a_client_that_ends_its_side_gets_its_answer() {
    let files = ecdsa();
    let server = echo(files.config());
    for closes_socket in [false, true] {
        let mut client = files.connect(&server);
        client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok").expect("write");
        client.conn.send_close_notify();
        client.flush().expect("write");
        if closes_socket {
            client.sock.shutdown(Shutdown::Write).expect("shutdown");
        }
        assert_eq!(read_answer(&mut client).text(), "Post / ? [ok]");
        assert!(has_ended(&mut client, 1_000), "closes_socket: {closes_socket}");
    }
}

#[test]
fn the_end_inside_a_request_reaches_no_handler() {
    let files = ecdsa();
    let server = echo(files.config());
    for is_proper in [false, true] {
        for part in [
            "GET / HTTP/1.1\r\nHost: h\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nfour",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n",
        ] {
            let mut client = files.connect(&server);
            client.write_all(part.as_bytes()).expect("write");
            if is_proper {
                client.conn.send_close_notify();
                client.flush().expect("write");
            }
            client.sock.shutdown(Shutdown::Write).expect("shutdown");
            assert!(has_ended(&mut client, 1_000), "{part}");
        }
    }
    assert_eq!(server.stats().requests(), 0);
}

#[test]
fn plain_http_is_told_to_use_https_and_garbage_gets_an_alert() {
    let files = ecdsa();
    let server = echo(files.config());
    for request in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "POST /api/events HTTP/1.1\r\nHost: h\r\n\r\n", "x"] {
        let mut plain = connect(&server);
        plain.write_all(request.as_bytes()).expect("write");
        let answer = read_answer(&mut plain);
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
        assert!(answer.text().contains("https://") && answer.text().contains("plain_http"), "{}", answer.text());
        assert!(is_closed(&mut plain, 2_000));
    }
    let tags: Vec<&str> = event_tracker::http::Stats::refusal_tags().collect();
    let at = tags.iter().position(|tag| *tag == "plain_http").expect("a tag");
    assert_eq!(server.stats().refusals[at].load(Ordering::Relaxed), 3);
    let mut hello = Vec::new();
    files.session(rustls::DEFAULT_VERSIONS).write_tls(&mut hello).expect("a hello");
    hello[20..].fill(0xff);
    let garbage = [vec![0; 64], vec![0xff; 20_000], vec![22, 3, 1, 0xff, 0xff, 1, 2, 3], hello];
    let mut raw: Vec<TcpStream> = garbage.iter().map(|_| connect(&server)).collect();
    for (socket, bytes) in raw.iter_mut().zip(&garbage) {
        // The server may have closed before all of it is written.
        let _ = socket.write_all(bytes);
        let _ = socket.read_to_end(&mut Vec::new());
    }
    wait_for(|| server.stats().tls_failures.load(Ordering::Relaxed) == garbage.len() as u64);
    // Damage after the handshake.
    let mut client = files.connect(&server);
    assert_eq!(get(&mut client, "/").status, 200);
    client
        .sock
        .write_all(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
        .expect("write");
    assert!(client.read(&mut [0; 1]).is_err(), "an alert");
    wait_for(|| server.stats().tls_failures.load(Ordering::Relaxed) == garbage.len() as u64 + 1);
    wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
    assert_eq!(get(&mut files.connect(&server), "/").status, 200, "it goes on");
}

#[test]
fn a_broken_request_is_refused_after_the_answers_before_it() {
    let files = ecdsa();
    let server = echo(files.config());
    for (name, request, status) in violations() {
        let mut client = files.connect(&server);
        let bytes = [b"GET /before HTTP/1.1\r\nHost: h\r\n\r\n".as_slice(), &request].concat();
        client.write_all(&bytes).expect("write");
        assert_eq!(read_answer(&mut client).text(), "Get /before ? []", "{name}");
        let answer = read_answer(&mut client);
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{name}");
        assert!(has_ended(&mut client, 2_000), "{name}");
    }
    let handled = server.stats().requests();
    assert_eq!(handled, violations().len() as u64, "only those before were handled");
}

#[test]
fn a_thousand_connections_are_served_and_cost_little_while_idle() {
    let files = ecdsa();
    let server = echo(files.config());
    // What the client needs is measured by sessions that nobody answers.
    let before = resident_kib();
    let mut clients: Vec<Client> = (0..1_000).map(|_| files.connect(&server)).collect();
    for client in &mut clients {
        assert_eq!(get(client, "/").status, 200);
    }
    assert_eq!(server.stats().connections_open.load(Ordering::Relaxed), 1_000);
    let each_kib = (resident_kib() - before) / 1_000;
    eprintln!("{each_kib} KiB resident for each connection, the client's session and both sockets' buffers included");
    assert!(each_kib < 200, "{each_kib} KiB");
    for client in &mut clients {
        assert_eq!(get(client, "/again").text(), "Get /again ? []");
    }
    drop(clients);
    wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_stop_loses_no_request_under_load_and_ends_every_session() {
    let files = Arc::new(ecdsa());
    let server = start(files.config(), |_, exchange| {
        finish_later(exchange, 5, true);
        exchange.hold();
        ok(exchange, b"done");
    });
    let mut idle = files.connect(&server);
    assert_eq!(get(&mut idle, "/").status, 200);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = files.connect(&server);
            std::thread::spawn(move || {
                let mut answered = 0;
                loop {
                    if client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").is_err() {
                        return answered;
                    }
                    let Some(answer) = try_read_answer(&mut client) else { return answered };
                    assert_eq!(answer.text(), "done");
                    answered += 1;
                    if answer.header("connection") == Some("close") {
                        return answered;
                    }
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let stats = server.stats();
    assert!(server.stop(Duration::from_secs(5)), "all done");
    assert!(has_ended(&mut idle, 1_000));
    let answered: u64 = clients.into_iter().map(|client| client.join().expect("client")).sum();
    assert_eq!(answered + 1, stats.requests(), "each request that was handled was answered");
    assert!(answered > 8, "{answered}");
}

#[test]
fn what_is_not_whole_does_not_end_as_if_it_were() {
    let files = ecdsa();
    let server = start(Config { write_stall_ms: 200, ..files.config() }, |request, exchange| {
        let answer = Answer { status: 200, content_type: "text/plain", headers: &[], body: b"part" };
        match request.path {
            "/abandons" => exchange.stream(answer, |stream| stream.abandon()),
            "/breaks" => exchange.stream(answer, |_| panic!("asked for")),
            _ => ok(exchange, &vec![b'x'; 1 << 20]),
        }
    });
    for path in ["/abandons", "/breaks"] {
        let mut client = files.connect(&server);
        client.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("write");
        let mut body = Vec::new();
        let error = client.read_to_end(&mut body).expect_err("no proper end");
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof), "{path}: {error}");
    }
    let mut lags = files.connect(&server);
    lags.write_all("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(64).as_bytes()).expect("write");
    wait_for(|| server.stats().timeouts.load(Ordering::Relaxed) == 1);
    wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
    assert!(lags.read_to_end(&mut Vec::new()).is_err(), "reset");
}

#[test]
fn a_live_stream_drops_who_falls_behind_and_reaches_who_does_not() {
    let files = ecdsa();
    let server = start(files.config(), |_, exchange| {
        let answer = Answer { status: 200, content_type: "text/event-stream", headers: &[], body: b"" };
        exchange.stream(answer, move |stream| {
            while stream.is_open() && stream.offer(&[b'x'; 30_000]).is_ok() {
                stream.pause(5);
            }
        });
    });
    let mut lags = files.connect(&server);
    lags.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("write");
    let mut follows = files.connect(&server);
    follows.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
    assert_eq!(read_head(&mut follows).status, 200);
    let reader = std::thread::spawn(move || {
        let mut body = Vec::new();
        follows.read_to_end(&mut body).expect("a proper end");
        body.len()
    });
    wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 1);
    assert!(server.stop(Duration::from_secs(5)));
    let length = reader.join().expect("reader");
    assert!(length > 30_000 && length % 30_000 == 0, "{length}");
}

#[test]
fn who_is_turned_away_learns_why() {
    let files = ecdsa();
    let server = echo(Config { connections_max: 2, ..files.config() });
    let mut busy: Vec<Client> = (0..2).map(|_| files.connect(&server)).collect();
    for client in &mut busy {
        client.write_all(b"GET / HTTP/1.1\r\n").expect("write");
        client.flush().expect("write");
    }
    wait_for(|| server.stats().bytes_in() == 2 * 16);
    let mut third = files.connect(&server);
    let answer = get(&mut third, "/");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(has_ended(&mut third, 2_000));
    // One that never shakes hands is not waited for.
    let mut mute = connect(&server);
    let since = Instant::now();
    assert!(is_closed(&mut mute, 3_000) && since.elapsed() < Duration::from_millis(2_500));
}

#[test]
fn a_new_certificate_is_taken_without_closing_a_connection() {
    let files = ecdsa();
    let tls = files.tls();
    let server = echo(Config { tls: Some(tls.clone()), ..Config::default() });
    let mut old = files.connect(&server);
    assert_eq!(get(&mut old, "/").status, 200);
    files.renew(&rcgen::PKCS_ED25519);
    let mut distrusts = files.connect(&server);
    assert!(distrusts.write_all(b"GET / HTTP/1.1\r\n").is_err(), "the old certificate is still in use");
    tls.reload().expect("a good pair");
    assert_eq!(get(&mut files.connect(&server), "/").status, 200);
    assert_eq!(get(&mut old, "/").status, 200);
    std::fs::write(files.key(), "nonsense").expect("write");
    let error = tls.reload().expect_err("no key");
    assert!(error.contains("TLS_KEY") && !error.contains('\n'), "{error}");
    assert_eq!(get(&mut files.connect(&server), "/").status, 200);
}

#[test]
fn a_certificate_that_cannot_be_used_is_one_line() {
    let (files, other) = (ecdsa(), ecdsa());
    let empty = files.directory.path().join("empty.pem");
    std::fs::write(&empty, "").expect("write");
    let broken = files.directory.path().join("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n").expect("write");
    let missing = files.directory.path().join("missing.pem");
    for (certificate, key, text) in [
        (&missing, &files.key(), "TLS_CERT"),
        (&files.certificate(), &missing, "No such file"),
        (&empty, &files.key(), "holds no certificate"),
        (&broken, &files.key(), "TLS_CERT"),
        (&files.certificate(), &empty, "holds no private key"),
        (&files.certificate(), &files.certificate(), "holds no private key"),
        (&files.certificate(), &other.key(), "is not the key of"),
    ] {
        let error = Tls::load(certificate.clone(), key.clone()).err().expect("an error");
        assert!(error.contains(text) && !error.contains('\n'), "{error}");
    }
    assert_eq!(mode_warning(&files, 0o600), None);
    assert_eq!(mode_warning(&files, 0o640), None);
    assert!(mode_warning(&files, 0o644).is_some_and(|warning| warning.contains("TLS_KEY")));
}

fn mode_warning(files: &Files, mode: u32) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(files.key(), std::fs::Permissions::from_mode(mode)).expect("chmod");
    files.tls().warning()
}

/// The program itself, on embedded stores.
struct Program {
    child: Child,
    log: PathBuf,
    address: String,
}

impl Program {
    fn start(files: &Files, directory: &Path) -> Program {
        let log = directory.join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_event-tracker"))
            .args(["serve", "--listen", "127.0.0.1:0", "--allow-tmpfs", "--data-dir"])
            .arg(directory)
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .env("JOURNAL_MIN_FREE", "1000000")
            .env("TLS_CERT", files.certificate())
            .env("TLS_KEY", files.key())
            .stderr(std::fs::File::create(&log).expect("a log"))
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut program = Program { child, log, address: String::new() };
        wait_for(|| program.log().contains("listening on https://"));
        let log = program.log();
        let after = log.split("listening on https://").nth(1).expect("an address");
        program.address = after.split_whitespace().next().expect("an address").to_owned();
        program
    }

    fn log(&self) -> String {
        // Colours stand between words and numbers.
        let text = std::fs::read_to_string(&self.log).expect("a log");
        let mut plain = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            plain.push_str(before);
            rest = after.split_once('m').map_or("", |(_, after)| after);
        }
        plain + rest
    }

    fn signal(&self, signal: i32) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: signals a child of ours that was not waited for, so its id is still its own.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    fn curl(&self, files: &Files, arguments: &[&str]) -> std::process::Output {
        let (_, port) = self.address.rsplit_once(':').expect("a port");
        Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "10", "--cacert"])
            .arg(files.certificate())
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
            .args(arguments)
            .arg(format!("https://localhost:{port}/api/events"))
            .output()
            .expect("curl runs")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_program_serves_curl_and_takes_a_new_certificate_at_sighup() {
    if !Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("curl is not installed: nothing was shown");
        return;
    }
    let (files, data) = (ecdsa(), tempfile::tempdir().expect("a directory"));
    let mut program = Program::start(&files, data.path());
    let event = r#"{"eventType":"SEARCH","userId":1,"metadata":{"keyword":"cat"}}"#;
    let post = ["--json", event, "--write-out", " %{http_code} %{ssl_verify_result}"];
    for version in [&["--tlsv1.3"][..], &["--tlsv1.2", "--tls-max", "1.2"], &["--http2"]] {
        let out = program.curl(&files, &[version, &post].concat());
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.ends_with(" 202 0"), "{version:?}: {text} {}", String::from_utf8_lossy(&out.stderr));
    }
    files.renew(&rcgen::PKCS_ED25519);
    assert!(!program.curl(&files, &post).status.success(), "the old certificate is still in use");
    program.signal(libc::SIGHUP);
    wait_for(|| program.log().contains("the certificate was read again"));
    assert!(program.curl(&files, &post).status.success());
    std::fs::write(files.key(), "nonsense").expect("write");
    program.signal(libc::SIGHUP);
    wait_for(|| program.log().contains("the certificate stays as it was"));
    program.signal(libc::SIGTERM);
    assert!(program.child.wait().expect("it ends").success(), "{}", program.log());
}
