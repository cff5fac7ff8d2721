//! A fault is one more adapter: it stands in front of a real store, passes calls on to it, and misbehaves as its plan
//! says. What a caller is told and what the store did are two things, as with a real outage.

#![allow(dead_code, reason = "each suite uses a part")]

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_tracker::events::Dimension;
use event_tracker::ports::{
    Batch, Belongings, CountFilter, Erasure, ExportCursor, ExportPage, ExportQuery, Ledger, LedgerWriter, Likes,
    LiveBatch, LiveState, LiveStore, LiveTop, LiveWriter, Position, Post, PostSearch, RankingQuery, ReadSnapshot,
    SeriesPoint, SeriesQuery, Snapshot, StoreError, TopQuery, Verdicts, Watermark, Window,
};
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

/// Kinds of calls, for a plan to tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    Open,
    Watermark,
    Register,
    Apply,
    Probe,
    Verdicts,
    Prune,
    Prepare,
    Maintain,
    Retire,
    Snapshot,
    State,
    Fold,
    AddUp,
    Rebuild,
    /// Everything that only answers questions of users.
    Read,
}

impl Call {
    /// What a ledger's sink calls.
    pub(crate) const OF_LEDGER: [Call; 9] = [
        Call::Open,
        Call::Watermark,
        Call::Register,
        Call::Apply,
        Call::Probe,
        Call::Verdicts,
        Call::Prune,
        Call::Maintain,
        Call::Snapshot,
    ];
    /// What a live store's sink calls.
    pub(crate) const OF_LIVE: [Call; 6] =
        [Call::Open, Call::State, Call::Register, Call::Apply, Call::Fold, Call::Rebuild];
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// `Retry`, and the store never heard of it.
    Before,
    /// The store does it, the reply is lost: `Retry`.
    LostReply,
    /// Done and answered, late.
    Slow(Duration),
    /// The store never hears of it and nothing is answered until [`Faults::heal`], at most this long; then `Retry`.
    Hang(Duration),
    /// `Fatal`, and the store never heard of it.
    Fatal,
    /// `Poison`, and the store never heard of it.
    Poison,
    /// The adapter panics, and the store never heard of it.
    Panic,
}

#[derive(Default)]
struct Plan {
    /// By kind of call and its number, from 1.
    at: HashMap<(Call, u64), Fault>,
    always: HashMap<Call, Fault>,
    random: Option<(StdRng, u32)>,
    begun: BTreeMap<Call, u64>,
    done: BTreeMap<Call, u64>,
    healed: u64,
}

/// What the faulty adapters of one instance share: when which call fails how, and what got through.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<(Mutex<Plan>, Condvar)>);

impl Faults {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `nth` call of a kind from now on (1 is the next) fails.
    pub(crate) fn nth(&self, call: Call, nth: u64, fault: Fault) {
        let mut plan = self.plan();
        let number = plan.begun.get(&call).copied().unwrap_or_default() + nth;
        plan.at.insert((call, number), fault);
    }

    /// The next call of a kind fails.
    pub(crate) fn next(&self, call: Call, fault: Fault) {
        self.nth(call, 1, fault);
    }

    /// Every call of a kind fails until [`Faults::heal`].
    pub(crate) fn always(&self, call: Call, fault: Fault) {
        self.plan().always.insert(call, fault);
    }

    /// One call in `one_in` fails before, is slow, hangs or loses its reply, until [`Faults::heal`].
    pub(crate) fn at_random(&self, seed: u64, one_in: u32) {
        self.plan().random = Some((StdRng::seed_from_u64(seed), one_in));
    }

    /// No more faults; what hangs is let go.
    pub(crate) fn heal(&self) {
        let mut plan = self.plan();
        plan.at.clear();
        plan.always.clear();
        plan.random = None;
        plan.healed += 1;
        self.0.1.notify_all();
    }

    /// Calls of a kind that were made.
    pub(crate) fn begun(&self, call: Call) -> u64 {
        self.plan().begun.get(&call).copied().unwrap_or_default()
    }

    /// Calls of a kind that the store did, whatever their caller was told.
    pub(crate) fn done(&self, call: Call) -> u64 {
        self.plan().done.get(&call).copied().unwrap_or_default()
    }

    fn next_fault(&self, call: Call) -> Option<Fault> {
        let mut plan = self.plan();
        let number = plan.begun.entry(call).or_default();
        *number += 1;
        let number = *number;
        if let Some(fault) = plan.at.remove(&(call, number)).or_else(|| plan.always.get(&call).copied()) {
            return Some(fault);
        }
        let (random, one_in) = plan.random.as_mut()?;
        if random.random_range(0..*one_in) > 0 {
            return None;
        }
        let pause = Duration::from_millis(random.random_range(0..20));
        let faults = [Fault::Before, Fault::LostReply, Fault::LostReply, Fault::Slow(pause), Fault::Hang(2 * pause)];
        Some(faults[random.random_range(0..faults.len())])
    }

