//! The ledger's sink: journal → ledger, one transaction a batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

use super::supervise::supervise;
use super::{Ended, Handover, Pace, SinkState, SinkStatus, Until, Waiting};
use crate::clock::Clock;
use crate::events::{Record, decode_records};
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
    /// The slowest follower of the ledger: verdicts far behind it are not needed any more.
    pub follower: Arc<AtomicU64>,
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

    /// How long those who wait may be kept waiting, so that several share a transaction: it costs the same for one as for
    /// ten. Not where they come one by one, nor where many wait already.
    fn pause(&self) -> Duration {
        self.next().map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()))
    }

    /// When the next batch may begin; `None`: at any time.
    fn next(&self) -> Option<Instant> {
        let expected = self.records_per_ms * LINGER_WAITED_MS as f64;
        let is_moderate = (LINGER_WAITED_RECORDS_MIN..LINGER_WAITED_RECORDS_MAX).contains(&expected);
        self.begun.filter(|_| is_moderate).map(|begun| begun + Duration::from_millis(LINGER_WAITED_MS))
    }
}

impl LedgerSink {
    /// Starts the sink's thread.
    pub fn spawn(self: Arc<Self>) -> JoinHandle<()> {
        let sink = self;
        let run = move || {
            // From 0: nothing is removed before the ledger has said how far it is.
            let kept = sink.journal.follow(0, false);
            sink.handover.waiting.serve_ledger();
            supervise(&sink.status, || sink.follow(&kept));
        };
        crate::process::spawn("ledger-sink", run)
    }

    fn follow(self: &Arc<Self>, kept: &Arc<AtomicU64>) -> Result<(), Ended> {
        let mut follower = self.stand(kept)?;
        while !self.status.is_stopping() {
            follower.step(Pace::Patient)?;
        }
        Ok(())
    }

