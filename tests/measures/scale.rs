//! Times of every statistics query on a ledger that is there already: for `perf/scale`, which makes and fills one.
//! Environment: SCALE_LEDGER (a `postgres://` URL or a file of SQLite), SCALE_NOW (milliseconds: the end of its events);
//! SCALE_ONLY: queries whose name has this in it. SCALE_PLANS has each query run once: PostgreSQL gets its name into the log, before the plans; those of SQLite are printed.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]

mod copying;

use crate::support::sqlite_plans;
use std::path::Path;
use std::time::Instant;

use event_tracker::adapters::postgres::PostgresLedger;
use event_tracker::adapters::sqlite::SqliteLedger;
use event_tracker::events::{Dimension, EventType};
use event_tracker::ports::{CountFilter, Interval, Ledger, RankingQuery, SeriesQuery, StoreError, TopQuery, Window};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const TIMES: usize = 9;

struct Scale {
    ledger: Box<dyn Ledger>,
    now: i64,
}

fn show_plans(what: &str, run: impl FnOnce()) {
    let place = std::env::var("SCALE_LEDGER").expect("SCALE_LEDGER");
    if is_postgres(&place) {
        announce(what, &place);
        return run();
    }
    sqlite_plans::taken();
    run();
    println!("\n## {what}\n\n{}", sqlite_plans::plans(Path::new(&place), &sqlite_plans::taken()));
}

fn is_postgres(place: &str) -> bool {
    place.starts_with("postgres://")
}

/// Has the server say in its log what comes next; its plans are read from there.
fn announce(what: &str, place: &str) {
    thread_local! {
        static LINK: std::cell::RefCell<Option<::postgres::Client>> = const { std::cell::RefCell::new(None) };
    }
    LINK.with_borrow_mut(|link| {
        let link = link.get_or_insert_with(|| ::postgres::Client::connect(place, ::postgres::NoTls).expect("connects"));
        link.batch_execute(&format!("DO $$ BEGIN RAISE LOG 'scale: {what}'; END $$")).expect("writes to its log");
    });
}

/// The median and the longest of some runs, and the first, which may read from the disk.
fn time<T>(what: &str, mut run: impl FnMut() -> Result<T, StoreError>, said: impl Fn(&T) -> String) {
    if std::env::var("SCALE_ONLY").is_ok_and(|only| !what.contains(&only)) {
        return;
    }
    if std::env::var_os("SCALE_PLANS").is_some() {
        return show_plans(what, || drop(run()));
    }
    let mut once = || {
        let begun = Instant::now();
        let answer = run();
        (begun.elapsed().as_secs_f64() * 1_000.0, answer)
    };
    let (first, answer) = once();
    let mut times: Vec<f64> = (0..TIMES).map(|_| once().0).collect();
    times.sort_by(f64::total_cmp);
    let answer = answer.map_or_else(|error| error.to_string(), |answer| said(&answer));
    println!("| {what} | {:.1} | {:.1} | {first:.1} | {answer} |", times[TIMES / 2], times[TIMES - 1]);
}

impl Scale {
    fn counts(&self) {
        let (from_ms, to_ms) = (Some(self.now - 300 * DAY + 17), Some(self.now - 12_345));
        let ranged = CountFilter { from_ms, to_ms, ..CountFilter::default() };
        let keyword = Some("keyword 1".to_owned());
        let post = Some("p1".to_owned());
        let filters = [
            ("count of everything", CountFilter::default()),
            ("count of 300 days to the millisecond", ranged.clone()),
            ("count of a type", CountFilter { event_type: Some(EventType::Click), ..CountFilter::default() }),
            ("count of the first keyword", CountFilter { keyword: keyword.clone(), ..CountFilter::default() }),
            ("count of the first keyword, 300 days to the millisecond", CountFilter { keyword, ..ranged.clone() }),
            ("count of the first post", CountFilter { post_id: post.clone(), ..CountFilter::default() }),
            ("count of a page", CountFilter { page: Some("/posts/7".into()), ..ranged.clone() }),
            ("count of a component", CountFilter { component_id: Some(7), ..ranged }),
        ];
        for (what, filter) in filters {
            time(what, || self.ledger.count(&filter), u64::to_string);
        }
        // The first post has a twelfth of all clicks with a post, and nearly as many views of its page.
        let of_post = |page: Option<&str>, component_id, days: i64, cut_ms: i64| CountFilter {
            post_id: post.clone(),
            page: page.map(str::to_owned),
            component_id,
            from_ms: Some(self.now - days * DAY + cut_ms),
            to_ms: Some(self.now - cut_ms),
            ..CountFilter::default()
        };
        for (what, page, component) in
            [("post and component", None, Some(7)), ("post and page", Some("/posts/1"), None)]
        {
            for (of, days, cut) in [("1 day", 1, 0), ("31 days", 31, 0), ("31 days to the millisecond", 31, 1_234_567)]
            {
                let filter = of_post(page, component, days, cut);
                time(&format!("count of {what}, {of}"), || self.ledger.count(&filter), u64::to_string);
            }
        }
    }

