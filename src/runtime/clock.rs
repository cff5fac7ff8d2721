//! One clock a worker: a timerfd, armed for the nearest deadline, that ends waits and sockets that
//! are overdue.
//!
//! A deadline is a number in an atomic that its connection moves for the price of a store; the
//! timer is set again only where the new deadline is nearer than what it is armed for, and a
//! deadline that moved away costs one look when the old one comes. Times are milliseconds of the
//! monotonic clock.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use may::io::{CoIo, WaitIo};

use super::Ticket;
use super::workers::{PerWorker, spawn_on, worker_count, worker_of};
use crate::clock::monotonic_ms;
use crate::limits::{CLOCK_GRAIN_MS, TIMER_TRIES_PER_WORKER_MAX};

const NEVER: u64 = u64::MAX;

static CLOCKS: PerWorker<WorkerClock> = PerWorker::new();

/// What a deadline did when it passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fired {
    /// Nothing yet.
    No,
    /// The socket was shut down for reading: the next read sees its end.
    Read,
    /// The socket was shut down both ways: it made no progress.
    Both,
    /// The ticket was expired.
    Ticket,
}

/// The one deadline that a connection has at a time.
pub struct Deadline {
    at_ms: AtomicU64,
    action: AtomicU8,
    fired: AtomicU8,
    // Where it stands in the list of its worker's clock, so that it leaves without a search.
    slot: AtomicUsize,
    socket: RawFd,
    ticket: Arc<Ticket>,
}

const ACTIONS: [Fired; 4] = [Fired::No, Fired::Read, Fired::Both, Fired::Ticket];

impl Deadline {
    /// No deadline yet, for a connection's socket and ticket. The socket stays open until
    /// `unregister`.
    pub fn new(socket: RawFd, ticket: Arc<Ticket>) -> Arc<Deadline> {
        Arc::new(Deadline {
            at_ms: AtomicU64::new(NEVER),
            action: AtomicU8::new(0),
            fired: AtomicU8::new(0),
            slot: AtomicUsize::new(usize::MAX),
            socket,
            ticket,
        })
    }

    /// No deadline from here on.
    pub fn clear(&self) {
        self.at_ms.store(NEVER, Ordering::Relaxed);
    }

    /// What it did when it passed; stays until the connection ends, a ticket's until the next
    /// `arm`.
    pub fn fired(&self) -> Fired {
        ACTIONS[usize::from(self.fired.load(Ordering::Acquire))]
    }

    fn fire(&self) {
        self.clear();
        let action = self.action.load(Ordering::Relaxed);
        self.fired.store(action, Ordering::Release);
        match ACTIONS[usize::from(action)] {
            Fired::No => {}
            Fired::Read => shutdown(self.socket, libc::SHUT_RD),
            Fired::Both => shutdown(self.socket, libc::SHUT_RDWR),
            Fired::Ticket => self.ticket.expire(),
        }
    }
}

fn shutdown(socket: RawFd, how: libc::c_int) {
    // SAFETY: shutdown takes any number; the descriptor is open until its connection has
    // unregistered.
    unsafe { libc::shutdown(socket, how) };
}

#[derive(Default)]
struct WorkerClock {
    // Only its own worker's coroutines take this lock, and none parks with it.
    state: Mutex<State>,
    armed_ms: AtomicU64,
}

#[derive(Default)]
struct State {
    timer: Option<Arc<CoIo<OwnedFd>>>,
    deadlines: Vec<Arc<Deadline>>,
}

impl WorkerClock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Puts a connection's deadline under the clock of its worker.
pub fn register(worker_id: usize, deadline: Arc<Deadline>) {
    let mut state = CLOCKS.of(worker_id).state();
    deadline.slot.store(state.deadlines.len(), Ordering::Relaxed);
    state.deadlines.push(deadline);
}

/// Takes it away again, before the socket closes.
pub fn unregister(worker_id: usize, deadline: &Arc<Deadline>) {
    let mut state = CLOCKS.of(worker_id).state();
    let slot = deadline.slot.swap(usize::MAX, Ordering::Relaxed);
    if slot < state.deadlines.len() {
        let left = state.deadlines.swap_remove(slot);
        assert!(Arc::ptr_eq(&left, deadline), "a deadline leaves its own place");
        if let Some(moved) = state.deadlines.get(slot) {
            moved.slot.store(slot, Ordering::Relaxed);
        }
    }
}

