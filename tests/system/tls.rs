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
use event_tracker::http::{Config, Tls};
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
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-nodes", "-newkey", &format!("rsa:{bits}"), "-days", "2", "-subj", "/CN=localhost"]);
    make.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]);
    make.arg("-keyout").arg(files.key()).arg("-out").arg(files.certificate()).stderr(Stdio::null());
    make.status().is_ok_and(|status| status.success()).then_some(files)
}

#[test]
fn a_handshake_and_a_request_arrive_a_byte_at_a_time() {
    let files = Files::ecdsa();
    let server = echo(files.config());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (mut session, mut socket) = (files.session(&[version]), connect(&server));
        send(&mut session.writer(), head_of("GET /"));
        let mut answer = Vec::new();
        while !answer.ends_with(b"]") {
            let mut bytes = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut bytes).expect("bytes");
            }
            bytes.iter().for_each(|byte| send(&mut socket, [*byte]));
            session.read_tls(&mut socket).expect("read");
            session.process_new_packets().expect("TLS");
            let _ = session.reader().read_to_end(&mut answer);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"Get / ? []"));
    }
}

/// A client's first message.
fn hello(files: &Files) -> Vec<u8> {
    let mut hello = Vec::new();
    files.session(rustls::DEFAULT_VERSIONS).write_tls(&mut hello).expect("a hello");
    hello
}

#[test]
fn a_handshake_that_never_ends_is_given_up_and_holds_up_nobody() {
    let files = Files::ecdsa();
    let server = echo(Config { first_byte_ms: 300, ..files.config() });
    let hello = hello(&files);
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
        // What comes is a handshake's: no answer of HTTP.
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP"));
    }
}

#[test]
fn plain_http_is_told_to_use_https_and_garbage_gets_an_alert() {
    let files = Files::ecdsa();
    let server = echo(files.config());
    for request in [head_of("GET /"), head_of("POST /api/events"), "x".to_owned()] {
        let mut plain = connect(&server);
        let answer = ask(&mut plain, request);
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
        assert!(answer.text().contains("https://") && answer.text().contains("plain_http"), "{}", answer.text());
        assert!(is_closed(&mut plain, 2_000));
    }
    assert_eq!(server.stats().responses(4), 3);
    let mut hello = hello(&files);
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
    send(&mut client.sock, [&[23, 3, 3, 0, 20][..], &[7; 20]].concat());
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
        assert!(each_kib < 200, "{each_kib} KiB, the client's session and both sockets' buffers included");
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
    let server = start(files.config(), |request, exchange| match request.path {
        "/abandons" => exchange.stream(streamed(b"part"), |stream| stream.abandon()),
        _ => exchange.stream(streamed(b"part"), |_| panic!("asked for")),
    });
    for path in ["/abandons", "/breaks"] {
        let mut client = connect_tls(&files, &server);
        send(&mut client, format!("GET {path} HTTP/1.0\r\n\r\n"));
        let error = client.read_to_end(&mut Vec::new()).expect_err("no proper end");
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof), "{path}: {error}");
    }
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
    let [empty, broken, missing] = ["empty", "broken", "missing"].map(|name| files.directory.path().join(name));
    std::fs::write(&empty, "").expect("write");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n").expect("write");
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
}

fn curl(bench: &Bench, files: &Files, arguments: &[&str]) -> std::process::Output {
    let port = bench.address().port();
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "10", "--cacert"]).arg(files.certificate());
    command.args(["--resolve", &format!("localhost:{port}:127.0.0.1")]).args(arguments);
    command.arg(format!("https://localhost:{port}/api/events")).output().expect("curl runs")
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
