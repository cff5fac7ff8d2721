//! What the cache lives in here: one queue of events in virtual time, a ledger of one number, requests, faults.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use event_tracker::adapters::memory_cache::MemoryCache;
use event_tracker::cache::flight::Flight;
use event_tracker::cache::{
    Ask, Cache, Copy, Fill, FillError, Filled, Hit, How, Job, Lane, Outcome, Policy, Stage, Surroundings,
};
use event_tracker::limits::CACHE_REVALIDATE_WAIT_MS;
use event_tracker::ports::{Acquired, CacheRead, Change, LockToken, NewEntry, SharedCache, StoreError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const KEY: &str = "the key";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) instances: usize,
    pub(crate) requests_a_second: u64,
    pub(crate) fill_ms: u64,
    pub(crate) fresh_ms: u32,
    pub(crate) seconds: u64,
    /// Outages of the shared cache and the ledger, deaths of instances, deletions, writes, lost hints.
    pub(crate) is_faulty: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) stale: u64,
    pub(crate) queries: u64,
    /// Values that were stored.
    pub(crate) generations: u64,
    /// Requests that waited once each instance has had time to see the first value.
    pub(crate) waited_after_first: u64,
    pub(crate) writes: u64,
    pub(crate) values: usize,
    pub(crate) last_ms: u64,
}

type Event = Box<dyn FnOnce(&Arc<World>) + Send>;

/// Everything that is shared by the instances of one run.
pub(crate) struct World {
    now_ms: AtomicU64,
    queue: Mutex<Queue>,
    random: Mutex<StdRng>,
    run: Run,
    policy: Policy,
    shared: MemoryCache,
    is_shared_away: AtomicBool,
    is_ledger_away: AtomicBool,
    /// The ledger's one number.
    number: AtomicU64,
    report: Mutex<Report>,
    first_value_ms: AtomicU64,
    seen: Mutex<BTreeSet<u64>>,
    instances: Mutex<Vec<Arc<Instance>>>,
}

#[derive(Default)]
struct Queue {
    order: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    count: u64,
}

/// A process: its cache, and whether it lives.
struct Instance {
    cache: Arc<Cache>,
    lives: Arc<AtomicBool>,
    /// What was written through it and acknowledged, in order: who asks later must not see less.
    acknowledged: AtomicU64,
}

/// An instance's side of the world.
struct Inside {
    world: Arc<World>,
    lives: Arc<AtomicBool>,
}

impl Inside {
    fn push(&self, after_ms: u64, job: Job) {
        let lives = self.lives.clone();
        self.world.push(
            after_ms,
            Box::new(move |_| {
                if lives.load(Ordering::Relaxed) {
                    job();
                } else {
                    // A process that died runs no destructors either.
                    std::mem::forget(job);
                }
            }),
        );
    }
}

impl Surroundings for Inside {
    fn now_ms(&self) -> u64 {
        self.world.now()
    }

    fn random(&self) -> f64 {
        self.world.random.lock().unwrap().random()
    }

    fn token(&self) -> u128 {
        self.world.random.lock().unwrap().random()
    }

    fn run(&self, lane: Lane, job: Job) -> bool {
        let takes_ms = match lane {
            Lane::Shared => self.world.chance(3),
            Lane::Live | Lane::Ledger => self.world.run.fill_ms * (90 + self.world.chance(21)) / 100,
        };
        self.push(takes_ms, job);
        true
    }

    fn run_after(&self, ms: u64, _: Lane, job: Job) {
        self.push(ms, job);
    }
}

/// The shared cache as one instance reaches it: away now and then, with replies that get lost, and hints to the others.
struct Reached {
    world: Arc<World>,
}

impl Reached {
    fn call<T>(
        &self,
        change: Option<(&str, bool)>,
        call: impl FnOnce(&MemoryCache) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let away = || Err(StoreError::Retry("away".to_owned()));
        let is_away = self.world.is_shared_away.load(Ordering::Relaxed);
        // The beginning of an outage is where calls have their effect and lose their reply.
        if is_away && self.world.chance(4) > 0 {
            return away();
        }
        let result = call(&self.world.shared);
        if let Some((key, is_removed)) = change {
            self.world.hint(key, is_removed);
        }
        if is_away { away() } else { result }
    }
}

impl SharedCache for Reached {
    fn read(&self, key: &str) -> Result<CacheRead, StoreError> {
        self.call(None, |shared| shared.read(key))
    }

    fn acquire(&self, key: &str, token: LockToken, lease_ms: u32, seen: Option<u64>) -> Result<Acquired, StoreError> {
        self.call(None, |shared| shared.acquire(key, token, lease_ms, seen))
    }

