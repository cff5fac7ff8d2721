//! TLS over real sockets, with a client of rustls and one of OpenSSL: keys, handshakes, certificates, and ends of sessions.
//! `http_transport.rs` has what the server promises with and without TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::http_support::*;
use crate::support::bench::Bench;
use crate::support::certificate::Files;
use crate::support::{alone, memory_kib, signal};
use event_tracker::http::{Answer, Config, Tls};
use rustls::StreamOwned;

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
    let files = Files::empty();
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
fn large_bodies_come_in_and_go_out_whole() {
    let files = Files::ecdsa();
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
    let mut client = connect_tls(&files, &server);
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
    let files = Files::ecdsa();
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
    let files = Files::ecdsa();
    let server = echo(Config { first_byte_ms: 300, ..files.config() });
    let mut hello = Vec::new();
    files.session(rustls::DEFAULT_VERSIONS).write_tls(&mut hello).expect("a hello");
    let mut stuck: Vec<TcpStream> = (0..20).map(|_| connect(&server)).collect();
    for (socket, length) in stuck.iter_mut().zip([0, 1, 5, 100, hello.len()].into_iter().cycle()) {
        socket.write_all(&hello[..length]).expect("write");
    }
    let since = Instant::now();
    for _ in 0..4 {
        assert_eq!(get(&mut connect_tls(&files, &server), "/").status, 200);
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
fn plain_http_is_told_to_use_https_and_garbage_gets_an_alert() {
    let files = Files::ecdsa();
    let server = echo(files.config());
    for request in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "POST /api/events HTTP/1.1\r\nHost: h\r\n\r\n", "x"] {
        let mut plain = connect(&server);
        plain.write_all(request.as_bytes()).expect("write");
        let answer = read_answer(&mut plain);
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
        assert!(answer.text().contains("https://") && answer.text().contains("plain_http"), "{}", answer.text());
        assert!(is_closed(&mut plain, 2_000));
    }
    assert_eq!(server.stats().responses(4), 3);
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
    let mut client = connect_tls(&files, &server);
    assert_eq!(get(&mut client, "/").status, 200);
    client
        .sock
        .write_all(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
        .expect("write");
    assert!(client.read(&mut [0; 1]).is_err(), "an alert");
    wait_for(|| server.stats().tls_failures.load(Ordering::Relaxed) == garbage.len() as u64 + 1);
    wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
    assert_eq!(get(&mut connect_tls(&files, &server), "/").status, 200, "it goes on");
}

#[test]
fn a_thousand_connections_are_served_and_cost_little_while_idle() {
    alone("tls::a_thousand_connections_are_served_and_cost_little_while_idle", || {
        let files = Files::ecdsa();
        let server = echo(files.config());
        // What the client needs is measured by sessions that nobody answers.
        let before = memory_kib(std::process::id() as i32, "VmRSS");
        let mut clients: Vec<TlsStream> = (0..1_000).map(|_| connect_tls(&files, &server)).collect();
        for client in &mut clients {
            assert_eq!(get(client, "/").status, 200);
        }
        assert_eq!(server.stats().connections_open.load(Ordering::Relaxed), 1_000);
        let each_kib = (memory_kib(std::process::id() as i32, "VmRSS") - before) / 1_000;
        eprintln!(
            "{each_kib} KiB resident for each connection, the client's session and both sockets' buffers included"
        );
        assert!(each_kib < 200, "{each_kib} KiB");
        for client in &mut clients {
            assert_eq!(get(client, "/again").text(), "Get /again ? []");
        }
        drop(clients);
        wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
    });
}

#[test]
fn what_is_not_whole_does_not_end_as_if_it_were() {
    let files = Files::ecdsa();
    let server = start(Config { write_stall_ms: 200, ..files.config() }, |request, exchange| {
        let answer = Answer { status: 200, content_type: "text/plain", headers: &[], body: b"part" };
        match request.path {
            "/abandons" => exchange.stream(answer, |stream| stream.abandon()),
            "/breaks" => exchange.stream(answer, |_| panic!("asked for")),
            _ => ok(exchange, &vec![b'x'; 1 << 20]),
        }
    });
    for path in ["/abandons", "/breaks"] {
        let mut client = connect_tls(&files, &server);
        client.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("write");
        let mut body = Vec::new();
        let error = client.read_to_end(&mut body).expect_err("no proper end");
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof), "{path}: {error}");
    }
    let mut lags = connect_tls(&files, &server);
    lags.write_all("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(64).as_bytes()).expect("write");
    wait_for(|| server.stats().timeouts.load(Ordering::Relaxed) == 1);
    wait_for(|| server.stats().connections_open.load(Ordering::Relaxed) == 0);
    assert!(lags.read_to_end(&mut Vec::new()).is_err(), "reset");
}

#[test]
fn a_new_certificate_is_taken_without_closing_a_connection() {
    let files = Files::ecdsa();
    let tls = files.tls();
    let server = echo(Config { tls: Some(tls.clone()), ..Config::default() });
    let mut old = connect_tls(&files, &server);
    assert_eq!(get(&mut old, "/").status, 200);
    files.renew(&rcgen::PKCS_ED25519);
    let mut distrusts = connect_tls(&files, &server);
    assert!(distrusts.write_all(b"GET / HTTP/1.1\r\n").is_err(), "the old certificate is still in use");
    tls.reload().expect("a good pair");
    assert_eq!(get(&mut connect_tls(&files, &server), "/").status, 200);
    assert_eq!(get(&mut old, "/").status, 200);
    std::fs::write(files.key(), "nonsense").expect("write");
    let error = tls.reload().expect_err("no key");
    assert!(error.contains("TLS_KEY") && !error.contains('\n'), "{error}");
    assert_eq!(get(&mut connect_tls(&files, &server), "/").status, 200);
}

#[test]
fn a_certificate_that_cannot_be_used_is_one_line() {
    let (files, other) = (Files::ecdsa(), Files::ecdsa());
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

fn curl(bench: &Bench, files: &Files, arguments: &[&str]) -> std::process::Output {
    let port = bench.address().port();
    Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10", "--cacert"])
        .arg(files.certificate())
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
        .args(arguments)
        .arg(format!("https://localhost:{port}/api/events"))
        .output()
        .expect("curl runs")
}

#[test]
fn the_program_serves_curl_and_takes_a_new_certificate_at_sighup() {
    if !Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("curl is not installed: nothing was shown");
        return;
    }
    let files = Files::ecdsa();
    let path = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
    let settings = [("TLS_CERT", &*path(files.certificate())), ("TLS_KEY", &*path(files.key()))];
    let mut bench = Bench::embedded(&settings);
    let event = r#"{"eventType":"SEARCH","userId":1,"metadata":{"keyword":"cat"}}"#;
    let post = ["--json", event, "--write-out", " %{http_code} %{ssl_verify_result}"];
    for version in [&["--tlsv1.3"][..], &["--tlsv1.2", "--tls-max", "1.2"], &["--http2"]] {
        let out = curl(&bench, &files, &[version, &post].concat());
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.ends_with(" 202 0"), "{version:?}: {text} {}", String::from_utf8_lossy(&out.stderr));
    }
    files.renew(&rcgen::PKCS_ED25519);
    assert!(!curl(&bench, &files, &post).status.success(), "the old certificate is still in use");
    signal(bench.tracker().pid(), libc::SIGHUP);
    bench.says("the certificate was read again");
    assert!(curl(&bench, &files, &post).status.success());
    std::fs::write(files.key(), "nonsense").expect("write");
    signal(bench.tracker().pid(), libc::SIGHUP);
    bench.says("the certificate stays as it was");
    assert!(bench.stop().success());
}
