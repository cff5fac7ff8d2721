//! What only a server can do: go away, hang, fill up, forget.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_tracker::adapters::{memory::MemoryLive, redis::RedisLive};
use event_tracker::events::Dimension::Keyword;
use event_tracker::ports::{LiveState, LiveStore, Snapshot, StoreError, Window};
use jiff::tz::TimeZone;

use super::bench::{Bench, STREAM, minute, on_redis, rows, search, some_now, zone};
use crate::support::redis::Server;

fn generation_key(server: &Server) -> String {
    let keys = server.keys("et:{t0}:*:gen");
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].clone()
}

fn prefix(server: &Server) -> String {
    generation_key(server).strip_suffix("gen").unwrap().to_owned()
}

// claims: V12
#[test]
fn redis_generation_that_is_gone_is_lost_until_it_is_rebuilt() {
    let (server, mut bench) = on_redis();
    let m = minute(bench.now_ms);
    bench.apply(&[(Keyword, m, "a", 1)], vec![]);
    server.admin("FLUSHALL").unwrap();
    assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::Lost);
    let batch = bench.batch(&[(Keyword, m, "a", 1)], vec![]);
    assert!(matches!(bench.writer.apply(&batch), Err(StoreError::Fenced { found: None })));
    assert!(matches!(bench.store.totals(), Err(StoreError::Retry(_))));
    let snapshot = Snapshot { watermarks: vec![(STREAM, bench.at)], ..Snapshot::default() };
    bench.rebuild(&snapshot).unwrap();
    bench.writer.apply(&batch).unwrap();
    assert_eq!(bench.top(Keyword, Window::Hour), rows(&[("a", 1.0)]));
}

// claims: V12
#[test]
fn redis_generation_whose_bookkeeping_was_evicted_is_lost_before_anything_is_counted() {
    for evicted in ["folded", "wm"] {
        let (server, mut bench) = on_redis();
        bench.apply(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![]);
        let generation: String = server.ask(&format!("GET {}", generation_key(&server)));
        server.admin(&format!("DEL {}{generation}:{evicted}", prefix(&server))).unwrap();
        let batch = bench.batch(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![]);
        assert!(matches!(bench.writer.apply(&batch), Err(StoreError::Fenced { found: None })), "{evicted}");
        assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::Lost, "{evicted}");
        let total: i64 = server.ask(&format!("HGET {}{generation}:totals 2", prefix(&server)));
        assert_eq!(total, 1, "{evicted}");
    }
}

// claims: V14
#[test]
fn redis_rebuild_on_a_full_server_is_tried_again_and_leaves_nothing_behind() {
    let (server, mut bench) = on_redis();
    let before = server.keys("*").len();
    let info: String = server.ask("INFO memory");
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse::<u64>().unwrap();
    server.admin(&format!("CONFIG SET maxmemory {}", used + 2_000_000)).unwrap();
    let hour = minute(bench.now_ms).div_euclid(60);
    let many = (0..60_000).map(|n| (Keyword, hour, format!("a keyword of some length {n}"), 1)).collect();
    let snapshot = Snapshot { hours: many, ..Snapshot::default() };
    let failed = bench.rebuild(&snapshot);
    assert!(matches!(&failed, Err(StoreError::Retry(why)) if why.contains("OOM")), "{failed:?}");
    assert_eq!(server.keys("*").len(), before, "{:?}", server.keys("*"));
    server.admin("CONFIG SET maxmemory 0").unwrap();
    bench.rebuild(&snapshot).unwrap();
}

