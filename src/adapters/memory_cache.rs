//! The shared cache of a program that shares it with nobody: bounded, in this process, with the same contract.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::limits::{CACHE_LOCAL_BYTES_MAX, CACHE_LOCAL_ENTRIES_MAX, of_memory};
use crate::ports::{Acquired, CacheEntry, CacheRead, LockToken, NewEntry, SharedCache, StoreError};

/// What a slot takes beside its key and value.
const OVERHEAD_BYTES: usize = 200;

pub struct MemoryCache {
    state: Mutex<State>,
    bytes_max: usize,
    /// Milliseconds; only goes forward.
    now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
}

#[derive(Default)]
struct State {
    slots: HashMap<Box<str>, Slot>,
    bytes: usize,
    /// The last fence of any key: one counter never goes back for any of them.
    fence: u64,
}

/// What there is of a key. Times are milliseconds of the process's clock.
#[derive(Default)]
struct Slot {
    /// With the time when it expires, and when it is dropped.
    entry: Option<(CacheEntry, u64, u64)>,
    mark: Option<(Box<[u8]>, u64)>,
    lock: Option<(LockToken, u64, u64)>,
}

impl Slot {
    fn at(&mut self, now_ms: u64) {
        self.entry.take_if(|(_, _, kept_ms)| now_ms >= *kept_ms);
        self.mark.take_if(|(_, until_ms)| now_ms >= *until_ms);
        self.lock.take_if(|(_, _, until_ms)| now_ms >= *until_ms);
    }

    fn is_empty(&self) -> bool {
        self.entry.is_none() && self.mark.is_none() && self.lock.is_none()
    }

    fn entry(&self, now_ms: u64) -> Option<CacheEntry> {
        let (entry, until_ms, _) = self.entry.as_ref()?;
        Some(CacheEntry { fresh_left_ms: until_ms.cast_signed() - now_ms.cast_signed(), ..entry.clone() })
    }

    fn mark(&self, now_ms: u64) -> Option<(Box<[u8]>, u32)> {
        self.mark.as_ref().map(|(error, until_ms)| (error.clone(), (until_ms - now_ms) as u32))
    }

    /// An empty slot is not kept.
    fn bytes(&self, key: &str) -> usize {
        let value = self.entry.as_ref().map_or(0, |(entry, _, _)| entry.value.len());
        if self.is_empty() { 0 } else { OVERHEAD_BYTES + key.len() + value }
    }
}

impl MemoryCache {
    /// An empty one that lives by `now_ms`, milliseconds of a clock that only goes forward.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> MemoryCache {
        MemoryCache { state: Mutex::default(), bytes_max: of_memory(CACHE_LOCAL_BYTES_MAX), now_ms: Box::new(now_ms) }
    }

    /// Runs `act` on what there is of a key, with the last fence and the time.
    fn with<T>(&self, key: &str, act: impl FnOnce(&mut Slot, &mut u64, u64) -> T) -> T {
        let now_ms = (self.now_ms)();
        // Guards plain data for a few lines: nothing in there panics half-way.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { slots, bytes, fence } = &mut *state;
        let slot = slots.entry(key.into()).or_default();
        let before = slot.bytes(key);
        slot.at(now_ms);
        let result = act(slot, fence, now_ms);
        *bytes = *bytes + slot.bytes(key) - before;
        if slot.is_empty() {
            slots.remove(key);
        }
        state.shrink(now_ms, self.bytes_max);
        result
    }
}

impl State {
    fn shrink(&mut self, now_ms: u64, bytes_max: usize) {
        while self.slots.len() > CACHE_LOCAL_ENTRIES_MAX || self.bytes > bytes_max {
            // Of a few, in an order as good as chance, the one that ends first; a lock is not taken from anybody.
            let few = self.slots.iter().filter(|(_, slot)| slot.lock.is_none()).take(8);
            let ends = |slot: &Slot| slot.entry.as_ref().map_or(now_ms, |(_, until_ms, _)| *until_ms);
            let Some(key) = few.min_by_key(|(_, slot)| ends(slot)).map(|(key, _)| key.clone()) else { return };
            if let Some(slot) = self.slots.remove(&key) {
                self.bytes -= slot.bytes(&key);
            }
        }
    }
}

impl SharedCache for MemoryCache {
    fn read(&self, key: &str) -> Result<CacheRead, StoreError> {
        Ok(self.with(key, |slot, _, now_ms| match (slot.entry(now_ms), slot.mark(now_ms)) {
            (Some(entry), _) => CacheRead::Entry(entry),
            (None, Some((error, left_ms))) => CacheRead::Throttled { error, left_ms },
            (None, None) => CacheRead::Missing,
        }))
    }

    fn acquire(&self, key: &str, token: LockToken, lease_ms: u32, seen: Option<u64>) -> Result<Acquired, StoreError> {
        Ok(self.with(key, |slot, last_fence, now_ms| {
            if let Some(entry) = slot.entry(now_ms).filter(|entry| Some(entry.fence) != seen) {
                return Acquired::Newer(entry);
            }
            if let Some((error, left_ms)) = slot.mark(now_ms) {
                return Acquired::Throttled { error, left_ms };
            }
            let fence = match slot.lock {
                Some((owner, _, _)) if owner != token => return Acquired::Busy,
                Some((_, fence, _)) => fence,
                None => {
                    *last_fence += 1;
                    *last_fence
                }
            };
            slot.lock = Some((token, fence, now_ms + u64::from(lease_ms)));
            Acquired::Owned { fence }
        }))
    }

    fn renew(&self, locks: &[(&str, LockToken)], lease_ms: u32) -> Result<Vec<bool>, StoreError> {
        let renew = |(key, token): &(&str, LockToken)| {
            self.with(key, |slot, _, now_ms| match &mut slot.lock {
                Some((owner, _, until_ms)) if owner == token => {
                    *until_ms = now_ms + u64::from(lease_ms);
                    true
                }
                _ => false,
            })
        };
        Ok(locks.iter().map(renew).collect())
    }

    fn store(&self, key: &str, token: LockToken, entry: &NewEntry<'_>) -> Result<bool, StoreError> {
        Ok(self.with(key, |slot, _, now_ms| {
            if slot.lock.take_if(|(owner, _, _)| *owner == token).is_none() {
                return false;
            }
            if slot.entry.as_ref().is_some_and(|(known, _, _)| known.fence > entry.fence) {
                return false;
            }
            if entry.fresh_ttl_ms > 0 {
                let until_ms = now_ms + u64::from(entry.fresh_ttl_ms);
                let NewEntry { value, fill_ms, as_of_ms, fence, fresh_ttl_ms, stale_cap_ms } = *entry;
                let kept = CacheEntry { value: value.into(), fill_ms, as_of_ms, fence, fresh_ttl_ms, fresh_left_ms: 0 };
                (slot.entry, slot.mark) = (Some((kept, until_ms, until_ms + u64::from(stale_cap_ms))), None);
            }
            true
        }))
    }

    fn fail(&self, key: &str, token: LockToken, error: &[u8], throttle_ms: u32) -> Result<bool, StoreError> {
        Ok(self.with(key, |slot, _, now_ms| {
            let was_ours = slot.lock.take_if(|(owner, _, _)| *owner == token).is_some();
            if was_ours && throttle_ms > 0 {
                slot.mark = Some((error.into(), now_ms + u64::from(throttle_ms)));
            }
            was_ours
        }))
    }

    fn invalidate(&self, keys: &[&str]) -> Result<(), StoreError> {
        keys.iter().for_each(|key| self.with(key, |slot, _, _| *slot = Slot::default()));
        Ok(())
    }
}
