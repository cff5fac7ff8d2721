//! Processes of a test's own: started, signalled, waited for, and ended with the test.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use super::client::Client;
use super::eventually;

/// A start that must fail and a stop take at most this.
const END_WAIT: Duration = Duration::from_secs(30);

/// A child that ends with the thread of the test that started it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Running {
        // SAFETY: prctl is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            })
        };
        Running(command.spawn().expect("the program starts"))
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a process id")
    }

    pub(crate) fn signal(&self, signal: i32) {
        super::signal(self.pid(), signal);
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child")
    }

    /// Its exit code; it must end by itself. None: a signal ended it.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Option<i32> {
        self.end_within(END_WAIT).code()
    }

    #[track_caller]
    pub(crate) fn end_within(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a program ended, and what it said.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ended {
    let [out, err] = [(); 2].map(|()| tempfile::NamedTempFile::new().expect("a file"));
    let to = |file: &tempfile::NamedTempFile| file.reopen().expect("a file");
    let code = Running::start(command.stdout(to(&out)).stderr(to(&err))).end();
    let [out, err] = [out, err].map(|file| std::fs::read(file.path()).expect("a file"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code, out: text(out), err: text(err) }
}

impl Ended {
    /// It ended with this code, and one line of errors that holds all these words.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.err.lines().count()), (Some(code), 1), "{}", self.err);
        assert!(words.iter().all(|word| self.err.contains(word)), "{words:?} in {}", self.err);
    }

    /// It ended with code 1, and its last line holds this word.
    #[track_caller]
    pub(crate) fn fails(&self, word: &str) {
        let last = self.err.lines().last().unwrap_or_default();
        assert_eq!((self.code, last.contains(word)), (Some(1), true), "{}", self.err);
    }

    /// What it printed. It must have succeeded.
    #[track_caller]
    pub(crate) fn printed(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }
}

/// Whether a process catches a signal by now. Before that it blocks it, or ends by it.
pub(crate) fn catches(pid: impl std::fmt::Display, signal: i32) -> bool {
    is_in_mask(pid, "SigCgt:", signal)
}

/// Whether a process has blocked or caught a signal by now.
pub(crate) fn hears(pid: impl std::fmt::Display + Copy, signal: i32) -> bool {
    catches(pid, signal) || is_in_mask(pid, "SigBlk:", signal)
}

fn is_in_mask(pid: impl std::fmt::Display, name: &str, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix(name));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// A port that was free a moment ago: the address is known before the program says it.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Starts a server on a port of its own, and waits until it answers.
pub(crate) fn serve(command: &mut Command) -> (Running, SocketAddr) {
    let address = free_address();
    let running = Running::start(command.env("LISTEN", address.to_string()));
    eventually(END_WAIT, || match Client::new(address).try_send("GET", "/healthz/live", &[], b"") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    (running, address)
}
