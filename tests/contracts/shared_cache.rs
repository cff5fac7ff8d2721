//! What a shared cache claims (C1 …), over Redis and memory.

#![allow(clippy::print_stderr, reason = "which adapter is tried")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::redis::Server;
use event_tracker::adapters::memory_cache::MemoryCache;
use event_tracker::adapters::redis::{RedisCache, RedisLive};
use event_tracker::limits::{CACHE_CALL_MS_MAX, CACHE_LOCAL_BYTES_MAX, CACHE_LOCAL_ENTRIES_MAX};
use event_tracker::ports::{Acquired, CacheEntry, CacheRead, Change, LockToken, NewEntry, SharedCache, StoreError};
use jiff::tz::TimeZone;

const LEASE_MS: u32 = 60_000;

/// A shared cache, what loses all it holds, and how time passes there.
struct Bench {
    cache: Arc<dyn SharedCache>,
    lose_all: Box<dyn Fn()>,
    pass: Box<dyn Fn(u64)>,
}

impl Bench {
    /// Of which nothing is lost and no time passes.
    fn of(cache: Arc<dyn SharedCache>) -> Bench {
        Bench { cache, lose_all: Box::new(|| {}), pass: Box::new(|_| {}) }
    }

    fn own(&self, key: &str, token: LockToken, lease_ms: u32) -> u64 {
        let known = match self.cache.read(key).unwrap() {
            CacheRead::Entry(entry) => Some(entry.fence),
            _ => None,
        };
        match self.cache.acquire(key, token, lease_ms, known).unwrap() {
            Acquired::Owned { fence } => fence,
            other => panic!("not ours: {other:?}"),
        }
    }

    fn store(&self, key: &str, token: LockToken, fence: u64, value: &[u8], ttl_ms: u32, cap_ms: u32) -> bool {
        let entry = NewEntry { value, fill_ms: 12, as_of_ms: 34, fence, fresh_ttl_ms: ttl_ms, stale_cap_ms: cap_ms };
        self.cache.store(key, token, &entry).unwrap()
    }

    fn entry(&self, key: &str) -> Option<CacheEntry> {
        match self.cache.read(key).unwrap() {
            CacheRead::Entry(entry) => Some(entry),
            CacheRead::Missing => None,
            other => panic!("{other:?}"),
        }
    }
}

fn of_redis(server: &Server) -> Arc<RedisCache> {
    let live = RedisLive::new(&server.url(), 2, TimeZone::UTC).unwrap();
    Arc::new(RedisCache::new(&live, 4))
}

fn on_both(claim: impl Fn(Bench)) {
    eprintln!("-- memory");
    let now_ms = Arc::new(AtomicU64::new(5));
    let (clock, hand) = (now_ms.clone(), now_ms);
    let cache = Arc::new(MemoryCache::new(move || clock.load(Ordering::Relaxed)));
    let emptied = cache.clone();
    let lose_all = Box::new(move || emptied.invalidate(&["a", "b", "c"]).unwrap());
    claim(Bench { cache, lose_all, pass: Box::new(move |ms| _ = hand.fetch_add(ms, Ordering::Relaxed)) });
    eprintln!("-- redis");
    let server = Server::start();
    let url = server.url();
    let lose_all = Box::new(move || _ = crate::support::redis::admin(&url, "FLUSHALL").unwrap());
    claim(Bench {
        cache: of_redis(&server),
        lose_all,
        pass: Box::new(|ms| std::thread::sleep(Duration::from_millis(ms))),
    });
}

// claims: C1
#[test]
fn an_entry_is_fresh_for_its_time_and_gone_after_its_cap() {
    on_both(|bench| {
        let fence = bench.own("a", 1, LEASE_MS);
        assert!(bench.store("a", 1, fence, b"value", 300, 400));
        let entry = bench.entry("a").expect("stored");
        assert_eq!((&*entry.value, entry.fill_ms, entry.as_of_ms), (&b"value"[..], 12, 34));
        assert_eq!((entry.fence, entry.fresh_ttl_ms), (fence, 300));
        assert!((1..=300).contains(&entry.fresh_left_ms), "{entry:?}");
        (bench.pass)(350);
        let entry = bench.entry("a").expect("stale, and kept");
        assert!((-400..=-49).contains(&entry.fresh_left_ms), "{entry:?}");
        (bench.pass)(360);
        assert_eq!(bench.entry("a"), None);
        let fence = bench.own("a", 2, LEASE_MS);
        assert!(bench.store("a", 2, fence, b"value", 0, 400));
        assert_eq!(bench.entry("a"), None, "a time of 0 is not stored");
    });
}

