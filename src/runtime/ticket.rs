//! What a request waits on: a count of things under way, completed from any thread, waited for by
//! one coroutine.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use may::coroutine::Coroutine;

/// A wait of one coroutine for any number of completions.
///
/// Each thing under way is an [`add`](Ticket::add), each end a [`finish`](Ticket::finish) (many at
/// once through `runtime::complete`). The coroutine sleeps in [`wait`](Ticket::wait) until all are
/// finished or the deadline set for its connection has fired. A ticket stays usable after that: it
/// counts on.
pub struct Ticket {
    worker: usize,
    sleeper: Coroutine,
    pending: AtomicU32,
    failed: AtomicBool,
    expired: AtomicBool,
}

impl Ticket {
    /// A ticket for the coroutine that calls, which lives on `worker`.
    pub fn of_current(worker: usize) -> Ticket {
        Ticket {
            worker,
            sleeper: may::coroutine::current(),
            pending: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            expired: AtomicBool::new(false),
        }
    }

    /// The worker that its coroutine lives on.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// One more thing is under way. Called before it can end.
    pub fn add(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// One thing has ended. True: it was the last one, and the coroutine must be woken
    /// (`runtime::complete` does).
    pub fn finish(&self, ok: bool) -> bool {
        if !ok {
            self.failed.store(true, Ordering::Relaxed);
        }
        let before = self.pending.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "more things end than were under way");
        before == 1
    }

    /// Something is under way.
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) != 0
    }

    /// Sleeps until nothing is under way (true) or the ticket has expired (false). Only its own
    /// coroutine calls.
    pub fn wait(&self) -> bool {
        while self.is_pending() {
            if self.expired.load(Ordering::Acquire) {
                return false;
            }
            // A park returns early on a token that a late wake-up left: hence the loop.
            may::coroutine::park();
        }
        true
    }

    /// Something that was waited for has failed; reading clears it.
    pub fn take_failed(&self) -> bool {
        self.failed.swap(false, Ordering::AcqRel)
    }

    /// The deadline has passed: `wait` returns. Called on the ticket's worker.
    pub fn expire(&self) {
        self.expired.store(true, Ordering::Release);
        self.wake();
    }

    /// Wakes the coroutine. Only on the ticket's worker: elsewhere it would land on another one.
    pub(super) fn wake(&self) {
        self.sleeper.unpark();
    }
}
