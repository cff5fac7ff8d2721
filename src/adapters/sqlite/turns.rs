//! Whose turn it is to write: SQLite has one writer at a time, and whoever waits for its lock looks again and again, longer
//! each time. Within the process batches come first, and get the lock as soon as it is free.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A step of housekeeping lets batches go first for so long, then takes its place among them.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    is_taken: bool,
    batches_waiting: u32,
}

/// Shared by the writers of one ledger.
#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for whoever writes.
    pub(super) fn of_batch(self: &Arc<Self>) -> Turn {
        let mut state = self.state();
        state.batches_waiting += 1;
        while state.is_taken {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.batches_waiting -= 1;
        self.take(state)
    }

    /// Waits for whoever writes, and for batches that wait.
    pub(super) fn of_step(self: &Arc<Self>) -> Turn {
        let until = Instant::now() + PATIENCE;
        let mut state = self.state();
        while state.is_taken || state.batches_waiting > 0 && Instant::now() < until {
            let waited = self.changed.wait_timeout(state, PATIENCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.take(state)
    }

    fn take(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> Turn {
        state.is_taken = true;
        Turn(self.clone())
    }
}

/// The right to write, until it is dropped.
pub(super) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state().is_taken = false;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_waits_comes_before_a_step() {
        let turns = Arc::new(Turns::default());
        let order = Mutex::new(Vec::new());
        let first = turns.of_step();
        std::thread::scope(|scope| {
            let waits = |n: u32| while turns.state().batches_waiting < n {};
            scope.spawn(|| {
                let _turn = turns.of_batch();
                order.lock().unwrap().push("batch");
            });
            waits(1);
            scope.spawn(|| {
                let _turn = turns.of_step();
                order.lock().unwrap().push("step");
            });
            std::thread::sleep(Duration::from_millis(20));
            drop(first);
        });
        assert_eq!(order.into_inner().unwrap(), ["batch", "step"]);
    }
}