// claims: V13, V14
#[test]
fn redis_rebuild_leaves_one_generation_and_only_one_runs_at_a_time() {
    let (server, mut bench) = on_redis();
    bench.apply(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![search("u", "a", bench.now_ms)]);
    server.admin(&format!("SET {}rebuild somebody", prefix(&server))).unwrap();
    assert!(matches!(bench.rebuild(&Snapshot::default()), Err(StoreError::Retry(_))));
    server.admin(&format!("DEL {}rebuild", prefix(&server))).unwrap();
    server.admin("SET et:{t0}:cache:x 1").unwrap();
    bench.rebuild(&Snapshot::default()).unwrap();
    let keys = server.keys("*");
    assert_eq!(keys.len(), 4, "the generation's name, its watermarks and fold, and what is not ours: {keys:?}");
    assert!(keys.iter().any(|key| key == "et:{t0}:cache:x"));
}

// claims: V17
#[test]
fn redis_scripts_that_the_server_forgot_are_loaded_again() {
    let (server, mut bench) = on_redis();
    server.admin("SCRIPT FLUSH").unwrap();
    bench.apply(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![]);
    server.admin("SCRIPT FLUSH").unwrap();
    assert_eq!(bench.top(Keyword, Window::Hour), rows(&[("a", 1.0)]));
}

// claims: V17
#[test]
fn redis_full_memory_is_an_outage_that_changes_nothing_and_a_foreign_type_is_fatal() {
    let (server, mut bench) = on_redis();
    let batch = bench.batch(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![]);
    server.admin("CONFIG SET maxmemory 1").unwrap();
    let refused = bench.writer.apply(&batch);
    assert!(matches!(refused, Err(StoreError::Retry(_))), "{refused:?}");
    assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::At(bench.at));
    server.admin("CONFIG SET maxmemory 1000000000").unwrap();
    server.admin("CONFIG SET maxmemory-policy allkeys-lru").unwrap();
    let store = RedisLive::new(&server.url(), 1, zone()).unwrap();
    assert_eq!(store.examine().map(|warnings| warnings.len()), Ok(1));
    server.admin("CONFIG SET maxmemory 0").unwrap();
    assert_eq!(store.examine(), Ok(Vec::new()));
    bench.writer.apply(&batch).unwrap();
    let key = generation_key(&server);
    server.admin(&format!("DEL {key}")).unwrap();
    server.admin(&format!("LPUSH {key} x")).unwrap();
    assert!(matches!(bench.writer.state(STREAM), Err(StoreError::Fatal(_))));
}

// claims: V17
#[test]
fn redis_that_is_away_or_hangs_is_waited_for_within_bounds_and_comes_back_by_itself() {
    let (mut server, mut bench) = on_redis();
    let m = minute(bench.now_ms);
    bench.apply(&[(Keyword, m, "a", 1)], vec![]);
    assert!(bench.store.ping().is_ok());

    server.signal(libc::SIGSTOP);
    let begun = Instant::now();
    assert!(matches!(bench.store.ping(), Err(StoreError::Retry(_))));
    assert!(begun.elapsed() < Duration::from_millis(1_700), "{:?}", begun.elapsed());
    let batch = bench.batch(&[(Keyword, m, "a", 1)], vec![]);
    let begun = Instant::now();
    assert!(matches!(bench.writer.apply(&batch), Err(StoreError::Retry(_))));
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    server.signal(libc::SIGCONT);

    // What was sent while it hung took effect or did not: the watermark tells, and nothing counts
    // twice.
    let state = until_ok(|| bench.writer.state(STREAM));
    if state == LiveState::At(bench.at) {
        until_ok(|| match bench.writer.apply(&batch) {
            Err(StoreError::Fenced { .. }) => Ok(()),
            other => other,
        });
    }
    bench.at = batch.to;
    until_ok(|| bench.store.ping());
    assert_eq!(bench.top(Keyword, Window::Hour), rows(&[("a", 2.0)]));

    server.stop();
    let begun = Instant::now();
    assert!(matches!(bench.store.ping(), Err(StoreError::Retry(_))));
    assert!(matches!(bench.writer.state(STREAM), Err(StoreError::Retry(_))));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    server.spawn();
    assert_eq!(until_ok(|| bench.writer.state(STREAM)), LiveState::Lost);
    until_ok(|| bench.store.ping());
}

