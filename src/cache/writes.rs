//! After a write: what is cached of it goes, so that who wrote sees the new state.
//!
//! Deletions of many writes travel together: while one call is under way, the next ones gather.

use std::sync::Arc;

use super::flight::Waker;
use super::state::{Cache, lock, short};
use super::surroundings::Lane;
use crate::limits::{CACHE_INVALIDATE_KEYS_MAX, CACHE_KEYS_REMEMBERED_MAX};

impl Cache {
    /// The state behind `keys` was written. `waker` is called once no instance can read the old one from the shared cache,
    /// or this is owed because it is away; copies of other instances go with the next hint, at the latest after a second.
    pub fn wrote(self: &Arc<Cache>, keys: Vec<Box<str>>, waker: Waker) {
        let keys = short_all(keys);
        self.forget_here(&keys);
        let mut pending = lock(&self.writes.pending);
        if pending.keys.len() + keys.len() > CACHE_KEYS_REMEMBERED_MAX {
            drop(pending);
            self.owe(&keys);
            return waker();
        }
        pending.keys.extend(keys);
        pending.wakers.push(waker);
        if std::mem::replace(&mut pending.is_running, true) {
            return;
        }
        drop(pending);
        let cache = self.clone();
        if !self.around.run(Lane::Shared, Box::new(move || cache.delete_pending())) {
            self.put_off();
        }
    }

    /// No room: all of it is owed, and nobody waits for it.
    fn put_off(&self) {
        let (keys, wakers) = {
            let mut pending = lock(&self.writes.pending);
            pending.is_running = false;
            (std::mem::take(&mut pending.keys), std::mem::take(&mut pending.wakers))
        };
        self.owe(&keys);
        // A reader may have fetched the old entry in between.
        self.forget_here(&keys);
        wakers.into_iter().for_each(|wake| wake());
    }

    /// The writer of `keys` did not wait for the end of [`Cache::wrote`]: it is answered, so whoever reads here from now
    /// on sees to the deletion first.
    pub fn overdue(&self, keys: &[Box<str>]) {
        let keys = short_all(keys.to_vec());
        self.owe(&keys);
        self.forget_here(&keys);
    }

    fn delete_pending(self: &Arc<Cache>) {
        loop {
            let (keys, wakers) = {
                let mut pending = lock(&self.writes.pending);
                if pending.wakers.is_empty() {
                    pending.is_running = false;
                    return;
                }
                (std::mem::take(&mut pending.keys), std::mem::take(&mut pending.wakers))
            };
            let is_up = self.shared_breaker.lets_through(self.around.now_ms());
            if !is_up || !self.delete(&keys) {
                self.owe(&keys);
            }
            // A reader may have fetched the old entry in between.
            self.forget_here(&keys);
            wakers.into_iter().for_each(|wake| wake());
        }
    }

    pub(super) fn forget_here(&self, keys: &[Box<str>]) {
        for key in keys {
            self.flights.spoil(key);
            self.local.remove(key);
        }
    }

    fn delete(&self, keys: &[Box<str>]) -> bool {
        let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
        keys.chunks(CACHE_INVALIDATE_KEYS_MAX).all(|some| self.shared_said(self.shared.invalidate(some)).is_some())
    }

    fn owe(&self, keys: &[Box<str>]) {
        let mut owed = lock(&self.writes.owed);
        owed.writes += 1;
        let write = owed.writes;
        for key in keys {
            // Past the bound a key lives by its TTL.
            if owed.keys.len() < CACHE_KEYS_REMEMBERED_MAX || owed.keys.contains_key(key) {
                owed.keys.insert(key.clone(), write);
            }
        }
    }

    /// Deletes what is owed. False: the shared cache may still hold what was written over here.
    pub(super) fn settle_owed(&self) -> bool {
        let owed: Vec<(Box<str>, u64)> = {
            let owed = lock(&self.writes.owed);
            if owed.keys.is_empty() {
                return true;
            }
            owed.keys.iter().map(|(key, write)| (key.clone(), *write)).collect()
        };
        let keys: Vec<Box<str>> = owed.iter().map(|(key, _)| key.clone()).collect();
        if !self.delete(&keys) {
            return false;
        }
        let mut left = lock(&self.writes.owed);
        for (key, write) in owed {
            // One that was written again since is owed again.
            if left.keys.get(&key) == Some(&write) {
                left.keys.remove(&key);
            }
        }
        true
    }
}

fn short_all(keys: Vec<Box<str>>) -> Vec<Box<str>> {
    keys.into_iter().map(|key| short(&key).into()).collect()
}
