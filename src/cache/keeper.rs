//! Who keeps the locks: renews every one that is held, and takes back what is dropped, so that whoever drops one does no
//! I/O.

use std::sync::Arc;

use super::local::lock;
use super::state::{Cache, HeldLock};
use super::surroundings::Lane;
use crate::limits::{CACHE_HOLD_MS_MAX, CACHE_LEASE_MS, CACHE_RENEW_MS};
use crate::ports::LockToken;

impl Cache {
    pub(super) fn hold(self: &Arc<Cache>, key: &str, token: LockToken) {
        let is_kept = {
            let mut held = lock(&self.held);
            held.locks.push(HeldLock { key: key.into(), token, since_ms: self.around.now_ms() });
            std::mem::replace(&mut held.is_kept, true)
        };
        if !is_kept {
            self.keep_on();
        }
    }

    pub(super) fn unhold(&self, token: LockToken) {
        lock(&self.held).locks.retain(|held| held.token != token);
    }

    fn keep_on(self: &Arc<Cache>) {
        let cache = self.clone();
        self.around.run_after(CACHE_RENEW_MS, Lane::Shared, Box::new(move || cache.renew()));
    }

    /// Renews every lock that is held, again and again until there is none.
    fn renew(self: &Arc<Cache>) {
        let now_ms = self.around.now_ms();
        let locks: Vec<(Box<str>, LockToken)> = {
            let mut held = lock(&self.held);
            held.locks.retain(|lock| now_ms - lock.since_ms < CACHE_HOLD_MS_MAX);
            held.is_kept = !held.locks.is_empty();
            held.locks.iter().map(|lock| (lock.key.clone(), lock.token)).collect()
        };
        if locks.is_empty() {
            return;
        }
        // First, so that no failure of this round ends the rounds.
        self.keep_on();
        let asked: Vec<(&str, LockToken)> = locks.iter().map(|(key, token)| (&**key, *token)).collect();
        let Some(ours) = self.shared_said(self.shared.renew(&asked, CACHE_LEASE_MS)) else { return };
        for ((_, token), _) in asked.iter().zip(ours).filter(|(_, ours)| !ours) {
            self.unhold(*token);
        }
    }

    /// A release without waiting for it. Without room for it the lock ends with its lease.
    pub(super) fn give_back(self: &Arc<Cache>, key: &str, token: LockToken) {
        self.unhold(token);
        let (cache, key) = (self.clone(), Box::<str>::from(key));
        let release = move || {
            if cache.lets_through(Lane::Shared) {
                cache.shared_said(cache.shared.release(&key, token));
            }
        };
        self.around.run(Lane::Shared, Box::new(release));
    }
}
