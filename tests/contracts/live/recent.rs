//! Recent searches, and forgetting them.

use std::sync::Arc;

use crate::support::{alone, memory_kib};
use event_tracker::adapters::memory::MemoryLive;
use event_tracker::limits::RECENT_SEARCHES_MS;
use event_tracker::ports::Snapshot;

use super::bench::{Bench, MINUTE_MS, STREAM, forget, on_both, search, some_now};

// claims: V10
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

// claims: V10
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

// claims: V11
#[test]
fn forgetting_reaches_one_keyword_or_all_up_to_its_time_and_no_later_search() {
    on_both(|mut bench| {
        let now = bench.now_ms;
        bench.apply(&[], vec![search("u", "A", now - 30), search("u", "b", now - 20), search("u", "c", now - 10)]);
        bench.apply(&[], vec![forget("u", Some("a"), now), forget("u", Some("c"), now - 11), forget("w", None, now)]);
        assert_eq!(bench.recent("u"), ["c", "b"]);
        bench.apply(&[], vec![search("u", "d", now), forget("u", None, now - 4), search("u", "e", now - 3)]);
        assert_eq!(bench.recent("u"), ["d", "e"]);
        bench.apply(&[], vec![forget("u", None, now)]);
        assert_eq!(bench.recent("u"), Vec::<String>::new());
    });
}

// claims: V11
#[test]
fn a_search_made_before_it_was_forgotten_and_applied_later_stays_forgotten() {
    on_both(|mut bench| {
        let now = bench.now_ms;
        // One that was late within its batch, one in a later batch, one through another instance.
        bench
            .apply(&[], vec![forget("u", Some("A"), now - 10), search("u", "a", now - 20), search("u", "b", now - 20)]);
        assert_eq!(bench.recent("u"), ["b"]);
        bench.apply(&[], vec![search("u", "a", now - 10), search("u", "a", now - 9), search("v", "a", now - 20)]);
        assert_eq!(bench.recent("u"), ["a", "b"]);
        assert_eq!(bench.recent("v"), ["a"]);
        bench.apply(&[], vec![forget("u", None, now - 5)]);
        bench.apply(&[], vec![forget("u", None, now - 8), search("u", "c", now - 6)]);
        assert_eq!(bench.recent("u"), Vec::<String>::new());
        bench.apply(&[], vec![search("u", "c", now - 4)]);
        assert_eq!(bench.recent("u"), ["c"]);
        // A store that is rebuilt remembers what the ledger does.
        let forgotten = vec![("u".to_owned(), String::new(), now - 3), ("v".to_owned(), "x".to_owned(), now)];
        let watermarks = vec![(STREAM, bench.at)];
        bench.rebuild(&Snapshot { forgotten, watermarks, ..Snapshot::default() }).unwrap();
        bench.apply(&[], vec![search("u", "d", now - 3), search("u", "e", now - 2), search("v", "X", now)]);
        assert_eq!(bench.recent("u"), ["e"]);
        assert_eq!(bench.recent("v"), Vec::<String>::new());
    });
}

#[test]
fn recent_lists_in_memory_are_bounded_in_bytes_and_the_least_recently_used_user_goes_first() {
    alone(
        "live::recent::recent_lists_in_memory_are_bounded_in_bytes_and_the_least_recently_used_user_goes_first",
        || {
            let mut bench = Bench::new(Arc::new(|zone| Arc::new(MemoryLive::new(zone))), some_now());
            let resident_kib = || memory_kib(std::process::id() as i32, "VmRSS");
            let (now, before) = (bench.now_ms, resident_kib());
            let user = |n: usize| format!("{n:0>128}");
            let keyword = |n: usize| format!("{n:0>200}");
            // Some 700 MiB of users with one search each, and of users that have only forgotten something.
            for batch in 0..400 {
                let users = batch * 2_000..(batch + 1) * 2_000;
                let changes = users.map(|n| match n % 4 {
                    3 => forget(&user(n), Some(&keyword(n)), now),
                    _ => search(&user(n), &keyword(n), now),
                });
                bench.apply(&[], changes.collect());
                // One of the first users is read all the time, another one searches.
                assert_eq!(bench.recent(&user(4)), [keyword(4)], "in use, after {batch} batches");
                bench.apply(&[], vec![search(&user(8), &keyword(8), now)]);
            }
            assert_eq!(bench.recent(&user(8)), [keyword(8)]);
            assert_eq!(bench.recent(&user(799_998)), [keyword(799_998)], "the last one");
            assert_eq!(bench.recent(&user(400)), Vec::<String>::new(), "not used for long");
            let grown = resident_kib().saturating_sub(before);
            assert!(grown < 384 << 10, "{grown} KiB for lists of 256 MiB");
        },
    );
}
