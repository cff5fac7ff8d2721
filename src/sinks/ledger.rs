//! The ledger's sink: journal → ledger, one transaction a batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

use super::{Ended, Handover, SinkState, SinkStatus, Until};
use crate::clock::Clock;
use crate::events::decode_records;
use crate::journal::{Frames, Journal, ReadError, Reader};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_ENOUGH, BATCH_RECORDS_MAX, BATCH_RECORDS_MIN, LINGER_BUSY_MS, LINGER_BUSY_RECORDS,
    LINGER_MS, LINGER_WAITED_MS, LINGER_WAITED_RECORDS_MAX, LINGER_WAITED_RECORDS_MIN,
};
use crate::ports::{Batch, Ledger, LedgerWriter, Position, StoreError, Verdict, Verdicts};

const IDLE_WAIT: Duration = Duration::from_millis(200);

/// What the sink works with.
pub struct LedgerSink {
    pub journal: Arc<Journal>,
    pub ledger: Arc<dyn Ledger>,
    pub handover: Arc<Handover>,
    pub status: Arc<SinkStatus>,
    pub clock: Clock,
    /// Whose days the points of series are.
    pub zone: TimeZone,
    /// Rows that are older may go.
    pub retention_days: i64,
    /// The follower of the ledger: verdicts far behind its position are not needed any more.
    pub live: Arc<SinkStatus>,
    /// Records of a batch, fewer after a failure: [`BATCH_RECORDS_MAX`] at the start.
    pub records_max: AtomicUsize,
}

/// How fast records come in, and when the last batch was begun.
#[derive(Default)]
struct Pulse {
    begun: Option<Instant>,
    records_per_ms: f64,
}

impl Pulse {
    /// A batch of so many records begins.
    fn beat(&mut self, records: u64) {
        const NEW: f64 = 0.1;
        let now = Instant::now();
        if let Some(begun) = self.begun.replace(now) {
            let ms = (now - begun).as_secs_f64() * 1e3;
            self.records_per_ms += (records as f64 / ms.max(0.1) - self.records_per_ms) * NEW;
        }
    }

    /// When the next batch may begin (`None`: at any time), so that several requests share a transaction, which costs
    /// the same for one as for ten: not if they come one by one, nor if many wait already.
    fn next(&self) -> Option<Instant> {
        let expected = self.records_per_ms * LINGER_WAITED_MS as f64;
        let is_moderate = (LINGER_WAITED_RECORDS_MIN..LINGER_WAITED_RECORDS_MAX).contains(&expected);
        self.begun.filter(|_| is_moderate).map(|begun| begun + Duration::from_millis(LINGER_WAITED_MS))
    }
}

impl LedgerSink {
    /// Starts the sink's thread.
    pub fn spawn(self: Arc<Self>) -> JoinHandle<()> {
        let run = move || {
            // From 0: nothing is removed before the ledger has said how far it is.
            let kept = self.journal.follow(0, false);
            self.handover.waiting.serve_ledger();
            self.status.supervise(|| {
                let mut follower = self.stand(&kept)?;
                while !self.status.is_stopping() {
                    follower.wait_for_more();
                    follower.step()?;
                }
                Ok(())
            });
        };
        crate::process::spawn("ledger-sink", run)
    }

    /// Opens a connection and goes to the ledger's position. The journal keeps segments by `kept`.
    pub fn stand(self: &Arc<Self>, kept: &Arc<AtomicU64>) -> Result<LedgerFollower, Ended> {
        let stream = self.journal.stream();
        let mut writer = self.ledger.open_writer()?;
        writer.register(stream)?;
        let at =
            writer.watermark(stream)?.ok_or_else(|| Ended::Stop("the stream was removed from the ledger".into()))?;
        let reader = self.journal.reader(at).inspect_err(|why| {
            if matches!(why, ReadError::Ahead { .. } | ReadError::Foreign(_)) {
                self.journal.refuse_as_forked();
            }
        })?;
        // Those of earlier lives count too. A ledger that cannot count them in time keeps the number that is known.
        if let Ok(rows) = self.ledger.dead_letters() {
            self.status.dead.store(rows, Ordering::Relaxed);
        }
        self.status.at(at.position);
        self.handover.resume(at.position);
        kept.store(at.position, Ordering::Release);
        // A commit whose reply was lost has decided for those who still wait.
        let waiting = &self.handover.waiting;
        if let Some(first) = waiting.first_undecided(Until::Ledger, at.position) {
            let verdicts = self.ledger.verdicts(stream, first - 1, at.position)?.unwrap_or_default();
            waiting.settle(Until::Ledger, at.position, &verdicts);
        }
        self.status.set(SinkState::Following);
        Ok(LedgerFollower { sink: self.clone(), writer, reader, kept: kept.clone(), pulse: Pulse::default() })
    }
}

