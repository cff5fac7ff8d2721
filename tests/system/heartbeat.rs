//! A worker that stands still makes `/healthz/live` answer 503, on the real program; the process goes on.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::bench::Bench;
use crate::support::{eventually, eventually_is, wait_until};
use event_tracker::limits::{HEARTBEAT_MISSES_MAX, HEARTBEAT_MS};

/// The two system calls in which a worker waits for its sockets.
const EPOLL_WAITS: [i64; 2] = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait];

/// The thread of a worker, once one is idle: of all threads only these wait in epoll.
fn worker_thread(pid: i32) -> libc::pid_t {
    let is_worker = |id: &String| {
        let call = std::fs::read_to_string(format!("/proc/{pid}/task/{id}/syscall")).unwrap_or_default();
        EPOLL_WAITS.iter().any(|wait| call.starts_with(&format!("{wait} ")))
    };
    let mut found = None;
    eventually(Duration::from_secs(10), || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the program runs");
        let mut ids = threads.map(|thread| thread.expect("an entry").file_name().into_string().expect("a number"));
        found = ids.find(is_worker);
        found.as_ref().map(drop).ok_or_else(|| "no worker waits in epoll".to_owned())
    });
    found.and_then(|id| id.parse().ok()).expect("a number")
}

/// Stops one thread of the program; it goes on when this is dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    fn stop(thread: libc::pid_t) -> Stopped {
        // SAFETY: attaches to a thread of a child of ours and waits until it has stopped; no memory is passed.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_ATTACH, thread, 0, 0), 0, "{}", std::io::Error::last_os_error());
            assert_eq!(libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL), thread);
        }
        Stopped(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}

/// The statuses that `/healthz/live` has over several connections, which are spread over all workers; 0: no answer.
fn statuses(address: SocketAddr) -> BTreeSet<u16> {
    let connect = || {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket takes it");
        stream.write_all(b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is sent");
        stream
    };
    let mut streams: Vec<TcpStream> = (0..6).map(|_| connect()).collect();
    let status = |stream: &mut TcpStream| {
        let mut line = [0; 12];
        stream.read_exact(&mut line).map_or(0, |()| String::from_utf8_lossy(&line[9..]).parse().expect("a status"))
    };
    streams.iter_mut().map(status).collect()
}

#[test]
fn a_worker_that_stands_still_makes_live_answer_503_until_it_runs_again() {
    let mut bench = Bench::embedded(&[("WORKERS", "2")]);
    let (pid, address) = (bench.tracker().pid(), bench.address());
    assert_eq!(statuses(address), BTreeSet::from([200]));
    let stopped = Stopped::stop(worker_thread(pid));
    let patience = Duration::from_millis(HEARTBEAT_MS * u64::from(HEARTBEAT_MISSES_MAX) + 10_000);
    // The other worker answers; the connections of this one get no answer.
    wait_until(patience, || statuses(address), |statuses| statuses.contains(&503));
    drop(stopped);
    eventually_is(Duration::from_secs(10), &BTreeSet::from([200]), || statuses(address));
    assert_eq!(bench.tracker().pid(), pid);
    bench.says("a worker stands still");
    assert_eq!(bench.stop().code(), Some(0));
}
