//! What the cache lives in here: a clock, lanes and timers that a test moves, a ledger of one number, a shared cache in
//! between whose calls a test can do things.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

use event_tracker::adapters::memory_cache::MemoryCache;
use event_tracker::cache::{Ask, Cache, Fill, Filled, Job, Lane, Policy, Stage, Surroundings};
use event_tracker::ports::{Acquired, CacheRead, Change, LockToken, NewEntry, SharedCache, StoreError};

pub(crate) const KEY: &str = "the key";

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(crate) struct World {
    pub(crate) now_ms: AtomicU64,
    jobs: Mutex<VecDeque<(Lane, Job)>>,
    pub(crate) timers: Mutex<Vec<(u64, Lane, Job)>>,
    pub(crate) full: Mutex<Option<Lane>>,
    /// Once, instead of taking a job of the shared lane.
    refusal: Mutex<Option<Hook>>,
    pub(crate) is_quick: AtomicBool,
    /// What is drawn; without it always the middle.
    pub(crate) chance: Mutex<Option<Box<dyn FnMut() -> f64 + Send>>>,
    tokens: AtomicU64,
    pub(crate) number: AtomicU64,
    pub(crate) padding: AtomicUsize,
    pub(crate) as_of_ms: AtomicI64,
    pub(crate) queries: AtomicU64,
}

impl World {
    pub(crate) fn run_all(&self) {
        loop {
            let next = self.jobs.lock().unwrap().pop_front();
            let Some((_, job)) = next else { return };
            job();
        }
    }

    pub(crate) fn take_newest(&self) -> Job {
        self.jobs.lock().unwrap().pop_back().expect("a step").1
    }

    /// The next step of the shared lane is refused, after `first`.
    pub(crate) fn on_full(&self, first: impl FnOnce() + Send + 'static) {
        *self.refusal.lock().unwrap() = Some(Box::new(first));
    }
}

impl Surroundings for World {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(SeqCst)
    }

    fn random(&self) -> f64 {
        self.chance.lock().unwrap().as_mut().map_or(0.5, |chance| chance())
    }

    fn token(&self) -> u128 {
        u128::from(self.tokens.fetch_add(1, SeqCst) + 1_000)
    }

    fn run(&self, lane: Lane, job: Job) -> bool {
        let refusal = if lane == Lane::Shared { self.refusal.lock().unwrap().take() } else { None };
        if let Some(first) = refusal {
            first();
            return false;
        }
        if *self.full.lock().unwrap() == Some(lane) {
            return false;
        }
        if self.is_quick.load(SeqCst) {
            job();
        } else {
            self.jobs.lock().unwrap().push_back((lane, job));
        }
        true
    }

    fn run_after(&self, ms: u64, lane: Lane, job: Job) {
        self.timers.lock().unwrap().push((self.now_ms() + ms, lane, job));
    }
}

/// The shared cache as the instance reaches it.
pub(crate) struct Shared {
    inner: MemoryCache,
    pub(crate) is_away: AtomicBool,
    pub(crate) acquires: AtomicU64,
    after_invalidate: Mutex<Option<Hook>>,
}

impl Shared {
    pub(crate) fn after_invalidate(&self, hook: impl FnOnce() + Send + 'static) {
        *self.after_invalidate.lock().unwrap() = Some(Box::new(hook));
    }

    pub(crate) fn store_directly(&self, number: u64) {
        let Acquired::Owned { fence } = self.inner.acquire(KEY, 7, 3_000, None).unwrap() else { panic!("not ours") };
        let value = number.to_le_bytes();
        let (fill_ms, as_of_ms, fresh_ttl_ms, stale_cap_ms) = (5, 0, 60_000, 600_000);
        let entry = NewEntry { value: &value, fill_ms, as_of_ms, fence, fresh_ttl_ms, stale_cap_ms };
        assert!(self.inner.store(KEY, 7, &entry).unwrap());
    }

    fn call<T>(&self, call: impl FnOnce(&MemoryCache) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.is_away.load(SeqCst) { Err(StoreError::Retry("away".to_owned())) } else { call(&self.inner) }
    }
}

impl SharedCache for Shared {
    fn read(&self, key: &str) -> Result<CacheRead, StoreError> {
        self.call(|inner| inner.read(key))
    }

