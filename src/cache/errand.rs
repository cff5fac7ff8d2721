//! One fill from its beginning to its end, in steps that each run on a lane. Whatever happens to a step (a panic, a lane
//! without room), dropping the errand lands its flight and gives its lock back: nobody hangs, and no lock outlives its
//! lease.

use std::sync::Arc;

use super::fill::{FillError, Filled, Hit, How, Outcome, Stage};
use super::local::{Copy, lock};
use super::policy::Stand;
use super::state::{Cache, Errand};
use super::stats::count;
use super::surroundings::Lane;
use crate::limits::{
    CACHE_ENTRY_BYTES_MAX, CACHE_KEYS_REMEMBERED_MAX, CACHE_LEASE_MS, CACHE_LOCK_WAIT_MS, CACHE_POLL_MS_MAX,
    CACHE_THROTTLE_MS,
};
use crate::ports::{Acquired, CacheEntry, CacheRead, NewEntry, StoreError};

impl Cache {
    pub(super) fn set_out(self: &Arc<Cache>, errand: Errand) {
        if !errand.policy.is_cached() || !errand.policy.is_shared {
            return self.fill(errand);
        }
        // An early refresh knows the entry: the lock's answer tells whether there is a newer one.
        self.on(Lane::Shared, |cache| if errand.is_early { cache.take_lock(errand) } else { cache.look(errand) });
    }

    fn look(self: &Arc<Cache>, mut errand: Errand) {
        if !self.may_ask_shared() {
            return self.fill(errand);
        }
        match self.shared_said(self.shared.read(&errand.key)) {
            None => self.fill(errand),
            Some(CacheRead::Missing) => self.take_lock(errand),
            Some(CacheRead::Throttled { error, left_ms }) => self.throttle(errand, FillError::of_name(&error), left_ms),
            Some(CacheRead::Entry(entry)) => {
                let policy = errand.policy;
                let now_ms = self.around.now_ms();
                let copy = self.keep(&errand, Copy::of(entry, now_ms), now_ms);
                errand.seen = Some(copy.fence);
                match policy.stand(copy.left_ms(now_ms), 0) {
                    Stand::Fresh | Stand::Look => {
                        count(&self.stats.hits_shared);
                        errand.land_with(copy, How::Fresh, now_ms);
                    }
                    Stand::Revalidate => {
                        errand.flight.show(Outcome::Hit(Hit::of(copy, How::Stale, now_ms)));
                        self.take_lock(errand);
                    }
                    Stand::Late | Stand::Gone => self.take_lock(errand),
                }
            }
        }
    }

    fn take_lock(self: &Arc<Cache>, mut errand: Errand) {
        // Twice at most: an entry that is newer than the known one may have expired as well.
        for _ in 0..2 {
            if !self.may_ask_shared() {
                return self.fill(errand);
            }
            let acquired = self.shared.acquire(&errand.key, errand.token, CACHE_LEASE_MS, errand.seen);
            match self.shared_said(acquired) {
                None => {
                    // It may be ours all the same.
                    self.give_back(&errand.key, errand.token);
                    return self.fill(errand);
                }
                Some(Acquired::Owned { fence }) => {
                    count(&self.stats.lock_owned);
                    errand.fence = Some(fence);
                    self.hold(&errand.key, errand.token);
                    // The lock is given only where the known entry is the latest.
                    if let Some(copy) = self.local.get(&errand.key) {
                        copy.looked(self.around.now_ms());
                    }
                    return self.fill(errand);
                }
                Some(Acquired::Throttled { error, left_ms }) => {
                    return self.throttle(errand, FillError::of_name(&error), left_ms);
                }
                Some(Acquired::Busy) => return self.wait_for_holder(errand),
                Some(Acquired::Newer(entry)) => {
                    let now_ms = self.around.now_ms();
                    let copy = self.keep(&errand, Copy::of(entry, now_ms), now_ms);
                    if copy.left_ms(now_ms) > 0 {
                        count(&self.stats.hits_shared);
                        return errand.land_with(copy, How::Fresh, now_ms);
                    }
                    errand.seen = Some(copy.fence);
                }
            }
        }
        self.wait_for_holder(errand);
    }