/// Sets the connection's deadline to `after_ms` from now, and what happens then. On its own worker.
pub fn arm(worker_id: usize, deadline: &Deadline, action: Fired, after_ms: u64) {
    arm_from(worker_id, deadline, monotonic_ms(), action, after_ms);
}

/// The same, counted from a time of the monotonic clock that the caller has just read.
pub fn arm_from(worker_id: usize, deadline: &Deadline, now_ms: u64, action: Fired, after_ms: u64) {
    let at_ms = now_ms + after_ms.max(CLOCK_GRAIN_MS);
    deadline.action.store(action as u8, Ordering::Relaxed);
    deadline.at_ms.store(at_ms, Ordering::Relaxed);
    let clock = CLOCKS.of(worker_id);
    if at_ms < clock.armed_ms.load(Ordering::Relaxed) {
        set_timer(clock, &clock.state(), at_ms);
    }
}

fn set_timer(clock: &WorkerClock, state: &State, at_ms: u64) {
    clock.armed_ms.store(at_ms, Ordering::Relaxed);
    let Some(timer) = &state.timer else { return };
    let after_ms = if at_ms == NEVER { 0 } else { at_ms.saturating_sub(monotonic_ms()).max(CLOCK_GRAIN_MS) };
    let value = libc::timespec {
        tv_sec: i64::try_from(after_ms / 1_000).unwrap_or(i64::MAX),
        tv_nsec: (after_ms % 1_000 * 1_000_000).cast_signed(),
    };
    let spec = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    // SAFETY: the descriptor is the timer's own and `spec` outlives the call.
    let set = unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut()) };
    assert_eq!(set, 0, "timerfd_settime refuses only bad arguments");
}

pub(super) fn spawn(worker_id: usize) {
    CLOCKS.of(worker_id).armed_ms.store(NEVER, Ordering::Relaxed);
    // Made here, on the thread that starts the runtime: a worker without a clock would never end a
    // wait, so it must not be a coroutine that fails.
    let timer = timer_on(worker_id);
    spawn_on(worker_id, move || run(worker_id, timer));
}

fn run(worker_id: usize, timer: OwnedFd) {
    let timer = Arc::new(CoIo::new(timer).expect("epoll takes a timerfd"));
    let clock = CLOCKS.of(worker_id);
    {
        let mut state = clock.state();
        state.timer = Some(timer.clone());
        let nearest = nearest(&state);
        set_timer(clock, &state, nearest);
    }
    loop {
        timer.wait_io();
        let now_ms = monotonic_ms();
        let due: Vec<Arc<Deadline>> =
            clock.state().deadlines.iter().filter(|d| d.at_ms.load(Ordering::Relaxed) <= now_ms).cloned().collect();
        for deadline in due {
            deadline.fire();
        }
        let state = clock.state();
        let nearest = nearest(&state);
        set_timer(clock, &state, nearest);
    }
}

fn nearest(state: &State) -> u64 {
    state.deadlines.iter().map(|d| d.at_ms.load(Ordering::Relaxed)).min().unwrap_or(NEVER)
}

/// A timerfd whose number belongs to the worker: a descriptor lives on worker `fd % workers`, so
/// others are made and given back until that is this one. Other threads take numbers meanwhile:
/// hence more tries than workers.
fn timer_on(worker_id: usize) -> OwnedFd {
    let mut rejected = Vec::new();
    loop {
        // SAFETY: a fresh descriptor or -1, which is checked before it is owned.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        assert!(fd >= 0, "no timerfd: {}", std::io::Error::last_os_error());
        assert!(rejected.len() <= TIMER_TRIES_PER_WORKER_MAX * worker_count(), "no number for the worker's timerfd");
        // SAFETY: checked above.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        if worker_of(fd) == worker_id {
            return owned;
        }
        rejected.push(owned);
    }
}
