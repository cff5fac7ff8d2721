//! The HTTP server through bytes on a socket: what it accepts, what it refuses and how, and when connections end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::http_support::*;
use event_tracker::http::{Config, DURATION_BOUNDS_US, Server};

#[test]
fn pipelined_answers_come_in_order() {
    let server = echo(Config::default());
    let mut stream = connect(&server);
    let mut writer = stream.try_clone().expect("clone");
    let requests: String = (0..1_000).map(|at| head_of(&format!("GET /{at}"))).collect();
    let thread = std::thread::spawn(move || send(&mut writer, requests));
    for at in 0..1_000 {
        assert_eq!(read_answer(&mut stream).text(), format!("Get /{at} ? []"));
    }
    thread.join().expect("writer");
}

#[test]
fn a_busy_pipeline_leaves_others_their_turn() {
    let server = echo(Config::default());
    let [mut greedy, mut modest]: [TcpStream; 2] = same_worker(&server, 2).try_into().expect("two");
    let mut reader = greedy.try_clone().expect("clone");
    let flood = std::thread::spawn(move || {
        let block = head_of("GET /").repeat(1_000);
        let until = Instant::now() + Duration::from_millis(400);
        while Instant::now() < until && greedy.write_all(block.as_bytes()).is_ok() {}
        let _ = greedy.shutdown(Shutdown::Write);
    });
    let sink = std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while matches!(reader.read(&mut buffer), Ok(1..)) {}
    });
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..20 {
        let since = Instant::now();
        assert_eq!(get(&mut modest, "/").status, 200);
        assert!(since.elapsed() < Duration::from_millis(150), "waited {:?}", since.elapsed());
    }
    flood.join().expect("flood");
    sink.join().expect("sink");
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let server = start(Config::default(), |request, exchange| {
        let status = request.path[1..].parse().unwrap_or(200);
        respond(exchange, status, &[("X-A", "b"), ("X-Bad", "a\r\nSet-Cookie: c")], b"four");
    });
    let mut stream = sent(&server, head_of("HEAD /200"));
    let head = read_head(&mut stream);
    assert_eq!((head.status, head.header("content-length")), (200, Some("4")));
    for status in [204, 304] {
        let head = ask_head(&mut stream, head_of(&format!("GET /{status}")));
        assert_eq!((head.status, head.header("content-length")), (status, None));
    }
    let answer = get(&mut stream, "/200");
    assert_eq!((answer.text(), answer.header("x-a"), answer.header("set-cookie")), ("four", Some("b"), None));
    assert!(answer.header("date").is_some_and(|date| date.len() == 29 && date.ends_with("GMT")));
}

