//! Posts that were deleted: lists skip them.

use event_tracker::events::Dimension::{Keyword, PostClicks, PostLikes, PostViews};
use event_tracker::events::TallyKey;
use event_tracker::ports::{LiveBatch, LiveState, Snapshot, Tombstone, TopQuery, Watermark, Window};
use uuid::Uuid;

use super::bench::{ALL, Bench, HOUR_MS, MINUTE_MS, STREAM, minute, on_both, rows};

fn tombstone(post: &str, version: i64, deleted: bool) -> Tombstone {
    Tombstone { post_id: post.to_owned(), version, deleted }
}

impl Bench {
    fn bury(&mut self, tombstones: &[Tombstone]) {
        let batch = LiveBatch { tombstones: tombstones.to_vec(), ..self.batch(&[], vec![]) };
        self.writer.apply(&batch).unwrap();
        self.at = batch.to;
    }
}

// claims: V18
#[test]
fn a_deleted_post_is_in_no_list_whatever_comes_first() {
    on_both(|mut bench| {
        let now = minute(bench.now_ms);
        bench.apply(&[(PostViews, now, "p", 5), (PostViews, now - 61, "p", 7), (PostViews, now, "q", 1)], vec![]);
        bench.apply(&[(PostLikes, now, "p", 3), (PostClicks, now, "p", 1), (Keyword, now, "p", 2)], vec![]);
        // Both kinds of windows are read before, so that their unions are kept for a second.
        assert_eq!(bench.top_at(PostViews, Window::Hour, bench.now_ms).len(), 2);
        bench.bury(&[tombstone("p", 4, true)]);
        assert_eq!(bench.top_at(PostViews, Window::Hour, bench.now_ms), rows(&[("q", 1.0)]));
        // Another stream brings what happened before the deletion, and what happened after it.
        let other = Uuid::from_u128(2);
        bench.writer.register(other).unwrap();
        let counts = vec![(TallyKey { dimension: PostViews, minute: now, key: "p".into() }, 2)];
        let to = Watermark { position: 1, crc: 1 };
        let late = LiveBatch { stream: other, to, now_ms: bench.now_ms, counts, ..LiveBatch::default() };
        bench.writer.apply(&late).unwrap();
        for is_folded in [false, true] {
            for window in ALL {
                assert_eq!(bench.top(PostViews, window), rows(&[("q", 1.0)]), "{window:?}, folded: {is_folded}");
                assert_eq!((bench.top(PostClicks, window), bench.top(PostLikes, window)), (vec![], vec![]));
                assert_eq!(bench.top(Keyword, window), rows(&[("p", 2.0)]), "a keyword is no post");
            }
            bench.now_ms += 2 * MINUTE_MS;
            bench.writer.fold(bench.now_ms).unwrap();
        }
        let totals = bench.store.totals().unwrap();
        assert!(totals.contains(&(PostViews, String::new(), 15)), "{totals:?}");
        // It is put again, and its counts are what they were.
        bench.bury(&[tombstone("p", 5, false)]);
        assert_eq!(bench.top(PostViews, Window::Day), rows(&[("p", 14.0), ("q", 1.0)]));
    });
}

// claims: V18
#[test]
fn the_highest_version_decides_in_any_order() {
    on_both(|mut bench| {
        let now = minute(bench.now_ms);
        let steps = [(2, true), (3, false), (10, true)];
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for (number, order) in orders.iter().enumerate() {
            let post = format!("p{number}");
            bench.apply(&[(PostViews, now, &post, 1)], vec![]);
            for (at, step) in order.iter().enumerate() {
                let (version, deleted) = steps[*step];
                bench.bury(&[tombstone(&post, version, deleted)]);
                let newest = order[..=at].iter().max().unwrap();
                let is_listed = bench.top(PostViews, Window::Hour).iter().any(|(name, _)| *name == post);
                assert_eq!(is_listed, !steps[*newest].1, "{post}, step {at}");
            }
        }
    });
}

// claims: V18
#[test]
fn a_list_is_full_though_most_posts_are_deleted() {
    const POSTS: i64 = 2_500;
    on_both(|mut bench| {
        let now = minute(bench.now_ms);
        let name = |number: i64| format!("p{number:04}");
        let names: Vec<String> = (0..POSTS).map(name).collect();
        let counts: Vec<_> =
            (0..).zip(&names).map(|(number, name)| (PostViews, now, &**name, POSTS - number)).collect();
        bench.apply(&counts, vec![]);
        // All but every 800th.
        let deleted = (0..POSTS).filter(|number| number % 800 != 799);
        bench.bury(&deleted.map(|number| tombstone(&name(number), 1, true)).collect::<Vec<_>>());
        bench.now_ms += 1_000;
        for (limit, expected) in [(1, 1), (2, 2), (3, 3), (100, 3), (1_000, 3)] {
            let parts = vec![(PostViews, 1.0), (PostClicks, 3.0)];
            let query = TopQuery { parts, window: Window::TenMinutes, hot: false, limit };
            let items = bench.store.top(&query, bench.now_ms).unwrap().items;
            let all = [799, 1_599, 2_399].map(|number| (name(number), (POSTS - number) as f64));
            assert_eq!(items, all[..expected], "{limit}");
        }
    });
}

// claims: V13, V18
#[test]
fn a_rebuild_brings_the_tombstones_of_its_snapshot() {
    on_both(|mut bench| {
        let now = minute(bench.now_ms);
        bench.bury(&[tombstone("old", 9, true)]);
        let count = |post: &str| (PostViews, now, post.to_owned(), 1);
        let minutes = vec![count("old"), count("p"), count("q")];
        let hours = minutes.iter().map(|(dimension, m, post, n)| (*dimension, m.div_euclid(60), post.clone(), *n));
        let snapshot = Snapshot {
            watermarks: vec![(STREAM, bench.at)],
            hours: hours.collect(),
            minutes,
            tombstones: vec![("p".to_owned(), 3)],
            ..Snapshot::default()
        };
        bench.rebuild(&snapshot).unwrap();
        assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::At(bench.at));
        for window in ALL {
            assert_eq!(bench.top(PostViews, window), rows(&[("old", 1.0), ("q", 1.0)]), "{window:?}");
        }
        bench.bury(&[tombstone("p", 4, false)]);
        assert_eq!(bench.top(PostViews, Window::Hour).len(), 3);
    });
}

// claims: V18
#[test]
fn a_tombstone_is_kept_for_nine_days() {
    on_both(|mut bench| {
        bench.bury(&[tombstone("p", 4, true)]);
        for (days, is_listed) in [(8, false), (1, true)] {
            bench.now_ms += days * 24 * HOUR_MS;
            bench.writer.fold(bench.now_ms).unwrap();
            bench.apply(&[(PostViews, minute(bench.now_ms), "p", 1)], vec![]);
            assert_eq!(!bench.top(PostViews, Window::Hour).is_empty(), is_listed, "after {days} days more");
        }
    });
}
