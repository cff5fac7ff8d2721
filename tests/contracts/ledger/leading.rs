//! Rankings of many names: those that are read from the first of each bucket are those that adding up all of them gives.

use event_tracker::events::{Dimension, Event, EventType, PostDelete, Record};
use event_tracker::ports::{TopQuery, Window};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::support::ledgers::{DAY, HOUR, NOW, each_ledger, event, like, ranking_of, seeded};

const DAYS: i64 = 75;
const NAMES: f64 = 400.0;

/// The n-th about as often as 1/n, or all the same.
fn name(random: &mut StdRng, is_even: bool) -> String {
    let chance: f64 = random.random();
    format!("p{}", if is_even { chance * NAMES } else { NAMES.powf(chance) }.floor())
}

fn some_events(random: &mut StdRng, at: i64, is_even: bool) -> Vec<Record<'static>> {
    let mut records = Vec::new();
    for _ in 0..60 {
        // In two hours of each day, as every hour takes a while to be folded.
        let at = (at + [5, 16][random.random_range(0..2)] * HOUR + random.random_range(0..HOUR)).min(NOW);
        let post = name(random, is_even);
        records.push(match random.random_range(0..10) {
            0 => like(EventType::Like, &random.random_range(0..500).to_string(), &post, at),
            1 => like(EventType::Unlike, &random.random_range(0..500).to_string(), &post, at),
            kind => {
                let kind = if kind < 7 { EventType::PageView } else { EventType::Click };
                Record::Event(Event { post_id: Some(post.into()), ..event(kind, at) })
            }
        });
    }
    records
}

// claims: L13
#[test]
fn many_names_are_ranked_alike_by_their_first_buckets_and_by_adding_up_all() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let is_even = random.random_range(0..3) == 0;
        for day in 0..DAYS {
            feed.apply(some_events(&mut random, NOW - NOW % DAY - (DAYS - 1 - day) * DAY, is_even));
        }
        feed.fold_all();
        let score = [(Dimension::PostViews, 1), (Dimension::PostClicks, 3), (Dimension::PostLikes, 10)];
        for round in 0..40 {
            let mut edge = || {
                let at = NOW - random.random_range(0..DAYS * DAY);
                at - at.rem_euclid([DAY, HOUR, 1][round % 3])
            };
            let (one, other) = (edge(), edge());
            let parts = if round % 2 == 0 { &score[..] } else { &score[..1] };
            let mut query = ranking_of(parts, one.min(other)..one.max(other), random.random_range(1..40));
            // It compares the two.
            let page = fixture.ranking(&query);
            if let Some((name, sum)) = page.last() {
                (query.after, query.before) = (Some((*sum, name.clone())), page.len());
                fixture.ranking(&query);
            }
        }
        for window in [Window::Day, Window::Week] {
            for hot in [false, true] {
                let parts = score.iter().map(|(dimension, weight)| (*dimension, *weight as f64)).collect();
                assert_eq!(fixture.top(&TopQuery { parts, window, hot, limit: 10 }).len(), 10);
            }
        }
    });
}

// claims: L13
#[test]
fn who_has_more_likes_without_the_days_that_are_taken_off_a_span_is_found() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let span = (NOW / DAY / 32 - 1) * 32;
        let at = |day: i64| (span + day) * DAY + HOUR;
        let likes = |kind, users: i32, post: &str, day| -> Vec<Record<'static>> {
            (0..users).map(|user| like(kind, &format!("u{user}"), post, at(day))).collect()
        };
        // Nothing in the span taken together, and the most in its days but the first two.
        for (kind, day) in [(EventType::Like, -10), (EventType::Unlike, 1), (EventType::Like, 5)] {
            feed.apply(likes(kind, 5, "back and forth", day));
        }
        feed.apply(likes(EventType::Like, 4, "liked", 6));
        feed.apply((0..30).flat_map(|n| likes(EventType::Like, 1, &format!("p{n}"), 7)).collect());
        // So that the span is over.
        feed.apply(likes(EventType::Like, 1, "p0", (NOW - DAY) / DAY - span));
        feed.fold_all();
        for to_ms in [at(32) - HOUR, NOW] {
            let query = ranking_of(&[(Dimension::PostLikes, 1)], at(2) - HOUR..to_ms, 1);
            assert_eq!(fixture.ranking(&query), [("back and forth".to_owned(), 5)], "{}", fixture.name);
        }
    });
}

// claims: L24
#[test]
fn deleted_posts_are_in_no_hot_list() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let mut view = |post: String| {
            let at = NOW - random.random_range(0..23 * HOUR);
            Record::Event(Event { post_id: Some(post.into()), ..event(EventType::PageView, at) })
        };
        feed.apply((0..400).map(|n| view(format!("p{}", n % 40))).collect());
        feed.apply(vec![view("other".to_owned())]);
        feed.fold_all();
        let delete = |n: i32| Record::PostDelete(PostDelete { post_id: format!("p{n}").into(), at_ms: NOW });
        feed.apply((0..40).map(delete).collect());
        for window in [Window::Day, Window::Week] {
            let query = TopQuery { parts: vec![(Dimension::PostViews, 1.0)], window, hot: true, limit: 100 };
            for ledger in [&fixture.ledger, &fixture.by_lists] {
                let top = ledger.top(&query, NOW, &jiff::tz::TimeZone::UTC).expect("answers");
                let names: Vec<&str> = top.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(names, ["other"], "{} {window:?}: {top:?}", fixture.name);
            }
        }
    });
}
