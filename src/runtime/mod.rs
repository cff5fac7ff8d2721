//! The rules of the coroutine runtime: workers, wake-ups from OS threads, tickets, the workers'
//! clocks, and pools of OS threads for blocking clients.
//!
//! Owns where a coroutine may run and how it is woken; knows nothing of HTTP, events or stores. The
//! one idea: an OS thread never touches a coroutine. It puts finished tickets into the queue of the
//! worker that their coroutine lives on, and spawns one drainer there, which wakes the others
//! locally. So a batch of any size costs one eventfd write.

mod clock;
mod heartbeat;
mod lane;
mod stack;
mod ticket;
mod wake;
mod workers;

pub use clock::{Deadline, Fired, arm, arm_from, register, unregister};
pub use heartbeat::{stuck_workers, watch};
pub use lane::{Lane, LaneFull, Pending};
pub use stack::StackTop;
pub use ticket::Ticket;
pub use wake::complete;
pub use workers::{spawn_on, worker_count, worker_of};

/// Starts the runtime with `count` workers; a second call is ignored, since a process has one
/// runtime.
pub fn start(count: usize, pin: bool) {
    workers::configure(count, pin);
    (0..worker_count()).for_each(clock::spawn);
}
