//! Posts that are deleted: their places go, their totals stay.

use event_tracker::events::Dimension::{PostClicks, PostLikes, PostViews};
use event_tracker::events::TallyKey;

use crate::bench::{ALL, MINUTE_MS, minute, on_both, rows};

// claims: V18
#[test]
fn a_post_that_is_gone_has_no_place_but_what_it_regains() {
    on_both(|mut bench| {
        let now = minute(bench.now_ms);
        let counts = [(PostViews, now, "p", 5), (PostViews, now - 61, "p", 7), (PostViews, now, "q", 1)];
        bench.apply(&counts, vec![]);
        bench.apply(&[(PostClicks, now, "p", 2), (PostLikes, now - 3_000, "p", 3)], vec![]);
        bench.now_ms += 2 * MINUTE_MS;
        bench.writer.fold(bench.now_ms).unwrap();
        bench.apply(&[(PostViews, now + 2, "p", 1)], vec![]);
        let mut batch = bench.batch(&[(PostViews, now + 2, "p", 4), (PostLikes, now + 2, "p", -3)], vec![]);
        batch.gone = vec!["never was".into(), "p".into()];
        batch.regained = vec![(TallyKey { dimension: PostViews, minute: now + 2, key: "p".into() }, 3)];
        bench.writer.apply(&batch).unwrap();
        bench.at = batch.to;
        for window in ALL {
            assert_eq!(bench.top(PostViews, window), rows(&[("p", 3.0), ("q", 1.0)]), "{window:?}");
            assert_eq!((bench.top(PostClicks, window), bench.top(PostLikes, window)), (vec![], vec![]), "{window:?}");
        }
        let totals = bench.store.totals().unwrap();
        for total in [(PostViews, String::new(), 18), (PostClicks, String::new(), 2), (PostLikes, String::new(), 0)] {
            assert!(total.2 == 0 || totals.contains(&total), "{total:?} {totals:?}");
        }
    });
}
