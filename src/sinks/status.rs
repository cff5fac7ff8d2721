//! What a sink says of itself: for health checks, metrics, and the `stale` mark of answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ended::Ended;
use crate::clock::Backoff;
use crate::events::Record;
use crate::limits::{RETRY_MS_MAX, RETRY_MS_MIN, UNREACHABLE_LOG_EVERY_MS};
use crate::ports::Position;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SinkState {
    #[default]
    Starting,
    Following,
    /// The live store is being built from the ledger.
    Rebuilding,
    /// Its store is unreachable.
    Retrying,
    /// It found something that it must not guess about; a person must look.
    Stopped,
}

impl SinkState {
    pub fn name(self) -> &'static str {
        match self {
            SinkState::Starting => "starting",
            SinkState::Following => "following",
            SinkState::Rebuilding => "rebuilding",
            SinkState::Retrying => "retrying",
            SinkState::Stopped => "stopped",
        }
    }
}

#[derive(Default)]
pub struct SinkStatus {
    /// `ledger` or `live`.
    pub name: &'static str,
    position: AtomicU64,
    as_of_ms: AtomicI64,
    inner: Mutex<Inner>,
    stop_asked: Condvar,
    /// Batches, records and microseconds of applying, since the start.
    pub batches: AtomicU64,
    pub records: AtomicU64,
    pub apply_us: AtomicU64,
    pub retries: AtomicU64,
    pub dead: AtomicU64,
    /// Positions passed whose records were lost to damage of the journal.
    pub lost: AtomicU64,
    /// Failures of housekeeping, since the start.
    pub housekeeping_failures: AtomicU64,
}

#[derive(Default)]
struct Inner {
    state: SinkState,
    last_error: String,
    /// When it last logged that a store is unreachable; nothing once it has followed since.
    said: Option<Instant>,
    is_stopping: bool,
}

impl SinkStatus {
    pub fn new(name: &'static str) -> SinkStatus {
        SinkStatus { name, ..SinkStatus::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state(&self) -> SinkState {
        self.inner().state
    }

    pub fn position(&self) -> Position {
        self.position.load(Ordering::Acquire)
    }

    /// Up to when everything received is in the store; milliseconds since the epoch, 0 before the first look.
    pub fn as_of_ms(&self) -> i64 {
        self.as_of_ms.load(Ordering::Acquire)
    }

    /// The last failure, if the sink is not following now.
    pub fn last_error(&self) -> Option<String> {
        let inner = self.inner();
        (inner.state != SinkState::Following && !inner.last_error.is_empty()).then(|| inner.last_error.clone())
    }

    /// Asks the sink to end after the batch at hand.
    pub fn stop(&self) {
        self.inner().is_stopping = true;
        self.stop_asked.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.inner().is_stopping
    }

    /// Sleeps, or returns early when asked to stop.
    pub(super) fn sleep(&self, pause: Duration) {
        drop(self.stop_asked.wait_timeout_while(self.inner(), pause, |inner| !inner.is_stopping));
    }

    pub(super) fn set(&self, state: SinkState) {
        let mut inner = self.inner();
        // After an outage a connection is only a try: see `recovered`.
        if std::mem::replace(&mut inner.state, state) != state && inner.said.is_none() {
            tracing::info!(sink = self.name, position = self.position(), "{}", state.name());
        }
    }

    /// It has applied a batch, or found nothing to apply: an outage is over.
    pub(super) fn recovered(&self) {
        let mut inner = self.inner();
        if inner.said.take().is_some() {
            tracing::info!(sink = self.name, position = self.position(), "{}", inner.state.name());
        }
    }

    pub(super) fn at(&self, position: Position) {
        self.position.store(position, Ordering::Release);
    }

    pub(super) fn current_as_of(&self, ms: i64) {
        self.as_of_ms.fetch_max(ms, Ordering::AcqRel);
    }

    /// It has applied the records behind `after`.
    pub(super) fn applied(&self, after: Position, records: &[Record<'_>], took: Duration) {
        self.recovered();
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records.len() as u64, Ordering::Relaxed);
        self.apply_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.passed_lost(after, records);
        if let Some(last_ms) = records.iter().rev().find_map(Record::received_ms) {
            self.current_as_of(last_ms);
        }
    }

    /// Lost records are never skipped silently.
    fn passed_lost(&self, after: Position, records: &[Record<'_>]) {
        let is_lost = |record: &Record<'_>| matches!(record, Record::Lost);
        let Some(first) = records.iter().position(is_lost) else { return };
        let count = records.iter().filter(|record| is_lost(record)).count();
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
        tracing::error!(
            sink = self.name,
            first = after + 1 + first as u64,
            count,
            "passed records that the journal has lost; `event-tracker journal inspect` lists them"
        );
    }

    /// It tries again after a failure. An outage is one line when it begins, and then one per minute.
    fn retrying(&self, ended: Ended) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        let is_of_ledger = matches!(ended, Ended::LedgerRetry(_));
        let (Ended::Retry(why) | Ended::LedgerRetry(why) | Ended::Stop(why)) = ended;
        let mut inner = self.inner();
        let every = Duration::from_millis(UNREACHABLE_LOG_EVERY_MS);
        if is_of_ledger {
            tracing::debug!(sink = self.name, error = why, "waits for the ledger");
        } else if inner.said.is_none_or(|at| at.elapsed() >= every) {
            tracing::warn!(sink = self.name, error = why, "its store is unreachable; events wait in the journal");
            inner.said = Some(Instant::now());
        }
        (inner.state, inner.last_error) = (SinkState::Retrying, why);
    }

    fn stopped(&self, why: String) {
        let position = self.position();
        tracing::error!(sink = self.name, position, error = why, "stopped; it does not go on by itself");
        let mut inner = self.inner();
        (inner.state, inner.last_error) = (SinkState::Stopped, why);
    }

    /// Runs `follow` until the sink is asked to end or must stop; pauses and tries again while a store is unreachable.
    pub(super) fn supervise(&self, mut follow: impl FnMut() -> Result<(), Ended>) {
        let mut backoff = Backoff::new(RETRY_MS_MIN, RETRY_MS_MAX);
        while !self.is_stopping() {
            let before = self.position();
            let ended = catch_unwind(AssertUnwindSafe(&mut follow))
                .unwrap_or_else(|_| Err(Ended::Stop("the sink panicked; the log has the place".into())));
            match ended {
                Ok(()) => return,
                Err(Ended::Stop(why)) => return self.stopped(why),
                Err(ended) => {
                    if self.position() != before {
                        backoff = Backoff::new(RETRY_MS_MIN, RETRY_MS_MAX);
                    }
                    self.retrying(ended);
                    self.sleep(backoff.pause());
                }
            }
        }
    }
}
