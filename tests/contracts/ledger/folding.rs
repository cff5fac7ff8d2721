//! Folding: nobody can tell from an answer whether, when and by whom hours were folded and points counted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use event_tracker::adapters::postgres::PostgresLedger;
use event_tracker::events::{Dimension, Event, EventType, Record};
use event_tracker::ports::{CountFilter, Interval, Ranked, RankingQuery, TopQuery, Window};
use jiff::tz::TimeZone;
use rand::RngExt;
use rand::rngs::StdRng;
use uuid::Uuid;

use crate::support::ledgers::{
    DAY, Feed, Fixture, HOUR, MINUTE, NOW, click, each_ledger, event, like, random_event, ranking_of, search, seeded,
};
use crate::support::model::{LISTS, Model};
use crate::support::postgres::Server;

/// Days on which something happens: three spans of 32 days, and today.
const DAYS_AGO: [i64; 8] = [0, 0, 1, 2, 33, 40, 41, 90];

fn zones() -> [TimeZone; 3] {
    let fixed = |minutes: i32| TimeZone::fixed(jiff::tz::Offset::from_seconds(minutes * 60).expect("an offset"));
    [TimeZone::UTC, fixed(9 * 60), fixed(5 * 60 + 30)]
}

fn random_records(random: &mut StdRng, model: &mut Model) -> Vec<Record<'static>> {
    let some = 0..random.random_range(1..120);
    some.map(|_| record_of(DAYS_AGO[random.random_range(0..DAYS_AGO.len())], random, model)).collect()
}

fn record_of(days_ago: i64, random: &mut StdRng, model: &mut Model) -> Record<'static> {
    let mut event = random_event(random);
    event.event_time_ms = (event.event_time_ms - days_ago * DAY).min(NOW);
    model.take(&event);
    Record::Event(event)
}

/// Ends on days, on hours or anywhere.
fn random_range(random: &mut StdRng) -> Range<i64> {
    let mut end = || {
        let at = NOW + HOUR - random.random_range(0..95 * DAY);
        let recent = NOW + HOUR - random.random_range(0..3 * DAY);
        let at = if random.random_range(0..3) == 0 { recent } else { at };
        at - at.rem_euclid([DAY, HOUR, 1][random.random_range(0..3)])
    };
    let (one, other) = (end(), end());
    one.min(other)..one.max(other)
}

fn read_pages(fixture: &Fixture, mut query: RankingQuery) -> Ranked {
    let mut read = Ranked::new();
    loop {
        let page = fixture.ranking(&query);
        let Some((name, sum)) = page.last() else { return read };
        query.after = Some((*sum, name.clone()));
        read.extend(page);
        query.before = read.len();
    }
}

fn check_rankings(fixture: &Fixture, model: &Model, random: &mut StdRng) {
    let range = random_range(random);
    for parts in LISTS {
        let query = ranking_of(parts, range.clone(), random.random_range(1..8));
        assert_eq!(read_pages(fixture, query.clone()), model.ranking(&query), "{} {query:?}", fixture.name);
    }
}

/// `top` reads hours and days; its windows end now.
fn check_tops(fixture: &Fixture, model: &Model) {
    let hour = NOW - NOW.rem_euclid(HOUR);
    let day = NOW - NOW.rem_euclid(DAY);
    for (window, from_ms) in [(Window::Day, hour - 23 * HOUR), (Window::Week, day - 6 * DAY)] {
        for parts in LISTS {
            let ranked = model.ranking(&ranking_of(parts, from_ms..hour + HOUR, 5));
            let expected: Vec<_> = ranked.into_iter().take(5).map(|(name, sum)| (name, sum as f64)).collect();
            let weighed: Vec<(Dimension, f64)> = parts.iter().map(|(d, weight)| (*d, *weight as f64)).collect();
            let mut top = TopQuery { parts: weighed, window, hot: false, limit: 5 };
            assert_eq!(fixture.top(&top), expected, "{} {top:?}", fixture.name);
            top.hot = true;
            let hot = fixture.top(&top);
            if let [(dimension, _)] = parts
                && *dimension != Dimension::PostLikes
            {
                let expected = hot_scores(model, *dimension, window);
                let is_close = hot.iter().zip(&expected).all(|((_, one), other)| (one - other).abs() < 1e-9 * one);
                let is_whole = hot.len() == expected.len().min(5);
                assert!(is_whole && is_close, "{} {top:?}: {hot:?} {expected:?}", fixture.name);
            }
        }
    }
}