    fn rankings(&self) {
        let lists: [(&str, &[(Dimension, i64)]); 6] = [
            ("keywords", &[(Dimension::Keyword, 1)]),
            ("zero-result keywords", &[(Dimension::ZeroResult, 1)]),
            ("posts by likes", &[(Dimension::PostLikes, 1)]),
            ("posts by score", &[(Dimension::PostViews, 1), (Dimension::PostClicks, 3), (Dimension::PostLikes, 10)]),
            ("pages", &[(Dimension::Page, 1)]),
            ("components", &[(Dimension::Component, 1)]),
        ];
        let day = self.now - self.now % DAY;
        let ranges = [
            ("a year to the millisecond", self.now - 364 * DAY + 17, self.now - 12_345),
            ("30 whole days", day - 30 * DAY, day),
            ("7 days to the minute", self.now - 7 * DAY, self.now),
            ("5 hours of a past day", day - 100 * DAY + 3 * HOUR, day - 100 * DAY + 8 * HOUR),
            ("the last hour", self.now - HOUR, self.now),
        ];
        for (list, parts) in lists {
            for (range, from_ms, to_ms) in ranges {
                for limit in [10, 100] {
                    let query = RankingQuery { parts: parts.to_vec(), from_ms, to_ms, after: None, before: 0, limit };
                    let run = || self.ledger.ranking(&query, self.now);
                    let said = |ranked: &Option<Vec<(String, i64)>>| {
                        ranked.as_ref().map_or("too much".into(), |ranked| format!("{:?}", ranked.first()))
                    };
                    time(&format!("{limit} {list}, {range}"), run, said);
                }
            }
        }
        let query = RankingQuery {
            parts: vec![(Dimension::Keyword, 1)],
            from_ms: day - 364 * DAY,
            to_ms: day,
            after: None,
            before: 0,
            limit: 10,
        };
        let tenth = self.ledger.ranking(&RankingQuery { limit: 100, ..query.clone() }, self.now);
        let after = tenth.ok().flatten().and_then(|page| page.last().map(|(name, sum)| (*sum, name.clone())));
        let run =
            || self.ledger.ranking(&RankingQuery { after: after.clone(), before: 100, ..query.clone() }, self.now);
        time("10 keywords, a year, the eleventh page", run, |page| format!("{}", page.is_some()));
    }

    fn series(&self) {
        let (day, minute) = (self.now - self.now % DAY, self.now - self.now % MINUTE + MINUTE);
        let series = [
            ("a year by day", Interval::Day, DAY, day + DAY - 365 * DAY, 365),
            ("60 days by hour", Interval::Hour, HOUR, day - 60 * DAY, 1_440),
            ("a past day by minute", Interval::Minute, MINUTE, day - 100 * DAY, 1_440),
            ("the last day by minute", Interval::Minute, MINUTE, minute - DAY, 1_440),
        ];
        for (what, interval, unit, first, points) in series {
            for (of, event_type) in [("", None), (" of clicks", Some(EventType::Click))] {
                let edges_ms = (0..=points).map(|n| first + n * unit).collect();
                let query = SeriesQuery { event_type, interval, edges_ms };
                let run = || self.ledger.series(&query);
                time(&format!("series{of}, {what}"), run, |points| {
                    let points = points.clone().unwrap_or_default();
                    format!("{} points, {} events", points.len(), points.iter().map(|point| point.count).sum::<u64>())
                });
            }
        }
        let ranges = [("the last hour", HOUR), ("24 hours", DAY), ("30 days", 30 * DAY), ("a year", 365 * DAY)];
        for (what, length) in ranges {
            let run = || self.ledger.users(self.now - length, self.now);
            time(&format!("exact users of {what}"), run, |users| format!("{users:?}"));
        }
    }

    fn tops(&self) {
        let keywords = vec![(Dimension::Keyword, 1.0)];
        let score = vec![(Dimension::PostViews, 1.0), (Dimension::PostClicks, 3.0), (Dimension::PostLikes, 10.0)];
        for (window, name) in
            [(Window::TenMinutes, "10m"), (Window::Hour, "1h"), (Window::Day, "24h"), (Window::Week, "7d")]
        {
            for (what, parts) in [("keywords", &keywords), ("posts by score", &score)] {
                for hot in [false, true] {
                    let query = TopQuery { parts: parts.clone(), window, hot, limit: 10 };
                    let mode = if hot { "hot" } else { "count" };
                    let run = || self.ledger.top(&query, self.now, &jiff::tz::TimeZone::UTC);
                    time(&format!("{what} of {name} by {mode}, live store away"), run, |top| {
                        format!("{:?}", top.first())
                    });
                }
            }
        }
        time(
            "recent searches of a user, live store away",
            || self.ledger.recent("u1", self.now),
            |recent| format!("{} keywords", recent.len()),
        );
        time("likes of a post", || self.ledger.likes("p1", Some("u1")), |likes| format!("{likes:?}"));
    }
}

fn given() -> Option<Scale> {
    let place = std::env::var("SCALE_LEDGER").ok()?;
    let now = std::env::var("SCALE_NOW").ok().and_then(|now| now.parse().ok()).expect("SCALE_NOW");
    let ledger: Box<dyn Ledger> = match is_postgres(&place) {
        true => Box::new(PostgresLedger::new(&place, 2).expect("a URL")),
        false => Box::new(SqliteLedger::open(Path::new(&place)).expect("opens")),
    };
    Some(Scale { ledger, now })
}

/// All that `fold` finds to do in a ledger that was filled by hand: points and bitmaps.
#[test]
#[ignore = "needs a ledger that is filled: perf/scale"]
fn what_is_due_is_folded() {
    let Some(scale) = given() else { return };
    let (mut writer, begun) = (scale.ledger.open_writer().expect("a writer"), Instant::now());
    while writer.fold(scale.now, &jiff::tz::TimeZone::UTC).expect("folds") {}
    println!("folded in {:.0} s", begun.elapsed().as_secs_f64());
}

#[test]
#[ignore = "needs a ledger that is filled: perf/scale"]
fn times_of_every_query() {
    sqlite_plans::watch();
    let Some(scale) = given() else { return };
    println!("\n| query | median ms | longest ms | first ms | answer |\n|---|---|---|---|---|");
    scale.counts();
    scale.rankings();
    scale.series();
    scale.tops();
}
