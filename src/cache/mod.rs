//! The read path: for a hot key one query an expiry over all instances, and nobody who waits for it.
//!
//! Owns the policy: what a request is shown (`policy`, `early`), an instance's own copies (`local`), one fill a key and
//! process (`flight`), how a fill goes through the shared cache and its lock (`errand`), what happens when a store is away
//! (`breaker`), and deletions after writes (`writes`). Knows no store by name, no HTTP and no clock: time, chance and
//! threads are handed in as [`Surroundings`], so that the whole of it runs in a simulation too.
//!
//! The idea: whoever reads never does the work. A request takes the copy at hand, or waits on a flight; what blocks runs
//! in steps on lanes, whoever started it may leave.

pub mod breaker;
pub mod early;
mod errand;
pub mod flight;
mod keeper;
mod local;
pub mod policy;
mod stats;
mod writes;

pub use errand::{Fill, FillError, Filled, Stage};
pub use local::Copy;
pub use policy::Policy;
pub use stats::{CacheStats, WAIT_BOUNDS_MS};

/// What flights are made of.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    pub(super) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
}

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use breaker::Breaker;
use errand::{Errand, Parked};
use flight::{Flight, Flights, Waker};
use keeper::Held;
use local::Local;
use policy::Stand;
use writes::Writes;

use crate::limits::{self, CACHE_FLIGHTS_MAX, CACHE_KEY_BYTES_MAX, CACHE_LOCAL_BYTES_MAX, CACHE_LOCAL_MS};
use crate::ports::SharedCache;

/// A step of the cache's own work.
pub type Job = Box<dyn FnOnce() + Send>;

/// Where a step runs: all of them may block there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Calls of the shared cache.
    Shared,
    /// Fills from the live store.
    Live,
    /// Fills from the ledger: half of its pool, so that reads which are not cached keep the other half.
    Ledger,
}

/// What the cache has of the world.
pub trait Surroundings: Send + Sync {
    /// A clock that only goes forward.
    fn now_ms(&self) -> u64;
    /// Uniform in [0, 1).
    fn random(&self) -> f64;
    /// Unique.
    fn token(&self) -> u128;
    /// Runs a step; false, and it never runs, where too many wait.
    fn run(&self, lane: Lane, job: Job) -> bool;
    /// The same after a while. A step that finds no room is tried again.
    fn run_after(&self, ms: u64, lane: Lane, job: Job);
}

/// How an answer came about: `X-Cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// From a copy that is fresh.
    Fresh,
    /// The same; and this request has set out for an early refresh.
    Early,
    /// From a copy that has expired.
    Stale,
    /// Filled while the request waited.
    Miss,
    /// The same, without the lock: the shared cache or whoever holds the lock did not answer in time.
    Direct,
}

impl How {
    /// As answers name it.
    pub fn name(self) -> &'static str {
        match self {
            How::Fresh => "fresh",
            How::Early => "early",
            How::Stale => "stale",
            How::Miss => "miss",
            How::Direct => "direct",
        }
    }
}

/// Something to show.
#[derive(Clone, Debug)]
pub struct Hit {
    pub copy: Arc<Copy>,
    pub how: How,
    /// Milliseconds since its fill.
    pub age_ms: u64,
}

impl Hit {
    fn of(copy: Arc<Copy>, how: How, now_ms: u64) -> Hit {
        Hit { age_ms: copy.age_ms(now_ms), copy, how }
    }
}

/// What a flight comes to.
#[derive(Clone, Debug)]
pub enum Outcome {
    Hit(Hit),
    Failed(FillError),
    /// Another instance is at it, and nobody here insisted. Who does now asks again.
    Ducked,
    /// Its leader came to no end. One of those who joined becomes the next.
    Died,
}

/// What a request has.
pub enum Ask {
    /// An answer.
    Have(Hit),
    /// A flight to wait for, and what may be shown instead if it takes longer than a moment.
    Wait(Arc<Flight<Outcome>>, Option<Arc<Copy>>),
    /// Nothing, and nobody tries for the moment.
    Failed(FillError),
}

/// The cache of this process.
pub struct Cache {
    around: Arc<dyn Surroundings>,
    shared: Arc<dyn SharedCache>,
    local: Local,
    flights: Flights<Outcome>,
    shared_breaker: Breaker,
    live_breaker: Breaker,
    ledger_breaker: Breaker,
    // Locks that are held, to be renewed.
    held: Mutex<Held>,
    parked: Mutex<Parked>,
    // What failed here lately, and until when nobody tries again.
    throttled: Mutex<HashMap<Box<str>, (FillError, u64)>>,
    writes: Writes,
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

    /// What a request for `key` is shown, or what it may wait for. Never blocks. `fill` is asked for only where somebody
    /// must set out.
    pub fn ask(self: &Arc<Cache>, key: &str, policy: &Policy, fill: impl FnOnce() -> Fill) -> Ask {
        let key = &*short(key);
        if policy.fresh_ms == 0 {
            let flight = Flights::alone();
            self.set_out(Errand::uncached(key, *policy, fill(), flight.clone()));
            return Ask::Wait(flight, None);
        }
        let now_ms = self.around.now_ms();
        let Some(copy) = self.local.get(key) else { return self.wait_for(key, policy, None, fill) };
        match policy.stand(copy.left_ms(now_ms), copy.looked_ms(now_ms)) {
            Stand::Fresh if self.is_early(&copy, policy, now_ms) => {
                let how = if self.refresh(key, policy, &copy, true, now_ms, fill) { How::Early } else { How::Fresh };
                Ask::Have(self.stats.local(Hit::of(copy, how, now_ms)))
            }
            Stand::Fresh => Ask::Have(self.stats.local(Hit::of(copy, How::Fresh, now_ms))),
            Stand::Look => {
                self.refresh(key, policy, &copy, false, now_ms, fill);
                Ask::Have(self.stats.local(Hit::of(copy, How::Fresh, now_ms)))
            }
            Stand::Revalidate => {
                self.refresh(key, policy, &copy, false, now_ms, fill);
                Ask::Have(self.stats.revalidated(Hit::of(copy, How::Stale, now_ms)))
            }
            Stand::Lapsed | Stand::Late => self.wait_for(key, policy, Some(copy), fill),
            Stand::Gone => self.wait_for(key, policy, None, fill),
        }
    }

