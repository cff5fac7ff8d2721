//! Rebuilding: what it brings, who may, what readers see meanwhile.

use event_tracker::events::Dimension::{Keyword, Type};
use event_tracker::ports::{LiveState, Snapshot, StoreError, Watermark, Window};
use jiff::tz::TimeZone;
use uuid::Uuid;

use super::bench::{ALL, STREAM, minute, on_both, rows, search, zone};

// claims: V15
#[test]
fn a_rebuild_that_another_instance_has_done_asks_for_no_snapshot() {
    on_both(|mut bench| {
        let mut asked = false;
        let mut snapshot = |_: &TimeZone| {
            asked = true;
            Ok(Snapshot::default())
        };
        bench.writer.rebuild(STREAM, LiveState::Lost, &mut snapshot, bench.now_ms).unwrap();
        assert!(!asked, "it was lost when it was looked at, and is not any more");
    });
}

// claims: V14
#[test]
fn readers_see_the_old_generation_until_the_new_one_is_whole_and_also_after_one_that_failed() {
    on_both(|mut bench| {
        let (m, now_ms) = (minute(bench.now_ms), bench.now_ms + 1_000);
        bench.apply(&[(Keyword, m, "old", 1)], vec![search("u", "old", bench.now_ms)]);
        let (store, seen) = (bench.store.clone(), LiveState::At(bench.at));
        let is_old = || {
            store.totals().unwrap() == [(Keyword, String::new(), 1)] && store.recent("u", now_ms).unwrap() == ["old"]
        };
        let failed =
            bench.writer.rebuild(STREAM, seen, &mut |_| Err(StoreError::Retry("the ledger is away".into())), now_ms);
        assert!(matches!(&failed, Err(StoreError::Retry(why)) if why == "the ledger is away"), "{failed:?}");
        assert!(is_old());
        assert_eq!(bench.writer.state(STREAM).unwrap(), seen);
        let mut snapshot = |_: &TimeZone| {
            assert!(is_old(), "while the snapshot is read");
            let minutes = vec![(Keyword, m, "new".to_owned(), 2)];
            let hours = vec![(Keyword, m.div_euclid(60), "new".to_owned(), 2)];
            Ok(Snapshot { minutes, hours, ..Snapshot::default() })
        };
        bench.writer.rebuild(STREAM, seen, &mut snapshot, now_ms).unwrap();
        for window in ALL {
            assert_eq!(bench.top(Keyword, window), rows(&[("new", 2.0)]), "{window:?}");
        }
        assert_eq!(store.totals().unwrap(), []);
        assert_eq!(bench.recent("u"), Vec::<String>::new());
        assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::NewStream);
    });
}

// claims: V13, V5
#[test]
fn a_fresh_store_goes_on_from_the_watermarks_of_its_snapshot() {
    on_both(|mut bench| {
        let m = minute(bench.now_ms);
        bench.apply(&[(Keyword, m, "a", 1), (Type, m, "SEARCH", 1)], vec![search("u", "a", bench.now_ms - 2)]);
        let late = bench.batch(&[(Keyword, m, "a", 100)], vec![]);
        bench.lose(zone());
        let (other, at) = (Uuid::from_u128(2), Watermark { position: 70, crc: 7 });
        let mine = Watermark { position: 9, crc: 3 };
        let snapshot = Snapshot {
            watermarks: vec![(STREAM, mine), (other, at)],
            minutes: vec![(Keyword, m, "a".into(), 4)],
            hours: vec![(Keyword, m.div_euclid(60), "a".into(), 4), (Keyword, m.div_euclid(60) - 30, "b".into(), 9)],
            totals: vec![(Type, "SEARCH".into(), 13), (Keyword, String::new(), 13)],
            recent: vec![("u".into(), "a".into(), bench.now_ms - 2)],
            ..Snapshot::default()
        };
        bench.rebuild(&snapshot).unwrap();
        assert_eq!(bench.writer.state(STREAM).unwrap(), LiveState::At(mine));
        assert_eq!(bench.writer.state(other).unwrap(), LiveState::At(at));
        // What was on its way to the lost store is in the snapshot already.
        assert!(matches!(bench.writer.apply(&late), Err(StoreError::Fenced { found: Some(found) }) if found == mine));
        bench.at = mine;
        bench.apply(&[(Keyword, m, "a", 1), (Type, m, "SEARCH", 1)], vec![search("u", "b", bench.now_ms - 1)]);
        for window in [Window::TenMinutes, Window::Hour, Window::Day] {
            assert_eq!(bench.top(Keyword, window), rows(&[("a", 5.0)]), "{window:?}");
        }
        assert_eq!(bench.top(Keyword, Window::Week), rows(&[("b", 9.0), ("a", 5.0)]));
        assert_eq!(bench.store.totals().unwrap(), [(Type, "SEARCH".into(), 14), (Keyword, String::new(), 14)]);
        assert_eq!(bench.recent("u"), ["b", "a"]);
    });
}