/// What each name has in each bucket, halved with each quarter of the window.
fn hot_scores(model: &Model, dimension: Dimension, window: Window) -> Vec<f64> {
    let (unit, length) = if window == Window::Day { (HOUR, 24) } else { (DAY, 7) };
    let newest = NOW - NOW.rem_euclid(unit);
    let mut scores: BTreeMap<String, f64> = BTreeMap::new();
    for age in 0..length {
        let from_ms = newest - age * unit;
        for (name, sum) in model.ranking(&ranking_of(&[(dimension, 1)], from_ms..from_ms + unit, 0)) {
            *scores.entry(name).or_default() += sum as f64 * 0.5f64.powf(age as f64 / (length as f64 / 4.0));
        }
    }
    let mut scores: Vec<f64> = scores.into_values().collect();
    scores.sort_by(|one, other| other.total_cmp(one));
    scores
}

fn check_series(fixture: &Fixture, model: &Model, random: &mut StdRng) {
    let kinds = [None, Some(EventType::Click), Some(EventType::Like), Some(EventType::Search)];
    let from = random_range(random).start;
    for (interval, unit, shift, points) in [
        (Interval::Minute, MINUTE, 0, 300),
        (Interval::Hour, HOUR, 0, 60),
        (Interval::Day, DAY, 0, 95),
        (Interval::Day, DAY, 9 * HOUR, 40),
        (Interval::Day, DAY, 5 * HOUR + 30 * MINUTE, 10),
    ] {
        let event_type = kinds[random.random_range(0..kinds.len())];
        let first = from - (from + shift).rem_euclid(unit);
        model.check_series(fixture, event_type, (interval, unit), first, points);
    }
}

fn check_counts(fixture: &Fixture, model: &Model, random: &mut StdRng) {
    let Range { start, end } = random_range(random);
    let post = format!("p{}", random.random_range(0..5));
    for (from_ms, to_ms) in [(Some(start), Some(end)), (None, None), (Some(start), None)] {
        let whole = CountFilter { from_ms, to_ms, ..CountFilter::default() };
        let (event_type, post_id) = (Some(EventType::PageView), Some(post.clone()));
        for filter in [whole.clone(), CountFilter { event_type, post_id, ..whole }] {
            let counted = fixture.ledger.count(&filter).expect("answers");
            assert_eq!(counted, model.count(&filter), "{} {filter:?}", fixture.name);
        }
    }
}

/// Days and spans hold exactly their closed hours.
fn check_tables(fixture: &Fixture) {
    let net = "GROUP BY 1, 2, 3 HAVING sum(count) <> 0 ORDER BY 1, 2, 3";
    let sums = |table: &str| fixture.rows(&format!("SELECT dimension, bucket, key, sum(count) FROM {table} {net}"));
    let hours = |unit: &str, closed: &str| {
        fixture.rows(&format!(
            "SELECT dimension, {unit}, key, sum(count) FROM rollup_hour CROSS JOIN rollup_state WHERE {closed} {net}"
        ))
    };
    assert_eq!(sums("rollup_day"), hours("bucket / 24", "bucket < until_hour"), "{}", fixture.name);
    assert_eq!(sums("rollup_span"), hours("bucket / 768", "bucket / 24 < until_day"), "{}", fixture.name);
}

// claims: L22, L11, L12, L13
#[test]
fn folding_at_any_time_by_any_clock_changes_no_answer_and_late_records_land_in_their_day() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let mut model = Model::default();
        let mut feed = fixture.feed();
        // Something on each day: else a seed may begin with today.
        feed.apply(DAYS_AGO.map(|days_ago| record_of(days_ago, &mut random, &mut model)).into());
        for round in 0..16 {
            feed.apply(random_records(&mut random, &mut model));
            if round % 2 == 1 {
                // At first a clock that goes on, then one that stands anywhere, also behind where it stood and far ahead.
                let anywhere = [NOW, NOW - 30 * DAY, NOW + HOUR, NOW + 400 * DAY][random.random_range(0..4)];
                let now = if round < 9 { NOW - (92 - round * 11) * DAY } else { anywhere };
                feed.writer.fold(now, &zones()[random.random_range(0..3)]).expect("folds");
            }
            check_rankings(fixture, &model, &mut random);
            check_series(fixture, &model, &mut random);
            check_counts(fixture, &model, &mut random);
            check_tops(fixture, &model);
            check_tables(fixture);
        }
        feed.fold_all();
        let days = fixture.number("SELECT count(*) FROM series WHERE minutes = 1440 AND event_type = 0");
        assert!(days > 30, "{days} points of days were counted once");
        while feed.writer.fold(NOW + 2 * HOUR, &TimeZone::UTC).expect("folds") {}
        assert_eq!(fixture.number("SELECT count(*) FROM series WHERE users IS NULL"), 0, "{}", fixture.name);
        check_series(fixture, &model, &mut random);
    });
}

