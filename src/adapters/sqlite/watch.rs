//! A time-out for reads: SQLite has none of its own, but a statement can be interrupted from another thread.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, InterruptHandle};

use crate::ports::StoreError;

/// How late an interruption may be.
const GRAIN: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Guarded {
    next: u64,
    running: HashMap<u64, (Instant, InterruptHandle)>,
}

#[derive(Default)]
struct Shared {
    guarded: Mutex<Guarded>,
    started: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread that watches every read of a ledger; it ends with the ledger.
pub(super) struct Watch {
    shared: Arc<Shared>,
}

impl Watch {
    pub(super) fn start() -> Result<Watch, StoreError> {
        let shared = Arc::new(Shared::default());
        let weak = Arc::downgrade(&shared);
        thread::Builder::new()
            .name("sqlite-watch".to_owned())
            .spawn(move || watch(&weak))
            .map_err(|error| StoreError::Retry(format!("a thread for SQLite: {error}")))?;
        Ok(Watch { shared })
    }

    /// Interrupts `connection` after `wait` unless the guard is dropped before.
    pub(super) fn guard(&self, connection: &Connection, wait: Duration) -> ReadGuard {
        let mut guarded = self.shared.lock();
        let id = guarded.next;
        guarded.next += 1;
        guarded.running.insert(id, (Instant::now() + wait, connection.get_interrupt_handle()));
        drop(guarded);
        self.shared.started.notify_one();
        ReadGuard { shared: self.shared.clone(), id }
    }
}

/// A read under way. Once it is dropped its connection is not interrupted any more: both happen under one lock.
pub(super) struct ReadGuard {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        self.shared.lock().running.remove(&self.id);
    }
}

fn watch(weak: &Weak<Shared>) {
    while let Some(shared) = weak.upgrade() {
        let guarded = shared.lock();
        let now = Instant::now();
        let late = guarded.running.values().filter(|(deadline, _)| *deadline <= now);
        late.for_each(|(_, connection)| connection.interrupt());
        // With nothing to watch it looks up once a second, whether the ledger is still there.
        let pause = if guarded.running.is_empty() { Duration::from_secs(1) } else { GRAIN };
        drop(shared.started.wait_timeout(guarded, pause).unwrap_or_else(PoisonError::into_inner));
    }
}
