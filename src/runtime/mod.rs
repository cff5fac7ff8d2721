//! What stands between the coroutine runtime and the rest: workers, wake-ups from OS threads, tickets, the workers'
//! clocks, and lanes of OS threads for what blocks.
//!
//! Owns every rule about where a coroutine may run and how it is woken; knows nothing of HTTP, events or stores.
//! The one idea: an OS thread never touches a coroutine. It puts finished tickets into the queue of the worker that
//! their coroutine lives on and spawns one drainer there, which wakes the others locally: one eventfd write for a
//! batch of any size.

mod clock;
mod heartbeat;
mod lane;
mod stack;
mod ticket;
mod wake;

pub use clock::{Deadline, Fired, arm, arm_from, register, unregister};
pub use heartbeat::{stuck_workers, watch};
pub use lane::{Lane, LaneFull, Pending};
pub use stack::StackTop;
pub use ticket::Ticket;
pub use wake::complete;

use std::sync::OnceLock;

use crate::limits::{STACK_WORDS, STACKS_KEPT};

static WORKERS: OnceLock<Vec<Worker>> = OnceLock::new();

/// One OS thread of the runtime, with an event loop of its own.
struct Worker {
    wakeups: wake::Wakeups,
    clock: clock::WorkerClock,
}

/// Starts the runtime with `count` workers; a second call is ignored, since the runtime is one a process.
pub fn start(count: usize, pin: bool) {
    WORKERS.get_or_init(|| {
        may::config().set_workers(count).set_stack_size(STACK_WORDS).set_pool_capacity(STACKS_KEPT);
        may::config().set_worker_pin(pin);
        (0..count).map(|_| Worker { wakeups: wake::Wakeups::default(), clock: clock::WorkerClock::default() }).collect()
    });
    for id in 0..worker_count() {
        clock::spawn(id);
    }
}

/// How many workers there are; 1 or more once started.
pub fn worker_count() -> usize {
    workers().len()
}

/// The worker that a socket lives on for good.
pub fn worker_of(fd: i32) -> usize {
    usize::try_from(fd).expect("an open descriptor") % worker_count()
}

/// Spawns a coroutine on a given worker.
pub fn spawn_on<F: FnOnce() + Send + 'static>(worker: usize, f: F) {
    let builder = may::coroutine::Builder::new().id(worker);
    // SAFETY: `f` keeps no thread-local state across a park, and its recursion is bounded (JSON_DEPTH_MAX), so it
    // stays on its stack: the two conditions that `may` names.
    let spawned = unsafe { builder.spawn(f) };
    drop(spawned.expect("may's spawn has no failure of its own"));
}

fn workers() -> &'static [Worker] {
    WORKERS.get().expect("runtime::start comes first")
}

fn worker(id: usize) -> &'static Worker {
    &workers()[id]
}
