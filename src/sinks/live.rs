//! The live store's sink: journal, up to the ledger's watermark and with its verdicts → live store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

use super::{Ended, Handover, SinkState, SinkStatus, Until, agreed_ms};
use crate::clock::Clock;
use crate::events::{Erase, Record, Tally, decode_records, tally_event, tally_like, tally_unliked};
use crate::journal::{Frames, Journal, ReadError, Reader};
use crate::limits::{BATCH_BYTES_MAX, LIVE_BATCH_RECORDS_ENOUGH, LIVE_BATCH_RECORDS_MAX, LIVE_LINGER_MS};
use crate::ports::{
    Erasure, Ledger, LikeOutcome, LiveBatch, LiveState, LiveStore, LiveWriter, Position, PostOutcome, RecentChange,
    StoreError, Tombstone, Verdict, Watermark,
};

const IDLE_WAIT: Duration = Duration::from_millis(200);
const LINGER_PIECE: Duration = Duration::from_millis(10);
const FOLD_EVERY: Duration = Duration::from_secs(1);

pub struct LiveSink {
    pub journal: Arc<Journal>,
    pub ledger: Arc<dyn Ledger>,
    pub live: Arc<dyn LiveStore>,
    pub handover: Arc<Handover>,
    pub status: Arc<SinkStatus>,
    pub clock: Clock,
}

impl LiveSink {
    pub fn spawn(self: Arc<Self>) -> JoinHandle<()> {
        let run = move || {
            let kept = self.journal.follow(0, true);
            self.status.supervise(|| {
                let mut follower = self.stand(&kept)?;
                let mut fold_at = Instant::now();
                while !self.status.is_stopping() {
                    if Instant::now() >= fold_at {
                        follower.fold()?;
                        fold_at = Instant::now() + FOLD_EVERY;
                    }
                    follower.wait_for_more();
                    follower.step()?;
                }
                Ok(())
            });
        };
        crate::process::spawn("live-sink", run)
    }

    /// Opens a connection and goes to the store's position. The journal keeps segments by `kept`.
    pub fn stand(self: &Arc<Self>, kept: &Arc<AtomicU64>) -> Result<LiveFollower, Ended> {
        let mut writer = self.live.open_writer()?;
        let reader = self.find_place(&mut *writer, kept)?;
        if reader.behind() == 0 {
            self.status.current_as_of(self.clock.now_ms());
        }
        Ok(LiveFollower { sink: self.clone(), writer, reader, kept: kept.clone() })
    }

    /// The time by which the store keeps or drops counts: see [`agreed_ms`].
    fn now_ms(&self, writer: &mut dyn LiveWriter) -> Result<i64, StoreError> {
        Ok(agreed_ms(self.clock.now_ms(), writer.clock_ms()?))
    }

