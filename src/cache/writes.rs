//! After a write: what is cached of it goes, so that who wrote sees the new state. Deletions of many writes travel
//! together: while one call is under way, the next ones gather.

use std::sync::Arc;

use super::flight::Waker;
use super::local::lock;
use super::state::{Cache, short};
use super::surroundings::Lane;
use crate::limits::{CACHE_INVALIDATE_KEYS_MAX, CACHE_KEYS_REMEMBERED_MAX};

impl Cache {
    /// The state behind `keys` was written. `waker` is called once no instance can read the old one from the shared cache,
    /// or this is owed because it is away; copies of other instances go with the next hint, at the latest after a second.
    pub fn wrote(self: &Arc<Cache>, keys: Vec<Box<str>>, waker: Waker) {
        let keys = short_all(keys);
        self.forget_here(&keys);
        let mut pending = lock(&self.pending);
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
        if !self.on(Lane::Shared, |cache| while cache.delete_pending(true) {}) {
            // No room: all of it is owed, and nobody waits for it.
            self.delete_pending(false);
        }
    }

    /// The writer of `keys` did not wait for the end of [`Cache::wrote`]: it is answered, so whoever reads here from now
    /// on sees to the deletion first.
    pub fn overdue(&self, keys: &[Box<str>]) {
        let keys = short_all(keys.to_vec());
        self.owe(&keys);
        self.forget_here(&keys);
    }

    /// Deletes what has gathered, or owes it if the lane has no room. False: nothing had gathered.
    fn delete_pending(&self, has_room: bool) -> bool {
        let (keys, wakers) = {
            let mut pending = lock(&self.pending);
            pending.is_running = has_room && !pending.wakers.is_empty();
            (std::mem::take(&mut pending.keys), std::mem::take(&mut pending.wakers))
        };
        if wakers.is_empty() {
            return false;
        }
        if !(has_room && self.lets_through(Lane::Shared) && self.delete(&keys)) {
            self.owe(&keys);
        }
        // A reader may have fetched the old entry in between.
        self.forget_here(&keys);
        wakers.into_iter().for_each(|wake| wake());
        true
    }

    pub(super) fn forget_here(&self, keys: &[Box<str>]) {
        for key in keys {
            self.flights.spoil(key);
            self.local.remove(key);
        }
    }

    fn delete<'k>(&self, keys: impl IntoIterator<Item = &'k Box<str>>) -> bool {
        let keys: Vec<&str> = keys.into_iter().map(|key| &**key).collect();
        keys.chunks(CACHE_INVALIDATE_KEYS_MAX).all(|some| self.shared_said(self.shared.invalidate(some)).is_some())
    }

    fn owe(&self, keys: &[Box<str>]) {
        let write = self.around.token();
        let mut owed = lock(&self.owed);
        for key in keys {
            // Past the bound a key lives by its TTL.
            if owed.len() < CACHE_KEYS_REMEMBERED_MAX || owed.contains_key(key) {
                owed.insert(key.clone(), write);
            }
        }
    }

    /// Whether the shared cache may be asked: it is not known to be away, and knows of every write made here.
    pub(super) fn may_ask_shared(&self) -> bool {
        if !self.lets_through(Lane::Shared) {
            return false;
        }
        let owed = lock(&self.owed).clone();
        let is_settled = owed.is_empty() || self.delete(owed.keys());
        if is_settled {
            // One that was written again since is owed again.
            lock(&self.owed).retain(|key, write| owed.get(key) != Some(write));
        }
        is_settled
    }
}

fn short_all(keys: Vec<Box<str>>) -> Vec<Box<str>> {
    keys.into_iter().map(|key| short(&key).into()).collect()
}