/// The sink at its ledger's position: its thread's work, one step at a time.
pub struct LedgerFollower {
    sink: Arc<LedgerSink>,
    writer: Box<dyn LedgerWriter>,
    reader: Reader,
    kept: Arc<AtomicU64>,
    pulse: Pulse,
}

impl LedgerFollower {
    /// Applies one batch, tells who waits, and hands its verdicts on; false if there was nothing to apply. After an
    /// error the follower is of no more use: the sink must [`LedgerSink::stand`] again.
    pub fn step(&mut self) -> Result<bool, Ended> {
        let sink = self.sink.clone();
        let records_max = sink.records_max.load(Ordering::Relaxed);
        if self.reader.behind() > 0 {
            self.pulse.beat(self.reader.behind());
            sink.journal.next_batch_begins(self.pulse.next());
        }
        let Some(frames) = self.reader.next(Position::MAX, records_max, BATCH_BYTES_MAX)? else {
            sink.status.current_as_of(sink.clock.now_ms());
            sink.status.recovered();
            return Ok(false);
        };
        let applied = self.apply(&frames);
        let next_max = match &applied {
            Ok(_) => (records_max * 2).min(BATCH_RECORDS_MAX),
            // A batch that the store could not finish in time would not finish the next time either: half of it may.
            Err(Ended::Retry(_)) => (records_max / 2).max(BATCH_RECORDS_MIN),
            Err(_) => records_max,
        };
        sink.records_max.store(next_max, Ordering::Relaxed);
        let verdicts = applied?;
        // Before those who wait hear of it: whoever looks then sees it applied.
        sink.status.at(frames.to.position);
        sink.handover.waiting.settle(Until::Ledger, frames.to.position, &verdicts);
        sink.handover.push(frames.to.position, verdicts);
        self.kept.store(frames.to.position, Ordering::Release);
        Ok(true)
    }

    /// Waits for something to apply, then for a larger batch: a little if a request waits, longer if none does.
    fn wait_for_more(&self) {
        if self.reader.behind() == 0 {
            self.reader.wait(IDLE_WAIT);
        }
        let begun = Instant::now();
        while (1..BATCH_RECORDS_ENOUGH).contains(&self.reader.behind()) && !self.sink.status.is_stopping() {
            let is_busy = self.reader.behind() >= LINGER_BUSY_RECORDS;
            let linger = Duration::from_millis(if is_busy { LINGER_BUSY_MS } else { LINGER_MS });
            let left = linger.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            if self.sink.handover.waiting.any(Until::Ledger) {
                let pause = self.pulse.next().map(|next| next.saturating_duration_since(Instant::now()));
                std::thread::sleep(pause.unwrap_or_default());
                break;
            }
            // In pieces: it may become busy, or enough, meanwhile.
            std::thread::park_timeout(left.min(Duration::from_millis(LINGER_MS)));
        }
    }

    fn apply(&mut self, frames: &Frames) -> Result<Verdicts, Ended> {
        let status = &self.sink.status;
        let records = decode_records(&frames.bytes, frames.count())?;
        let batch = Batch { stream: self.sink.journal.stream(), from: frames.from, to: frames.to, records };
        let started = Instant::now();
        let verdicts = match self.writer.apply(&batch, &BTreeMap::new()) {
            Err(StoreError::Poison(why)) => {
                tracing::warn!(sink = "ledger", error = why, "the ledger refuses data of a batch; looking for it");
                let dead = find_poison(&mut *self.writer, &batch)?;
                status.dead.fetch_add(dead.len() as u64, Ordering::Relaxed);
                self.writer.apply(&batch, &dead)?
            }
            other => other?,
        };
        status.applied(batch.from.position, &batch.records, started.elapsed());
        assert!(verdicts.is_sorted_by_key(|(position, _)| *position), "outcomes come in the order of positions");
        let is_of_batch = |(at, _): &(Position, Verdict)| (batch.from.position + 1..=batch.to.position).contains(at);
        assert!(verdicts.iter().all(is_of_batch), "outcomes of the batch");
        Ok(verdicts)
    }
}

/// The positions whose data the ledger refuses, with its reason: halves what is refused until single records are left.
fn find_poison(writer: &mut dyn LedgerWriter, batch: &Batch<'_>) -> Result<BTreeMap<Position, String>, StoreError> {
    let mut dead = BTreeMap::new();
    let whole = 0..batch.records.len();
    let mut ranges = vec![whole];
    while let Some(range) = ranges.pop() {
        match writer.probe(batch, range.clone()) {
            Ok(()) => {}
            Err(StoreError::Poison(why)) if range.len() == 1 => {
                let position = batch.position(range.start);
                tracing::error!(position, error = why, "a record goes to dead_letter");
                dead.insert(position, why);
            }
            Err(StoreError::Poison(_)) => {
                let middle = range.start + range.len() / 2;
                ranges.push(range.start..middle);
                ranges.push(middle..range.end);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(dead)
}