// claims: L22
#[test]
fn an_hour_of_many_names_is_closed_whole() {
    const NAMES: i64 = 2_010;
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        // Two hours of another day that share some of their names, and names of another kind.
        let at = NOW - 40 * DAY;
        let word = |n: i64| search(&format!("u{}", n % 50), &format!("word {n}"), at + n % 2 * HOUR);
        feed.apply((0..NAMES).chain(0..NAMES / 3).map(word).collect());
        feed.apply((0..300).map(|n| like(EventType::Like, "u", &format!("p{n}"), at)).collect());
        // A day is over once a later one is folded.
        feed.apply(vec![click(1, NOW - 2 * DAY)]);
        feed.fold_all();
        check_tables(fixture);
        let words = fixture.number("SELECT count(*) FROM rollup_span WHERE dimension = 2");
        assert_eq!(words, NAMES, "{}", fixture.name);
        assert_eq!(fixture.number("SELECT count(*) FROM series WHERE users IS NULL"), 0);
    });
}

// claims: L22
#[test]
fn an_hour_that_cannot_be_counted_keeps_no_other_from_it() {
    let fixture = Fixture::postgres();
    let mut feed = fixture.feed();
    feed.apply((1..5).map(|day| click(1, NOW - day * DAY)).collect());
    // Whoever holds the newest day's rows.
    let mut other = ::postgres::Client::connect(&fixture.url, ::postgres::NoTls).expect("connects");
    let mut holding = other.transaction().expect("begins");
    holding.batch_execute("LOCK TABLE events_20261121 IN ACCESS EXCLUSIVE MODE").expect("locks");
    assert!(feed.writer.fold(NOW, &TimeZone::UTC).is_err(), "it says so");
    feed.writer.fold(NOW, &TimeZone::UTC).expect("the others are counted");
    let counted = "SELECT count(*) FROM series WHERE minutes = 60 AND event_type = 0 AND users";
    assert_eq!(fixture.number(&format!("{counted} IS NOT NULL")), 3);
    assert_eq!(fixture.number(&format!("{counted} IS NULL")), 1);
    holding.rollback().expect("ends");
}

/// What a writer of its own sends: each of some hours gets something of each kind, over and over.
fn batch_of(number: i64, round: i64) -> Vec<Record<'static>> {
    let at = |n: i64| NOW - (round * 7 + n * 11) % 60 * HOUR - number;
    let user = format!("u{number}-{round}");
    let post = format!("p{}", round % 5);
    vec![
        search(&user, &format!("word {}", round % 7), at(1)),
        Record::Event(Event {
            component_id: Some(1 + round % 3),
            post_id: Some(post.clone().into()),
            url: Some("/a".into()),
            ..event(EventType::Click, at(2))
        }),
        like(EventType::Like, &user, &post, at(3)),
        search("everybody", "one", at(4)),
    ]
}

