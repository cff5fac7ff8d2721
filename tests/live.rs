//! The contract of the live store, run over both adapters; then what only a server can do: go away, hang, forget.
//!
//! Redis is a private server of each test, or `TEST_REDIS_URL` (its database is flushed). Time is handed in, near the
//! real one because Redis expires keys by its own clock.

#![allow(clippy::print_stdout, reason = "seeds and measurements are for whoever reads the test's output")]

#[path = "support/redis.rs"]
mod server;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use event_tracker::adapters::{memory::MemoryLive, redis::RedisLive};
use event_tracker::clock::Clock;
use event_tracker::events::{Dimension, TallyKey};
use event_tracker::limits::{LIVE_BUCKET_MEMBERS_MAX, LIVE_DAYS_KEPT, RECENT_SEARCHES_MS};
use event_tracker::ports::{
    LiveBatch, LiveState, LiveStore, LiveWriter, RecentChange, Snapshot, StoreError, TopQuery, Watermark, Window,
};
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use server::{Server, admin};
use uuid::Uuid;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const STREAM: Uuid = Uuid::from_u128(1);

/// A store under test and the sink's side of it.
struct Bench {
    store: Box<dyn LiveStore>,
    writer: Box<dyn LiveWriter>,
    at: Watermark,
    now_ms: i64,
}

impl Bench {
    fn new(store: Box<dyn LiveStore>, now_ms: i64) -> Bench {
        let mut writer = store.open_writer().unwrap();
        assert_eq!(writer.state(STREAM).unwrap(), LiveState::Lost);
        let mut bench = Bench { store, writer, at: Watermark::default(), now_ms };
        bench.rebuild(&Snapshot::default()).unwrap();
        bench.writer.register(STREAM).unwrap();
        bench
    }

    /// Rebuilds because of whatever the state is.
    fn rebuild(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let seen = self.writer.state(STREAM)?;
        self.writer.rebuild(STREAM, seen, &mut || Ok(snapshot.clone()), self.now_ms)
    }

    fn apply(&mut self, counts: &[(Dimension, i64, &str, i64)], recent: Vec<RecentChange>) {
        let batch = self.batch(counts, recent);
        self.writer.apply(&batch).unwrap();
        self.at = batch.to;
    }

    fn batch(&self, counts: &[(Dimension, i64, &str, i64)], recent: Vec<RecentChange>) -> LiveBatch {
        let key = |dimension, minute, key: &str| TallyKey { dimension, minute, key: key.into() };
        let mut counts: Vec<(TallyKey, i64)> = counts.iter().map(|(d, m, k, n)| (key(*d, *m, k), *n)).collect();
        counts.sort();
        let to = Watermark { position: self.at.position + 1, crc: self.at.crc + 7 };
        LiveBatch { stream: STREAM, from: self.at, to, now_ms: self.now_ms, counts, users: Vec::new(), recent }
    }

    /// Time passes: a union kept for a second is not what we see.
    fn top(&mut self, dimension: Dimension, window: Window) -> Vec<(String, f64)> {
        self.now_ms += 1_000;
        self.top_at(dimension, window, self.now_ms)
    }

    fn top_at(&self, dimension: Dimension, window: Window, now_ms: i64) -> Vec<(String, f64)> {
        let query = TopQuery { parts: vec![(dimension, 1.0)], window, hot: false, limit: 1_000 };
        self.store.top(&query, now_ms).unwrap().items
    }

    fn recent(&self, user: &str) -> Vec<String> {
        self.store.recent(user, self.now_ms).unwrap()
    }
}

/// A time 10 s into a minute and 40 minutes or so into an hour, within the last hour of the real one.
fn some_now() -> i64 {
    let now = Clock::System.now_ms();
    now - now.rem_euclid(MINUTE_MS) + 10_000
}

fn minute(at_ms: i64) -> i64 {
    at_ms.div_euclid(MINUTE_MS)
}

fn zone() -> TimeZone {
    TimeZone::fixed(jiff::tz::offset(9))
}