#[test]
fn a_connection_ends_when_the_client_says_so_or_is_old() {
    let server = echo(Config::default());
    for request in [
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: Keep-Alive, Close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ] {
        let mut stream = connect(&server);
        let answer = ask(&mut stream, request);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{request}");
        assert!(is_closed(&mut stream, 1_000), "{request}");
    }
    let mut stream = connect(&server);
    for _ in 0..2 {
        let answer = ask(&mut stream, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
}

#[test]
fn every_target_form_is_understood() {
    let server = echo(Config::default());
    let mut stream = connect(&server);
    for (line, text) in [
        ("GET http://example.org/a?b HTTP/1.1", "Get /a ?b []"),
        ("GET http://example.org?b HTTP/1.1", "Get / ?b []"),
        ("OPTIONS * HTTP/1.1", "Options * ? []"),
        ("OPTIONS http://example.org HTTP/1.1", "Options * ? []"),
        ("OPTIONS http://example.org/ HTTP/1.1", "Options / ? []"),
        ("PATCH /? HTTP/1.1", "Patch / ? []"),
    ] {
        assert_eq!(ask(&mut stream, format!("\r\n{line}\r\nHost: [::1]:80\r\n\r\n")).text(), text, "{line}");
    }
}

#[test]
fn what_is_just_within_the_bounds_passes() {
    let server = echo(Config::default());
    let mut stream = connect(&server);
    let long = head_of(&format!("GET /{}", "a".repeat(7_999)));
    let fields: String = (0..99).map(|at| format!("X-{at}: v\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
    let full = format!("{start}{}\r\n\r\n", "v".repeat(16 * 1024 - start.len() - 4));
    assert_eq!(full.len(), 16 * 1024);
    for request in [long, many, full] {
        assert_eq!(ask(&mut stream, request).status, 200);
    }
}

#[test]
fn a_client_that_expects_continue_gets_it_once() {
    let server = echo(Config::default());
    let mut stream = connect(&server);
    let head = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    assert_eq!(ask_head(&mut stream, head).status, 100);
    assert_eq!(ask(&mut stream, b"four").text(), "Post / ? [four]");
    // The body is there already: no 100.
    assert_eq!(ask(&mut stream, format!("{head}four")).text(), "Post / ? [four]");
    // Refused before it sends the body.
    assert_eq!(ask(&mut stream, head.replace(": 4", ": 99999999")).status, 413);
}

#[test]
fn bodies_in_memory_are_bounded() {
    let server = echo(Config { bodies_bytes_max: 100_000, ..Config::default() });
    let mut stream = sent(&server, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n");
    let answer = ask(&mut stream, [b'x'; 200_000]);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    drop(stream);
    wait_for(|| server.stats().bodies_bytes.load(Ordering::Relaxed) == 0);
    let mut stream = sent(&server, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 50000\r\n\r\n");
    assert_eq!(ask(&mut stream, [b'x'; 50_000]).status, 200);
}

#[test]
fn clients_that_say_nothing_or_trickle_are_given_up() {
    let (body_rate_after_ms, body_bytes_per_second_min) = (100, 1_000);
    let times = Config { first_byte_ms: 100, body_ms: 400, body_rate_after_ms, ..Config::default() };
    let server = echo(Config { body_bytes_per_second_min, ..times });
    let mut silent = connect(&server);
    let mut trickle = sent(&server, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\n");
    let mut writer = trickle.try_clone().expect("clone");
    let since = Instant::now();
    let thread = std::thread::spawn(move || {
        while writer.write_all(&[b'x'; 100]).is_ok() && since.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(is_closed(&mut silent, 1_500), "silently");
    // Fast enough for the rate, too slow for the whole.
    assert_eq!(read_answer(&mut trickle).status, 408);
    assert!(since.elapsed() >= Duration::from_millis(350), "{:?}", since.elapsed());
    thread.join().expect("writer");
    assert_eq!(server.stats().timeouts.load(Ordering::Relaxed), 2);
}

#[test]
fn a_head_that_trickles_is_given_up_too() {
    let server = echo(Config { head_ms: 150, ..Config::default() });
    let since = Instant::now();
    let mut stream = sent(&server, "GET / HTTP/1.1\r\nHost: h\r\n");
    while since.elapsed() < Duration::from_millis(300) && stream.write_all(b"X: y\r\n").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(read_answer(&mut stream).status, 408);
}

#[test]
fn held_answers_wait_for_their_ticket() {
    let server = start(Config::default(), |request, exchange| {
        if request.path != "/now" {
            hold_for(exchange, 50, request.path != "/fails");
        }
        respond(exchange, 202, &[], request.path.as_bytes());
    });
    let mut stream = connect(&server);
    let since = Instant::now();
    assert_eq!(get(&mut stream, "/held").text(), "/held");
    assert!(since.elapsed() >= Duration::from_millis(45));
    // One failure replaces every held answer of the turn, and no other.
    let answers = get_all(&mut stream, &["/a", "/now", "/fails", "/b"]);
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [503, 202, 503, 503]);
    assert_eq!(answers[1].text(), "/now");
    assert_eq!(answers[0].header("retry-after"), Some("1"));
    // The next turn starts anew.
    assert_eq!(get(&mut stream, "/held").status, 202);
}

#[test]
fn what_a_request_carries_is_in_whatever_answer_it_gets() {
    let server = start(Config::default(), |request, exchange| {
        if request.path != "/plain" {
            exchange.carry(&[("X-Carried", request.path), ("X-Bad", "a\r\nX-Evil: 1")]);
        }
        match request.path {
            "/panics" => panic!("on purpose"),
            "/fails" => hold_for(exchange, 5, false),
            _ => {}
        }
        ok(exchange, b"x");
    });
    let mut stream = connect(&server);
    for (path, status) in [("/ok", 200), ("/fails", 503), ("/panics", 500)] {
        let answer = get(&mut stream, path);
        assert_eq!((answer.status, answer.header("x-carried")), (status, Some(path)));
        assert_eq!(answer.header("x-evil"), None);
    }
    assert_eq!(get(&mut connect(&server), "/plain").header("x-carried"), None);
}

#[test]
fn durations_count_every_answer_from_its_first_byte_to_its_write() {
    let server = start(Config::default(), |request, exchange| {
        if request.path == "/held" {
            hold_for(exchange, 60, true);
        }
        ok(exchange, b"x");
    });
    let mut stream = connect(&server);
    get_all(&mut stream, &["/now"; 3]);
    get(&mut stream, "/held");
    // A head that trickles in is the client's time, and is counted.
    send(&mut stream, b"GET /now HTTP/1.1\r\n");
    std::thread::sleep(Duration::from_millis(160));
    ask(&mut stream, b"Host: h\r\n\r\n");
    // Counted right after the write that the client has seen.
    wait_for(|| server.stats().durations().counts.iter().sum::<u64>() == 5);
    let spread = server.stats().durations();
    let from = |us: u64| {
        let slower = DURATION_BOUNDS_US.iter().zip(&spread.counts[1..]).filter(|(bound, _)| **bound >= us);
        slower.map(|(_, count)| count).sum::<u64>()
    };
    assert_eq!((from(50_000), from(150_000)), (2, 1), "{spread:?}");
    assert!((220_000..2_000_000).contains(&spread.sum_us), "{spread:?}");
}

#[test]
fn a_wait_ends_with_its_ticket_or_its_deadline() {
    let server = start(Config::default(), |request, exchange| {
        if request.path == "/held" {
            hold_for(exchange, 20, true);
            return ok(exchange, b"held");
        }
        exchange.settle();
        let (after_ms, succeeds) = match request.path {
            "/slow" => (900, true),
            "/fails" => (20, false),
            _ => (20, true),
        };
        finish_later(exchange, after_ms, succeeds);
        let waited = exchange.wait(500);
        ok(exchange, format!("{waited:?}").as_bytes());
    });
    let mut stream = connect(&server);
    for (path, text) in [("/", "Done"), ("/slow", "Late"), ("/", "Done"), ("/fails", "Failed")] {
        assert_eq!(get(&mut stream, path).text(), text, "{path}");
    }
    // What /slow had started ends now, on a ticket that nobody waits for.
    std::thread::sleep(Duration::from_millis(600));
    let answers = get_all(&mut stream, &["/held", "/slow", "/held", "/"]);
    assert_eq!(answers.iter().map(Answered::text).collect::<Vec<_>>(), ["held", "Late", "held", "Done"]);
}

#[test]
fn a_panic_is_one_answer_and_no_more() {
    let server = start(Config::default(), |request, exchange| {
        assert!(request.path != "/panic", "asked for");
        if request.path != "/silent" {
            ok(exchange, b"fine");
        }
    });
    let mut stream = connect(&server);
    let answers = get_all(&mut stream, &["/", "/panic"]);
    let answer = &answers[1];
    assert_eq!(answers[0].text(), "fine");
    let id = answer.header("x-request-id").expect("a request id");
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains(id) && !answer.text().contains("asked for"));
    assert!(is_closed(&mut stream, 1_500));
    let mut stream = connect(&server);
    assert_eq!(get(&mut stream, "/silent").status, 500, "no answer is a 500 as well");
    assert_eq!(get(&mut stream, "/").text(), "fine");
    assert_eq!(server.stats().handler_panics.load(Ordering::Relaxed), 1);
}

#[test]
fn past_the_cap_the_longest_idle_connection_makes_room() {
    let server = echo(Config { connections_max: 3, ..Config::default() });
    let mut streams = [(); 4].map(|()| {
        let mut stream = connect(&server);
        assert_eq!(get(&mut stream, "/").status, 200);
        std::thread::sleep(Duration::from_millis(5));
        stream
    });
    assert!(is_closed(&mut streams[0], 1_000));
    assert_eq!(get(&mut streams[1], "/").status, 200);
    assert_eq!(server.stats().connections_shed.load(Ordering::Relaxed), 1);
}

#[test]
fn a_thousand_connections_of_one_address_are_all_served() {
    let server = echo(Config { connections_per_address_max: 10, ..Config::default() });
    let mut streams: Vec<TcpStream> = (0..1_000).map(|_| connect(&server)).collect();
    for stream in &mut streams {
        assert_eq!(get(stream, "/").status, 200);
    }
    let stats = server.stats();
    assert_eq!(stats.connections_refused.load(Ordering::Relaxed), 0);
    let spread: usize = stats.connections_of_worker.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    assert_eq!((stats.connections_open.load(Ordering::Relaxed), spread), (1_000, 1_000));
    drop(streams);
    wait_for(|| stats.connections_open.load(Ordering::Relaxed) == 0);
}

#[test]
fn a_stop_cuts_what_outlasts_its_grace() {
    let server = echo(Config::default());
    let mut stream = sent(&server, b"GET / HTTP/1.1\r\n");
    wait_for(|| server.stats().bytes_in() == 16);
    let since = Instant::now();
    assert!(!server.stop(Duration::from_millis(100)));
    assert!(since.elapsed() < Duration::from_millis(600));
    assert!(is_closed(&mut stream, 1_000));
}

#[test]
fn a_second_server_on_the_port_is_refused() {
    let server = echo(Config::default());
    let config = Config { listen: server.local_addr(), ..Config::default() };
    let error = Server::bind(config).err().expect("the port is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&server.local_addr().to_string()), "{error}");
}

#[test]
fn a_stream_comes_in_chunks_at_its_own_pace_and_then_the_end() {
    let server = start(Config::default(), |request, exchange| {
        let answer = streamed(b"first ");
        match request.path {
            "/breaks" => exchange.stream(answer, |_| panic!("asked for")),
            "/fails" => {
                hold_for(exchange, 20, false);
                exchange.stream(answer, |stream| stream.write(b"never").expect("a reader"));
            }
            _ => exchange.stream(answer, |stream| {
                stream.pause(60);
                stream.offer(b"second ").expect("a reader");
                stream.write(&[b'x'; 2_000_000]).expect("a reader");
            }),
        }
    });
    let text = |version: &str, method: &str, path: &str| {
        let mut stream = sent(&server, format!("{method} {path} HTTP/{version}\r\nHost: h\r\n\r\n"));
        let head = read_head(&mut stream);
        let mut body = Vec::new();
        let whole = stream.read_to_end(&mut body).is_ok();
        (head.header("transfer-encoding").map(str::to_owned), String::from_utf8(body).expect("text"), whole)
    };
    let since = Instant::now();
    let (coding, body, _) = text("1.1", "GET", "/");
    assert!(since.elapsed() >= Duration::from_millis(55));
    assert_eq!(coding.as_deref(), Some("chunked"));
    assert!(body.starts_with("6\r\nfirst \r\n7\r\nsecond \r\n1e8480\r\nxxx") && body.ends_with("x\r\n0\r\n\r\n"));
    let (coding, body, _) = text("1.0", "GET", "/");
    assert!(coding.is_none() && body.starts_with("first second xx") && body.len() == 13 + 2_000_000);
    let (coding, body, _) = text("1.1", "HEAD", "/");
    assert_eq!((coding.as_deref(), body.as_str()), (Some("chunked"), ""));
    let (coding, body, _) = text("1.1", "GET", "/fails");
    assert!(coding.is_none() && body.contains("\"status\":503") && !body.contains("never"));
    let (_, body, whole) = text("1.1", "GET", "/breaks");
    assert!(!whole || !body.ends_with("0\r\n\r\n"), "what is not whole does not look whole");
}