    fn acquire(&self, key: &str, token: LockToken, lease_ms: u32, seen: Option<u64>) -> Result<Acquired, StoreError> {
        self.acquires.fetch_add(1, SeqCst);
        self.call(|inner| inner.acquire(key, token, lease_ms, seen))
    }

    fn renew(&self, locks: &[(&str, LockToken)], lease_ms: u32) -> Result<Vec<bool>, StoreError> {
        self.call(|inner| inner.renew(locks, lease_ms))
    }

    fn store(&self, key: &str, token: LockToken, entry: &NewEntry<'_>) -> Result<bool, StoreError> {
        self.call(|inner| inner.store(key, token, entry))
    }

    fn fail(&self, key: &str, token: LockToken, error: &[u8], throttle_ms: u32) -> Result<bool, StoreError> {
        self.call(|inner| inner.fail(key, token, error, throttle_ms))
    }

    fn release(&self, key: &str, token: LockToken) -> Result<(), StoreError> {
        self.call(|inner| inner.release(key, token))
    }

    fn invalidate(&self, keys: &[&str]) -> Result<(), StoreError> {
        let done = self.call(|inner| inner.invalidate(keys));
        let hook = if done.is_ok() { self.after_invalidate.lock().unwrap().take() } else { None };
        if let Some(hook) = hook {
            hook();
        }
        done
    }

    fn watch(&self, _: Box<dyn Fn(Change<'_>) + Send>, _: Arc<AtomicBool>) -> Result<(), StoreError> {
        Ok(())
    }
}

pub(crate) struct Hand {
    pub(crate) world: Arc<World>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) cache: Arc<Cache>,
}

impl Hand {
    pub(crate) fn new() -> Hand {
        let world = Arc::new(World { now_ms: AtomicU64::new(10_000), number: AtomicU64::new(1), ..World::default() });
        let clock = world.clone();
        let inner = MemoryCache::new(move || clock.now_ms());
        let (is_away, acquires, after_invalidate) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::default());
        let shared = Arc::new(Shared { inner, is_away, acquires, after_invalidate });
        let cache = Cache::new(shared.clone(), world.clone());
        Hand { world, shared, cache }
    }

    pub(crate) fn ask(&self, policy: &Policy) -> Ask {
        self.ask_for(KEY, policy)
    }

    pub(crate) fn ask_for(&self, key: &str, policy: &Policy) -> Ask {
        let world = self.world.clone();
        self.cache.ask(key, policy, || {
            let run = move || {
                world.queries.fetch_add(1, SeqCst);
                let mut value = world.number.load(SeqCst).to_le_bytes().to_vec();
                value.resize(value.len() + world.padding.load(SeqCst), 0);
                Ok(Filled { value: value.into(), as_of_ms: world.as_of_ms.load(SeqCst), is_null: false })
            };
            Fill(vec![Stage { lane: Lane::Ledger, run: Box::new(run) }])
        })
    }

    pub(crate) fn write(&self, number: u64) {
        self.world.number.store(number, SeqCst);
        self.cache.wrote(vec![KEY.into()], Box::new(|| ()));
    }

    pub(crate) fn fence(&self) -> Option<u64> {
        match self.shared.read(KEY).unwrap() {
            CacheRead::Entry(entry) => Some(entry.fence),
            _ => None,
        }
    }

    pub(crate) fn lanes(&self) -> Vec<Lane> {
        self.world.jobs.lock().unwrap().iter().map(|(lane, _)| *lane).collect()
    }

    pub(crate) fn run_next(&self) {
        let next = self.world.jobs.lock().unwrap().pop_front();
        next.expect("a step").1();
    }

    pub(crate) fn run(&self) {
        self.world.run_all();
    }

    /// Lets time pass and runs what comes due; of one lane alone, where one is named: the others hang.
    pub(crate) fn pass(&self, ms: u64, of: Option<Lane>) {
        let now_ms = self.world.now_ms.fetch_add(ms, SeqCst) + ms;
        let due: Vec<(u64, Lane, Job)> = {
            let mut timers = self.world.timers.lock().unwrap();
            let (due, later) = timers.drain(..).partition(|(at_ms, _, _)| *at_ms <= now_ms);
            *timers = later;
            due
        };
        due.into_iter().for_each(|(_, _, job)| job());
        if of.is_none() {
            self.run();
        }
    }
}