/// Runs one claim over both adapters.
fn on_both(claim: impl Fn(Bench)) {
    claim(Bench::new(Box::new(MemoryLive::new(zone())), some_now()));
    let (_server, url) = redis_url();
    claim(Bench::new(Box::new(RedisLive::new(&url, 4, zone()).unwrap()), some_now()));
}

/// With `TEST_REDIS_URL` all tests share one database: they take turns and flush it.
fn redis_url() -> (Box<dyn std::any::Any>, String) {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    match std::env::var("TEST_REDIS_URL") {
        Ok(url) => {
            let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            admin(&url, "FLUSHDB").unwrap();
            (Box::new(turn), url)
        }
        Err(_) => {
            let server = Server::start();
            let url = server.url();
            (Box::new(server), url)
        }
    }
}

fn rows(expected: &[(&str, f64)]) -> Vec<(String, f64)> {
    expected.iter().map(|(name, score)| ((*name).to_owned(), *score)).collect()
}

fn search(user: &str, keyword: &str, at_ms: i64) -> RecentChange {
    RecentChange::Add { user_id: user.into(), keyword: keyword.into(), at_ms }
}

fn forget(user: &str, keyword: Option<&str>, at_ms: i64) -> RecentChange {
    RecentChange::Forget { user_id: user.into(), keyword: keyword.map(str::to_owned), at_ms }
}

const ALL: [Window; 4] = [Window::TenMinutes, Window::Hour, Window::Day, Window::Week];
use Dimension::{Keyword, PostClicks, PostLikes, PostViews, Type};

#[test]
fn order_is_score_then_name_and_only_positive_scores_are_listed() {
    on_both(|mut bench| {
        let m = minute(bench.now_ms);
        bench.apply(
            &[
                (PostLikes, m, "b", 2),
                (PostLikes, m, "a", 2),
                (PostLikes, m, "é", 2),
                (PostLikes, m, "Z", 2),
                (PostLikes, m, "c", 3),
                (PostLikes, m, "minus", -4),
                (PostLikes, m, "gone", 1),
            ],
            vec![],
        );
        bench.apply(&[(PostLikes, m, "gone", -1)], vec![]);
        for window in ALL {
            let expected = rows(&[("c", 3.0), ("Z", 2.0), ("a", 2.0), ("b", 2.0), ("é", 2.0)]);
            assert_eq!(bench.top(PostLikes, window), expected, "{window:?}");
        }
        let query = TopQuery { parts: vec![(PostLikes, 1.0)], window: Window::Day, hot: false, limit: 2 };
        assert_eq!(bench.store.top(&query, bench.now_ms).unwrap().items, rows(&[("c", 3.0), ("Z", 2.0)]));
    });
}

#[test]
fn a_score_is_the_weighted_sum_of_its_parts_and_hot_decays() {
    on_both(|mut bench| {
        let m = minute(bench.now_ms);
        bench.apply(
            &[
                (PostViews, m, "p", 5),
                (PostClicks, m, "p", 2),
                (PostLikes, m, "p", 1),
                (PostLikes, m, "q", 2),
                (PostViews, m - 6, "old", 100),
            ],
            vec![],
        );
        let parts = vec![(PostViews, 1.0), (PostClicks, 3.0), (PostLikes, 10.0)];
        let mut query = TopQuery { parts, window: Window::TenMinutes, hot: false, limit: 10 };
        let top = bench.store.top(&query, bench.now_ms).unwrap();
        assert_eq!(top.items, rows(&[("old", 100.0), ("p", 21.0), ("q", 20.0)]));
        query.hot = true;
        let hot = bench.store.top(&query, bench.now_ms).unwrap().items;
        // Its minute ended 5 minutes and 10 seconds ago; the half-life is 150 s.
        let expected = 100.0 * 0.5_f64.powf(310.0 / 150.0);
        assert!(hot.iter().any(|(name, score)| name == "old" && (score - expected).abs() < 1e-9), "{hot:?}");
        assert!(hot.iter().any(|(name, score)| name == "p" && *score == 21.0));
    });
}

