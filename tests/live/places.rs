//! Posts that were deleted.

use event_tracker::events::Dimension::{PostClicks, PostLikes, PostViews};
use event_tracker::events::TallyKey;
use event_tracker::ports::{LiveBatch, Watermark};
use uuid::Uuid;

use crate::bench::{ALL, MINUTE_MS, minute, on_both, rows};

// claims: V18
#[test]
fn what_lists_leave_out_of_a_post_is_taken_from_its_buckets_whatever_comes_first() {
    on_both(|mut bench| {
        let now = minute(bench.now_ms);
        let counts = [(PostViews, now, "p", 5), (PostViews, now - 61, "p", 7), (PostViews, now, "q", 1)];
        bench.apply(&counts, vec![]);
        bench.apply(&[(PostLikes, now - 3_000, "p", 3)], vec![]);
        bench.now_ms += 2 * MINUTE_MS;
        bench.writer.fold(bench.now_ms).unwrap();
        // The ledger has followed this one, and another stream too, whose records come in here behind the deletion.
        let mut batch = bench.batch(&[(PostViews, now + 2, "p", 3), (PostLikes, now + 2, "p", -3)], vec![]);
        let left_out = [
            (PostViews, now - 61, -7),
            (PostViews, now, -5),
            (PostClicks, now, -2),
            (PostClicks, now + 2, -4),
            (PostLikes, now - 3_000, -3),
            (PostLikes, now + 2, 3),
        ];
        let key = |dimension, minute| TallyKey { dimension, minute, key: "p".into() };
        batch.left_out = left_out.map(|(dimension, minute, count)| (key(dimension, minute), count)).to_vec();
        bench.writer.apply(&batch).unwrap();
        bench.at = batch.to;
        let other = Uuid::from_u128(2);
        bench.writer.register(other).unwrap();
        let counts = vec![(key(PostClicks, now), 2), (key(PostClicks, now + 2), 4)];
        let to = Watermark { position: 1, crc: 1 };
        let late = LiveBatch { stream: other, to, now_ms: bench.now_ms, counts, ..LiveBatch::default() };
        bench.writer.apply(&late).unwrap();
        for is_folded in [false, true] {
            for window in ALL {
                let views = bench.top(PostViews, window);
                assert_eq!(views, rows(&[("p", 3.0), ("q", 1.0)]), "{window:?}, folded: {is_folded}");
                assert_eq!(
                    (bench.top(PostClicks, window), bench.top(PostLikes, window)),
                    (vec![], vec![]),
                    "{window:?}"
                );
            }
            bench.now_ms += 2 * MINUTE_MS;
            bench.writer.fold(bench.now_ms).unwrap();
        }
        let totals = bench.store.totals().unwrap();
        for total in [(PostViews, String::new(), 16), (PostClicks, String::new(), 6)] {
            assert!(totals.contains(&total), "{total:?} {totals:?}");
        }
    });
}
