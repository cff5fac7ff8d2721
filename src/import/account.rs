//! What came of the rows so far, shared by the connections: confirmed, accepted, refused; and why it must end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::batch::Batch;
use super::rejects::Rejects;
use super::state::{Confirmed, State};

/// Asks an import to come to an end: batches under way are finished, nothing new is begun.
#[derive(Debug, Default)]
pub struct Stop {
    is_asked: AtomicBool,
    is_sending: AtomicBool,
    lock: Mutex<()>,
    asked: Condvar,
    /// What the terminal shows. It is here so that a stop clears it before anything else is printed.
    pub(super) bar: Mutex<Option<ProgressBar>>,
}

impl Stop {
    /// From now on.
    pub fn ask(&self) {
        self.is_asked.store(true, Ordering::SeqCst);
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.asked.notify_all();
    }

    /// Was it asked for?
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }

    /// Are rows under way? If not, a stop has nothing to wait for.
    pub fn is_sending(&self) -> bool {
        self.is_sending.load(Ordering::SeqCst)
    }

    pub(super) fn set_sending(&self, is_sending: bool) {
        self.is_sending.store(is_sending, Ordering::SeqCst);
    }

    /// Takes the progress bar off the terminal, for good.
    pub fn clear_bar(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }

    /// Sleeps, or until it is asked for.
    pub(super) fn sleep(&self, pause: Duration) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.asked.wait_timeout_while(guard, pause, |()| !self.is_asked());
        drop(result);
    }
}

/// What came of an input's rows.
pub(super) struct Account {
    pub(super) stop: Arc<Stop>,
    inner: Mutex<Inner>,
    /// Batches sent again.
    pub(super) sent_again: AtomicU64,
    /// Batches that may or may not have been taken.
    unknown: AtomicU64,
}

struct Inner {
    confirmed: Confirmed,
    accepted: u64,
    refused: u64,
    refused_by: BTreeMap<String, u64>,
    rejects: Rejects,
    failure: Option<String>,
    /// What stands in the way right now.
    trouble: Option<String>,
    progress_at: Instant,
}

/// The figures of an import at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// Rows answered, in all runs.
    pub(super) done: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// Refused rows of this run by their error.
    pub(super) refused_by: BTreeMap<String, u64>,
    pub(super) sent_again: u64,
    pub(super) trouble: Option<String>,
}

impl Account {
    /// Goes on from what `state` says.
    pub(super) fn new(state: &State, rejects: Rejects, stop: Arc<Stop>) -> Account {
        let inner = Inner {
            confirmed: state.confirmed.clone(),
            accepted: state.accepted,
            refused: state.refused,
            refused_by: BTreeMap::new(),
            rejects,
            failure: None,
            trouble: None,
            progress_at: Instant::now(),
        };
        Account { stop, inner: Mutex::new(inner), sent_again: AtomicU64::new(0), unknown: AtomicU64::new(0) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch was answered whole: its rows are confirmed, those refused are listed.
    pub(super) fn confirm(&self, mut batch: Batch) {
        batch.refused.sort_by_key(|refused| refused.line);
        let mut inner = self.inner();
        for refused in &batch.refused {
            if let Err(error) = inner.rejects.add(refused) {
                let path = inner.rejects.path().display().to_string();
                drop(inner);
                return self.fail(format!("cannot write the list of refused lines {path}: {error}"));
            }
            *inner.refused_by.entry(refused.refusal.error.to_string()).or_default() += 1;
        }
        let refused = batch.refused.len() as u64;
        inner.refused += refused;
        inner.accepted += batch.end.row - batch.from - refused;
        inner.confirmed.add(batch.from, batch.end);
        inner.progress_at = Instant::now();
        inner.trouble = None;
    }

    /// A batch was given up after it was sent at least once.
    pub(super) fn abandon(&self) {
        self.unknown.fetch_add(1, Ordering::SeqCst);
    }

    /// Something stands in the way.
    pub(super) fn report(&self, trouble: String) {
        self.inner().trouble = Some(trouble);
    }

    /// How long nothing was confirmed, counted from `since` at the earliest.
    pub(super) fn without_progress(&self, since: Instant) -> Duration {
        self.inner().progress_at.max(since).elapsed()
    }

    /// It cannot go on: the first reason counts.
    pub(super) fn fail(&self, why: String) {
        self.inner().failure.get_or_insert(why);
        self.stop.ask();
    }

    /// Why it cannot go on.
    pub(super) fn failure(&self) -> Option<String> {
        self.inner().failure.clone()
    }

    pub(super) fn figures(&self) -> Figures {
        let inner = self.inner();
        Figures {
            done: inner.accepted + inner.refused,
            accepted: inner.accepted,
            refused: inner.refused,
            refused_by: inner.refused_by.clone(),
            sent_again: self.sent_again.load(Ordering::Relaxed),
            trouble: inner.trouble.clone(),
        }
    }

    /// Puts what is confirmed into `state`. The list of refused rows has to be synced, by the handle, before that is
    /// written. `is_at_rest`: no connection works any more.
    pub(super) fn put_into(&self, state: &mut State, is_at_rest: bool) -> io::Result<Option<File>> {
        let mut inner = self.inner();
        let to_sync = inner.rejects.flush()?;
        state.confirmed.clone_from(&inner.confirmed);
        (state.accepted, state.refused) = (inner.accepted, inner.refused);
        state.rejects = inner.rejects.path().to_owned();
        state.rejects_bytes = inner.rejects.bytes();
        let is_settled = is_at_rest && state.was_settled && self.unknown.load(Ordering::SeqCst) == 0;
        state.unsettled_since_ms = (!is_settled).then(|| state.unsettled_since_ms.unwrap_or(state.saved_at_ms));
        Ok(to_sync)
    }
}