#[test]
fn a_window_ends_at_its_oldest_bucket() {
    on_both(|mut bench| {
        let m = minute(bench.now_ms);
        bench.apply(&[(Keyword, m - 9, "in10", 1), (Keyword, m - 10, "out10", 1)], vec![]);
        assert_eq!(bench.top(Keyword, Window::TenMinutes), rows(&[("in10", 1.0)]));
        bench.apply(&[(Keyword, m - 59, "in60", 1), (Keyword, m - 60, "out60", 1)], vec![]);
        assert_eq!(bench.top(Keyword, Window::Hour), rows(&[("in10", 1.0), ("in60", 1.0), ("out10", 1.0)]));
        let hour = m.div_euclid(60);
        let first = (hour - 23) * 60;
        bench.apply(&[(PostViews, first, "in24", 1), (PostViews, first - 1, "out24", 1)], vec![]);
        assert_eq!(bench.top(PostViews, Window::Day), rows(&[("in24", 1.0)]));
        // Local days begin at 15:00 UTC.
        let today = (m + 9 * 60).div_euclid(1_440);
        let first = (today - 6) * 1_440 - 9 * 60;
        bench.apply(&[(PostClicks, first, "in7d", 1), (PostClicks, first - 1, "out7d", 1)], vec![]);
        assert_eq!(bench.top(PostClicks, Window::Week), rows(&[("in7d", 1.0)]));
    });
}

#[test]
fn what_is_older_than_eight_days_changes_totals_only() {
    on_both(|mut bench| {
        let m = minute(bench.now_ms) - (LIVE_DAYS_KEPT + 1) * 1_440;
        bench.apply(&[(Keyword, m, "old", 3), (Type, m, "SEARCH", 3)], vec![]);
        for window in ALL {
            assert_eq!(bench.top(Keyword, window), []);
        }
        assert_eq!(bench.store.totals().unwrap(), [(Type, "SEARCH".into(), 3), (Keyword, String::new(), 3)]);
    });
}

#[test]
fn folding_changes_no_answer_and_happens_once_whoever_calls_it() {
    on_both(|mut bench| {
        let begun = minute(bench.now_ms) + 1;
        for step in 0..7 {
            bench.now_ms = (begun + step) * MINUTE_MS + 10_000;
            bench.apply(&[(Keyword, begun + step, "a", 2), (Keyword, begun + step, &format!("k{step}"), 1)], vec![]);
        }
        let before: Vec<_> = ALL.iter().map(|window| bench.top(Keyword, *window)).collect();
        bench.now_ms += 2 * MINUTE_MS;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (store, now_ms) = (&bench.store, bench.now_ms);
                let mut writer = store.open_writer().unwrap();
                scope.spawn(move || writer.fold(now_ms).unwrap());
            }
        });
        bench.writer.fold(bench.now_ms).unwrap();
        let after: Vec<_> = ALL.iter().map(|window| bench.top(Keyword, *window)).collect();
        assert_eq!(after, before);
        // Late: the minute is folded, so its hour and day get the count directly, and the minute too.
        bench.apply(&[(Keyword, begun + 2, "a", 10)], vec![]);
        for window in ALL {
            assert_eq!(bench.top(Keyword, window)[0], ("a".into(), 24.0), "{window:?}");
        }
    });
}