fn until_ok<T>(mut call: impl FnMut() -> Result<T, StoreError>) -> T {
    let deadline = Instant::now() + Duration::from_secs(8);
    loop {
        match call() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline && matches!(error, StoreError::Retry(_)), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

// claims: V17
#[test]
fn redis_that_is_away_at_start_is_no_error_but_a_bad_url_is() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = RedisLive::new(&format!("redis://127.0.0.1:{port}"), 2, zone()).unwrap();
    assert!(matches!(store.open_writer().unwrap().state(STREAM), Err(StoreError::Retry(_))));
    assert!(matches!(store.ping(), Err(StoreError::Retry(_))));
    assert_eq!(store.examine(), Ok(Vec::new()));
    assert!(RedisLive::new("nonsense", 2, zone()).is_err());
}

// claims: V17
#[test]
fn memory_lets_readers_in_while_it_is_rebuilt() {
    let mut bench = Bench::new(Arc::new(|zone| Arc::new(MemoryLive::new(zone))), some_now());
    bench.apply(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![]);
    let (store, seen) = (bench.store.clone(), bench.writer.state(STREAM).unwrap());
    let mut snapshot = |_: &TimeZone| {
        std::thread::scope(|scope| scope.spawn(|| store.ping().and_then(|()| store.totals())).join().unwrap())?;
        Ok(Snapshot::default())
    };
    bench.writer.rebuild(STREAM, seen, &mut snapshot, bench.now_ms).unwrap();
    assert!(bench.store.ping().is_ok());
}

// claims: V4
#[test]
fn programs_of_two_zones_have_a_redis_generation_each_and_an_unused_one_is_deleted() {
    let server = Server::start();
    let [seoul, kolkata] = ["KST-9", "IST-5:30"].map(|name| TimeZone::posix(name).unwrap());
    let now_ms = some_now();
    let open = |zone: &TimeZone| {
        let store = RedisLive::new(&server.url(), 2, zone.clone()).unwrap();
        let mut writer = store.open_writer().unwrap();
        writer.rebuild(STREAM, LiveState::Lost, &mut |_| Ok(Snapshot::default()), now_ms).unwrap();
        writer.register(STREAM).unwrap();
        writer.fold(now_ms).unwrap();
        (store, writer)
    };
    // As a program of another format left it.
    server.admin("SET et:{t0}:1:UTC:gen g0123456789abcdef").unwrap();
    server.admin("HSET et:{t0}:1:UTC:g0123456789abcdef:wm rebuilt 1").unwrap();
    let [seconds, _]: [i64; 2] = server.ask("TIME");
    server.admin(&format!("ZADD et:{{t0}}:generations {seconds} et:{{t0}}:1:UTC:gen")).unwrap();
    let ((first, mut of_first), (second, _)) = (open(&seoul), open(&kolkata));
    let keys = || -> Vec<String> {
        let mut keys = server.keys("et:*");
        keys.sort();
        keys
    };
    let before = keys();
    of_first.fold(now_ms).unwrap();
    assert_eq!(keys(), before, "all were in use a moment ago");
    // An hour passes for all but the first.
    let uses: Vec<String> = server.ask("ZRANGE et:{t0}:generations 0 -1");
    assert_eq!(uses.len(), 3, "{uses:?}");
    let mine = uses.iter().find(|key| key.contains("KST")).unwrap();
    for key in uses.iter().filter(|key| *key != mine) {
        server.admin(&format!("ZADD et:{{t0}}:generations XX INCR -3601 {key}")).unwrap();
    }
    of_first.fold(now_ms).unwrap();
    of_first.fold(now_ms).unwrap();
    let kept = mine.strip_suffix("gen").unwrap();
    assert!(keys().iter().all(|key| key.starts_with(kept) || key == "et:{t0}:generations"), "{:?}", keys());
    assert!(first.totals().is_ok() && matches!(second.totals(), Err(StoreError::Retry(_))));
}
