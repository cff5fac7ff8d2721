//! Whether the stores answer: each is asked at most once a second, for all health checks together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::monotonic_ms;
use crate::limits::{HEALTH_ASK_MS, HEALTH_WAITERS_MAX};
use crate::ports::StoreError;
use crate::runtime::{Lane, Ticket, complete};

#[derive(Default)]
pub struct Health {
    /// Rows of `dead_letter`; `None` if they could not be counted in time.
    pub ledger: Arc<Probe<Option<u64>>>,
    pub live: Arc<Probe<()>>,
}

pub struct Probe<T>(Mutex<State<T>>);

struct State<T> {
    asked_ms: Option<u64>,
    is_under_way: bool,
    answer: Option<Result<T, String>>,
    waiting: Vec<Arc<Ticket>>,
}

impl<T> Default for Probe<T> {
    fn default() -> Self {
        Probe(Mutex::new(State { asked_ms: None, is_under_way: false, answer: None, waiting: Vec::new() }))
    }
}

impl<T: Clone + Send + 'static> Probe<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Guards plain data for a few lines: nothing in there panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, unless that was done within the last second. The ticket covers a question that is under way, unless too many
    /// requests wait for it already: the others get the answer before it.
    pub(super) fn refresh(
        self: &Arc<Self>,
        lane: &Lane,
        ticket: &Arc<Ticket>,
        ask: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) {
        let now_ms = monotonic_ms();
        let mut state = self.state();
        let is_due = state.asked_ms.is_none_or(|asked_ms| now_ms >= asked_ms + HEALTH_ASK_MS);
        if (!is_due && !state.is_under_way) || state.waiting.len() >= HEALTH_WAITERS_MAX {
            return;
        }
        ticket.add();
        state.waiting.push(ticket.clone());
        if std::mem::replace(&mut state.is_under_way, true) {
            return;
        }
        state.asked_ms = Some(now_ms);
        drop(state);
        let question = Question { probe: self.clone(), answer: Err("too much waits for the store".to_owned()) };
        // A lane without room drops the question, which tells so.
        drop(lane.run(Box::new(move || question.put(ask))));
    }

    /// What the store said; `None` if the caller waited in vain.
    pub fn answer(&self, waited_in_vain: bool) -> Option<Result<T, String>> {
        let state = self.state();
        state.answer.clone().filter(|_| !(waited_in_vain && state.is_under_way))
    }
}

/// A question under way: however it ends, the requests that wait hear of it.
struct Question<T: Clone + Send + 'static> {
    probe: Arc<Probe<T>>,
    answer: Result<T, String>,
}

impl<T: Clone + Send + 'static> Question<T> {
    fn put(mut self, ask: impl FnOnce() -> Result<T, StoreError>) {
        self.answer = Err("the check panicked; the log has the place".to_owned());
        self.answer = ask().map_err(|error| error.to_string());
    }
}

impl<T: Clone + Send + 'static> Drop for Question<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.probe.state();
            state.is_under_way = false;
            state.answer = Some(self.answer.clone());
            std::mem::take(&mut state.waiting)
        };
        complete(waiting, true);
    }
}