// claims: C2
#[test]
fn a_lock_has_one_owner_until_it_is_over_given_up_or_its_key_deleted() {
    on_both(|bench| {
        let cache = &*bench.cache;
        let fence = bench.own("a", 1, 300);
        assert_eq!(cache.acquire("a", 2, 300, None).unwrap(), Acquired::Busy);
        assert_eq!(bench.own("a", 1, 300), fence, "again, after a lost reply");
        (bench.pass)(200);
        assert_eq!(cache.renew(&[("a", 1), ("a", 2), ("b", 1)], 300).unwrap(), [true, false, false]);
        (bench.pass)(200);
        assert_eq!(cache.acquire("a", 2, 300, None).unwrap(), Acquired::Busy, "renewed");
        (bench.pass)(200);
        assert_eq!(cache.renew(&[("a", 1)], 300).unwrap(), [false], "over");
        bench.own("a", 2, LEASE_MS);
        cache.release("a", 1).unwrap();
        assert_eq!(cache.acquire("a", 3, LEASE_MS, None).unwrap(), Acquired::Busy, "given up by somebody else");
        cache.release("a", 2).unwrap();
        bench.own("a", 3, LEASE_MS);
        cache.invalidate(&["a"]).unwrap();
        bench.own("a", 4, LEASE_MS);
    });
}

// claims: C2
#[test]
fn of_many_that_try_at_once_one_has_the_lock() {
    on_both(|bench| {
        for round in 0..20 {
            let (key, start) = (format!("key {round}"), Arc::new(Barrier::new(4)));
            let tries: Vec<_> = (1..=4)
                .map(|token| {
                    let (cache, key, start) = (bench.cache.clone(), key.clone(), start.clone());
                    std::thread::spawn(move || {
                        start.wait();
                        matches!(cache.acquire(&key, token, LEASE_MS, None).unwrap(), Acquired::Owned { .. })
                    })
                })
                .collect();
            let owners = tries.into_iter().map(|one| one.join().unwrap()).filter(|owns| *owns).count();
            assert_eq!(owners, 1);
        }
    });
}

// claims: C3
#[test]
fn fences_grow_whatever_is_lost() {
    on_both(|bench| {
        let mut last = 0;
        let mut next = |what: &str| {
            let fence = bench.own("a", u128::from(last) + 1, LEASE_MS);
            assert!(fence > last, "after {what}: {fence}, {last} before");
            last = fence;
            u128::from(fence)
        };
        next("nothing");
        bench.cache.invalidate(&["a"]).unwrap();
        next("a deletion");
        bench.cache.invalidate(&["a"]).unwrap();
        next("another");
        (bench.lose_all)();
        next("the loss of everything");
    });
}

// claims: C4
#[test]
fn only_the_owner_stores_gives_up_with_it_and_replaces_nothing_newer() {
    on_both(|bench| {
        let first = bench.own("a", 1, LEASE_MS);
        assert!(!bench.store("a", 2, first + 1, b"other", 1_000, 1_000), "not the owner");
        assert!(!bench.cache.fail("a", 2, b"why", 1_000).unwrap());
        assert_eq!(bench.cache.acquire("a", 2, LEASE_MS, None).unwrap(), Acquired::Busy, "and took nothing away");
        assert!(bench.store("a", 1, first, b"first", 1_000, 60_000));
        let second = bench.own("a", 2, LEASE_MS);
        assert!(!bench.store("a", 2, first - 1, b"older", 1_000, 60_000));
        assert_eq!(bench.entry("a").unwrap().value[..], *b"first", "a lower fence replaces nothing");
        let third = bench.own("a", 3, LEASE_MS);
        assert!(third > second, "and the lock went with it");
        assert!(bench.store("a", 3, third, b"third", 1_000, 60_000));
        assert_eq!(bench.entry("a").unwrap().value[..], *b"third");
    });
}

