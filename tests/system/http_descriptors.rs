//! The server without a descriptor left. In a process of its own, whose limit it uses up.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::http_support::*;
use crate::support::{alone, eventually};
use event_tracker::http::Config;

fn fill() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Processor time of this process, all threads.
fn processor_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, which only fills it.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000
}

/// The server answers the head with 100 and counts the connection as busy until it has the body.
const HEAD: &[u8] = b"POST /late HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";

fn is_answered(stream: &mut TcpStream) {
    assert_eq!(ask(stream, b"body").text(), "Post /late ? [body]");
}

#[test]
fn without_a_descriptor_the_server_sheds_waits_and_goes_on() {
    alone("http_descriptors::without_a_descriptor_the_server_sheds_waits_and_goes_on", || {
        let limit = libc::rlimit { rlim_cur: 256, rlim_max: 4_096 };
        // SAFETY: the call only reads `limit`; a hard limit that is lower is an error, which is looked at.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        let server = echo(Config::default());
        let stats = server.stats();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut idle = connect(&server);
        assert_eq!(get(&mut idle, "/").status, 200);
        let mut busy = sent(&server, HEAD);
        assert_eq!(read_head(&mut busy).status, 100);
        // Sockets that exist already: from here on this test frees no descriptor that the server could take.
        let sockets: Vec<_> =
            (0..8).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")).collect();
        let mut sockets = sockets.into_iter();
        let mut taken = fill();
        let (mut accepted, mut waiting) = (Vec::new(), None);
        for socket in sockets.by_ref() {
            // The server has a descriptor in reserve: accept(2) takes one before it waits. Another comes from the
            // idle connection. So the first sockets may be accepted, and shed as idle before their heads arrive.
            let (before, pauses) = (count(&stats.connections_accepted), count(&stats.accept_pauses));
            socket.connect(&server.local_addr().into()).expect("the kernel queues the connection");
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("time-out");
            let _ = stream.write_all(HEAD);
            eventually(Duration::from_secs(10), || {
                let is_decided =
                    count(&stats.connections_accepted) > before || count(&stats.accept_pauses) > pauses + 2;
                is_decided.then_some(()).ok_or_else(|| "neither accepted nor paused".into())
            });
            taken.extend(fill());
            if count(&stats.connections_accepted) == before {
                waiting = Some(stream);
                break;
            }
            accepted.push(stream);
        }
        let mut waiting = waiting.expect("one that waits, since no connection is idle");
        assert!(is_closed(&mut idle, 10_000), "the idle connection makes room");
        assert!(count(&stats.connections_shed) >= 1);
        let (pauses, since, used) = (count(&stats.accept_pauses), Instant::now(), processor_ms());
        std::thread::sleep(Duration::from_millis(1_000));
        let (pauses, used) = (count(&stats.accept_pauses) - pauses, processor_ms() - used);
        assert!((1..20).contains(&pauses) && used < 200, "{pauses} pauses, {used} ms used in {:?}", since.elapsed());
        is_answered(&mut busy);
        drop(taken);
        assert_eq!(read_head(&mut waiting).status, 100);
        is_answered(&mut waiting);
    });
}
