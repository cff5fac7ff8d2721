//! The state of the cache: its parts, its locks, its fills under way and the deletions that it owes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::breaker::Breaker;
use super::fill::{Fill, FillError, Filled, Stage};
use super::flight::{Flight, Flights, Waker};
use super::hit::{Hit, How, Outcome};
use super::local::{Copy, Local};
use super::policy::Policy;
use super::stats::{CacheStats, count};
use super::surroundings::Surroundings;
use crate::limits::{self, CACHE_KEY_BYTES_MAX, CACHE_LOCAL_BYTES_MAX, CACHE_POLL_MS_MIN};
use crate::ports::{LockToken, SharedCache};

pub struct Cache {
    pub(super) around: Arc<dyn Surroundings>,
    pub(super) shared: Arc<dyn SharedCache>,
    pub(super) local: Local,
    pub(super) flights: Flights<Outcome>,
    pub(super) shared_breaker: Breaker,
    pub(super) live_breaker: Breaker,
    pub(super) ledger_breaker: Breaker,
    // Locks that are held, to be renewed.
    pub(super) held: Mutex<Held>,
    pub(super) parked: Mutex<Parked>,
    // Throttled keys: the error of their last fill, and when the next fill may start.
    pub(super) throttled: Mutex<HashMap<Box<str>, (FillError, u64)>>,
    pub(super) writes: Writes,
    pub stats: CacheStats,
}

impl Cache {
    /// A cache that is empty here; the shared one may hold something.
    pub fn new(shared: Arc<dyn SharedCache>, around: Arc<dyn Surroundings>) -> Arc<Cache> {
        Arc::new(Cache {
            around,
            shared,
            local: Local::new(limits::of_memory(CACHE_LOCAL_BYTES_MAX)),
            flights: Flights::default(),
            shared_breaker: Breaker::default(),
            live_breaker: Breaker::default(),
            ledger_breaker: Breaker::default(),
            held: Mutex::default(),
            parked: Mutex::default(),
            throttled: Mutex::default(),
            writes: Writes::default(),
            stats: CacheStats::default(),
        })
    }
}

#[derive(Default)]
pub(super) struct Held {
    pub(super) locks: Vec<HeldLock>,
    /// A round of renewals is due: there is never more than one.
    pub(super) is_kept: bool,
}

pub(super) struct HeldLock {
    pub(super) key: Box<str>,
    pub(super) token: LockToken,
    pub(super) since_ms: u64,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.locks.len()
    }
}

#[derive(Default)]
pub(super) struct Writes {
    pub(super) pending: Mutex<Pending>,
    pub(super) owed: Mutex<Owed>,
}

/// Keys whose deletion did not get through, each with the number of its write; the shared cache is not read before it has.
#[derive(Default)]
pub(super) struct Owed {
    pub(super) keys: HashMap<Box<str>, u64>,
    pub(super) writes: u64,
}

#[derive(Default)]
pub(super) struct Pending {
    pub(super) keys: Vec<Box<str>>,
    pub(super) wakers: Vec<Waker>,
    pub(super) is_running: bool,
}

/// What a fill brought, until its flight has landed.
pub(super) struct Brought {
    pub(super) filled: Filled,
    pub(super) fill_ms: u32,
    pub(super) ttl_ms: u32,
}

/// Fills that wait for another instance's.
#[derive(Default)]
pub(super) struct Parked {
    pub(super) errands: HashMap<u64, Errand>,
    pub(super) parked: u64,
}

impl Parked {
    /// Under a number of its own, so that the end of an earlier pause is nothing to a later one.
    pub(super) fn park(&mut self, errand: Errand) -> u64 {
        self.parked += 1;
        self.errands.insert(self.parked, errand);
        self.parked
    }
}

pub(super) struct Errand {
    pub(super) key: Box<str>,
    pub(super) policy: Policy,
    pub(super) fill: std::vec::IntoIter<Stage>,
    pub(super) flight: Arc<Flight<Outcome>>,
    /// The entry that is known already.
    pub(super) seen: Option<u64>,
    pub(super) is_early: bool,
    /// False: the request wants neither to share nor to keep.
    pub(super) is_cached: bool,
    pub(super) began_ms: u64,
    pub(super) pause_ms: u64,
    pub(super) token: LockToken,
    pub(super) fence: Option<u64>,
    pub(super) brought: Option<Brought>,
    /// Set once it is under way; empty again once it has landed.
    pub(super) cache: Option<Arc<Cache>>,
}

impl Errand {
    pub(super) fn new(key: &str, policy: Policy, fill: Fill, flight: Arc<Flight<Outcome>>) -> Errand {
        Errand {
            key: key.into(),
            policy,
            fill: fill.0.into_iter(),
            flight,
            seen: None,
            is_early: false,
            is_cached: true,
            began_ms: 0,
            pause_ms: CACHE_POLL_MS_MIN,
            token: 0,
            fence: None,
            brought: None,
            cache: None,
        }
    }

    pub(super) fn land(&mut self, outcome: Outcome) {
        if let Some(cache) = self.cache.take() {
            cache.flights.land(&self.key, &self.flight, outcome);
        }
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        let Some(cache) = self.cache.clone() else { return };
        if self.fence.is_some() {
            cache.give_back(&self.key, self.token);
        }
        if std::thread::panicking() {
            return self.land(Outcome::Died);
        }
        // A lane had no room for its next step.
        count(&cache.stats.shed);
        match self.brought.take() {
            // Only the shared cache failed: the requester still gets the value.
            Some(brought) => {
                let now_ms = cache.around.now_ms();
                self.land(Outcome::Hit(Hit::of(Arc::new(brought.copy(0, now_ms)), How::Direct, now_ms)));
            }
            None => self.land(Outcome::Failed(FillError::Busy)),
        }
    }
}

impl Brought {
    pub(super) fn copy(self, fence: u64, now_ms: u64) -> Copy {
        let Brought { filled, fill_ms, ttl_ms } = self;
        Copy::of_fill(filled.value, fence, filled.as_of_ms, fill_ms, ttl_ms, now_ms)
    }
}

/// The key itself, or a hash in the place of a long one: the same on every instance.
pub(super) fn short(key: &str) -> Cow<'_, str> {
    match key.len() {
        ..=CACHE_KEY_BYTES_MAX => Cow::Borrowed(key),
        _ => format!("long {}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes())).into(),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Guards plain data for a few lines: nothing in there panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