// claims: C5
#[test]
fn no_lock_is_taken_where_there_is_a_newer_entry_or_a_mark() {
    on_both(|bench| {
        let fence = bench.own("a", 1, LEASE_MS);
        assert!(bench.store("a", 1, fence, b"value", 60_000, 60_000));
        for seen in [None, Some(fence - 1)] {
            let Acquired::Newer(entry) = bench.cache.acquire("a", 2, LEASE_MS, seen).unwrap() else {
                panic!("{seen:?}")
            };
            assert_eq!((&*entry.value, entry.fence), (&b"value"[..], fence));
        }
        bench.own("a", 3, LEASE_MS);
        bench.own("b", 1, LEASE_MS);
        assert!(bench.cache.fail("b", 1, b"why", 60_000).unwrap());
        let Acquired::Throttled { error, left_ms } = bench.cache.acquire("b", 2, LEASE_MS, None).unwrap() else {
            panic!("no mark")
        };
        assert!(*error == *b"why" && (1..=60_000).contains(&left_ms));
    });
}

// claims: C6
#[test]
fn after_a_deletion_there_is_nothing_and_a_fill_from_before_it_stores_nothing() {
    on_both(|bench| {
        let fence = bench.own("a", 1, LEASE_MS);
        assert!(bench.store("a", 1, fence, b"old", 60_000, 60_000));
        let fence = bench.own("a", 2, LEASE_MS);
        bench.own("b", 3, LEASE_MS);
        bench.cache.fail("b", 3, b"why", 60_000).unwrap();
        bench.cache.invalidate(&["a", "b", "c"]).unwrap();
        for key in ["a", "b", "c"] {
            assert_eq!(bench.cache.read(key).unwrap(), CacheRead::Missing, "{key}");
        }
        assert!(!bench.store("a", 2, fence, b"old", 60_000, 60_000), "it was read before the deletion");
        assert_eq!(bench.entry("a"), None);
        let after = bench.own("a", 4, LEASE_MS);
        assert!(!bench.store("a", 2, fence, b"old", 60_000, 60_000), "nor under a lock that is another's");
        assert!(bench.store("a", 4, after, b"new", 60_000, 60_000));
    });
}

// claims: C7
#[test]
fn a_mark_ends_by_itself_and_goes_with_a_value() {
    on_both(|bench| {
        let fence = bench.own("a", 1, LEASE_MS);
        assert!(bench.store("a", 1, fence, b"old", 10, 60_000));
        let fence = bench.own("a", 2, LEASE_MS);
        assert!(bench.cache.fail("a", 2, b"why", 300).unwrap());
        assert_eq!(bench.entry("a").unwrap().value[..], *b"old", "an entry stays, and comes before the mark");
        assert!(matches!(
            bench.cache.acquire("a", 3, LEASE_MS, Some(fence - 1)).unwrap(),
            Acquired::Newer(_) | Acquired::Throttled { .. }
        ));
        (bench.pass)(350);
        let fence = bench.own("a", 3, LEASE_MS);
        assert!(bench.store("a", 3, fence, b"new", 60_000, 60_000));
        bench.own("b", 1, LEASE_MS);
        bench.cache.fail("b", 1, b"why", 300).unwrap();
        assert!(matches!(bench.cache.read("b").unwrap(), CacheRead::Throttled { .. }));
        (bench.pass)(350);
        assert_eq!(bench.cache.read("b").unwrap(), CacheRead::Missing);
    });
}

// claims: C8
#[test]
fn redis_tells_of_changes_and_after_a_loss_that_any_may_have_been_missed() {
    let mut server = Server::start();
    let (here, there) = (of_redis(&server), of_redis(&server));
    let (told, hears) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    let tell = move |change: Change<'_>| {
        let _ = told.send(match change {
            Change::Stored(key) => format!("stored {key}"),
            Change::Removed(key) => format!("removed {key}"),
            Change::Anything => "anything".to_owned(),
        });
    };
    here.watch(Box::new(tell), stop.clone()).unwrap();
    let hears = |what: &str| assert_eq!(hears.recv_timeout(Duration::from_secs(10)).expect("a hint"), what);
    hears("anything");
    let bench = Bench::of(there.clone());
    let fence = bench.own("a b", 1, LEASE_MS);
    assert!(bench.store("a b", 1, fence, b"v", 60_000, 1));
    hears("stored a b");
    there.invalidate(&["a b"]).unwrap();
    hears("removed a b");
    there.acquire("a b", 2, LEASE_MS, None).unwrap();
    there.release("a b", 2).unwrap();
    hears("stored a b");
    server.stop();
    server.spawn();
    hears("anything");
    there.invalidate(&["c"]).unwrap();
    hears("removed c");
    stop.store(true, Ordering::Relaxed);
}