#[test]
fn an_open_minute_is_not_folded_before_its_grace_and_a_long_gap_costs_nothing() {
    on_both(|mut bench| {
        let first = minute(bench.now_ms) + 1;
        bench.apply(&[(Keyword, first, "a", 1)], vec![]);
        bench.writer.fold((first + 1) * MINUTE_MS + 4_999).unwrap();
        bench.now_ms = first * MINUTE_MS;
        assert_eq!(bench.top(Keyword, Window::Day), rows(&[("a", 1.0)]));
        let begun = Instant::now();
        bench.writer.fold(bench.now_ms + 100_000 * HOUR_MS).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn a_batch_counts_once_and_a_mismatch_says_where_the_store_is() {
    on_both(|mut bench| {
        let m = minute(bench.now_ms);
        let batch = bench.batch(&[(Keyword, m, "a", 1)], vec![search("u", "a", bench.now_ms)]);
        bench.writer.apply(&batch).unwrap();
        let again = bench.writer.apply(&batch);
        assert!(matches!(again, Err(StoreError::Fenced { found: Some(found) }) if found == batch.to), "{again:?}");
        let mut foreign = batch.clone();
        foreign.from = Watermark { position: batch.to.position, crc: batch.to.crc + 1 };
        assert!(matches!(bench.writer.apply(&foreign), Err(StoreError::Fenced { found: Some(_) })));
        foreign.stream = Uuid::from_u128(2);
        assert!(matches!(bench.writer.apply(&foreign), Err(StoreError::Fenced { found: None })));
        assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::At(batch.to));
        bench.writer.register(STREAM).unwrap();
        assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::At(batch.to));
        assert_eq!(bench.writer.state(foreign.stream).unwrap(), LiveState::NewStream);
        assert_eq!(bench.top(Keyword, Window::Hour), rows(&[("a", 1.0)]));
    });
}

#[test]
fn a_trimmed_bucket_keeps_the_highest_says_so_and_totals_are_never_trimmed() {
    on_both(|mut bench| {
        let m = minute(bench.now_ms) + 1;
        bench.now_ms = m * MINUTE_MS;
        let names: Vec<String> = (0..LIVE_BUCKET_MEMBERS_MAX + 500).map(|n| format!("name{n}")).collect();
        let mut counts: Vec<_> = names.iter().map(|name| (Keyword, m, name.as_str(), 1)).collect();
        counts.extend(names.iter().take(3).map(|name| (PostViews, m, name.as_str(), 1)));
        counts[0].3 = 100;
        bench.apply(&counts, vec![]);
        let query = TopQuery { parts: vec![(Keyword, 1.0)], window: Window::Hour, hot: false, limit: 1 };
        assert!(!bench.store.top(&query, bench.now_ms).unwrap().approximate);
        bench.now_ms += 2 * MINUTE_MS;
        bench.writer.fold(bench.now_ms).unwrap();
        let top = bench.store.top(&query, bench.now_ms).unwrap();
        assert!(top.approximate);
        assert_eq!(top.items, rows(&[("name0", 100.0)]));
        assert_eq!(bench.store.totals().unwrap()[0], (Keyword, String::new(), names.len() as i64 + 99));
        let other = TopQuery { parts: vec![(PostViews, 1.0)], ..query };
        assert!(!bench.store.top(&other, bench.now_ms).unwrap().approximate);
    });
}

#[test]
fn recent_searches_are_ten_newest_first_by_event_time_and_no_keyword_is_there_twice() {
    on_both(|mut bench| {
        let now = bench.now_ms;
        bench.apply(&[], vec![search("u", "late", now), search("u", "early", now - 10), search("v", "x", now)]);
        bench.apply(&[], vec![search("u", "LATE", now - 5), search("u", "Early", now - 7)]);
        assert_eq!(bench.recent("u"), ["late", "Early"]);
        bench.apply(&[], (0..20).map(|n| search("u", &format!("K{n}"), now - 100 + n)).collect());
        let expected: Vec<String> =
            ["late", "Early"].into_iter().map(str::to_owned).chain((12..20).rev().map(|n| format!("K{n}"))).collect();
        assert_eq!(bench.recent("u"), expected);
        bench.apply(&[], vec![search("u", "too old", now - 1_000)]);
        assert_eq!(bench.recent("u"), expected);
        assert_eq!(bench.recent("v"), ["x"]);
        assert_eq!(bench.recent("nobody"), Vec::<String>::new());
    });
}

#[test]
fn recent_searches_are_forgotten_an_hour_after_the_newest() {
    on_both(|mut bench| {
        let now = bench.now_ms;
        bench
            .apply(&[], vec![search("u", "ignored", now - RECENT_SEARCHES_MS), search("u", "a", now - 50 * MINUTE_MS)]);
        bench.apply(&[], vec![search("u", "b", now)]);
        assert_eq!(bench.recent("u"), ["b", "a"]);
        assert_eq!(bench.store.recent("u", now + RECENT_SEARCHES_MS - 1).unwrap(), ["b", "a"]);
        assert_eq!(bench.store.recent("u", now + RECENT_SEARCHES_MS).unwrap(), Vec::<String>::new());
        bench.now_ms += RECENT_SEARCHES_MS;
        bench.apply(&[], vec![search("u", "c", bench.now_ms)]);
        assert_eq!(bench.recent("u"), ["c"]);
    });
}

#[test]
fn forgetting_reaches_one_keyword_or_all_up_to_its_time_and_no_later_search() {
    on_both(|mut bench| {
        let now = bench.now_ms;
        bench.apply(&[], vec![search("u", "A", now - 30), search("u", "b", now - 20), search("u", "c", now - 10)]);
        bench.apply(&[], vec![forget("u", Some("a"), now), forget("u", Some("c"), now - 11), forget("w", None, now)]);
        assert_eq!(bench.recent("u"), ["c", "b"]);
        bench.apply(&[], vec![search("u", "d", now), forget("u", None, now - 1), search("u", "e", now - 5)]);
        assert_eq!(bench.recent("u"), ["d", "e"]);
        bench.apply(&[], vec![forget("u", None, now)]);
        assert_eq!(bench.recent("u"), Vec::<String>::new());
    });
}

/// What the ledger would say: every event, plainly.
#[derive(Default)]
struct Model {
    counts: BTreeMap<(Dimension, i64, String), i64>,
    recent: Vec<(String, String, i64)>,
}

impl Model {
    fn snapshot(&self, at: Watermark, now_ms: i64) -> Snapshot {
        let mut snapshot = Snapshot { watermarks: vec![(STREAM, at)], ..Snapshot::default() };
        let mut hours: BTreeMap<(Dimension, i64, String), i64> = BTreeMap::new();
        let mut totals: BTreeMap<Dimension, i64> = BTreeMap::new();
        for ((dimension, m, name), count) in &self.counts {
            if *m > minute(now_ms) - 60 {
                snapshot.minutes.push((*dimension, *m, name.clone(), *count));
            }
            *hours.entry((*dimension, m.div_euclid(60), name.clone())).or_default() += count;
            *totals.entry(*dimension).or_default() += count;
        }
        snapshot.hours = hours.into_iter().map(|((d, h, n), count)| (d, h, n, count)).collect();
        snapshot.totals = totals.into_iter().map(|(d, count)| (d, String::new(), count)).collect();
        snapshot.recent = self.recent.clone();
        snapshot.recent.sort_by_key(|(_, _, at_ms)| *at_ms);
        snapshot
    }

    fn top(&self, dimension: Dimension, window: Window, now_ms: i64) -> Vec<(String, f64)> {
        let m = minute(now_ms);
        let day_start = |back: i64| ((m + 540).div_euclid(1_440) - back) * 1_440 - 540;
        let range = match window {
            Window::TenMinutes => m - 9..m + 1,
            Window::Hour => m - 59..m + 1,
            Window::Day => (m.div_euclid(60) - 23) * 60..(m.div_euclid(60) + 1) * 60,
            Window::Week => day_start(6)..day_start(-1),
        };
        let mut sums: HashMap<&str, i64> = HashMap::new();
        for ((_, _, name), count) in self.counts.iter().filter(|((d, m, _), _)| *d == dimension && range.contains(m)) {
            *sums.entry(name).or_default() += count;
        }
        let mut rows: Vec<_> =
            sums.into_iter().filter(|(_, n)| *n > 0).map(|(k, n)| (k.to_owned(), n as f64)).collect();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        rows
    }
}

#[test]
fn random_events_with_folds_and_rebuilds_between_give_what_a_plain_count_gives() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("SEED={seed}");
    on_both(|mut bench| {
        let mut random = StdRng::seed_from_u64(seed);
        let mut model = Model::default();
        for step in 0..120 {
            bench.now_ms += random.random_range(0..40_000);
            let now = bench.now_ms;
            let mut counts = BTreeMap::new();
            let mut recent = Vec::new();
            for _ in 0..random.random_range(0..30) {
                let late = [MINUTE_MS, 30 * MINUTE_MS, 30 * HOUR_MS, 7 * 24 * HOUR_MS][random.random_range(0..4)];
                let at = now + random.random_range(-late..=MINUTE_MS);
                let dimension = [Keyword, PostLikes, PostViews][random.random_range(0..3)];
                let name = format!("n{}", random.random_range(0..12));
                *counts.entry((dimension, minute(at), name)).or_insert(0) += random.random_range(-1..=3);
                let found = (format!("u{}", random.random_range(0..3)), format!("k{}", random.random_range(0..14)));
                // A time of its own: of two at the same time the order is that of arrival, which a rebuild forgets.
                let at = now - 50 * MINUTE_MS + random.random_range(0..3_000_000_i64);
                if at > now - RECENT_SEARCHES_MS && !model.recent.iter().any(|(_, _, known)| *known == at) {
                    recent.push(search(&found.0, &found.1, at));
                    model.recent.push((found.0, found.1, at));
                }
            }
            let batch: Vec<_> = counts.iter().map(|((d, m, name), n)| (*d, *m, name.as_str(), *n)).collect();
            bench.apply(&batch, recent);
            for (key, count) in counts {
                *model.counts.entry(key).or_default() += count;
            }
            match random.random_range(0..12) {
                0..5 => bench.writer.fold(now).unwrap(),
                5 => bench.rebuild(&model.snapshot(bench.at, now)).unwrap(),
                _ => {}
            }
            for (window, dimension) in [(ALL[step % 4], Keyword), (ALL[(step + 1) % 4], PostLikes)] {
                let found = bench.top(dimension, window);
                assert_eq!(found, model.top(dimension, window, bench.now_ms), "seed {seed} step {step} {window:?}");
            }
            let user = format!("u{}", step % 3);
            let mut expected: Vec<(i64, &str)> = Vec::new();
            let mut searches: Vec<_> = model.recent.iter().filter(|(u, ..)| *u == user).collect();
            searches.sort_by_key(|(_, _, at)| std::cmp::Reverse(*at));
            for (_, keyword, at) in searches {
                if expected.len() < 10 && !expected.iter().any(|(_, known)| known == keyword) {
                    expected.push((*at, keyword));
                }
            }
            let expected: Vec<&str> = expected.into_iter().map(|(_, keyword)| keyword).collect();
            assert_eq!(bench.recent(&user), expected, "seed {seed} step {step}");
            assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::At(bench.at));
        }
        let total: i64 = bench.store.totals().unwrap().iter().map(|(_, _, count)| count).sum();
        assert_eq!(total, model.counts.values().sum::<i64>(), "seed {seed}");
    });
}