    /// Somebody else fills. Who has something to show leaves it at that; else the flight looks again, or asks the store
    /// itself once it has waited long enough.
    fn wait_for_holder(self: &Arc<Cache>, mut errand: Errand) {
        count(&self.stats.lock_busy);
        let now_ms = self.around.now_ms();
        if let Some(copy) = self.local.get(&errand.key) {
            copy.looked(now_ms);
            copy.rest(now_ms, CACHE_POLL_MS_MAX);
        }
        if !errand.flight.is_wanted() {
            count(&self.stats.ducked);
            return errand.land(Outcome::Ducked);
        }
        if now_ms - errand.began_ms >= CACHE_LOCK_WAIT_MS {
            return self.fill(errand);
        }
        let pause_ms = errand.pause_ms;
        errand.pause_ms = (pause_ms * 2).min(CACHE_POLL_MS_MAX);
        let number = self.around.token();
        lock(&self.parked).insert(number, errand);
        let cache = self.clone();
        self.around.run_after(pause_ms, Lane::Shared, Box::new(move || cache.resume(number)));
    }

    fn resume(self: &Arc<Cache>, number: u128) {
        // A hint may have been first: then the end of the pause finds nobody, be it that the errand rests again.
        let parked = lock(&self.parked).remove(&number);
        if let Some(errand) = parked {
            self.take_lock(errand);
        }
    }

    /// Something happened to a key (empty: to any): who waits for it looks at once.
    pub(super) fn resume_parked(self: &Arc<Cache>, key: &str) {
        let concerned = |(number, errand): (&u128, &Errand)| (key.is_empty() || *errand.key == *key).then_some(*number);
        let numbers: Vec<u128> = lock(&self.parked).iter().filter_map(concerned).collect();
        for number in numbers {
            // Without room for it the pause goes on.
            self.on(Lane::Shared, move |cache| cache.resume(number));
        }
    }

    /// The next stage, with the lock or without.
    fn fill(self: &Arc<Cache>, mut errand: Errand) {
        while let Some(stage) = errand.fill.next() {
            if self.lets_through(stage.lane) {
                // Waiting for the lane is part of what a fill takes.
                let now_ms = self.around.now_ms();
                self.on(stage.lane, move |cache| cache.run_stage(errand, stage, now_ms));
                return;
            }
        }
        self.failed(errand, FillError::Away);
    }

    fn run_stage(self: &Arc<Cache>, mut errand: Errand, stage: Stage, began_ms: u64) {
        if self.around.now_ms().saturating_sub(began_ms) >= u64::from(errand.policy.deadline_ms) {
            // It stood in line until nobody waited for it any more: the store is not asked what nobody wants to know.
            errand.fill = Vec::new().into_iter();
            count(&self.stats.shed);
            return self.failed(errand, FillError::Busy);
        }
        let breaker = &self.breakers[stage.lane as usize];
        let result = (stage.run)();
        let now_ms = self.around.now_ms();
        match result {
            Ok(filled) => {
                breaker.answered();
                let fill_ms = u32::try_from(now_ms - began_ms).unwrap_or(u32::MAX);
                self.stats.filled(errand.fence.is_some() || !errand.policy.is_shared, fill_ms);
                self.filled(errand, filled, fill_ms);
            }
            Err(error) => {
                match error {
                    FillError::Away => breaker.failed(now_ms),
                    _ => breaker.answered(),
                }
                if errand.fill.len() == 0 { self.failed(errand, error) } else { self.fill(errand) }
            }
        }
    }