    fn renew(&self, locks: &[(&str, LockToken)], lease_ms: u32) -> Result<Vec<bool>, StoreError> {
        self.call(None, |shared| shared.renew(locks, lease_ms))
    }

    fn store(&self, key: &str, token: LockToken, entry: &NewEntry<'_>) -> Result<bool, StoreError> {
        let stored = self.call(Some((key, false)), |shared| shared.store(key, token, entry));
        if matches!(stored, Ok(true)) {
            self.world.report.lock().unwrap().generations += 1;
        }
        stored
    }

    fn fail(&self, key: &str, token: LockToken, error: &[u8], throttle_ms: u32) -> Result<bool, StoreError> {
        self.call(Some((key, false)), |shared| shared.fail(key, token, error, throttle_ms))
    }

    fn release(&self, key: &str, token: LockToken) -> Result<(), StoreError> {
        self.call(Some((key, false)), |shared| shared.release(key, token))
    }

    fn invalidate(&self, keys: &[&str]) -> Result<(), StoreError> {
        self.call(Some((keys[0], true)), |shared| shared.invalidate(keys))
    }

    fn watch(&self, _: Box<dyn Fn(Change<'_>) + Send>, _: Arc<AtomicBool>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A request that waits.
struct Request {
    instance: Arc<Instance>,
    began_ms: u64,
    /// What it must see at least.
    at_least: u64,
    copy: Option<Arc<Copy>>,
    done: AtomicBool,
}

impl World {
    /// Plays one run to its end, and a quiet time after it.
    pub(crate) fn play(seed: u64, run: Run) -> Report {
        World::play_with(seed, run, |_| {})
    }

    pub(crate) fn play_with(seed: u64, run: Run, change: impl Fn(&mut Policy)) -> Report {
        let world = World::new(seed, run, change);
        let every_us = 1_000_000 / run.requests_a_second;
        for number in 0..run.seconds * run.requests_a_second {
            world.push(number * every_us / 1_000, Box::new(World::request));
        }
        if run.is_faulty {
            (0..run.seconds)
                .for_each(|second| world.push(second * 1_000 + world.chance(1_000), Box::new(World::write)));
        }
        for second in (1..run.seconds.saturating_sub(3)).step_by(3).filter(|_| run.is_faulty) {
            let fault = world.chance(8);
            world.push(second * 1_000 + world.chance(2_000), Box::new(move |world| world.break_something(fault)));
        }
        world.run_until(run.seconds * 1_000 + 20_000);
        world.assert_quiet();
        world.told()
    }

    /// Everybody at once, and nothing is there.
    pub(crate) fn play_cold(seed: u64, instances: usize, requests: u64, fill_ms: u64) -> Report {
        let run = Run { instances, requests_a_second: 1, fill_ms, fresh_ms: 60_000, seconds: 1, is_faulty: false };
        let world = World::new(seed, run, |_| {});
        for instance in world.instances.lock().unwrap().clone() {
            for _ in 0..requests {
                let instance = instance.clone();
                world.push(0, Box::new(move |world| world.request_of(instance)));
            }
        }
        world.run_until(10_000);
        world.assert_quiet();
        world.told()
    }

    fn new(seed: u64, run: Run, change: impl Fn(&mut Policy)) -> Arc<World> {
        let mut policy = Policy { cap_ms: 10_000, ..Policy::fresh_for(run.fresh_ms) };
        change(&mut policy);
        let world = Arc::new_cyclic(|world: &std::sync::Weak<World>| {
            let clock = world.clone();
            World {
                now_ms: AtomicU64::new(1_000),
                queue: Mutex::default(),
                random: Mutex::new(StdRng::seed_from_u64(seed)),
                run,
                policy,
                shared: MemoryCache::new(move || clock.upgrade().map_or(0, |world| world.now())),
                is_shared_away: AtomicBool::new(false),
                is_ledger_away: AtomicBool::new(false),
                number: AtomicU64::new(1),
                report: Mutex::default(),
                first_value_ms: AtomicU64::new(u64::MAX),
                seen: Mutex::default(),
                instances: Mutex::default(),
            }
        });
        let instances = (0..run.instances).map(|_| world.instance()).collect();
        *world.instances.lock().unwrap() = instances;
        world
    }

    fn instance(self: &Arc<World>) -> Arc<Instance> {
        let lives = Arc::new(AtomicBool::new(true));
        let inside = Inside { world: self.clone(), lives: lives.clone() };
        let cache = Cache::new(Arc::new(Reached { world: self.clone() }), Arc::new(inside));
        Arc::new(Instance { cache, lives, acknowledged: AtomicU64::new(0) })
    }

    fn now(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Below `bound`.
    fn chance(&self, bound: u64) -> u64 {
        self.random.lock().unwrap().random_range(0..bound)
    }

    fn push(&self, after_ms: u64, event: Event) {
        let mut queue = self.queue.lock().unwrap();
        queue.count += 1;
        let number = queue.count;
        queue.order.push(Reverse((self.now() + after_ms, number)));
        queue.events.insert(number, event);
    }

    fn run_until(self: &Arc<World>, end_ms: u64) {
        loop {
            let event = {
                let mut queue = self.queue.lock().unwrap();
                let Some(Reverse((at_ms, number))) = queue.order.pop().filter(|Reverse((at_ms, _))| *at_ms <= end_ms)
                else {
                    return;
                };
                self.now_ms.store(at_ms, Ordering::Relaxed);
                queue.events.remove(&number).expect("an event of the queue")
            };
            event(self);
        }
    }

    fn told(&self) -> Report {
        Report { values: self.seen.lock().unwrap().len(), ..self.report.lock().unwrap().clone() }
    }

    fn hint(self: &Arc<World>, key: &str, is_removed: bool) {
        for instance in self.instances.lock().unwrap().iter() {
            if self.run.is_faulty && self.chance(3) == 0 {
                continue;
            }
            let (cache, key, lives) = (instance.cache.clone(), key.to_owned(), instance.lives.clone());
            self.push(
                self.chance(3),
                Box::new(move |_| {
                    if lives.load(Ordering::Relaxed) {
                        cache.hint(&key, is_removed);
                    }
                }),
            );
        }
    }

    fn some_instance(&self) -> Arc<Instance> {
        let instances = self.instances.lock().unwrap();
        let number = self.chance(instances.len() as u64) as usize;
        instances[number].clone()
    }

    fn request(self: &Arc<World>) {
        self.request_of(self.some_instance());
    }

    fn request_of(self: &Arc<World>, instance: Arc<Instance>) {
        let at_least = instance.acknowledged.load(Ordering::Relaxed);
        let request = Request { instance, began_ms: self.now(), at_least, copy: None, done: AtomicBool::new(false) };
        self.ask(request);
    }

    /// What a handler does, by events in the place of sleeps.
    fn ask(self: &Arc<World>, mut request: Request) {
        let asked = request.instance.cache.ask(KEY, &self.policy, || self.fill());
        match asked {
            Ask::Have(hit) => self.answered(&request, Ok(&hit)),
            Ask::Failed(error) => self.answered(&request, Err(error)),
            Ask::Wait(flight, copy) => {
                if request.began_ms > self.first_value_ms.load(Ordering::Relaxed).saturating_add(1_000) {
                    self.report.lock().unwrap().waited_after_first += 1;
                }
                request.copy = copy;
                self.wait(Arc::new(request), &flight);
            }
        }
    }

    fn wait(self: &Arc<World>, request: Arc<Request>, flight: &Arc<Flight<Outcome>>) {
        let (world, woken, landed) = (self.clone(), request.clone(), flight.clone());
        let wake = move || {
            let shown = landed.shown();
            world.clone().push(0, Box::new(move |world| world.landed(&woken, shown)));
        };
        if let Some(shown) = flight.join(request.copy.is_none(), || Box::new(wake)) {
            return self.landed(&request, Some(shown));
        }
        let late = request.clone();
        self.push(CACHE_REVALIDATE_WAIT_MS, Box::new(move |world| world.patience_over(&late)));
        let left_ms = (request.began_ms + u64::from(self.policy.deadline_ms)).saturating_sub(self.now());
        self.push(left_ms, Box::new(move |world| world.landed(&request, None)));
    }

    fn patience_over(self: &Arc<World>, request: &Request) {
        let cache = &request.instance.cache;
        let fallback = request.copy.clone().and_then(|copy| cache.late(copy, &self.policy));
        let fallback = fallback.or_else(|| cache.fallback(KEY, &self.policy));
        if let Some(hit) = fallback
            && !request.done.swap(true, Ordering::Relaxed)
        {
            self.answered(request, Ok(&hit));
        }
    }

    fn landed(self: &Arc<World>, request: &Request, shown: Option<Outcome>) {
        if request.done.swap(true, Ordering::Relaxed) {
            return;
        }
        let cache = &request.instance.cache;
        match (shown, &request.copy) {
            (Some(Outcome::Hit(hit)), _) => self.answered(request, Ok(&hit)),
            (_, Some(copy)) => match cache.late(copy.clone(), &self.policy) {
                Some(hit) => self.answered(request, Ok(&hit)),
                None => self.answered(request, Err(FillError::Away)),
            },
            (Some(Outcome::Ducked | Outcome::Died), None) if self.now() < request.began_ms + 1_400 => {
                let Request { instance, began_ms, at_least, .. } = request;
                let (instance, done) = (instance.clone(), AtomicBool::new(false));
                self.ask(Request { instance, began_ms: *began_ms, at_least: *at_least, copy: None, done });
            }
            (Some(Outcome::Failed(error)), None) => match cache.fallback(KEY, &self.policy) {
                Some(hit) => self.answered(request, Ok(&hit)),
                None => self.answered(request, Err(error)),
            },
            _ => self.answered(request, Err(FillError::Away)),
        }
    }

    fn answered(&self, request: &Request, answer: Result<&Hit, FillError>) {
        let now_ms = self.now();
        let took_ms = now_ms - request.began_ms;
        assert!(took_ms <= u64::from(self.policy.deadline_ms) + 50, "an answer after {took_ms} ms");
        if !request.instance.lives.load(Ordering::Relaxed) {
            return;
        }
        let mut report = self.report.lock().unwrap();
        report.answered += 1;
        report.last_ms = report.last_ms.max(took_ms);
        let Ok(hit) = answer else {
            assert!(self.run.is_faulty, "a failure without a fault");
            report.failed += 1;
            return;
        };
        report.stale += u64::from(hit.how == How::Stale);
        let age_ms = hit.copy.age_ms(now_ms);
        let age_max_ms = u64::from(self.policy.fresh_ms) + u64::from(self.policy.cap_ms);
        assert!(age_ms <= age_max_ms, "a value {age_ms} ms old");
        let number = u64::from_le_bytes(hit.copy.value[..8].try_into().unwrap());
        assert!(
            number >= request.at_least,
            "{} was written and acknowledged here, {number} is shown",
            request.at_least
        );
        self.seen.lock().unwrap().insert(number);
        self.first_value_ms.fetch_min(now_ms, Ordering::Relaxed);
    }

    fn fill(self: &Arc<World>) -> Fill {
        let world = self.clone();
        let run = move || {
            world.report.lock().unwrap().queries += 1;
            let fails = world.is_ledger_away.load(Ordering::Relaxed);
            if fails {
                return Err(FillError::Away);
            }
            let value: Arc<[u8]> = world.number.load(Ordering::Relaxed).to_le_bytes().into();
            let as_of_ms = world.now().cast_signed();
            Ok(Filled { value, as_of_ms, is_null: false })
        };
        Fill(vec![Stage { lane: Lane::Ledger, run: Box::new(run) }])
    }

    /// A write through some instance, acknowledged once its cache has deleted what there was.
    fn write(self: &Arc<World>) {
        let instance = self.some_instance();
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let (world, written) = (self.clone(), instance.clone());
        let acknowledge = move || {
            written.acknowledged.fetch_max(number, Ordering::Relaxed);
            world.report.lock().unwrap().writes += 1;
        };
        instance.cache.wrote(vec![KEY.into()], Box::new(acknowledge));
    }

    fn break_something(self: &Arc<World>, fault: u64) {
        let for_a_while = |flag: fn(&World) -> &AtomicBool| {
            flag(self).store(true, Ordering::Relaxed);
            self.push(self.chance(2_500), Box::new(move |world| flag(world).store(false, Ordering::Relaxed)));
        };
        match fault {
            0 | 1 => for_a_while(|world| &world.is_shared_away),
            2 | 3 => for_a_while(|world| &world.is_ledger_away),
            4 | 5 => {
                let mut instances = self.instances.lock().unwrap();
                let number = self.chance(instances.len() as u64) as usize;
                instances[number].lives.store(false, Ordering::Relaxed);
                instances[number] = self.instance();
            }
            6 => self.shared.invalidate(&[KEY]).unwrap(),
            _ => {}
        }
    }

    /// All requests are answered and nothing happens any more: no flight, no lock, nobody who waits.
    fn assert_quiet(&self) {
        for instance in self.instances.lock().unwrap().iter() {
            let (flights, held, _) = instance.cache.sizes();
            assert_eq!((flights, held), (0, 0), "flights and locks that are left");
        }
        let lock = self.shared.acquire(KEY, 1, 1, None).unwrap();
        assert_ne!(lock, Acquired::Busy, "a lock outlives its lease");
    }
}
