//! What a batch counts, once: folding, trimming, totals, fences.

use std::time::{Duration, Instant};

use event_tracker::events::Dimension::{Keyword, PostViews, Type};
use event_tracker::limits::{LIVE_BUCKET_MEMBERS_MAX, LIVE_DAYS_KEPT, LIVE_OPEN_BUCKET_MEMBERS_MAX};
use event_tracker::ports::{LiveState, LiveStore, StoreError, TopQuery, Watermark, Window};
use uuid::Uuid;

use super::bench::{ALL, HOUR_MS, MINUTE_MS, STREAM, minute, on_both, rows, search, zone};
use crate::support::faulty::{Call, Fault, Faults, FaultyLive};

// claims: V7, V9
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

// claims: V6, V7
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
        // Late: the minute is folded, so its hour and day get the count directly, and the minute
        // too.
        bench.apply(&[(Keyword, begun + 2, "a", 10)], vec![]);
        for window in ALL {
            assert_eq!(bench.top(Keyword, window)[0], ("a".into(), 24.0), "{window:?}");
        }
    });
}

// claims: V6
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

// claims: V5, V12, V16
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

// claims: V8, V9
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

// claims: V8, V9
#[test]
fn an_open_bucket_that_passes_its_bound_is_trimmed_at_once_and_says_so() {
    on_both(|mut bench| {
        let m = minute(bench.now_ms) + 1;
        bench.now_ms = m * MINUTE_MS;
        let names: Vec<String> = (0..=LIVE_OPEN_BUCKET_MEMBERS_MAX).map(|n| format!("name{n:05}")).collect();
        // The names of the highest numbers count most.
        let counts: Vec<_> =
            names.iter().enumerate().map(|(n, name)| (Keyword, m, name.as_str(), n as i64 + 1)).collect();
        bench.apply(&counts[1..], vec![]);
        let mut query =
            TopQuery { parts: vec![(Keyword, 1.0)], window: Window::Hour, hot: false, limit: usize::MAX >> 33 };
        let full = bench.store.top(&query, bench.now_ms).unwrap();
        assert_eq!((full.items.len(), full.approximate), (LIVE_OPEN_BUCKET_MEMBERS_MAX, false));
        bench.apply(&[(Keyword, m, "name00000", 1)], vec![]);
        for window in ALL {
            (bench.now_ms, query.window) = (bench.now_ms + 1_000, window);
            let top = bench.store.top(&query, bench.now_ms).unwrap();
            assert!(top.approximate, "{window:?}");
            let kept = names.iter().enumerate().rev().take(LIVE_BUCKET_MEMBERS_MAX);
            let kept: Vec<_> = kept.map(|(n, name)| (name.clone(), n as f64 + 1.0)).collect();
            assert_eq!(top.items, kept, "{window:?}");
        }
        // What was lost stays lost in the hour and the day that the minute is folded into, and they
        // say so too.
        bench.now_ms += 2 * MINUTE_MS;
        bench.writer.fold(bench.now_ms).unwrap();
        (query.window, query.limit) = (Window::Day, 1);
        let top = bench.store.top(&query, bench.now_ms).unwrap();
        assert!(top.approximate);
        assert_eq!(top.items[0].0, names[LIVE_OPEN_BUCKET_MEMBERS_MAX]);
        let all: i64 = counts.iter().map(|(.., count)| count).sum();
        assert_eq!(bench.store.totals().unwrap(), [(Keyword, String::new(), all)]);
    });
}

// claims: V8
#[test]
fn a_million_keywords_of_an_attacker_stay_within_the_bound_and_leave_the_true_top_hundred() {
    const BATCHES: usize = 50;
    const MADE_UP: usize = 20_000;
    on_both(|mut bench| {
        let m = minute(bench.now_ms) + 1;
        bench.now_ms = m * MINUTE_MS;
        let searched: Vec<String> = (0..100).map(|n| format!("searched {n:02}")).collect();
        for batch in 0..BATCHES {
            let made_up: Vec<String> = (0..MADE_UP).map(|n| format!("made up {}", batch * MADE_UP + n)).collect();
            let mut counts: Vec<_> = made_up.iter().map(|name| (Keyword, m, name.as_str(), 1)).collect();
            // What people search for goes on all the time, each keyword a little more often than
            // the next.
            counts.extend(searched.iter().enumerate().map(|(n, name)| (Keyword, m, name.as_str(), 102 - n as i64)));
            bench.apply(&counts, vec![]);
        }
        let expected: Vec<_> =
            searched.iter().enumerate().map(|(n, name)| (name.clone(), (BATCHES * (102 - n)) as f64)).collect();
        let check = |bench: &super::bench::Bench, window| {
            let mut query = TopQuery { parts: vec![(Keyword, 1.0)], window, hot: false, limit: 100 };
            let top = bench.store.top(&query, bench.now_ms).unwrap();
            assert!(top.approximate, "{window:?}");
            assert_eq!(top.items, expected, "{window:?}");
            query.limit = usize::MAX >> 33;
            let all = bench.store.top(&query, bench.now_ms).unwrap().items.len();
            assert!(all <= LIVE_OPEN_BUCKET_MEMBERS_MAX, "{window:?}: {all}");
        };
        for window in ALL {
            check(&bench, window);
        }
        // Folded, the closed buckets keep fewer, and the same ones.
        bench.now_ms += 2 * MINUTE_MS;
        bench.writer.fold(bench.now_ms).unwrap();
        for window in ALL {
            check(&bench, window);
        }
        assert_eq!(bench.store.totals().unwrap()[0].2, (BATCHES * (MADE_UP + 100 * 102 - 99 * 50)) as i64);
    });
}

