//! Many clients that do not behave, on the real program: they are gone after their limit, memory stays bounded and comes
//! back, and those who behave are answered meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::bench::Bench;
use crate::support::{click, encode, eventually_is, memory_kib, wait_until};
use socket2::{Domain, Socket, Type};

const GET: &[u8] = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n";
/// Resident memory that 10,000 idle connections may take, each having been served once.
const IDLE_10000_MIB_MAX: u64 = 220;

/// As many sockets as this process may hold, up to `wanted`, with some to spare.
fn sockets(wanted: usize) -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives both calls, which only fill and read it.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    wanted.min(usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX).saturating_sub(600))
}

fn resident_mib(pid: i32) -> u64 {
    memory_kib(pid, "VmRSS") / 1024
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket takes it");
    stream
}

/// With room for few unread answers, so that whoever writes them soon has to wait.
fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a socket takes it");
    socket.connect(&address.into()).expect("it listens");
    socket.into()
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(GET).expect("it reads");
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !answer.ends_with(b"{\"status\":\"ok\"}\n") {
        let length = stream.read(&mut buffer).expect("it answers");
        assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..length]);
    }
}

/// Clients that were served once and stay.
fn served(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams: Vec<TcpStream> = (0..count).map(|_| connect(address)).collect();
    streams.iter_mut().for_each(ask);
    streams
}

#[test]
fn ten_thousand_idle_connections_that_were_served_take_little_memory() {
    let mut bench = Bench::embedded(&[]);
    let count = sockets(10_000);
    let before = resident_mib(bench.tracker().pid());
    let mut idle = served(bench.address(), count);
    let resident = resident_mib(bench.tracker().pid());
    eprintln!("{count} idle connections: {resident} MiB resident, {before} before the first");
    let share = (IDLE_10000_MIB_MAX - before) * count as u64 / 10_000;
    assert!(resident <= before + share, "{resident} MiB for {count} connections, {before} before");
    // All of them are still there.
    ask(&mut idle[0]);
    ask(idle.last_mut().expect("many"));
}

/// Threads that go on until told.
struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn run(&mut self, mut turn: impl FnMut() + Send + 'static) {
        let stop = self.stop.clone();
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                turn();
            }
        }));
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("it only misbehaves on purpose"));
    }
}

/// Sends one byte of `rest` a turn on each of `count` connections that began with `begun`.
fn trickle(crowd: &mut Crowd, address: SocketAddr, count: usize, begun: &'static [u8], gone: Arc<AtomicU64>) {
    let mut streams: Vec<TcpStream> = (0..count).map(|_| connect(address)).collect();
    for stream in &mut streams {
        stream.write_all(begun).expect("it reads");
        stream.set_nonblocking(true).expect("a socket takes it");
    }
    crowd.run(move || {
        streams.retain_mut(|stream| {
            let mut buffer = [0; 512];
            let is_closed = matches!(stream.read(&mut buffer), Ok(0));
            let ended = is_closed || stream.write(b"x").is_err_and(|error| is_end(&error));
            gone.fetch_add(u64::from(ended), Ordering::Relaxed);
            !ended
        });
        thread::sleep(Duration::from_millis(200));
    });
}

/// Asks for as much as goes on each of `count` connections and never reads an answer.
fn hoard(crowd: &mut Crowd, address: SocketAddr, count: usize, request: &[u8], gone: Arc<AtomicU64>) {
    let requests = request.repeat(200);
    // With how much of the requests each has sent: every request is a whole one.
    let mut streams: Vec<(TcpStream, usize)> = (0..count).map(|_| (connect_narrow(address), 0)).collect();
    streams.iter().for_each(|(stream, _)| stream.set_nonblocking(true).expect("a socket takes it"));
    crowd.run(move || {
        streams.retain_mut(|(stream, sent)| {
            let ended = loop {
                match stream.write(&requests[*sent..]) {
                    Ok(length) => *sent = (*sent + length) % requests.len(),
                    Err(error) => break is_end(&error),
                }
            };
            gone.fetch_add(u64::from(ended), Ordering::Relaxed);
            !ended
        });
        thread::sleep(Duration::from_millis(20));
    });
}

fn is_end(error: &std::io::Error) -> bool {
    error.kind() != ErrorKind::WouldBlock
}

