//! The workers: how many there are, which one a socket lives on, and what each of them owns.

use std::sync::OnceLock;

use crate::limits::{STACK_WORDS, STACKS_KEPT};

static COUNT: OnceLock<usize> = OnceLock::new();

/// One value per worker, made at the first use.
pub(super) struct PerWorker<T>(OnceLock<Vec<T>>);

impl<T: Default> PerWorker<T> {
    pub(super) const fn new() -> PerWorker<T> {
        PerWorker(OnceLock::new())
    }

    pub(super) fn of(&self, worker: usize) -> &T {
        &self.0.get_or_init(|| (0..worker_count()).map(|_| T::default()).collect())[worker]
    }
}

/// Configures `may`. A second call changes nothing, since a process has one runtime.
pub(super) fn configure(count: usize, pin: bool) {
    COUNT.get_or_init(|| {
        assert!(count > 0, "a runtime without workers");
        may::config().set_workers(count).set_stack_size(STACK_WORDS).set_pool_capacity(STACKS_KEPT);
        may::config().set_worker_pin(pin);
        count
    });
}

/// How many workers there are; 1 or more once started.
pub fn worker_count() -> usize {
    *COUNT.get().expect("runtime::start comes first")
}

/// The worker that a socket lives on for good.
pub fn worker_of(fd: i32) -> usize {
    usize::try_from(fd).expect("an open descriptor") % worker_count()
}

/// Spawns a coroutine on a given worker.
pub fn spawn_on<F: FnOnce() + Send + 'static>(worker: usize, f: F) {
    assert!(worker < worker_count(), "there is no worker {worker}");
    let builder = may::coroutine::Builder::new().id(worker);
    // SAFETY: `f` keeps no thread-local state across a park, and its recursion is bounded
    // (JSON_DEPTH_MAX), so it stays on its stack: the two conditions that `may` names.
    let spawned = unsafe { builder.spawn(f) };
    drop(spawned.expect("may's spawn has no failure of its own"));
}