// claims: V5
#[test]
fn a_reply_that_was_lost_is_told_by_the_state() {
    on_both(|mut bench| {
        let faults = Faults::default();
        bench.writer = FaultyLive::new(bench.store.clone(), &faults).open_writer().unwrap();
        let m = minute(bench.now_ms);
        let batch = bench.batch(&[(Keyword, m, "a", 1)], vec![search("u", "a", bench.now_ms)]);
        for (fault, stands_at) in [(Fault::Before, batch.from), (Fault::LostReply, batch.to)] {
            faults.next(Call::Apply, fault);
            assert!(matches!(bench.writer.apply(&batch), Err(StoreError::Retry(_))));
            assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::At(stands_at));
        }
        assert!(matches!(bench.writer.apply(&batch), Err(StoreError::Fenced { found: Some(at) }) if at == batch.to));
        assert_eq!(bench.top(Keyword, Window::Week), rows(&[("a", 1.0)]));
        // A fold whose reply was lost is done, and done once.
        bench.now_ms += 3 * MINUTE_MS;
        faults.next(Call::Fold, Fault::LostReply);
        assert!(bench.writer.fold(bench.now_ms).is_err());
        bench.writer.fold(bench.now_ms).unwrap();
        assert_eq!(bench.top(Keyword, Window::Week), rows(&[("a", 1.0)]));
    });
}

// claims: V3
#[test]
fn a_list_is_a_second_old_at_most() {
    on_both(|mut bench| {
        bench.now_ms = bench.now_ms.div_euclid(1_000) * 1_000;
        let (m, now_ms) = (minute(bench.now_ms), bench.now_ms);
        bench.apply(&[(Keyword, m, "a", 1)], vec![]);
        for window in ALL {
            assert_eq!(bench.top_at(Keyword, window, now_ms), rows(&[("a", 1.0)]));
        }
        bench.apply(&[(Keyword, m, "a", 1)], vec![]);
        for window in ALL {
            assert_eq!(bench.top_at(Keyword, window, now_ms + 1_000), rows(&[("a", 2.0)]));
        }
    });
}

// claims: V16
#[test]
fn streams_add_up_and_each_has_its_watermark() {
    on_both(|mut bench| {
        let other = Uuid::from_u128(2);
        bench.writer.register(other).unwrap();
        let m = minute(bench.now_ms);
        let mut batch = bench.batch(&[(Keyword, m, "a", 1)], vec![search("u", "a", bench.now_ms)]);
        bench.apply(&[(Keyword, m, "a", 1)], vec![search("u", "b", bench.now_ms - 1)]);
        assert_eq!(bench.writer.state(other).unwrap(), LiveState::At(Watermark::default()));
        batch.stream = other;
        bench.writer.apply(&batch).unwrap();
        assert_eq!(bench.writer.state(other).unwrap(), LiveState::At(batch.to));
        assert_eq!(bench.top(Keyword, Window::Hour), rows(&[("a", 2.0)]));
        assert_eq!(bench.recent("u"), ["a", "b"]);
    });
}

// claims: V12
#[test]
fn a_lost_store_answers_nobody_and_takes_nothing() {
    on_both(|mut bench| {
        let batch = bench.batch(&[(Keyword, minute(bench.now_ms), "a", 1)], vec![]);
        bench.lose(zone());
        let query = TopQuery { parts: vec![(Keyword, 1.0)], window: Window::Hour, hot: false, limit: 1 };
        assert!(matches!(bench.store.top(&query, bench.now_ms), Err(StoreError::Retry(_))));
        assert!(matches!(bench.store.totals(), Err(StoreError::Retry(_))));
        assert!(matches!(bench.store.recent("u", bench.now_ms), Err(StoreError::Retry(_))));
        assert!(matches!(bench.writer.apply(&batch), Err(StoreError::Fenced { found: None })));
        assert!(matches!(bench.writer.register(STREAM), Err(StoreError::Fenced { found: None })));
        bench.writer.fold(bench.now_ms).unwrap();
        assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::Lost);
        bench.rebuild(&Default::default()).unwrap();
        assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::NewStream);
        assert_eq!(bench.store.totals().unwrap(), []);
    });
}
