//! Ranked lists: order, weights, windows.

use event_tracker::events::Dimension::{Keyword, PostClicks, PostLikes, PostViews};
use event_tracker::ports::{TopQuery, Window};

use super::bench::{ALL, minute, on_both, rows};

// claims: V1
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

// claims: V2
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

// claims: V3
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