// claims: C8
#[test]
fn memory_is_changed_by_this_process_alone_and_tells_nothing() {
    let cache = MemoryCache::new(|| 0);
    let (told, hears) = channel();
    cache.watch(Box::new(move |_| _ = told.send(())), Arc::default()).unwrap();
    cache.invalidate(&["a"]).unwrap();
    assert!(hears.try_recv().is_err());
}

// claims: C9
#[test]
fn redis_that_is_away_hangs_is_full_or_has_forgotten_its_scripts_ends_a_call_soon_and_is_found_again() {
    let mut server = Server::start();
    let cache = of_redis(&server);
    let calls = |token: LockToken| -> [Result<(), StoreError>; 4] {
        [
            cache.read("a").map(drop),
            cache.acquire("a", token, 100, None).map(drop),
            cache.renew(&[("a", token), ("b", token)], 100).map(drop),
            cache.invalidate(&["a", "b"]),
        ]
    };
    let all_answer = |token| calls(token).into_iter().for_each(|call| call.expect("it answers"));
    let none_answers = |token| {
        let began = Instant::now();
        for call in calls(token) {
            assert!(matches!(call, Err(StoreError::Retry(_))), "{call:?}");
        }
        // A connection to be had and an answer, four times, on a busy machine.
        assert!(began.elapsed() < 4 * Duration::from_millis(3 * CACHE_CALL_MS_MAX), "{:?}", began.elapsed());
    };
    all_answer(1);
    server.admin("SCRIPT FLUSH").unwrap();
    all_answer(2);
    server.signal(libc::SIGSTOP);
    none_answers(3);
    server.signal(libc::SIGCONT);
    eventually(Duration::from_secs(5), || cache.read("a").map(drop).map_err(|error| error.to_string()));
    server.stop();
    none_answers(4);
    server.spawn();
    eventually(Duration::from_secs(5), || cache.read("a").map(drop).map_err(|error| error.to_string()));
    all_answer(5);
    server.admin("CONFIG SET maxmemory 1").unwrap();
    assert!(matches!(cache.acquire("a", 6, 100, None), Err(StoreError::Retry(_))), "full");
    cache.invalidate(&["a"]).expect("deleting is always possible");
    server.admin("CONFIG SET maxmemory 0").unwrap();
    all_answer(7);
}

// claims: C9
#[test]
fn redis_that_refuses_writes_still_serves_what_it_has() {
    let server = Server::start();
    let bench = Bench::of(of_redis(&server));
    let fence = bench.own("a", 1, LEASE_MS);
    assert!(bench.store("a", 1, fence, b"value", 60_000, 600_000));
    for refusal in ["min-replicas-to-write 1", "maxmemory 1"] {
        server.admin(&format!("CONFIG SET {refusal}")).unwrap();
        assert!(matches!(bench.cache.acquire("b", 2, LEASE_MS, None), Err(StoreError::Retry(_))), "{refusal}");
        let entry = bench.entry("a").expect("an entry that was stored before");
        assert_eq!((&*entry.value, entry.fence), (&b"value"[..], fence), "{refusal}");
        server.admin(&format!("CONFIG SET {}", refusal.replace('1', "0"))).unwrap();
    }
}

// claims: C9
#[test]
fn memory_stays_within_its_bounds_and_takes_no_lock_from_anybody() {
    let bench = Bench::of(Arc::new(MemoryCache::new(|| 0)));
    let held = bench.own("held", 1, LEASE_MS);
    let value = vec![0; 20_000];
    for number in 0..2 * CACHE_LOCAL_ENTRIES_MAX {
        let key = format!("key {number}");
        let size = if number % 2 == 0 { 1 } else { value.len() };
        let fence = bench.own(&key, 1, LEASE_MS);
        assert!(bench.store(&key, 1, fence, &value[..size], 1_000, 1_000));
    }
    let kept = |number: usize| bench.entry(&format!("key {number}")).map(|entry| entry.value.len());
    let sizes: Vec<usize> = (0..2 * CACHE_LOCAL_ENTRIES_MAX).filter_map(kept).collect();
    assert!(sizes.len() <= CACHE_LOCAL_ENTRIES_MAX && sizes.iter().sum::<usize>() <= CACHE_LOCAL_BYTES_MAX);
    assert!(sizes.len() > 1_000, "{}", sizes.len());
    assert_eq!(bench.own("held", 1, LEASE_MS), held, "the owner of a lock still is");
}
