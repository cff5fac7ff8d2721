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
    LiveBatch, LiveState, LiveStore, LiveTop, LiveWriter, Position, Post, PostSearch, RankingQuery, SeriesPoint,
    SeriesQuery, Snapshot, StoreError, TopQuery, Verdicts, Watermark, Window,
};
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    Open,
    Watermark,
    Register,
    Apply,
    Probe,
    Verdicts,
    Prune,
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
    pub(crate) const OF_LEDGER: [Call; 9] = {
        use Call::*;
        [Open, Watermark, Register, Apply, Probe, Verdicts, Prune, Maintain, Snapshot]
    };
    /// What a live store's sink calls.
    pub(crate) const OF_LIVE: [Call; 6] =
        [Call::Open, Call::State, Call::Register, Call::Apply, Call::Fold, Call::Rebuild];
}

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

/// Methods of a port that pass their call on, each after the kind by which plans know it.
macro_rules! pass {
    ($this:ident: $receiver:ty => $($call:ident $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        $(fn $name($this: $receiver, $($argument: $type),*) -> Result<$answer, StoreError> {
            $this.faults.pass(Call::$call, || $this.inner.$name($($argument),*))
        })+
    };
}

/// A store, or its writer, that misbehaves.
pub(crate) struct Faulty<T> {
    inner: T,
    faults: Faults,
}

pub(crate) type FaultyLedger = Faulty<Arc<dyn Ledger>>;
pub(crate) type FaultyLive = Faulty<Arc<dyn LiveStore>>;

impl<T> Faulty<T> {
    pub(crate) fn new(inner: T, faults: &Faults) -> Faulty<T> {
        Faulty { inner, faults: faults.clone() }
    }
}

impl Ledger for FaultyLedger {
    fn open_writer(&self) -> Result<Box<dyn LedgerWriter>, StoreError> {
        let inner = self.faults.pass(Call::Open, || self.inner.open_writer())?;
        Ok(Box::new(Faulty::new(inner, &self.faults)))
    }

    pass! { self: &Self =>
        Watermark watermark(stream: Uuid) -> Option<Watermark>;
        Verdicts verdicts(stream: Uuid, after: Position, up_to: Position) -> Option<Verdicts>;
        Verdicts erasure(stream: Uuid, position: Position) -> Erasure;
        Read belongings(user_id: &str, limit: usize) -> Belongings;
        Read count(filter: &CountFilter) -> u64;
        Read top(query: &TopQuery, now_ms: i64, zone: &TimeZone) -> Vec<(String, f64)>;
        Read recent(user_id: &str, now_ms: i64) -> Vec<String>;
        Read ranking(query: &RankingQuery, limit_to_ms: i64) -> Option<Vec<(String, i64)>>;
        Read series(query: &SeriesQuery) -> Option<Vec<SeriesPoint>>;
        Read users(from_ms: i64, to_ms: i64) -> Option<u64>;
        Read likes(post_id: &str, user_id: Option<&str>) -> Likes;
        Read post(post_id: &str) -> Option<Post>;
        Read search(query: &PostSearch) -> Vec<Post>;
        Read export(query: &ExportQuery, after: Option<ExportCursor>) -> ExportPage;
        Snapshot snapshot(now_ms: i64, zone: &TimeZone) -> Snapshot;
        Read dead_letters() -> u64;
    }
}

impl LedgerWriter for Faulty<Box<dyn LedgerWriter>> {
    fn clock_ms(&mut self) -> Result<Option<i64>, StoreError> {
        // Time is the test's: the server's clock does not follow it.
        Ok(None)
    }

    fn spare(&mut self) {
        self.inner.spare();
    }

    pass! { self: &mut Self =>
        Watermark watermark(stream: Uuid) -> Option<Watermark>;
        Register register(stream: Uuid) -> ();
        Apply apply(batch: &Batch<'_>, dead: &BTreeMap<Position, String>) -> Verdicts;
        Probe probe(batch: &Batch<'_>, range: Range<usize>) -> ();
        Prune prune_verdicts(stream: Uuid, up_to: Position) -> ();
        Maintain maintain(now_ms: i64) -> ();
        AddUp add_up() -> ();
        Fold fold(now_ms: i64, zone: &TimeZone) -> bool;
        Retire retire(now_ms: i64, retention_days: i64) -> ();
    }
}

impl LiveStore for FaultyLive {
    fn open_writer(&self) -> Result<Box<dyn LiveWriter>, StoreError> {
        let inner = self.faults.pass(Call::Open, || self.inner.open_writer())?;
        Ok(Box::new(Faulty::new(inner, &self.faults)))
    }

    pass! { self: &Self =>
        Read top(query: &TopQuery, now_ms: i64) -> LiveTop;
        Read users(window: Window, now_ms: i64) -> u64;
        Read recent(user_id: &str, now_ms: i64) -> Vec<String>;
        Read totals() -> Vec<(Dimension, String, i64)>;
        Read ping() -> ();
    }
}

impl LiveWriter for Faulty<Box<dyn LiveWriter>> {
    fn clock_ms(&mut self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    pass! { self: &mut Self =>
        State state(stream: Uuid) -> LiveState;
        Register register(stream: Uuid) -> ();
        Apply apply(batch: &LiveBatch) -> ();
        Fold fold(now_ms: i64) -> ();
        Rebuild rebuild(
            stream: Uuid,
            seen: LiveState,
            snapshot: &mut dyn FnMut(&TimeZone) -> Result<Snapshot, StoreError>,
            now_ms: i64
        ) -> ();
    }
}
