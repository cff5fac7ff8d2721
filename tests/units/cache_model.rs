//! The read path in a seeded simulation: several instances over one shared cache, time and chance handed in, steps that
//! take random time, stores that fail, instances that die, hints that get lost.
//!
//! `SEED=… cargo test --test units cache_model` replays a run, `ITERATIONS=…` sets how many there are.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "seeds and figures are for whoever reads the output")]

mod world;

use crate::seed::{seeds, setting};
use world::{Run, World};

fn each_seed(play: impl Fn(u64)) {
    for seed in seeds(setting("ITERATIONS", 16)) {
        eprintln!("SEED={seed}");
        play(seed);
    }
}

/// 250 requests a second on each of four instances, a fill of 300 ms, fresh for 2 s: the case of cache.md.
const HOT: Run =
    Run { instances: 4, requests_a_second: 1_000, fill_ms: 300, fresh_ms: 2_000, seconds: 70, is_faulty: false };

#[test]
fn of_a_hot_key_each_generation_is_one_query_and_nobody_waits() {
    each_seed(|seed| {
        let report = World::play(seed, HOT);
        assert!(report.generations >= 30, "{report:?}");
        assert_eq!(report.queries, report.generations, "queries by generation: {report:?}");
        assert_eq!(report.waited_after_first, 0, "{report:?}");
    });
    println!("{:?}", World::play(1, HOT));
}

#[test]
fn of_a_cold_key_all_instances_make_one_query_and_all_have_its_value_soon() {
    each_seed(|seed| {
        let report = World::play_cold(seed, 4, 250, 300);
        assert_eq!((report.queries, report.values), (1, 1), "{report:?}");
        assert!(report.last_ms <= 300 + 180, "the fill, steps, and a poll where the hint was late: {report:?}");
    });
}

#[test]
fn without_early_refresh_a_busy_key_is_shown_stale_while_one_refreshes() {
    each_seed(|seed| {
        let report = World::play_with(seed, HOT, |policy| policy.beta = 0.0);
        assert_eq!(report.queries, report.generations, "{report:?}");
        assert_eq!(report.waited_after_first, 0, "{report:?}");
        assert!(report.stale > 0, "{report:?}");
    });
}

#[test]
fn whatever_fails_every_request_ends_in_time_and_nothing_is_left_behind() {
    let run = Run { instances: 3, requests_a_second: 300, fill_ms: 200, fresh_ms: 500, seconds: 30, is_faulty: true };
    each_seed(|seed| {
        // The run itself asserts: deadlines, ages, that who wrote sees it, and that nothing is left when all is quiet.
        let report = World::play(seed, run);
        assert!(report.answered > 1_000 && report.writes > 10, "{report:?}");
    });
}