    /// A copy, if it may still be shown, that a request takes because the flight did not land in time, or failed.
    pub fn late(&self, copy: Arc<Copy>, policy: &Policy) -> Option<Hit> {
        let now_ms = self.around.now_ms();
        let left_ms = copy.left_ms(now_ms);
        let how = if left_ms > 0 { How::Fresh } else { How::Stale };
        (policy.stand(left_ms, 0) != Stand::Gone).then(|| self.stats.late(Hit::of(copy, how, now_ms)))
    }

    /// What there is to show of a key after a moment's wait in vain, if anything.
    pub fn fallback(&self, key: &str, policy: &Policy) -> Option<Hit> {
        self.late(self.local.get(&short(key))?, policy)
    }

    /// The shared cache was changed by some instance: a hint. An empty key: anything may have been.
    pub fn hint(self: &Arc<Cache>, key: &str, is_removed: bool) {
        if key.is_empty() {
            self.local.each(|copy| copy.outdated(CACHE_LOCAL_MS));
        } else if is_removed {
            // A fill under way here may show what was before that.
            self.forget_here(&[key.into()]);
        } else if let Some(copy) = self.local.get(key) {
            copy.overtaken(self.around.now_ms(), CACHE_LOCAL_MS);
        }
        self.resume_parked(key);
    }

    /// Fills under way, locks held, and copies with their bytes: for metrics and tests.
    pub fn sizes(&self) -> (usize, usize, (usize, usize)) {
        (self.flights.count(), lock(&self.held).len(), self.local.size())
    }

    /// Whether the shared cache and the ledger are left alone for the moment.
    pub fn open_breakers(&self) -> (bool, bool) {
        (self.shared_breaker.is_open() || self.live_breaker.is_open(), self.ledger_breaker.is_open())
    }

    fn is_early(&self, copy: &Copy, policy: &Policy, now_ms: u64) -> bool {
        let reads_per_ms = copy.read(now_ms);
        let left_ms = copy.left_ms(now_ms);
        early::is_due(left_ms, copy.ttl_ms, copy.fill_ms, policy.beta, reads_per_ms, self.around.random())
    }

    /// Sets out behind the request, unless somebody has or should not. True: this one did.
    fn refresh(
        self: &Arc<Cache>,
        key: &str,
        policy: &Policy,
        copy: &Arc<Copy>,
        is_early: bool,
        now_ms: u64,
        fill: impl FnOnce() -> Fill,
    ) -> bool {
        if !copy.may_refresh(now_ms) || self.throttle_of(key, now_ms).is_some() || self.is_full() {
            return false;
        }
        let (flight, is_leader) = self.board(key, policy, false);
        if is_leader {
            self.stats.set_out(is_early);
            self.set_out(Errand::new(key, *policy, fill(), flight, Some(copy.fence), is_early));
        }
        is_leader
    }

    fn wait_for(
        self: &Arc<Cache>,
        key: &str,
        policy: &Policy,
        copy: Option<Arc<Copy>>,
        fill: impl FnOnce() -> Fill,
    ) -> Ask {
        let error = self.throttle_of(key, self.around.now_ms()).or_else(|| self.is_full().then(|| self.shed()));
        if let Some(error) = error {
            return copy.and_then(|copy| self.late(copy, policy)).map_or(Ask::Failed(error), Ask::Have);
        }
        let (flight, is_leader) = self.board(key, policy, copy.is_none());
        if is_leader {
            self.set_out(Errand::new(key, *policy, fill(), flight.clone(), None, false));
        } else {
            self.stats.joined();
        }
        Ask::Wait(flight, copy)
    }

    fn board(&self, key: &str, policy: &Policy, insists: bool) -> (Arc<Flight<Outcome>>, bool) {
        if policy.is_joined { self.flights.board(key, insists) } else { (Flights::alone(), true) }
    }

    fn is_full(&self) -> bool {
        self.flights.count() >= CACHE_FLIGHTS_MAX
    }

    fn shed(&self) -> FillError {
        self.stats.shed();
        FillError::Busy
    }

    fn throttle_of(&self, key: &str, now_ms: u64) -> Option<FillError> {
        let mut throttled = lock(&self.throttled);
        let (error, until_ms) = *throttled.get(key)?;
        if now_ms < until_ms {
            return Some(error);
        }
        throttled.remove(key);
        None
    }
}

/// The key itself, or a hash in the place of a long one: the same on every instance.
fn short(key: &str) -> Cow<'_, str> {
    match key.len() {
        ..=CACHE_KEY_BYTES_MAX => Cow::Borrowed(key),
        _ => format!("long {}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes())).into(),
    }
}

/// A waker that a request of a coroutine or a test hands to [`Flight::join`].
pub fn waker(wake: impl FnOnce() + Send + 'static) -> Waker {
    Box::new(wake)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Guards plain data for a few lines: nothing in there panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
