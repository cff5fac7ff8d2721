//! What the connections of an import share: confirmed rows, counts, and why it must end. It writes
//! the list of refused rows, synced, then the resume file, which says how much of that list is valid.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::batch::Batch;
use super::rejects::{self, Rejects};
use super::row::Refusal;
use super::state::{self, Confirmed, State, now_ms};
use crate::limits::IMPORT_TICK_MS;

/// Asks an import to end: batches under way are finished, no new one is begun.
#[derive(Debug, Default)]
pub struct Stop {
    is_asked: AtomicBool,
    /// Are rows under way? If not, a stop has nothing to wait for.
    pub is_sending: AtomicBool,
    /// What the terminal shows. It is here so that a stop clears it before anything else is
    /// printed.
    pub(super) bar: Mutex<Option<ProgressBar>>,
}

impl Stop {
    pub fn ask(&self) {
        self.is_asked.store(true, Ordering::SeqCst);
    }

    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }

    /// Removes the progress bar from the terminal, for good.
    pub fn clear_bar(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }

    /// Sleeps until the pause is over or a stop is asked for.
    pub(super) fn sleep(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.is_asked()
            && let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            thread::sleep(left.min(Duration::from_millis(IMPORT_TICK_MS)));
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// In all runs.
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// Refused rows of this run by their error.
    pub(super) refused_by: BTreeMap<String, u64>,
    /// Batches sent again.
    pub(super) sent_again: u64,
    /// Why the last request has to be repeated.
    pub(super) trouble: Option<String>,
}

impl Figures {
    /// Rows answered, in all runs.
    pub(super) fn done(&self) -> u64 {
        self.accepted + self.refused
    }

    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        self.refused += 1;
        *self.refused_by.entry(refusal.error.to_string()).or_default() += 1;
    }
}

pub(super) struct Account {
    pub(super) stop: Arc<Stop>,
    resume_file: Option<PathBuf>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Its counts are those of the last time that it was saved.
    state: State,
    figures: Figures,
    rejects: Rejects,
    failure: Option<String>,
    progress_at: Instant,
    /// Rows without an answer may have been accepted: those of a batch that was given up after it was
    /// sent, here or in an earlier run.
    has_unknown: bool,
}

impl Account {
    /// Goes on from what `state` says.
    pub(super) fn new(state: State, rejects: Rejects, resume_file: Option<PathBuf>, stop: &Arc<Stop>) -> Account {
        let figures = Figures { accepted: state.accepted, refused: state.refused, ..Figures::default() };
        let has_unknown = state.unsettled_since_ms.is_some();
        let inner = Inner { state, figures, rejects, failure: None, progress_at: Instant::now(), has_unknown };
        Account { stop: stop.clone(), resume_file, inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> Figures {
        self.inner().figures.clone()
    }

    pub(super) fn confirmed(&self) -> Confirmed {
        self.inner().state.confirmed.clone()
    }

    /// Every row of the batch was answered: they are confirmed, the refused ones are listed.
    pub(super) fn confirm(&self, mut batch: Batch) {
        batch.refused.sort_by_key(|refused| refused.line);
        let mut inner = self.inner();
        for refused in &batch.refused {
            if let Err(why) = inner.rejects.add(refused) {
                drop(inner);
                return self.fail(why);
            }
            inner.figures.refuse(&refused.refusal);
        }
        inner.figures.accepted += batch.end.row - batch.from - batch.refused.len() as u64;
        inner.figures.trouble = None;
        inner.state.confirmed.add(batch.from, batch.end);
        inner.progress_at = Instant::now();
    }

    /// A batch was given up after it was sent at least once.
    pub(super) fn abandon(&self) {
        self.inner().has_unknown = true;
    }

    /// A request has to be repeated.
    pub(super) fn report(&self, trouble: String) {
        self.inner().figures.trouble = Some(trouble);
    }

    pub(super) fn count_repeat(&self) {
        self.inner().figures.sent_again += 1;
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

    /// Writes the resume file. `is_at_rest`: no connection works any more.
    pub(super) fn save(&self, is_at_rest: bool) -> Result<(), String> {
        let mut guard = self.inner();
        let Inner { state, figures, rejects: listed, has_unknown, .. } = &mut *guard;
        let list = listed.flush()?;
        (state.accepted, state.refused) = (figures.accepted, figures.refused);
        (state.rejects, state.rejects_bytes) = (listed.path.clone(), listed.bytes);
        let is_settled = is_at_rest && !*has_unknown;
        state.unsettled_since_ms = (!is_settled).then(|| state.unsettled_since_ms.unwrap_or(state.saved_at_ms));
        state.saved_at_ms = now_ms();
        let state = state.clone();
        // Connections confirm batches while this thread waits for the disk.
        drop(guard);
        list.map_or(Ok(()), |file| file.sync_data()).map_err(|e| rejects::failed(&state.rejects, &e))?;
        self.resume_file.as_ref().map_or(Ok(()), |path| state::write(path, &state))
    }

    /// Saves the end of the import, if `rows` of the input were read. Nothing is kept of an import
    /// that has confirmed nothing: its input may change. Returns why it failed, if it did.
    pub(super) fn end(&self, rows: Result<Option<u64>, String>) -> (State, Option<String>) {
        let mut inner = self.inner();
        let all = inner.state.confirmed.all_before.row;
        inner.state.is_finished = inner.failure.is_none() && rows == Ok(Some(all));
        drop(inner);
        let saved = self.save(true);
        let state = self.inner().state.clone();
        let removed = match &self.resume_file {
            Some(path) if state.is_blank() => state::remove(path),
            _ => Ok(()),
        };
        let failure = self.inner().failure.take();
        (state, failure.or(rows.err()).or(saved.err()).or(removed.err()))
    }
}
