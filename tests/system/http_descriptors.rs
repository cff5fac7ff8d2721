//! The server without a descriptor left. In a process of its own, whose limit it uses up.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::http_support::*;
use crate::support::alone;
use event_tracker::http::Config;

/// Opens files until there is no descriptor left.
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

#[test]
fn without_a_descriptor_the_server_sheds_waits_and_goes_on() {
    alone("http_descriptors::without_a_descriptor_the_server_sheds_waits_and_goes_on", || {
        let limit = libc::rlimit { rlim_cur: 256, rlim_max: 4_096 };
        // SAFETY: the call only reads `limit`; a hard limit that is lower is an error, which is looked at.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        let server = echo(Config::default());
        let stats = server.stats();
        let mut idle = connect(&server);
        assert_eq!(get(&mut idle, "/").status, 200);
        // One is left, for the client's end of the next connection; the idle one makes room for the server's.
        let mut taken = fill();
        taken.pop();
        let mut busy = connect(&server);
        busy.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            .expect("write");
        // From this answer on the server counts the connection as busy, so it is not the next one to go.
        assert_eq!(read_head(&mut busy).status, 100);
        assert_eq!(stats.connections_accepted.load(Ordering::Relaxed), 2);
        assert!(is_closed(&mut idle, 10_000));
        assert_eq!(stats.connections_shed.load(Ordering::Relaxed), 1);
        // No connection is idle now: the new one waits, and so does the server, without work.
        drop(idle);
        let mut waiting = connect(&server);
        taken.extend(fill());
        waiting.write_all(b"GET /late HTTP/1.1\r\nHost: h\r\n\r\n").expect("write");
        let (pauses, since, used) = (stats.accept_pauses.load(Ordering::Relaxed), Instant::now(), processor_ms());
        std::thread::sleep(Duration::from_millis(1_000));
        let (pauses, used) = (stats.accept_pauses.load(Ordering::Relaxed) - pauses, processor_ms() - used);
        assert!((1..20).contains(&pauses) && used < 200, "{pauses} pauses, {used} ms used in {:?}", since.elapsed());
        busy.write_all(b"body").expect("write");
        assert_eq!(read_answer(&mut busy).status, 200, "an open connection is served");
        drop(taken);
        assert_eq!(read_answer(&mut waiting).text(), "Get /late ? []");
    });
}