#[test]
fn who_behaves_is_answered_while_others_trickle_hoard_and_drop() {
    // As in life, only shorter.
    let [head, body] = [("HEAD_MS", "1500"), ("BODY_MS", "2500")];
    let mut bench = Bench::embedded(&[head, body, ("BODY_RATE_AFTER_MS", "1500"), ("WRITE_STALL_MS", "2000")]);
    let (address, pid) = (bench.address(), bench.tracker().pid());
    let scale = sockets(8_000);
    let mut normal = connect(address);
    ask(&mut normal);
    let before = resident_mib(pid);
    let gone = Arc::new(AtomicU64::new(0));
    let mut crowd = Crowd { stop: Arc::default(), threads: Vec::new() };
    let idle = served(address, scale * 5 / 8);
    hoard(&mut crowd, address, scale / 8, GET, gone.clone());
    let slow = scale / 40;
    trickle(&mut crowd, address, slow, b"GET /healthz/live HTTP/1.1\r\nX: ", gone.clone());
    let post = b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
    trickle(&mut crowd, address, slow, post, gone.clone());
    for _ in 0..2 {
        crowd.run(move || {
            let mut stream = connect(address);
            let _ = stream.write(b"GET /healthz");
            drop(stream);
            // The ports of closed connections run out otherwise.
            thread::sleep(Duration::from_millis(1));
        });
    }
    let mut times = Vec::new();
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let asked = Instant::now();
        ask(&mut normal);
        times.push(asked.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    let during = resident_mib(pid);
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    eprintln!("{} answers, p50 {:?}, p99 {p99:?}; {before} -> {during} MiB", times.len(), times[times.len() / 2]);
    let misbehaved = (2 * slow + scale / 8) as u64;
    eventually_is(Duration::from_secs(10), &misbehaved, || gone.load(Ordering::Relaxed));
    crowd.finish();
    drop(idle);
    // The allocator keeps some of what it was given.
    wait_until(Duration::from_secs(10), || resident_mib(pid), |after| *after <= before + 64);
    ask(&mut normal);
}

const MIB: usize = 1024 * 1024;
const DECODED_BYTES: usize = 8 * MIB;
/// Far above a time slice of 5 ms, for a debug build on a busy machine; one body that nothing interrupts takes longer.
const NORMAL_ANSWER_MAX: Duration = Duration::from_secs(1);

/// Text that no coding makes much smaller than half.
fn noise(length: usize) -> String {
    let mut state = 1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"0123456789abcdef"[(state >> 60) as usize])
    };
    (0..length).map(|_| next()).collect()
}

