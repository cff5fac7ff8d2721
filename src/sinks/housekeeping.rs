//! Housekeeping of the ledger, about once a minute, and the compaction of pending counts, on a thread and a connection
//! of its own. No batch waits for more than one of its steps. No failure of it reaches the sink: it is logged, counted
//! and tried again. It rests while the sink does not follow.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{LedgerSink, SinkState, Steady, agreed_ms};
use crate::limits::{ADD_UP_EVERY_MS, ADD_UP_RECORDS, JOURNAL_KEEP_MS, RETIRE_BEHIND_MS};
use crate::ports::{LedgerWriter, Position, StoreError};

const EVERY: Duration = Duration::from_secs(60);
/// How soon it is seen that the sink follows, and that much is pending.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is to be remembered from one turn to the next.
pub struct Housekeeping {
    sink: Arc<LedgerSink>,
    /// Opened when it is needed, and anew after a panic.
    writer: Option<Box<dyn LedgerWriter>>,
    /// Where the follower stood, and when: a store that goes back to an older state finds the verdicts it needs for as
    /// long as the journal is kept for replays.
    passed: VecDeque<(Instant, Position)>,
    /// Where the journal ended, and when.
    ended: VecDeque<(Instant, Position)>,
}

impl Housekeeping {
    /// Nothing is done and nobody asked before the first turn.
    pub fn new(sink: Arc<LedgerSink>) -> Housekeeping {
        Housekeeping { sink, writer: None, passed: VecDeque::new(), ended: VecDeque::new() }
    }

    /// Starts its thread, which ends when the sink is asked to.
    pub fn spawn(sink: Arc<LedgerSink>) -> JoinHandle<()> {
        let run = move || Housekeeping::new(sink).run();
        crate::process::spawn("ledger-house", run)
    }

    fn run(&mut self) {
        let status = self.sink.status.clone();
        let (mut steady, mut due) = (Steady::default(), Instant::now());
        let mut added_up = (Instant::now(), 0);
        while !status.is_stopping() {
            if status.state() != SinkState::Following {
                status.sleep(LOOK_EVERY);
                continue;
            }
            let now = Instant::now();
            let records = status.records.load(Ordering::Relaxed);
            let turn = || {
                let waits = now.duration_since(added_up.0) >= Duration::from_millis(ADD_UP_EVERY_MS);
                if waits || records - added_up.1 >= ADD_UP_RECORDS || now >= due {
                    added_up = (now, records);
                    self.add_up();
                }
                if now >= due {
                    due = now + EVERY;
                    let is_trusted = steady.is_trusted(now, self.sink.clock.now_ms());
                    self.tend(now, is_trusted);
                }
            };
            if catch_unwind(AssertUnwindSafe(turn)).is_err() {
                self.writer = None;
                self.report::<()>(Err(StoreError::Fatal("it panicked; the log has the place".into())));
            }
            status.sleep(LOOK_EVERY);
        }
    }

    /// Adds pending counts to the rollups.
    pub fn add_up(&mut self) {
        self.call(|writer| writer.add_up());
    }

    /// One turn: all that is due, by a clock that is trusted or not.
    pub fn tend(&mut self, now: Instant, is_trusted: bool) {
        let sink = self.sink.clone();
        self.passed.push_back((now, sink.live.position()));
        let now_ms = sink.clock.now_ms();
        // Without an answer of the store's clock nothing is deleted.
        let store_ms = if is_trusted { self.call(|writer| writer.clock_ms()) } else { None };
        let trusted_ms = store_ms.map(|store_ms| agreed_ms(now_ms, store_ms));
        if let Some(trusted_ms) = trusted_ms {
            self.call(|writer| writer.maintain(trusted_ms));
        }
        while self.call(|writer| writer.fold(now_ms, &sink.zone)).unwrap_or(false) && !sink.status.is_stopping() {}
        let applied = sink.live.position().min(sink.status.position());
        let is_level = self.is_level(now, sink.journal.end_position(), applied);
        if let Some(trusted_ms) = trusted_ms.filter(|_| is_level) {
            self.call(|writer| writer.retire(trusted_ms, sink.retention_days));
        }
        while let Some((at, position)) = self.passed.front().copied() {
            if now.duration_since(at) < Duration::from_millis(JOURNAL_KEEP_MS) {
                break;
            }
            self.call(|writer| writer.prune_verdicts(sink.journal.stream(), position));
            self.passed.pop_front();
        }
    }

    /// Whether all has been applied that was durable a while ago. Later records may wait: a day that is removed is
    /// older, by more than that, than anything that is still accepted.
    fn is_level(&mut self, now: Instant, end: Position, applied: Position) -> bool {
        let is_old = |at: &Instant| now.duration_since(*at) >= Duration::from_millis(RETIRE_BEHIND_MS);
        self.ended.push_back((now, end));
        while self.ended.get(1).is_some_and(|(at, _)| is_old(at)) {
            self.ended.pop_front();
        }
        self.ended.front().is_some_and(|(at, end)| is_old(at) && *end <= applied)
    }

    fn call<R>(&mut self, job: impl FnOnce(&mut dyn LedgerWriter) -> Result<R, StoreError>) -> Option<R> {
        let open = || {
            let mut writer = self.sink.ledger.open_writer()?;
            writer.spare();
            Ok(writer)
        };
        let writer = self.writer.take().map_or_else(open, Ok);
        let done = writer.and_then(|writer| job(&mut **self.writer.insert(writer)));
        self.report(done)
    }

    fn report<R>(&self, done: Result<R, StoreError>) -> Option<R> {
        const WHAT: &str = "housekeeping failed; it is tried again in a minute";
        let report = |error: &StoreError| {
            self.sink.status.housekeeping_failures.fetch_add(1, Ordering::Relaxed);
            match error {
                StoreError::Retry(_) => tracing::warn!(sink = "ledger", %error, "{WHAT}"),
                _ => tracing::error!(sink = "ledger", %error, "{WHAT}"),
            }
        };
        done.inspect_err(report).ok()
    }
}