// claims: L22, L16
#[test]
fn folding_beside_batches_misses_and_doubles_nothing() {
    const ROUNDS: i64 = 60;
    let mut random = seeded();
    each_ledger(|fixture| {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let write = |number| {
                let mut feed = fixture.feed();
                (0..ROUNDS).for_each(|round| drop(feed.apply(batch_of(number, round))));
            };
            let writers: Vec<_> = (0..2).map(|number| scope.spawn(move || write(number))).collect();
            for number in 0..2 {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut writer = fixture.ledger.open_writer().expect("a writer");
                    let mut step = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        step += 1;
                        let now = NOW - (60 - step % 62) * HOUR;
                        // Somebody else may have been in the way: it is done the next time.
                        let _ = writer.fold(now, &zones()[number]);
                    }
                });
            }
            writers.into_iter().for_each(|writer| writer.join().expect("writes"));
            is_over.store(true, Ordering::Relaxed);
        });
        let mut model = Model::default();
        let records = (0..2).flat_map(|number| (0..ROUNDS).flat_map(move |round| batch_of(number, round)));
        (1..).zip(records).for_each(|(position, record)| model.take_record(Uuid::nil(), position, &record));
        check_tables(fixture);
        let mut writer = fixture.ledger.open_writer().expect("a writer");
        while writer.fold(NOW + HOUR, &zones()[0]).expect("folds") {}
        check_tops(fixture, &model);
        for _ in 0..10 {
            check_rankings(fixture, &model, &mut random);
            check_series(fixture, &model, &mut random);
            check_counts(fixture, &model, &mut random);
        }
        let first = NOW - NOW % DAY - 3 * DAY;
        for (interval, unit) in [(Interval::Minute, MINUTE), (Interval::Hour, HOUR), (Interval::Day, DAY)] {
            model.check_series(fixture, None, (interval, unit), first, 4 * DAY / unit);
        }
        for (component, post) in (1..4).flat_map(|component| (0..5).map(move |post| (component, format!("p{post}")))) {
            let (component_id, post_id, page) = (Some(component), Some(post), Some("/a".to_owned()));
            let (from_ms, to_ms) = (Some(NOW - 70 * HOUR), Some(NOW + HOUR));
            let filter = CountFilter { component_id, post_id, page, from_ms, to_ms, ..CountFilter::default() };
            let counted = fixture.ledger.count(&filter).expect("counts");
            assert_eq!(counted, model.count(&filter), "{} {filter:?}", fixture.name);
        }
        assert_eq!(fixture.ledger.count(&CountFilter::default()).expect("counts"), 2 * 4 * ROUNDS.cast_unsigned());
    });
}

// claims: L22
#[test]
fn an_import_of_a_year_costs_steps_per_day_and_not_per_hour() {
    let server = Server::private();
    let url = server.database("year", "");
    let ledger = PostgresLedger::new(&url, 2).expect("a URL");
    ledger.prepare().expect("a fresh database");
    let rows = |sql: &str| crate::support::tables::of_postgres(&url, sql);
    let number = |sql: &str| rows(sql)[0][0].parse::<i64>().expect("a number");
    let (mut random, mut feed) = (seeded(), Feed::on(&ledger));
    let mut old = || click(random.random_range(1..50), NOW - random.random_range(2 * DAY..390 * DAY));
    (0..3).for_each(|_| _ = feed.apply((0..1_000).map(|_| old()).collect()));
    let before = number("SELECT pg_current_xact_id()::text");
    feed.fold_all();
    let steps = number("SELECT pg_current_xact_id()::text") - before;
    let hours = number("SELECT count(DISTINCT bucket) FROM rollup_hour");
    eprintln!("{steps} writing transactions for {hours} hours");
    assert!(steps < 2 * hours, "{steps} writing transactions for {hours} hours");
    // All of it is counted, and as reading the rows counts it.
    assert_eq!(number("SELECT count(*) FROM series WHERE users IS NULL"), 0);
    assert_eq!(number("SELECT count(*) FROM visitor_bitmap WHERE hours = 1 AND event_type = 0"), hours);
    let wrong = "SELECT count(*) FROM (SELECT floor(date_part('epoch', event_time) / 3600)::int8 * 60 AS at, \
          count(*) AS events, count(DISTINCT user_id) AS visitors FROM events GROUP BY 1) AS e \
        FULL JOIN (SELECT at, count, users FROM series WHERE minutes = 60 AND event_type = 0) AS s USING (at) \
        WHERE (events, visitors) IS DISTINCT FROM (count, users)";
    assert_eq!(number(wrong), 0);
    let minutes = "SELECT count(*) FROM series WHERE minutes = 1 AND event_type = 0";
    let of_rows = "SELECT count(DISTINCT date_trunc('minute', event_time)) FROM events";
    assert_eq!(number(minutes), number(of_rows));
    assert_eq!(number("SELECT sum(count) FROM rollup_day WHERE dimension = 1"), 3_000);
    // Spans have whole days only: the day of the newest hour is not over.
    let whole_days = "SELECT count(*) FROM events \
        WHERE event_time < to_timestamp((SELECT until_hour / 24 * 86400 FROM rollup_state))";
    assert_eq!(number("SELECT sum(count) FROM rollup_span WHERE dimension = 1"), number(whole_days));
}
