//! Wake-ups from OS threads, in one batch per worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::SegQueue;

use super::Ticket;
use super::workers::{PerWorker, spawn_on, worker_count};

static WAKEUPS: PerWorker<Wakeups> = PerWorker::new();

#[derive(Default)]
struct Wakeups {
    // Bounded by the number of connections: a ticket is queued once, when its last completion came.
    queue: SegQueue<Arc<Ticket>>,
    drainer_due: AtomicBool,
}

/// Finishes one thing of each ticket and wakes those that have nothing left to wait for: from any
/// thread, one wake-up from outside for each worker concerned.
pub fn complete(tickets: impl IntoIterator<Item = Arc<Ticket>>, ok: bool) {
    let mut touched = 0u128;
    for ticket in tickets {
        if ticket.finish(ok) {
            touched |= 1 << (ticket.worker() % 128);
            WAKEUPS.of(ticket.worker()).queue.push(ticket);
        }
    }
    if touched == 0 {
        return;
    }
    for id in (0..worker_count()).filter(|id| touched >> (id % 128) & 1 == 1) {
        let wakeups = WAKEUPS.of(id);
        if !wakeups.queue.is_empty() && !wakeups.drainer_due.swap(true, Ordering::AcqRel) {
            spawn_on(id, move || drain(id));
        }
    }
}

fn drain(id: usize) {
    let wakeups = WAKEUPS.of(id);
    // Cleared first: a thread that pushes from here on spawns the next drainer, and nothing is left
    // lying.
    wakeups.drainer_due.store(false, Ordering::Release);
    while let Some(ticket) = wakeups.queue.pop() {
        ticket.wake();
    }
}
