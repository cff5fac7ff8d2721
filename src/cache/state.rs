//! The state of the cache: its parts, its locks, its fills under way and the deletions that it owes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::breaker::Breaker;
use super::fill::{Fill, FillError, Hit, How, Outcome, Stage};
use super::flight::{Flight, Flights, Waker};
use super::local::{Copy, Local};
use super::policy::Policy;
use super::stats::{CacheStats, count};
use super::surroundings::{Lane, Surroundings};
use crate::limits::{self, CACHE_KEY_BYTES_MAX, CACHE_LOCAL_BYTES_MAX, CACHE_POLL_MS_MIN};
use crate::ports::{CacheEntry, LockToken, SharedCache};

pub struct Cache {
    pub(super) around: Arc<dyn Surroundings>,
    pub(super) shared: Arc<dyn SharedCache>,
    pub(super) local: Local,
    pub(super) flights: Flights<Outcome>,
    // Of the store behind each lane.
    pub(super) breakers: [Breaker; 3],
    pub(super) held: Mutex<Held>,
    // Fills that wait for another instance's, each pause under a number of its own: the end of an earlier one is nothing
    // to a later one.
    pub(super) parked: Mutex<HashMap<u128, Errand>>,
    // Throttled keys: the error of their last fill, and when the next fill may start.
    pub(super) throttled: Mutex<HashMap<Box<str>, (FillError, u64)>>,
    pub(super) pending: Mutex<Pending>,
    // Keys whose deletion did not get through, each with the number of its write; the shared cache is not read before.
    pub(super) owed: Mutex<HashMap<Box<str>, u128>>,
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
            breakers: Default::default(),
            held: Mutex::default(),
            parked: Mutex::default(),
            throttled: Mutex::default(),
            pending: Mutex::default(),
            owed: Mutex::default(),
            stats: CacheStats::default(),
        })
    }

    /// Runs a step on a lane; false, and it never runs, if too many wait there.
    pub(super) fn on(self: &Arc<Cache>, lane: Lane, step: impl FnOnce(&Arc<Cache>) + Send + 'static) -> bool {
        let cache = self.clone();
        self.around.run(lane, Box::new(move || step(&cache)))
    }
}

/// Locks that are held, to be renewed.
#[derive(Default)]
pub(super) struct Held {
    /// Each with its key and since when it is held.
    pub(super) locks: Vec<(Box<str>, LockToken, u64)>,
    /// A round of renewals is due: there is never more than one.
    pub(super) is_kept: bool,
}

/// Keys to delete, and who waits for it.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) keys: Vec<Box<str>>,
    pub(super) wakers: Vec<Waker>,
    pub(super) is_running: bool,
}

pub(super) struct Errand {
    pub(super) key: Box<str>,
    pub(super) policy: Policy,
    pub(super) fill: std::vec::IntoIter<Stage>,
    pub(super) flight: Arc<Flight<Outcome>>,
    /// The entry that is known already.
    pub(super) seen: Option<u64>,
    pub(super) is_early: bool,
    pub(super) began_ms: u64,
    pub(super) pause_ms: u64,
    pub(super) token: LockToken,
    pub(super) fence: Option<u64>,
    /// What the fill brought, until its flight has landed.
    pub(super) brought: Option<CacheEntry>,
    /// Empty once it has landed.
    cache: Option<Arc<Cache>>,
}

impl Errand {
    pub(super) fn new(
        cache: &Arc<Cache>,
        key: &str,
        policy: Policy,
        fill: Fill,
        flight: Arc<Flight<Outcome>>,
    ) -> Errand {
        Errand {
            key: key.into(),
            policy,
            fill: fill.0.into_iter(),
            flight,
            seen: None,
            is_early: false,
            began_ms: cache.around.now_ms(),
            pause_ms: CACHE_POLL_MS_MIN,
            token: cache.around.token(),
            fence: None,
            brought: None,
            cache: Some(cache.clone()),
        }
    }

    pub(super) fn land(&mut self, outcome: Outcome) {
        if let Some(cache) = self.cache.take() {
            cache.flights.land(&self.key, &self.flight, outcome);
        }
    }

    pub(super) fn land_with(&mut self, copy: Arc<Copy>, how: How, now_ms: u64) {
        self.land(Outcome::Hit(Hit::of(copy, how, now_ms)));
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
                self.land_with(Arc::new(Copy::of(brought, now_ms)), How::Direct, now_ms);
            }
            None => self.land(Outcome::Failed(FillError::Busy)),
        }
    }
}

/// The key itself, or a hash in the place of a long one: the same on every instance.
pub(super) fn short(key: &str) -> Cow<'_, str> {
    match key.len() {
        ..=CACHE_KEY_BYTES_MAX => Cow::Borrowed(key),
        _ => format!("long {}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes())).into(),
    }
}