/// A row with 8 KiB of properties, 32 levels deep.
fn deep_row(number: usize) -> String {
    let properties = format!("{}\"{}{}\"{}", "{\"a\":".repeat(31), noise(200), "x".repeat(7_700), "}".repeat(31));
    format!(r#"{{"eventType":"CLICK","userId":{number},"metadata":{{"componentId":1}},"properties":{properties}}}"#)
}

/// Bodies whose work is large for their size.
fn costly_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let mut rows: String = (0..1_000).map(|number| deep_row(number) + "\n").collect();
    rows.truncate(DECODED_BYTES);
    let start = r#"{"userId":1,"postId":"p","content":""#;
    vec![
        ("numbers", format!("[{}1]", "1,".repeat(DECODED_BYTES / 2 - 1)).into_bytes()),
        ("deep rows", rows.into_bytes()),
        ("blank lines", vec![b'\n'; DECODED_BYTES]),
        ("blanks", vec![b' '; DECODED_BYTES]),
        ("one string", format!("{start}{}", "a".repeat(DECODED_BYTES - start.len())).into_bytes()),
        ("brackets", vec![b'['; DECODED_BYTES]),
        ("a list in a post", format!(r#"{{"hashtags":[{}""]}}"#, "\"a\",".repeat(120_000)).into_bytes()),
    ]
}

fn coded_request(route: &str, coding: &str, body: &[u8]) -> Vec<u8> {
    let headers = format!("Content-Encoding: {coding}\r\nContent-Length: {}", body.len());
    [format!("{route} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n").as_bytes(), body].concat()
}

/// Reads until `count` answers have begun, and asks for something else meanwhile: the longest time that this took.
fn longest_answer_during(normal: &mut TcpStream, attacker: &mut TcpStream, count: usize) -> Duration {
    attacker.set_nonblocking(true).expect("a socket takes it");
    let mut longest = Duration::ZERO;
    let mut answers = Vec::new();
    let until = Instant::now() + Duration::from_secs(60);
    while answers.windows(9).filter(|at| at == b"HTTP/1.1 ").count() < count {
        let asked = Instant::now();
        ask(normal);
        longest = longest.max(asked.elapsed());
        let mut buffer = [0; 65_536];
        match attacker.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answers.extend_from_slice(&buffer[..length]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        assert!(Instant::now() < until, "no answers to the costly bodies");
    }
    longest
}

#[test]
fn a_small_body_never_keeps_a_worker_from_other_connections() {
    let bench = Bench::embedded(&[("WORKERS", "1")]);
    let address = bench.address();
    let mut normal = connect(address);
    ask(&mut normal);
    let routes = "POST /api/events|POST /api/events/batch|POST /api/posts|POST /api/posts/like|\
        PUT /api/posts/p/like|DELETE /api/posts/p/like";
    for (name, body) in costly_bodies() {
        for coding in ["gzip", "deflate", "zstd"] {
            let packed = encode(coding, &body);
            for route in routes.split('|') {
                // What one read brings, at most: they are answered in one turn.
                let count = (16 * 1024 / packed.len()).clamp(1, 16);
                let mut attacker = connect(address);
                attacker.write_all(&coded_request(route, coding, &packed).repeat(count)).expect("it reads");
                let longest = longest_answer_during(&mut normal, &mut attacker, count);
                let told = format!("{route}, {name}, {coding}, {count} of {} bytes: {longest:?}", packed.len());
                eprintln!("{told}");
                assert!(longest < NORMAL_ANSWER_MAX, "{told}");
            }
        }
    }
}

#[test]
fn a_decoder_stops_at_the_first_limit() {
    let (_bench, mut client) = Bench::with_client(&[]);
    let row = click(1).to_string();
    let padded = |length: usize| format!("{{\"x\":\"{}\"}}", noise(length));
    for coding in ["gzip", "deflate", "zstd"] {
        // 1 MiB and 100 times the wire.
        let blank = |length: usize| format!("{row}{}", " ".repeat(length - row.len()));
        let fits = |length: &usize| *length <= MIB + 100 * encode(coding, blank(*length).as_bytes()).len();
        let fits = (MIB..2 * MIB).step_by(4_096).take_while(fits).last().expect("a megabyte always does");
        for (path, body, status, tag) in [
            ("/api/events", blank(fits + 64 * 1024), 413, "body_too_large"),
            // An envelope may be as large as a body, one event may not.
            ("/api/events", format!("{{\"events\":[{row}],{}", &padded(3 * MIB / 2)[1..]), 202, ""),
            ("/api/events", padded(65 * 1024), 413, "event_too_large"),
            ("/api/posts/like", padded(65 * 1024), 413, "body_too_large"),
            ("/api/posts", padded(513 * 1024), 413, "body_too_large"),
            ("/api/events", format!("[{}]", vec![row.as_str(); 1_001].join(",")), 413, "too_many_events"),
        ] {
            let answer = client.send("POST", path, &[("Content-Encoding", coding)], &encode(coding, body.as_bytes()));
            let told = answer.json()["error"].as_str().unwrap_or_default().to_owned();
            assert_eq!((answer.status, told.as_str()), (status, tag), "{path} {coding}");
        }
    }
}

#[test]
fn decoded_bodies_count_as_bodies_in_memory() {
    let (_bench, mut client) = Bench::with_client(&[("BODIES_BYTES_MAX", &(4 * MIB).to_string())]);
    let row = click(1);
    let of_size = |length: usize| format!("{{\"events\":[{row}],\"x\":\"{}{}\"}}", noise(120_000), "a".repeat(length));
    for coding in ["gzip", "deflate", "zstd"] {
        let mut post = |length: usize| {
            let packed = encode(coding, of_size(length).as_bytes());
            client.send("POST", "/api/events", &[("Content-Encoding", coding)], &packed)
        };
        let refused = post(6 * MIB).expect(503);
        assert_eq!((refused.json()["error"].as_str(), refused.header("retry-after")), (Some("bodies_full"), Some("1")));
        // What it had is free again.
        for _ in 0..8 {
            post(MIB / 2).expect(202);
        }
    }
}

#[test]
fn clients_that_do_not_read_hold_a_bounded_amount_of_responses_together() {
    let mut bench = Bench::embedded(&[("UNSENT_ALL_BYTES_MAX", &MIB.to_string())]);
    let (address, pid) = (bench.address(), bench.tracker().pid());
    let mut normal = connect(address);
    ask(&mut normal);
    // As many clients that read: their stacks and buffers are no unsent responses.
    let mut readers: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
    let send = |reader: &mut TcpStream| reader.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it reads");
    readers.iter_mut().for_each(send);
    for reader in &mut readers {
        reader.read_to_end(&mut Vec::new()).expect("it answers");
    }
    let before = resident_mib(pid);
    let gone = Arc::new(AtomicU64::new(0));
    let mut crowd = Crowd { stop: Arc::default(), threads: Vec::new() };
    hoard(&mut crowd, address, 100, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", gone.clone());
    // Four times 256 KiB may wait; the others are cut off before their 15 s are over.
    wait_until(Duration::from_secs(8), || gone.load(Ordering::Relaxed), |gone| *gone >= 75);
    let during = resident_mib(pid);
    // 5 to 11 MiB more in a debug build; 17 to 23 with a bound of 64 MiB.
    assert!(during <= before + 16, "{before} MiB before, {during} with clients that do not read");
    crowd.finish();
    ask(&mut normal);
}