#[test]
fn a_generation_that_is_gone_is_lost_until_it_is_rebuilt() {
    let server = Server::start();
    let mut bench = Bench::new(Box::new(RedisLive::new(&server.url(), 2, zone()).unwrap()), some_now());
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

#[test]
fn a_generation_whose_bookkeeping_was_evicted_is_lost_before_anything_is_counted() {
    for evicted in ["folded", "wm"] {
        let server = Server::start();
        let mut bench = Bench::new(Box::new(RedisLive::new(&server.url(), 2, zone()).unwrap()), some_now());
        bench.apply(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![]);
        let generation: String = redis::from_redis_value(server.admin("GET et:{t0}:gen").unwrap()).unwrap();
        server.admin(&format!("DEL et:{{t0}}:{generation}:{evicted}")).unwrap();
        let batch = bench.batch(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![]);
        assert!(matches!(bench.writer.apply(&batch), Err(StoreError::Fenced { found: None })), "{evicted}");
        assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::Lost, "{evicted}");
        let total = server.admin(&format!("HGET et:{{t0}}:{generation}:totals 2")).unwrap();
        assert_eq!(redis::from_redis_value::<i64>(total).unwrap(), 1, "{evicted}");
    }
}

#[test]
fn a_rebuild_that_another_instance_has_done_asks_for_no_snapshot() {
    on_both(|mut bench| {
        let mut asked = false;
        let mut snapshot = || {
            asked = true;
            Ok(Snapshot::default())
        };
        bench.writer.rebuild(STREAM, LiveState::Lost, &mut snapshot, bench.now_ms).unwrap();
        assert!(!asked, "it was lost when it was looked at, and is not any more");
    });
}