    fn hang(&self, bound: Duration) {
        let plan = self.plan();
        let healed = plan.healed;
        let waited = self.0.1.wait_timeout_while(plan, bound, |plan| plan.healed == healed);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Passes a call on, or does not, as planned.
    fn pass<T>(&self, call: Call, run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let fault = self.next_fault(call);
        match fault {
            Some(Fault::Before) => return Err(StoreError::Retry(format!("fault: {call:?} was not sent"))),
            Some(Fault::Fatal) => return Err(StoreError::Fatal(format!("fault: {call:?}"))),
            Some(Fault::Panic) => panic!("fault: {call:?}"),
            Some(Fault::Poison) => return Err(StoreError::Poison(format!("fault: {call:?}"))),
            Some(Fault::Hang(bound)) => {
                self.hang(bound);
                return Err(StoreError::Retry(format!("fault: {call:?} got no answer")));
            }
            Some(Fault::Slow(pause)) => std::thread::sleep(pause),
            Some(Fault::LostReply) | None => {}
        }
        let result = run()?;
        *self.plan().done.entry(call).or_default() += 1;
        match fault {
            Some(Fault::LostReply) => Err(StoreError::Retry(format!("fault: the reply to {call:?} was lost"))),
            _ => Ok(result),
        }
    }
}

/// A ledger that misbehaves.
pub(crate) struct FaultyLedger {
    inner: Arc<dyn Ledger>,
    faults: Faults,
}

struct FaultyLedgerWriter {
    inner: Box<dyn LedgerWriter>,
    faults: Faults,
}

impl FaultyLedger {
    pub(crate) fn new(inner: Arc<dyn Ledger>, faults: &Faults) -> FaultyLedger {
        FaultyLedger { inner, faults: faults.clone() }
    }
}

impl Ledger for FaultyLedger {
    fn open_writer(&self) -> Result<Box<dyn LedgerWriter>, StoreError> {
        let inner = self.faults.pass(Call::Open, || self.inner.open_writer())?;
        Ok(Box::new(FaultyLedgerWriter { inner, faults: self.faults.clone() }))
    }

    fn watermark(&self, stream: Uuid) -> Result<Option<Watermark>, StoreError> {
        self.faults.pass(Call::Watermark, || self.inner.watermark(stream))
    }

    fn verdicts(&self, stream: Uuid, after: Position, up_to: Position) -> Result<Option<Verdicts>, StoreError> {
        self.faults.pass(Call::Verdicts, || self.inner.verdicts(stream, after, up_to))
    }

    fn erasure(&self, stream: Uuid, position: Position) -> Result<Erasure, StoreError> {
        self.faults.pass(Call::Verdicts, || self.inner.erasure(stream, position))
    }

    fn belongings(&self, user_id: &str, limit: usize) -> Result<Belongings, StoreError> {
        self.faults.pass(Call::Read, || self.inner.belongings(user_id, limit))
    }

    fn count(&self, filter: &CountFilter) -> Result<u64, StoreError> {
        self.faults.pass(Call::Read, || self.inner.count(filter))
    }

    fn top(&self, query: &TopQuery, now_ms: i64, zone: &TimeZone) -> Result<Vec<(String, f64)>, StoreError> {
        self.faults.pass(Call::Read, || self.inner.top(query, now_ms, zone))
    }

    fn recent(&self, user_id: &str, now_ms: i64) -> Result<Vec<String>, StoreError> {
        self.faults.pass(Call::Read, || self.inner.recent(user_id, now_ms))
    }

    fn ranking(&self, query: &RankingQuery, limit_to_ms: i64) -> Result<Option<Vec<(String, i64)>>, StoreError> {
        self.faults.pass(Call::Read, || self.inner.ranking(query, limit_to_ms))
    }

    fn series(&self, query: &SeriesQuery) -> Result<Option<Vec<SeriesPoint>>, StoreError> {
        self.faults.pass(Call::Read, || self.inner.series(query))
    }

    fn users(&self, from_ms: i64, to_ms: i64) -> Result<Option<u64>, StoreError> {
        self.faults.pass(Call::Read, || self.inner.users(from_ms, to_ms))
    }

    fn likes(&self, post_id: &str, user_id: Option<&str>) -> Result<Likes, StoreError> {
        self.faults.pass(Call::Read, || self.inner.likes(post_id, user_id))
    }

    fn post(&self, post_id: &str) -> Result<Option<Post>, StoreError> {
        self.faults.pass(Call::Read, || self.inner.post(post_id))
    }

    fn search(&self, query: &PostSearch) -> Result<Vec<Post>, StoreError> {
        self.faults.pass(Call::Read, || self.inner.search(query))
    }

    fn export(&self, query: &ExportQuery, after: Option<ExportCursor>) -> Result<ExportPage, StoreError> {
        self.faults.pass(Call::Read, || self.inner.export(query, after))
    }

    fn snapshot(&self, now_ms: i64, zone: &TimeZone) -> Result<Snapshot, StoreError> {
        self.faults.pass(Call::Snapshot, || self.inner.snapshot(now_ms, zone))
    }

