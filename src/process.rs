//! The process and its limits: descriptors, memory maps, threads, panics, and the signal to read
//! files again.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, Once};
use std::thread::{Builder, JoinHandle};

use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use crate::limits::CONNECTIONS_MAX;
use crate::logging::last_words;

/// Descriptors that are not connections: segments, stores, epoll, timers, with room to spare.
const OTHER_DESCRIPTORS: usize = 256;
/// Memory maps that are not stacks of coroutines; a stack and its guard page are two.
const OTHER_MAPS: usize = 2_000;

/// Permission of a file to those who are neither its owner nor in its group.
const OTHERS_READ: u32 = 0o004;
/// The type of a file system that is lost with the power.
pub const TMPFS: i64 = 0x0102_1994;

/// Whether a file that holds a secret can be read by every user of this machine.
pub fn others_read(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & OTHERS_READ != 0)
}

/// Raises the soft limit of descriptors to the hard one and tells how many connections the system
/// then allows, at most `wanted` (0: [`CONNECTIONS_MAX`]).
pub fn connections_max(wanted: usize) -> usize {
    let wanted = if wanted == 0 { CONNECTIONS_MAX } else { wanted };
    let by_descriptors = raise_descriptors().saturating_sub(OTHER_DESCRIPTORS);
    let maps = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse().ok());
    let by_maps = maps.map_or(usize::MAX, |maps: usize| (maps / 2).saturating_sub(OTHER_MAPS));
    let allowed = wanted.min(by_descriptors).min(by_maps).max(16);
    if allowed < wanted {
        tracing::warn!(wanted, allowed, "the system's limits (nofile, vm.max_map_count) allow fewer connections");
    }
    allowed
}

/// The soft and the hard limit of descriptors as they are.
pub fn descriptors() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call, which only fills it; after a failure it is zeros.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

/// The soft limit after the attempt to raise it to the hard one.
fn raise_descriptors() -> usize {
    let (_, hard) = descriptors();
    let raised = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: `raised` outlives the call, which only reads it. A refusal leaves the limit as it
    // was.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
    usize::try_from(descriptors().0).unwrap_or(usize::MAX)
}

/// The type of the file system that an open file is on (statfs(2)), and its bytes that a process like ours may still
/// allocate.
pub fn file_system(file: &File) -> io::Result<(i64, u64)> {
    // SAFETY: statfs is plain numbers, for which zero is a value; the call only fills it.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `about` outlives the call.
    if unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut about) } != 0 {
        return Err(io::Error::last_os_error());
    }
    #[allow(clippy::unnecessary_cast, reason = "the types differ between targets")]
    let (kind, block_bytes) = (about.f_type as i64 & 0xffff_ffff, about.f_bsize as u64);
    Ok((kind, about.f_bavail.saturating_mul(block_bytes)))
}

/// Files that this process makes are its owner's alone (0600, directories 0700), whatever umask it
/// was started with.
pub fn keep_files_private() {
    // SAFETY: sets a number of the process; it cannot fail.
    unsafe { libc::umask(0o077) };
}

/// Keeps the kernel from giving this process transparent huge pages, as it may even without a
/// request: an arena of which little is used would be resident as a whole.
pub fn refuse_huge_pages() {
    // SAFETY: sets a flag of the process; it takes no pointer.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Starts a thread that the server cannot do without. If the system has none left, the process ends
/// with one line.
pub fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().name(name.to_owned()).spawn(run).unwrap_or_else(|error| end(&no_thread(name, &error)))
}

/// Ends the process with one line, whichever thread comes first.
fn end(line: &str) -> ! {
    static ENDING: Once = Once::new();
    ENDING.call_once(|| {
        last_words(line);
        std::process::exit(1)
    });
    unreachable!("the first one has ended the process")
}

/// Whether this number of further threads can run: libraries panic if one of theirs does not start.
pub fn has_threads(count: usize) -> Result<(), String> {
    let (hold, held) = channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let wait = |held: &Mutex<Receiver<()>>| drop(held.lock().map(|held| held.recv()));
    let one = |_| {
        let held = held.clone();
        Builder::new().name("probe".into()).spawn(move || wait(&held))
    };
    let started: Result<Vec<_>, _> = (0..count).map(one).collect();
    drop(hold);
    let threads = started.map_err(|error| no_thread("worker", &error))?;
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

fn no_thread(name: &str, error: &io::Error) -> String {
    format!("cannot start the thread `{name}`: {error}; allow more (ulimit -u, TasksMax, pids.max)")
}

/// Panics are one line of the log. No backtrace: printing one needs more stack than a coroutine
/// has.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("a panic without a message");
        tracing::error!(place, "panic: {text}");
    }));
}

/// Calls `run` at each SIGHUP, on a thread of its own. Until this is called the signal ends the
/// process.
pub fn on_hangup(run: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP])?;
    let wait = move || signals.forever().for_each(|_| run());
    spawn("hangups", wait);
    Ok(())
}