#[test]
fn a_rebuild_on_a_full_server_is_tried_again_and_leaves_nothing_behind() {
    let server = Server::start();
    let mut bench = Bench::new(Box::new(RedisLive::new(&server.url(), 2, zone()).unwrap()), some_now());
    let keys = |server: &Server| -> Vec<String> { redis::from_redis_value(server.admin("KEYS *").unwrap()).unwrap() };
    let before = keys(&server).len();
    let info: String = redis::from_redis_value(server.admin("INFO memory").unwrap()).unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse::<u64>().unwrap();
    server.admin(&format!("CONFIG SET maxmemory {}", used + 2_000_000)).unwrap();
    let hour = minute(bench.now_ms).div_euclid(60);
    let many = (0..60_000).map(|n| (Keyword, hour, format!("a keyword of some length {n}"), 1)).collect();
    let snapshot = Snapshot { hours: many, ..Snapshot::default() };
    let failed = bench.rebuild(&snapshot);
    assert!(matches!(&failed, Err(StoreError::Retry(why)) if why.contains("OOM")), "{failed:?}");
    assert_eq!(keys(&server).len(), before, "{:?}", keys(&server));
    server.admin("CONFIG SET maxmemory 0").unwrap();
    bench.rebuild(&snapshot).unwrap();
}

