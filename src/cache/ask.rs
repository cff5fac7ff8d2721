//! A request's way into the cache: what it is shown, or which flight it waits for.

use std::sync::Arc;

use super::early;
use super::fill::{Fill, FillError, Hit, How, Outcome};
use super::flight::{Flight, Flights};
use super::local::{Copy, lock};
use super::policy::{Policy, Stand};
use super::state::{Cache, Errand, short};
use super::stats::count;
use crate::limits::CACHE_FLIGHTS_MAX;

pub enum Ask {
    Have(Hit),
    /// A flight to wait for, and what may be shown instead if it takes longer than a moment.
    Wait(Arc<Flight<Outcome>>, Option<Arc<Copy>>),
    /// No entry, and no fill starts while the key is throttled.
    Failed(FillError),
}

impl Cache {
    /// Answers with an entry for `key`, or with a flight to wait for. Never blocks. It calls `fill` only if it starts a
    /// fill task.
    pub fn ask(self: &Arc<Cache>, key: &str, policy: &Policy, fill: impl FnOnce() -> Fill) -> Ask {
        let key = &*short(key);
        if !policy.is_cached() {
            let flight = Flights::alone();
            self.set_out(Errand::new(self, key, *policy, fill(), flight.clone()));
            return Ask::Wait(flight, None);
        }
        let now_ms = self.around.now_ms();
        let Some(copy) = self.local.get(key) else { return self.wait_for(key, policy, None, fill) };
        let how = match policy.stand(copy.left_ms(now_ms), copy.looked_ms(now_ms)) {
            Stand::Fresh if self.is_early(&copy, policy, now_ms) => {
                if self.refresh(key, policy, &copy, true, now_ms, fill) { How::Early } else { How::Fresh }
            }
            Stand::Fresh => How::Fresh,
            stand @ (Stand::Look | Stand::Revalidate) => {
                self.refresh(key, policy, &copy, false, now_ms, fill);
                if stand == Stand::Look { How::Fresh } else { How::Stale }
            }
            Stand::Late => return self.wait_for(key, policy, Some(copy), fill),
            Stand::Gone => return self.wait_for(key, policy, None, fill),
        };
        Ask::Have(self.stats.at_once(Hit::of(copy, how, now_ms)))
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
            self.local.each(Copy::outdated);
        } else if is_removed {
            // A fill under way here may show what was before that.
            self.forget_here(&[key.into()]);
        } else if let Some(copy) = self.local.get(key) {
            copy.overtaken(self.around.now_ms());
        }
        self.resume_parked(key);
    }

    /// Fills under way, locks held, and copies with their bytes: for metrics and tests.
    pub fn sizes(&self) -> (usize, usize, (usize, usize)) {
        (self.flights.count(), lock(&self.held).locks.len(), self.local.size())
    }

    fn is_early(&self, copy: &Copy, policy: &Policy, now_ms: u64) -> bool {
        let reads_per_ms = copy.read(now_ms);
        let left_ms = copy.left_ms(now_ms);
        early::is_due(left_ms, copy.ttl_ms, copy.fill_ms, policy.beta, reads_per_ms, self.around.random())
    }

    /// Starts a fill task in the background, unless the key has a flight or is throttled. True: it started one.
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
            count(if is_early { &self.stats.early } else { &self.stats.refreshes });
            let mut errand = Errand::new(self, key, *policy, fill(), flight);
            (errand.seen, errand.is_early) = (Some(copy.fence), is_early);
            self.set_out(errand);
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
        let error = self.throttle_of(key, self.around.now_ms()).or_else(|| {
            self.is_full().then(|| {
                count(&self.stats.shed);
                FillError::Busy
            })
        });
        if let Some(error) = error {
            return copy.and_then(|copy| self.late(copy, policy)).map_or(Ask::Failed(error), Ask::Have);
        }
        let (flight, is_leader) = self.board(key, policy, copy.is_none());
        if is_leader {
            self.set_out(Errand::new(self, key, *policy, fill(), flight.clone()));
        } else {
            count(&self.stats.joined);
        }
        Ask::Wait(flight, copy)
    }

    fn board(&self, key: &str, policy: &Policy, insists: bool) -> (Arc<Flight<Outcome>>, bool) {
        if policy.is_joined { self.flights.board(key, insists) } else { (Flights::alone(), true) }
    }

    fn is_full(&self) -> bool {
        self.flights.count() >= CACHE_FLIGHTS_MAX
    }

    fn throttle_of(&self, key: &str, now_ms: u64) -> Option<FillError> {
        lock(&self.throttled).get(key).filter(|(_, until_ms)| now_ms < *until_ms).map(|(error, _)| *error)
    }
}