    fn filled(self: &Arc<Cache>, mut errand: Errand, filled: Filled, fill_ms: u32) {
        let ttl_ms = errand.policy.ttl_ms(filled.is_null, self.around.random());
        let is_kept = filled.value.len() <= CACHE_ENTRY_BYTES_MAX;
        let Filled { value, as_of_ms, .. } = filled;
        let fresh_left_ms = i64::from(ttl_ms);
        errand.brought = Some(CacheEntry { value, fill_ms, as_of_ms, fence: 0, fresh_ttl_ms: ttl_ms, fresh_left_ms });
        match errand.fence {
            Some(fence) if is_kept => {
                self.on(Lane::Shared, move |cache| cache.store(errand, fence));
            }
            _ => {
                if errand.fence.take().is_some() {
                    self.give_back(&errand.key, errand.token);
                }
                self.arrived(errand, 0, is_kept);
            }
        }
    }

    fn store(self: &Arc<Cache>, mut errand: Errand, fence: u64) {
        let Some(brought) = &errand.brought else { return };
        let CacheEntry { ref value, fill_ms, as_of_ms, fresh_ttl_ms, .. } = *brought;
        let entry = NewEntry { value, fill_ms, as_of_ms, fence, fresh_ttl_ms, stale_cap_ms: errand.policy.cap_ms };
        let stored = self.shared_said(self.shared.store(&errand.key, errand.token, &entry));
        self.unhold(errand.token);
        errand.fence = None;
        match stored {
            Some(true) => {}
            Some(false) => count(&self.stats.lock_lost),
            None => self.give_back(&errand.key, errand.token),
        }
        // Not stored: the key was written, or another fill overtook this one. Who waited has its value; nobody else.
        self.arrived(errand, fence, stored != Some(false));
    }

    fn arrived(&self, mut errand: Errand, fence: u64, is_kept: bool) {
        let Some(brought) = errand.brought.take() else { return };
        let now_ms = self.around.now_ms();
        let is_cached = errand.policy.is_cached();
        let how = if fence > 0 || !errand.policy.is_shared || !is_cached { How::Miss } else { How::Direct };
        let copy = Copy::of(CacheEntry { fence, ..brought }, now_ms);
        let copy = if is_kept && is_cached { self.keep(&errand, copy, now_ms) } else { Arc::new(copy) };
        errand.land_with(copy, how, now_ms);
    }

    fn failed(self: &Arc<Cache>, mut errand: Errand, error: FillError) {
        count(&self.stats.failures);
        let ms = CACHE_THROTTLE_MS + (2.0 * f64::from(CACHE_THROTTLE_MS) * self.around.random()) as u32;
        if errand.fence.take().is_some() {
            self.unhold(errand.token);
            let (key, token) = (errand.key.clone(), errand.token);
            self.on(Lane::Shared, move |cache| {
                cache.shared_said(cache.shared.fail(&key, token, error.name().as_bytes(), ms));
            });
        }
        self.throttle(errand, error, ms);
    }

    /// Nobody fills the key again for so long.
    fn throttle(&self, mut errand: Errand, error: FillError, ms: u32) {
        let now_ms = self.around.now_ms();
        if errand.policy.is_cached() {
            let mut throttled = lock(&self.throttled);
            if throttled.len() >= CACHE_KEYS_REMEMBERED_MAX {
                throttled.retain(|_, (_, until_ms)| *until_ms > now_ms);
            }
            if throttled.len() < CACHE_KEYS_REMEMBERED_MAX {
                throttled.insert(errand.key.clone(), (error, now_ms + u64::from(ms)));
            }
        }
        errand.land(Outcome::Failed(error));
    }

    fn keep(&self, errand: &Errand, copy: Copy, now_ms: u64) -> Arc<Copy> {
        self.local.put(&errand.key, copy, now_ms, || errand.flight.is_spoiled())
    }

    /// Whether the store behind a lane may be asked.
    pub(super) fn lets_through(&self, lane: Lane) -> bool {
        self.breakers[lane as usize].lets_through(self.around.now_ms())
    }

    /// What the shared cache answered; none where it did not.
    pub(super) fn shared_said<T>(&self, said: Result<T, StoreError>) -> Option<T> {
        let breaker = &self.breakers[Lane::Shared as usize];
        match &said {
            Ok(_) => breaker.answered(),
            Err(error) => {
                breaker.failed(self.around.now_ms());
                tracing::debug!(%error, "the shared cache does not answer");
            }
        }
        said.ok()
    }
}
