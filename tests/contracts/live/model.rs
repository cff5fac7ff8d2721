//! Random events, folds and rebuilds, in use and into fresh stores, against a plain count.

use std::collections::{BTreeMap, HashMap};

use event_tracker::events::Dimension::{self, Keyword, PostLikes, PostViews};
use event_tracker::limits::RECENT_SEARCHES_MS;
use event_tracker::ports::{LiveState, Snapshot, Watermark, Window};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{ALL, HOUR_MS, MINUTE_MS, STREAM, minute, on_both, search, zone};

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

// claims: V1, V3, V6, V7, V9, V10, V13
#[test]
fn random_events_with_folds_and_rebuilds_between_give_what_a_plain_count_gives() {
    let seed = crate::support::seed();
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
                // A time of its own: of two at the same time the order is that of arrival, which a
                // rebuild forgets.
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
                6 => {
                    bench.lose(zone());
                    bench.rebuild(&model.snapshot(bench.at, now)).unwrap();
                }
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
