//! How long batches wait while an hour of many names is folded and counted beside them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

use crate::support::ledgers::{Feed, Fixture, HOUR, MINUTE, NOW, each_ledger, search};

/// Names of the busy hour, each searched for once by somebody else.
const NAMES: i64 = 200_000;

fn fill(fixture: &Fixture) {
    let mut feed = fixture.feed();
    let from = NOW - NOW.rem_euclid(HOUR) - HOUR;
    for first in (0..NAMES).step_by(10_000) {
        let one = |n: i64| search(&format!("u{n}"), &format!("word {n}"), from + n * HOUR / NAMES);
        feed.apply((first..first + 10_000).map(one).collect());
    }
}

/// Small batches without a pause, some with something late for the busy hour; how long each took.
fn batches(feed: &mut Feed, until: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    let late = NOW - NOW.rem_euclid(HOUR) - HOUR;
    while !until.load(Ordering::Relaxed) {
        let n = took.len() as i64;
        let fresh = (0..50).map(|k| search(&format!("v{k}"), "fresh", NOW));
        let one = (n % 20 == 0).then(|| search("late", &format!("word {}", n * 7_919 % NAMES), late + n % HOUR));
        let records = fresh.chain(one).collect();
        let begun = Instant::now();
        feed.apply(records);
        took.push(begun.elapsed());
    }
    took
}

#[test]
#[ignore = "measures: perf/scale"]
fn batches_beside_the_folding_of_a_busy_hour() {
    println!(
        "\n| ledger | folding and counting | batches | median ms | longest ms | longest before ms |\n|---|---|---|---|---|---|"
    );
    each_ledger(|fixture| {
        fill(fixture);
        let measure = |work: &dyn Fn()| {
            let is_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let feeding = scope.spawn(|| batches(&mut fixture.feed(), &is_over));
                let begun = Instant::now();
                work();
                is_over.store(true, Ordering::Relaxed);
                let mut took = feeding.join().expect("feeds");
                took.sort_unstable();
                (begun.elapsed(), took)
            })
        };
        let (_, alone) = measure(&|| std::thread::sleep(Duration::from_secs(5)));
        let (whole, beside) = measure(&|| {
            let mut writer = fixture.ledger.open_writer().expect("a writer");
            let begun = Instant::now();
            let is_folded = || fixture.number("SELECT count(*) FROM rollup_state WHERE until_hour > 0") > 0;
            while !is_folded() && begun.elapsed() < Duration::from_secs(60) {
                writer.fold(NOW + 15 * MINUTE, &TimeZone::UTC).expect("folds");
            }
            // Its points, as far as batches let it.
            writer.fold(NOW + 15 * MINUTE, &TimeZone::UTC).expect("counts");
        });
        let ms = |took: Duration| took.as_secs_f64() * 1e3;
        println!(
            "| {} | {:.1} s | {} | {:.1} | {:.1} | {:.1} |",
            fixture.name,
            whole.as_secs_f64(),
            beside.len(),
            ms(beside[beside.len() / 2]),
            ms(beside[beside.len() - 1]),
            ms(alone[alone.len() - 1]),
        );
        let rows = "SELECT count(*) FROM rollup_day WHERE dimension = 2";
        assert_eq!(fixture.number(rows), NAMES, "the hour is folded");
    });
}
