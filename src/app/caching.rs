//! The cache as the program runs it: its classes of keys, its threads, and its hints from other instances.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::cache::{self, Cache, Job, Policy, Surroundings};
use crate::clock::monotonic_ms;
use crate::limits::{
    CACHE_COUNTS_MS, CACHE_LANE_RETRY_MS, CACHE_LIKES_MS, CACHE_POPULAR_MS, CACHE_RANKINGS_MS, CACHE_SEARCH_MS,
};
use crate::ports::{Change, SharedCache};
use crate::runtime::Lane;

#[derive(Clone, Copy, Debug, Args)]
pub struct Classes {
    /// Search results: off, or settings that differ from fresh=5000,stale=5000,cap=600000,null=5000,beta=1,deadline=1500.
    /// A value is fresh for this long, less up to a tenth. Then it is shown while one request refreshes it (stale; as
    /// fresh if it is not given), then if nothing better comes within 100 ms, up to the cap. null: how long "there is
    /// none" is kept; beta: how early a busy value is refreshed, 0: not; deadline: of a request
    #[arg(long = "cache-search", env = "CACHE_SEARCH", default_value = "", hide_default_value = true,
        value_parser = class(Policy::fresh_for(CACHE_SEARCH_MS)), value_name = "off|NAME=MS,…")]
    pub search: Policy,
    /// Popular lists and live users, in the same way; fresh=1000
    // From the live store, which every instance has at hand.
    #[arg(long = "cache-popular", env = "CACHE_POPULAR", default_value = "", hide_default_value = true,
        value_parser = class(Policy { is_shared: false, ..Policy::fresh_for(CACHE_POPULAR_MS) }), value_name = "off|NAME=MS,…")]
    pub popular: Policy,
    /// Rankings, time series and exact users; fresh=5000
    #[arg(long = "cache-rankings", env = "CACHE_RANKINGS", default_value = "", hide_default_value = true,
        value_parser = class(Policy::fresh_for(CACHE_RANKINGS_MS)), value_name = "off|NAME=MS,…")]
    pub rankings: Policy,
    /// Exact counts; fresh=1000
    #[arg(long = "cache-counts", env = "CACHE_COUNTS", default_value = "", hide_default_value = true,
        value_parser = class(Policy::fresh_for(CACHE_COUNTS_MS)), value_name = "off|NAME=MS,…")]
    pub counts: Policy,
    /// Likes of a post; fresh=2000
    #[arg(long = "cache-likes", env = "CACHE_LIKES", default_value = "", hide_default_value = true,
        value_parser = class(Policy::fresh_for(CACHE_LIKES_MS)), value_name = "off|NAME=MS,…")]
    pub likes: Policy,
}

fn class(default: Policy) -> impl Fn(&str) -> Result<Policy, String> + Clone {
    move |text| default.with(text)
}

pub struct Caching {
    pub cache: Arc<Cache>,
    pub classes: Classes,
    stop: Arc<AtomicBool>,
}

impl Caching {
    /// Starts the cache's threads: `connections` for the shared cache and the live store each, `fills` for the ledger.
    pub fn start(shared: &Arc<dyn SharedCache>, classes: Classes, connections: usize, fills: usize) -> Caching {
        let (timers, due) = unbounded();
        let lanes = Arc::new(Lanes {
            shared: Lane::start("cache", connections),
            live: Lane::start("live-fill", connections),
            ledger: Lane::start("ledger-fill", fills),
        });
        let cache = Cache::new(shared.clone(), Arc::new(World { lanes: lanes.clone(), timers }));
        crate::process::spawn("cache-timer", move || keep_time(&due, &lanes));
        let stop = Arc::new(AtomicBool::new(false));
        watch(&cache, &**shared, stop.clone());
        Caching { cache, classes, stop }
    }
}

impl Drop for Caching {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Hears what other instances store and delete, on a thread of the adapter's.
fn watch(cache: &Arc<Cache>, shared: &dyn SharedCache, stop: Arc<AtomicBool>) {
    let listener = Arc::downgrade(cache);
    let on_change = move |change: Change<'_>| {
        let Some(cache) = listener.upgrade() else { return };
        match change {
            Change::Stored(key) => cache.hint(key, false),
            Change::Removed(key) => cache.hint(key, true),
            Change::Anything => cache.hint("", false),
        }
    };
    if let Err(error) = shared.watch(Box::new(on_change), stop) {
        tracing::warn!(%error, "no hints from other instances: their changes are seen a second later");
    }
}

struct Lanes {
    shared: Lane,
    live: Lane,
    ledger: Lane,
}

impl Lanes {
    fn run(&self, lane: cache::Lane, job: Job) -> Result<(), Job> {
        match lane {
            cache::Lane::Shared => self.shared.run(job),
            cache::Lane::Live => self.live.run(job),
            cache::Lane::Ledger => self.ledger.run(job),
        }
    }
}

struct Timer {
    at_ms: u64,
    lane: cache::Lane,
    job: Job,
}

struct World {
    lanes: Arc<Lanes>,
    timers: Sender<Timer>,
}

impl Surroundings for World {
    fn now_ms(&self) -> u64 {
        monotonic_ms()
    }

    fn random(&self) -> f64 {
        rand::random()
    }

    fn token(&self) -> u128 {
        rand::random()
    }

    fn run(&self, lane: cache::Lane, job: Job) -> bool {
        // A refused job is dropped here: whatever it was about ends with it.
        self.lanes.run(lane, job).is_ok()
    }

    fn run_after(&self, ms: u64, lane: cache::Lane, job: Job) {
        // The keeper lives as long as there is a sender.
        let _ = self.timers.send(Timer { at_ms: monotonic_ms() + ms, lane, job });
    }
}

/// Hands jobs to their lanes when they are due; one that finds no room is handed over a little later. What waits here is
/// bounded by the fills under way and one renewal.
fn keep_time(due: &Receiver<Timer>, lanes: &Lanes) {
    let mut timers: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
    let mut jobs = std::collections::HashMap::new();
    let mut number = 0;
    loop {
        let wait_ms = timers.peek().map_or(60_000, |Reverse((at_ms, _))| at_ms.saturating_sub(monotonic_ms()));
        match due.recv_timeout(Duration::from_millis(wait_ms)) {
            Ok(Timer { at_ms, lane, job }) => {
                number += 1;
                timers.push(Reverse((at_ms, number)));
                jobs.insert(number, (lane, job));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now_ms = monotonic_ms();
        while let Some(Reverse((at_ms, number))) = timers.peek().copied().filter(|Reverse((at_ms, _))| *at_ms <= now_ms)
        {
            timers.pop();
            let Some((lane, job)) = jobs.remove(&number) else { continue };
            if let Err(job) = lanes.run(lane, job) {
                timers.push(Reverse((at_ms.max(now_ms) + CACHE_LANE_RETRY_MS, number)));
                jobs.insert(number, (lane, job));
            }
        }
    }
}