    /// Goes to the store's position; builds the store from the ledger if it is lost, or too far behind.
    fn find_place(&self, writer: &mut dyn LiveWriter, kept: &AtomicU64) -> Result<Reader, Ended> {
        let stream = self.journal.stream();
        loop {
            let state = writer.state(stream)?;
            if let LiveState::At(at) = state {
                match self.journal.reader(at) {
                    Ok(reader) if self.has_verdicts(at.position)? => {
                        self.passed(at, kept);
                        self.status.set(SinkState::Following);
                        return Ok(reader);
                    }
                    Ok(_) | Err(ReadError::Gone(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match state {
                LiveState::NewStream => writer.register(stream)?,
                LiveState::At(_) | LiveState::Lost => self.rebuild(writer, state)?,
            }
        }
    }

    fn rebuild(&self, writer: &mut dyn LiveWriter, seen: LiveState) -> Result<(), Ended> {
        self.status.set(SinkState::Rebuilding);
        let now_ms = self.now_ms(writer)?;
        let mut is_of_ledger = false;
        let mut snapshot = |zone: &TimeZone| self.ledger.snapshot(now_ms, zone).inspect_err(|_| is_of_ledger = true);
        let rebuilt = writer.rebuild(self.journal.stream(), seen, &mut snapshot, now_ms);
        rebuilt.map_err(|error| if is_of_ledger { of_ledger(error) } else { error.into() })
    }

    /// The verdicts behind a position are still to be had: nobody may guess that a record was stored.
    fn has_verdicts(&self, after: Position) -> Result<bool, Ended> {
        Ok(self.ledger.verdicts(self.journal.stream(), after, after).map_err(of_ledger)?.is_some())
    }

    fn passed(&self, at: Watermark, kept: &AtomicU64) {
        self.status.at(at.position);
        kept.store(at.position, Ordering::Release);
        self.handover.waiting.settle(Until::Live, at.position, &Vec::new());
    }

    /// What the live store is told of some frames at a time.
    fn batch(&self, frames: &Frames, records: &[Record<'_>], now_ms: i64) -> Result<LiveBatch, Ended> {
        let verdicts = self.verdicts(frames.from.position, frames.to.position)?;
        let mut batch = LiveBatch {
            stream: self.journal.stream(),
            from: frames.from,
            to: frames.to,
            now_ms,
            ..LiveBatch::default()
        };
        let mut counts = Tally::default();
        for (position, record) in (frames.from.position + 1..).zip(records) {
            let verdict = verdicts.get(&position);
            match record {
                Record::Erase(erase) if verdict == Some(&Verdict::Erasure) => {
                    let erasure = self.ledger.erasure(batch.stream, position).map_err(of_ledger)?;
                    add_erasure(erase, erasure, &mut counts, &mut batch);
                }
                _ => add_effects(record, verdict, &mut counts, &mut batch),
            }
        }
        batch.counts = counts.into_sorted();
        batch.users.sort_unstable();
        batch.users.dedup();
        Ok(batch)
    }

    /// False: the store's watermark is not where the batch begins.
    fn apply(&self, writer: &mut dyn LiveWriter, frames: &Frames) -> Result<bool, Ended> {
        let started = Instant::now();
        let records = decode_records(&frames.bytes, frames.count())?;
        let batch = self.batch(frames, &records, self.now_ms(writer)?)?;
        match writer.apply(&batch) {
            Ok(()) => self.status.applied(frames.from.position, &records, started.elapsed()),
            // Another reply was lost, or the store went back to an older state: go on from what it has.
            Err(StoreError::Fenced { found: Some(_) }) => return Ok(false),
            Err(StoreError::Fenced { found: None }) => return Err(Ended::Retry("the live store is empty".into())),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    fn verdicts(&self, after: Position, up_to: Position) -> Result<HashMap<Position, Verdict>, Ended> {
        let verdicts = match self.handover.verdicts(after, up_to) {
            Some(verdicts) => verdicts,
            None => {
                let read = self.ledger.verdicts(self.journal.stream(), after, up_to).map_err(of_ledger)?;
                read.ok_or_else(|| Ended::Retry("the ledger's verdicts on what comes next were pruned".into()))?
            }
        };
        Ok(verdicts.into_iter().collect())
    }
}

/// A failed read of the ledger.
fn of_ledger(error: StoreError) -> Ended {
    match error {
        StoreError::Retry(why) => Ended::LedgerRetry(why),
        error => error.into(),
    }
}

/// The sink at its store's position: its thread's work, one step at a time.
pub struct LiveFollower {
    sink: Arc<LiveSink>,
    writer: Box<dyn LiveWriter>,
    reader: Reader,
    kept: Arc<AtomicU64>,
}

impl LiveFollower {
    /// Waits for the ledger to decide on more, then a little for a larger batch, unless a request waits.
    fn wait_for_more(&self) {
        let LiveSink { handover, status, .. } = &*self.sink;
        let at = self.reader.at().position;
        let mut ledger_at = handover.wait_past(at, IDLE_WAIT);
        let until = Instant::now() + Duration::from_millis(LIVE_LINGER_MS);
        while (1..LIVE_BATCH_RECORDS_ENOUGH).contains(&ledger_at.saturating_sub(at))
            && !handover.waiting.any(Until::Live)
            && !status.is_stopping()
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // In pieces: a request that begins to wait ends the linger with the next one.
            ledger_at = handover.wait_past(ledger_at, left.min(LINGER_PIECE));
        }
    }

    /// Applies one batch that the ledger has decided; false if there is none, or the store's position is another.
    /// After an error the follower is of no more use: the sink must [`LiveSink::stand`] again.
    pub fn step(&mut self) -> Result<bool, Ended> {
        let sink = self.sink.clone();
        // What has come in since is not behind yet: the ledger has to decide on it first.
        let asked_at = sink.clock.now_ms();
        let nothing_new = self.reader.behind() == 0;
        let ledger_at = sink.handover.position();
        let frames = match self.reader.next(ledger_at, LIVE_BATCH_RECORDS_MAX, BATCH_BYTES_MAX) {
            // The journal had no room left and went on without us: `find_place` builds the store anew.
            Err(ReadError::Gone(_)) => return self.stand_again(),
            frames => frames?,
        };
        let Some(frames) = frames else {
            if nothing_new {
                sink.status.current_as_of(asked_at);
                // While nothing comes in, no apply finds out that the store was emptied.
                if !matches!(self.writer.state(sink.journal.stream())?, LiveState::At(_)) {
                    return Err(Ended::Retry("the live store is empty".into()));
                }
                sink.status.recovered();
            }
            return Ok(false);
        };
        if !sink.apply(&mut *self.writer, &frames)? {
            return self.stand_again();
        }
        sink.passed(frames.to, &self.kept);
        Ok(true)
    }

    /// Adds closed minutes to their hours and days.
    pub fn fold(&mut self) -> Result<(), Ended> {
        let now_ms = self.sink.now_ms(&mut *self.writer)?;
        Ok(self.writer.fold(now_ms)?)
    }

    fn stand_again(&mut self) -> Result<bool, Ended> {
        self.reader = self.sink.find_place(&mut *self.writer, &self.kept)?;
        Ok(false)
    }
}

/// A person goes: what they liked counts less, their searches are forgotten.
fn add_erasure(erase: &Erase<'_>, erasure: Erasure, counts: &mut Tally, batch: &mut LiveBatch) {
    for (post, likes) in &erasure.unliked {
        tally_unliked(counts, post, erase.at_ms, *likes);
    }
    let deleted = erasure.deleted.into_iter();
    batch.tombstones.extend(deleted.map(|(post_id, version)| Tombstone { post_id, version, deleted: true }));
    let user_id = erase.user_id.clone().into_owned();
    batch.recent.push(RecentChange::Forget { user_id, keyword: None, at_ms: erase.at_ms });
}

/// What a record does to the live store, given the ledger's verdict on it.
fn add_effects(record: &Record<'_>, verdict: Option<&Verdict>, counts: &mut Tally, batch: &mut LiveBatch) {
    match (record, verdict) {
        (_, Some(Verdict::Duplicate | Verdict::Dead | Verdict::Erased)) => {}
        (Record::Event(event), verdict) => {
            let outcome = if let Some(Verdict::Like(outcome)) = verdict { Some(outcome) } else { None };
            tally_event(counts, event, outcome.map_or(event.event_type, LikeOutcome::stored_type));
            if let Some(outcome) = outcome.filter(|outcome| outcome.changed) {
                tally_like(counts, event, outcome.liked);
            }
            if let Some(user) = &event.user_id {
                batch.users.push((event.minute(), (&**user).into()));
            }
            if let Some((user_id, keyword)) = event.recent_search() {
                let (user_id, keyword) = (user_id.to_owned(), keyword.to_owned());
                // A clock ahead of ours must not carry a search past a forgetting that came after it.
                let at_ms = event.happened_ms();
                batch.recent.push(RecentChange::Add { user_id, keyword, at_ms });
            }
        }
        (Record::PostDelete(delete), Some(Verdict::Post(PostOutcome::Deleted { likes_removed, version, .. }))) => {
            tally_unliked(counts, &delete.post_id, delete.at_ms, *likes_removed);
            let post_id = delete.post_id.clone().into_owned();
            batch.tombstones.push(Tombstone { post_id, version: *version, deleted: true });
        }
        // The first version follows no deletion that could still arrive.
        (Record::PostPut(put), Some(Verdict::Post(PostOutcome::Put { version: version @ 2.., .. }))) => {
            let post_id = put.post_id.clone().into_owned();
            batch.tombstones.push(Tombstone { post_id, version: *version, deleted: false });
        }
        (Record::Forget(forget), _) => batch.recent.push(RecentChange::Forget {
            user_id: forget.user_id.clone().into_owned(),
            keyword: forget.keyword.clone().map(|k| k.into_owned()),
            at_ms: forget.at_ms,
        }),
        (Record::PostPut(_) | Record::PostDelete(_) | Record::Erase(_) | Record::Lost, _) => {}
    }
}
