//! From the ledger's sink to its followers: how far the ledger is, and what it decided, while that is still in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Waiting;
use crate::limits::HANDOVER_BATCHES_MAX;
use crate::ports::{Position, Verdicts};

struct Decided {
    first: Position,
    last: Position,
    verdicts: Verdicts,
}

#[derive(Default)]
struct State {
    position: Position,
    recent: VecDeque<Decided>,
}

/// The ledger's position, its verdicts on the last batches, and the requests that wait for them.
#[derive(Default)]
pub struct Handover {
    pub waiting: Arc<Waiting>,
    state: Mutex<State>,
    moved: Condvar,
}

impl Handover {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger stands at `position`, for all that is known of what was before.
    pub(super) fn resume(&self, position: Position) {
        let mut state = self.state();
        state.position = position;
        state.recent.clear();
        self.moved.notify_all();
    }

    /// The ledger has applied the records behind its position up to `last`.
    pub(super) fn push(&self, last: Position, verdicts: Verdicts) {
        let mut state = self.state();
        let first = state.position + 1;
        assert!(first <= last, "the ledger's watermark only advances");
        state.position = last;
        if state.recent.len() == HANDOVER_BATCHES_MAX {
            state.recent.pop_front();
        }
        state.recent.push_back(Decided { first, last, verdicts });
        self.moved.notify_all();
    }

    pub(super) fn position(&self) -> Position {
        self.state().position
    }

    /// The ledger's position once it is past `position`, or after `timeout` whatever it is.
    pub(super) fn wait_past(&self, position: Position, timeout: Duration) -> Position {
        let waited = self.moved.wait_timeout_while(self.state(), timeout, |s| s.position <= position);
        waited.unwrap_or_else(PoisonError::into_inner).0.position
    }

    /// The verdicts of `after < position <= up_to`, or `None` where memory does not reach back that far.
    pub(super) fn verdicts(&self, after: Position, up_to: Position) -> Option<Verdicts> {
        let state = self.state();
        let covered = state.recent.front().is_some_and(|d| d.first <= after + 1) && state.position >= up_to;
        covered.then(|| {
            let touched = state.recent.iter().filter(|d| d.last > after && d.first <= up_to);
            touched.flat_map(|d| &d.verdicts).filter(|(p, _)| *p > after && *p <= up_to).copied().collect()
        })
    }
}