    /// Opens a connection and goes to where the ledger stands. `kept` is what the journal keeps segments by.
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
        let waiting = self.handover.waiting.clone();
        // A commit whose reply was lost has decided for those who still wait.
        self.settle_lost_reply(&waiting, at.position)?;
        let (sink, kept) = (self.clone(), kept.clone());
        Ok(LedgerFollower { sink, writer, reader, waiting, kept, pulse: Pulse::default() })
    }

    fn grow_batches(&self) {
        let grown = (self.records_max.load(Ordering::Relaxed) * 2).min(BATCH_RECORDS_MAX);
        self.records_max.store(grown, Ordering::Relaxed);
    }

    /// A batch that the store could not finish in time would not finish the next time either: half of it may.
    fn shrink_batches(&self, ended: &Ended) {
        if matches!(ended, Ended::Retry(_)) {
            let halved = (self.records_max.load(Ordering::Relaxed) / 2).max(BATCH_RECORDS_MIN);
            self.records_max.store(halved, Ordering::Relaxed);
        }
    }

    fn settle_lost_reply(&self, waiting: &Waiting, up_to: Position) -> Result<(), Ended> {
        let Some(after) = waiting.first_undecided(Until::Ledger, up_to) else { return Ok(()) };
        let verdicts = self.ledger.verdicts(self.journal.stream(), after - 1, up_to)?.unwrap_or_default();
        waiting.settle(Until::Ledger, up_to, &verdicts);
        Ok(())
    }

    /// The next batch's frames.
    fn next_frames(
        &self,
        reader: &mut Reader,
        waiting: &Waiting,
        pulse: &mut Pulse,
        pace: Pace,
    ) -> Result<Option<Frames>, Ended> {
        if pace == Pace::Patient {
            self.wait_for_more(reader, waiting, pulse);
        }
        if reader.behind() > 0 {
            pulse.beat(reader.behind());
            self.journal.next_batch_begins(pulse.next());
        }
        let records_max = self.records_max.load(Ordering::Relaxed);
        Ok(reader.next(Position::MAX, records_max, BATCH_BYTES_MAX)?)
    }

    /// Waits for something to apply, then lingers for a larger batch: a little while somebody waits for the ledger, longer
    /// while nobody does.
    fn wait_for_more(&self, reader: &Reader, waiting: &Waiting, pulse: &Pulse) {
        if reader.behind() == 0 {
            reader.wait(IDLE_WAIT);
        }
        let begun = Instant::now();
        while (1..BATCH_RECORDS_ENOUGH).contains(&reader.behind()) && !self.status.is_stopping() {
            let is_busy = reader.behind() >= LINGER_BUSY_RECORDS;
            let linger = Duration::from_millis(if is_busy { LINGER_BUSY_MS } else { LINGER_MS });
            let left = linger.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            if waiting.any(Until::Ledger) {
                std::thread::sleep(pulse.pause());
                break;
            }
            // In pieces: it may become busy, or enough, meanwhile.
            std::thread::park_timeout(left.min(Duration::from_millis(LINGER_MS)));
        }
    }

    fn apply(&self, writer: &mut dyn LedgerWriter, frames: &Frames) -> Result<Verdicts, Ended> {
        let records = decode_records(&frames.bytes, frames.count())?;
        let batch = Batch { stream: self.journal.stream(), from: frames.from, to: frames.to, records };
        let started = Instant::now();
        let none = BTreeMap::new();
        let verdicts = match writer.apply(&batch, &none) {
            Err(StoreError::Poison(why)) => {
                tracing::warn!(
                    sink = "ledger",
                    error = why,
                    "a batch holds data that the ledger refuses; looking for it"
                );
                let dead = find_poison(writer, &batch)?;
                self.status.dead.fetch_add(dead.len() as u64, Ordering::Relaxed);
                writer.apply(&batch, &dead)?
            }
            other => other?,
        };
        self.status.applied(batch.records.len(), started.elapsed());
        self.status.passed_lost(batch.from.position, &batch.records);
        if let Some(last_ms) = batch.records.iter().rev().find_map(Record::received_ms) {
            self.status.current_as_of(last_ms);
        }
        assert!(verdicts.is_sorted_by_key(|(position, _)| *position), "outcomes come in the order of positions");
        let is_of_batch = |(at, _): &(Position, Verdict)| (batch.from.position + 1..=batch.to.position).contains(at);
        assert!(
            verdicts.first().is_none_or(is_of_batch) && verdicts.last().is_none_or(is_of_batch),
            "outcomes of the batch"
        );
        Ok(verdicts)
    }
}

/// The sink where its ledger stands: what its thread does over and over, one step at a time.
pub struct LedgerFollower {
    sink: Arc<LedgerSink>,
    writer: Box<dyn LedgerWriter>,
    reader: Reader,
    waiting: Arc<Waiting>,
    kept: Arc<AtomicU64>,
    pulse: Pulse,
}

impl LedgerFollower {
    /// Applies one batch, tells who waits, and hands its verdicts on; false where there was nothing to apply. After an
    /// error the follower is of no more use: the sink must [`LedgerSink::stand`] again.
    pub fn step(&mut self, pace: Pace) -> Result<bool, Ended> {
        let sink = &self.sink;
        sink.status.set(SinkState::Following);
        let Some(frames) = sink.next_frames(&mut self.reader, &self.waiting, &mut self.pulse, pace)? else {
            sink.status.current_as_of(sink.clock.now_ms());
            sink.status.recovered();
            return Ok(false);
        };
        let applied = sink.apply(&mut *self.writer, &frames);
        let verdicts = applied.inspect_err(|ended| sink.shrink_batches(ended))?;
        sink.grow_batches();
        // Before those who wait hear of it: whoever looks then sees it applied.
        sink.status.at(frames.to.position);
        self.waiting.settle(Until::Ledger, frames.to.position, &verdicts);
        sink.handover.push(frames.to.position, verdicts);
        self.kept.store(frames.to.position, Ordering::Release);
        Ok(true)
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