#[test]
fn a_rebuild_leaves_one_generation_and_only_one_runs_at_a_time() {
    let server = Server::start();
    let mut bench = Bench::new(Box::new(RedisLive::new(&server.url(), 2, zone()).unwrap()), some_now());
    bench.apply(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![search("u", "a", bench.now_ms)]);
    server.admin("SET et:{t0}:rebuild somebody").unwrap();
    assert!(matches!(bench.rebuild(&Snapshot::default()), Err(StoreError::Retry(_))));
    server.admin("DEL et:{t0}:rebuild").unwrap();
    server.admin("SET et:{t0}:cache:x 1").unwrap();
    bench.rebuild(&Snapshot::default()).unwrap();
    let keys: Vec<String> = redis::from_redis_value(server.admin("KEYS *").unwrap()).unwrap();
    assert_eq!(keys.len(), 4, "the generation's name, its watermarks and fold, and what is not ours: {keys:?}");
    assert!(keys.iter().any(|key| key == "et:{t0}:cache:x"));
}

#[test]
fn scripts_that_the_server_forgot_are_loaded_again() {
    let server = Server::start();
    let mut bench = Bench::new(Box::new(RedisLive::new(&server.url(), 2, zone()).unwrap()), some_now());
    server.admin("SCRIPT FLUSH").unwrap();
    bench.apply(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![]);
    server.admin("SCRIPT FLUSH").unwrap();
    assert_eq!(bench.top(Keyword, Window::Hour), rows(&[("a", 1.0)]));
}

#[test]
fn full_memory_is_an_outage_that_changes_nothing_and_a_foreign_type_is_fatal() {
    let server = Server::start();
    let mut bench = Bench::new(Box::new(RedisLive::new(&server.url(), 2, zone()).unwrap()), some_now());
    let batch = bench.batch(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![]);
    server.admin("CONFIG SET maxmemory 1").unwrap();
    let refused = bench.writer.apply(&batch);
    assert!(matches!(refused, Err(StoreError::Retry(_))), "{refused:?}");
    assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::At(bench.at));
    server.admin("CONFIG SET maxmemory 1000000000").unwrap();
    server.admin("CONFIG SET maxmemory-policy allkeys-lru").unwrap();
    assert_eq!(bench.store.warnings().len(), 1);
    server.admin("CONFIG SET maxmemory 0").unwrap();
    assert_eq!(bench.store.warnings(), Vec::<String>::new());
    bench.writer.apply(&batch).unwrap();
    server.admin("DEL et:{t0}:gen").unwrap();
    server.admin("LPUSH et:{t0}:gen x").unwrap();
    assert!(matches!(bench.writer.state(STREAM), Err(StoreError::Fatal(_))));
}

