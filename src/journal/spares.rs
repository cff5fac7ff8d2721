//! The spare segment: allocated ahead, so that the writer rarely waits for the disk's allocation.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::storage::{SegmentFile, Storage};

/// A segment that is allocated and waits for its header and name.
pub(super) struct Spare {
    pub(super) name: String,
    pub(super) file: Arc<dyn SegmentFile>,
}

#[derive(Default)]
struct State {
    spare: Option<Spare>,
    // Names of spares are never reused within a process: a failed one may still be open.
    made: u64,
    woken: bool,
}

#[derive(Default)]
pub(super) struct Spares {
    state: Mutex<State>,
    wanted: Condvar,
    /// A segment was removed and its removal is not known to be durable.
    pub(super) removal_unsynced: AtomicBool,
}

impl Spares {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spare, or one made on the spot. Errors: the disk is full or broken.
    pub(super) fn take_or_make(&self, storage: &dyn Storage, bytes: u64) -> io::Result<Spare> {
        let spare = self.take();
        self.wake();
        spare.map_or_else(|| self.make(storage, bytes), Ok)
    }

    pub(super) fn take(&self) -> Option<Spare> {
        self.state().spare.take()
    }

    pub(super) fn put(&self, spare: Spare) {
        self.state().spare = Some(spare);
    }

    pub(super) fn has_one(&self) -> bool {
        self.state().spare.is_some()
    }

    pub(super) fn make(&self, storage: &dyn Storage, bytes: u64) -> io::Result<Spare> {
        let number = {
            let mut state = self.state();
            state.made += 1;
            state.made
        };
        let name = format!("spare-{number}.tmp");
        match storage.create(&name, bytes) {
            Ok(file) => Ok(Spare { name, file }),
            Err(error) => {
                // Half a spare on a full disk would keep it full.
                let _ = storage.remove(&name);
                Err(error)
            }
        }
    }

    pub(super) fn wake(&self) {
        self.state().woken = true;
        self.wanted.notify_one();
    }

    /// The keeper's sleep, until it is woken or the time is over.
    pub(super) fn sleep(&self, at_most: Duration) {
        let waited = self.wanted.wait_timeout_while(self.state(), at_most, |state| !state.woken);
        waited.unwrap_or_else(PoisonError::into_inner).0.woken = false;
    }
}
