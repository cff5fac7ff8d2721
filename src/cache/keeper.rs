//! Who keeps the locks: renews every one that is held, and takes back what is dropped without I/O of who drops it.

use std::sync::Arc;

use super::local::lock;
use super::state::Cache;
use super::surroundings::Lane;
use crate::limits::{CACHE_HOLD_MS_MAX, CACHE_LEASE_MS, CACHE_RENEW_MS};
use crate::ports::LockToken;

impl Cache {
    pub(super) fn hold(self: &Arc<Cache>, key: &str, token: LockToken) {
        let is_kept = {
            let mut held = lock(&self.held);
            held.locks.push((key.into(), token, self.around.now_ms()));
            std::mem::replace(&mut held.is_kept, true)
        };
        if !is_kept {
            self.keep_on();
        }
    }

    pub(super) fn unhold(&self, token: LockToken) {
        lock(&self.held).locks.retain(|(_, held, _)| *held != token);
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
            held.locks.retain(|(_, _, since_ms)| now_ms - since_ms < CACHE_HOLD_MS_MAX);
            held.is_kept = !held.locks.is_empty();
            held.locks.iter().map(|(key, token, _)| (key.clone(), *token)).collect()
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
        let key = Box::<str>::from(key);
        self.on(Lane::Shared, move |cache| {
            if cache.lets_through(Lane::Shared) {
                cache.shared_said(cache.shared.release(&key, token));
            }
        });
    }
}