    fn dead_letters(&self) -> Result<u64, StoreError> {
        self.faults.pass(Call::Read, || self.inner.dead_letters())
    }
}

impl LedgerWriter for FaultyLedgerWriter {
    fn watermark(&mut self, stream: Uuid) -> Result<Option<Watermark>, StoreError> {
        self.faults.pass(Call::Watermark, || self.inner.watermark(stream))
    }

    fn register(&mut self, stream: Uuid) -> Result<(), StoreError> {
        self.faults.pass(Call::Register, || self.inner.register(stream))
    }

    fn apply(&mut self, batch: &Batch<'_>, dead: &BTreeMap<Position, String>) -> Result<Verdicts, StoreError> {
        self.faults.pass(Call::Apply, || self.inner.apply(batch, dead))
    }

    fn probe(&mut self, batch: &Batch<'_>, range: Range<usize>) -> Result<(), StoreError> {
        self.faults.pass(Call::Probe, || self.inner.probe(batch, range))
    }

    fn prune_verdicts(&mut self, stream: Uuid, up_to: Position) -> Result<(), StoreError> {
        self.faults.pass(Call::Prune, || self.inner.prune_verdicts(stream, up_to))
    }

    fn clock_ms(&mut self) -> Result<Option<i64>, StoreError> {
        // Time is the test's: the server's clock does not follow it.
        Ok(None)
    }

    fn prepare(&mut self, now_ms: i64) -> Result<(), StoreError> {
        self.faults.pass(Call::Prepare, || self.inner.prepare(now_ms))
    }

    fn maintain(&mut self, now_ms: i64) -> Result<(), StoreError> {
        self.faults.pass(Call::Maintain, || self.inner.maintain(now_ms))
    }

    fn add_up(&mut self) -> Result<(), StoreError> {
        self.faults.pass(Call::AddUp, || self.inner.add_up())
    }

    fn fold(&mut self, now_ms: i64, zone: &TimeZone) -> Result<bool, StoreError> {
        self.faults.pass(Call::Fold, || self.inner.fold(now_ms, zone))
    }

    fn spare(&mut self) {
        self.inner.spare();
    }

    fn retire(&mut self, now_ms: i64, retention_days: i64) -> Result<(), StoreError> {
        self.faults.pass(Call::Retire, || self.inner.retire(now_ms, retention_days))
    }
}

/// A live store that misbehaves.
pub(crate) struct FaultyLive {
    inner: Arc<dyn LiveStore>,
    faults: Faults,
}

struct FaultyLiveWriter {
    inner: Box<dyn LiveWriter>,
    faults: Faults,
}

impl FaultyLive {
    pub(crate) fn new(inner: Arc<dyn LiveStore>, faults: &Faults) -> FaultyLive {
        FaultyLive { inner, faults: faults.clone() }
    }
}

impl LiveStore for FaultyLive {
    fn open_writer(&self) -> Result<Box<dyn LiveWriter>, StoreError> {
        let inner = self.faults.pass(Call::Open, || self.inner.open_writer())?;
        Ok(Box::new(FaultyLiveWriter { inner, faults: self.faults.clone() }))
    }

    fn top(&self, query: &TopQuery, now_ms: i64) -> Result<LiveTop, StoreError> {
        self.faults.pass(Call::Read, || self.inner.top(query, now_ms))
    }

    fn users(&self, window: Window, now_ms: i64) -> Result<u64, StoreError> {
        self.faults.pass(Call::Read, || self.inner.users(window, now_ms))
    }

    fn recent(&self, user_id: &str, now_ms: i64) -> Result<Vec<String>, StoreError> {
        self.faults.pass(Call::Read, || self.inner.recent(user_id, now_ms))
    }

    fn totals(&self) -> Result<Vec<(Dimension, String, i64)>, StoreError> {
        self.faults.pass(Call::Read, || self.inner.totals())
    }

    fn ping(&self) -> Result<(), StoreError> {
        self.faults.pass(Call::Read, || self.inner.ping())
    }
}

impl LiveWriter for FaultyLiveWriter {
    fn state(&mut self, stream: Uuid) -> Result<LiveState, StoreError> {
        self.faults.pass(Call::State, || self.inner.state(stream))
    }

    fn clock_ms(&mut self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    fn register(&mut self, stream: Uuid) -> Result<(), StoreError> {
        self.faults.pass(Call::Register, || self.inner.register(stream))
    }

    fn apply(&mut self, batch: &LiveBatch) -> Result<(), StoreError> {
        self.faults.pass(Call::Apply, || self.inner.apply(batch))
    }

    fn fold(&mut self, now_ms: i64) -> Result<(), StoreError> {
        self.faults.pass(Call::Fold, || self.inner.fold(now_ms))
    }

    fn rebuild(
        &mut self,
        stream: Uuid,
        seen: LiveState,
        read: ReadSnapshot<'_>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.faults.pass(Call::Rebuild, || self.inner.rebuild(stream, seen, read, now_ms))
    }
}
