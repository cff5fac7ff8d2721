//! What a sink says of itself: for health checks, metrics, and the `stale` mark of answers.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ended::Ended;
use crate::events::Record;
use crate::limits::UNREACHABLE_LOG_EVERY_MS;
use crate::ports::Position;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SinkState {
    Starting = 0,
    Following = 1,
    /// The live store is being built from the ledger.
    Rebuilding = 2,
    /// Its store is away.
    Retrying = 3,
    /// It found what it must not guess about; a person must look.
    Stopped = 4,
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
    name: &'static str,
    state: AtomicU8,
    position: AtomicU64,
    as_of_ms: AtomicI64,
    last_error: Mutex<Option<String>>,
    /// When it last said that a store is unreachable; nothing once it has followed since.
    said: Mutex<Option<Instant>>,
    stopping: AtomicBool,
    stop_asked: Condvar,
    stop_lock: Mutex<()>,
    /// Batches, records and microseconds of applying, since the start.
    pub batches: AtomicU64,
    pub records: AtomicU64,
    pub apply_us: AtomicU64,
    pub retries: AtomicU64,
    pub dead: AtomicU64,
    /// Positions passed whose records were lost to damage of the journal.
    pub lost: AtomicU64,
    /// What housekeeping could not do, since the start.
    pub housekeeping_failures: AtomicU64,
}

impl SinkStatus {
    pub fn new(name: &'static str) -> SinkStatus {
        SinkStatus { name, ..SinkStatus::default() }
    }

    /// `ledger` or `live`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn state(&self) -> SinkState {
        use SinkState::{Following, Rebuilding, Retrying, Starting, Stopped};
        [Starting, Following, Rebuilding, Retrying, Stopped][usize::from(self.state.load(Ordering::Acquire))]
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
        let error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        (self.state() != SinkState::Following).then(|| error.clone()).flatten()
    }

    /// Asks the sink to end after the batch at hand.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _guard = self.stop_lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.stop_asked.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Sleeps, or returns early when asked to stop.
    pub(super) fn sleep(&self, pause: Duration) {
        let guard = self.stop_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = self.stop_asked.wait_timeout_while(guard, pause, |()| !self.is_stopping());
        drop(slept.unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn set(&self, state: SinkState) {
        let before = self.state.swap(state as u8, Ordering::AcqRel);
        // After an outage a connection is only a try: see `recovered`.
        if before != state as u8 && self.said().is_none() {
            tracing::info!(sink = self.name, position = self.position(), "{}", state.name());
        }
    }

    fn said(&self) -> MutexGuard<'_, Option<Instant>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has applied a batch, or found nothing to apply: an outage is over.
    pub(super) fn recovered(&self) {
        if self.said().take().is_some() {
            tracing::info!(sink = self.name, position = self.position(), "{}", self.state().name());
        }
    }

    pub(super) fn at(&self, position: Position) {
        self.position.store(position, Ordering::Release);
    }

    pub(super) fn current_as_of(&self, ms: i64) {
        self.as_of_ms.fetch_max(ms, Ordering::AcqRel);
    }

    pub(super) fn applied(&self, records: usize, took: Duration) {
        self.recovered();
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.apply_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts the lost records of an applied batch that begins behind `after`, and says so: they are never skipped
    /// silently.
    pub(super) fn passed_lost(&self, after: Position, records: &[Record<'_>]) {
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
    pub(super) fn retrying(&self, ended: &Ended) {
        let (Ended::Retry(why) | Ended::LedgerRetry(why) | Ended::Stop(why)) = ended;
        self.retries.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
        self.state.store(SinkState::Retrying as u8, Ordering::Release);
        if matches!(ended, Ended::LedgerRetry(_)) {
            tracing::debug!(sink = self.name, error = why, "waits for the ledger");
            return;
        }
        let mut said = self.said();
        if said.is_none_or(|at| at.elapsed() >= Duration::from_millis(UNREACHABLE_LOG_EVERY_MS)) {
            tracing::warn!(sink = self.name, error = why, "its store is unreachable; events wait in the journal");
            *said = Some(Instant::now());
        }
    }

    pub(super) fn stopped(&self, why: &str) {
        tracing::error!(
            sink = self.name,
            position = self.position(),
            error = why,
            "stopped; it does not go on by itself"
        );
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
        self.state.store(SinkState::Stopped as u8, Ordering::Release);
    }
}