#[test]
fn a_server_that_is_away_or_hangs_is_waited_for_within_bounds_and_comes_back_by_itself() {
    let mut server = Server::start();
    let mut bench = Bench::new(Box::new(RedisLive::new(&server.url(), 2, zone()).unwrap()), some_now());
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

    // What was sent while it hung took effect or did not: the watermark tells, and nothing counts twice.
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

#[test]
fn a_store_that_is_away_at_start_is_no_error_but_a_bad_url_is() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = RedisLive::new(&format!("redis://127.0.0.1:{port}"), 2, zone()).unwrap();
    assert!(matches!(store.open_writer().unwrap().state(STREAM), Err(StoreError::Retry(_))));
    assert!(matches!(store.ping(), Err(StoreError::Retry(_))));
    assert_eq!(store.warnings().len(), 1);
    assert!(RedisLive::new("nonsense", 2, zone()).is_err());
}

/// Run by hand: `cargo test --test live measure -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure_apply() {
    let server = Server::start();
    let stores: [(&str, Box<dyn LiveStore>); 2] = [
        ("redis", Box::new(RedisLive::new(&server.url(), 2, zone()).unwrap())),
        ("memory", Box::new(MemoryLive::new(zone()))),
    ];
    for (name, store) in stores {
        let mut bench = Bench::new(store, some_now());
        for (events, recents, users) in [
            (1_000, true, true),
            (20_000, true, true),
            (1_000, true, false),
            (20_000, true, false),
            (1_000, false, true),
            (20_000, false, true),
            (1_000, false, false),
            (20_000, false, false),
        ] {
            let mut batches: Vec<LiveBatch> = (0..20).map(|n| skewed(&mut bench, n, events)).collect();
            batches.iter_mut().filter(|_| !recents).for_each(|batch| batch.recent.clear());
            batches.iter_mut().filter(|_| !users).for_each(|batch| batch.users.clear());
            let counts: usize = batches.iter().map(|batch| batch.counts.len()).sum();
            let begun = Instant::now();
            for batch in &batches {
                bench.writer.apply(batch).unwrap();
            }
            let rate = 20.0 * f64::from(events) / begun.elapsed().as_secs_f64();
            println!(
                "{name}: {events} events a batch, recent searches {recents}, users {users}, {} counts: {rate:.0} events/s",
                counts / 20
            );
        }
    }
}

fn skewed(bench: &mut Bench, seed: u64, events: i32) -> LiveBatch {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tally = event_tracker::events::Tally::default();
    let (mut recent, mut users) = (Vec::new(), Vec::new());
    let m = minute(bench.now_ms) + 1;
    for _ in 0..events {
        // Log-uniform, nearly Zipf: of 100,000 names a few get most.
        let name = format!("name{}", 100_000_f64.powf(random.random::<f64>()) as i64);
        let (dimension, kind) =
            [(Keyword, "SEARCH"), (PostViews, "PAGE_VIEW"), (PostClicks, "CLICK")][random.random_range(0..3)];
        tally.add(Type, m, kind, 1);
        tally.add(dimension, m, &name, 1);
        let user = format!("user{}", random.random_range(0..10_000));
        users.push((m, user.as_str().into()));
        if dimension == Keyword {
            recent.push(search(&user, &name, bench.now_ms));
        }
    }
    let from = bench.at;
    bench.at = Watermark { position: from.position + 1, crc: 0 };
    users.sort();
    users.dedup();
    LiveBatch { stream: STREAM, from, to: bench.at, now_ms: bench.now_ms, counts: tally.into_sorted(), users, recent }
}
