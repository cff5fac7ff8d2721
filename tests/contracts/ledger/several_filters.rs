//! Counts over several filters: whatever is counted, comes late or is erased, they are what rows say.

use event_tracker::events::{Erase, Event, EventType, Record};
use event_tracker::ports::CountFilter;
use rand::RngExt;
use rand::rngs::StdRng;

use super::living::{Pace, Past, live_through};
use crate::support::ledgers::{DAY, Fixture, HOUR, NOW, each_ledger, event, seeded};

const BEGIN: i64 = NOW - 40 * DAY;

/// Of up to four values, a type or none, and any range.
fn random_filter(now: i64, random: &mut StdRng) -> CountFilter {
    let kinds = [None, Some(EventType::Click), Some(EventType::PageView), Some(EventType::Search)];
    let event_type = kinds[random.random_range(0..4)];
    let mut edge = || {
        let at = random.random_range(BEGIN - DAY..now + 2 * HOUR);
        at - at.rem_euclid([DAY, HOUR, HOUR, 1][random.random_range(0..4)])
    };
    let (one, other) = (edge(), edge());
    let from_ms = random.random_bool(0.9).then_some(one.min(other));
    let to_ms = random.random_bool(0.9).then_some(one.max(other));
    let mut value = || random.random_bool(0.6).then(|| random.random_range(0..3));
    let component = value();
    CountFilter {
        event_type,
        component_id: component.filter(|id| *id > 0),
        element_id: component.filter(|id| *id == 0).map(|_| "buy".to_owned()),
        keyword: value().map(|n| format!("oak {n}")),
        post_id: value().map(|n| format!("p{n}")),
        page: value().map(|n| format!("/{n}")),
        from_ms,
        to_ms,
    }
}

fn check(fixture: &Fixture, past: &Past, now: i64, random: &mut StdRng, of: &str, times: usize) {
    for _ in 0..times {
        let filter = random_filter(now, random);
        let counted = fixture.ledger.count(&filter).expect("counts");
        assert_eq!(counted, past.model.count(&filter), "{} {of} {filter:?}", fixture.name);
    }
}

// claims: L12
#[test]
fn counts_of_several_filters_are_exact_whatever_is_counted_late_or_erased() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let spans = [HOUR, 8 * HOUR, 80 * HOUR];
        let pace = Pace { lasts: BEGIN..NOW, spans, events: 1..30, late: 5, back: 30 * DAY };
        let check_some = |past: &Past, now, random: &mut StdRng, of: &str| check(fixture, past, now, random, of, 6);
        let (past, mut feed) = live_through(fixture, &pace, &mut random, check_some);
        feed.fold_all();
        check(fixture, &past, NOW, &mut random, "folded whole", 126);
    });
}

// claims: L23
#[test]
fn what_an_erased_person_named_still_counts() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let view = |user: &'static str, at: i64| {
            let (post_id, url) = (Some("p1".into()), Some(format!("/home?user={user}").into()));
            Record::Event(Event { user_id: Some(user.into()), post_id, url, ..event(EventType::PageView, at) })
        };
        feed.apply(vec![view("zoe", NOW - 2 * DAY), view("ann", NOW - 2 * DAY), view("zoe", NOW - 2 * HOUR)]);
        feed.fold_all();
        feed.apply(vec![Record::Erase(Erase { user_id: "zoe".into(), at_ms: NOW })]);
        let (post_id, page) = (Some("p1".to_owned()), Some("/home".to_owned()));
        let filter = CountFilter { post_id, page, from_ms: Some(NOW - 3 * DAY), ..CountFilter::default() };
        assert_eq!(fixture.ledger.count(&filter).expect("counts"), 3, "{}", fixture.name);
        assert_eq!(fixture.number("SELECT count(*) FROM events WHERE url IS NOT NULL"), 1, "{}", fixture.name);
    });
}

/// Days that are over have a valid index, also if a build was broken off; the open day has none.
#[test]
fn each_closed_day_gets_one_index_of_what_its_events_name() {
    let fixture = Fixture::postgres();
    let (mut past, mut feed, mut random) = (Past::default(), fixture.feed(), seeded());
    let begin = NOW - NOW % DAY - 3 * DAY;
    feed.apply((0..400).map(|n| past.event(begin + n * HOUR / 8, &mut random)).collect());
    feed.apply(vec![past.event(NOW, &mut random)]);
    let indexes = |which: &str| {
        fixture.number(&format!(
            "SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid \
             WHERE relname ~ '^events_[0-9]{{8}}_terms$' AND {which}"
        ))
    };
    // What an instance leaves that died while it built one.
    let broken = jiff::Timestamp::from_millisecond(begin).expect("a time").strftime("events_%Y%m%d").to_string();
    fixture.rows(&format!(
        "CREATE INDEX {broken}_terms ON {broken} USING gin (event_terms(component_id, element_id, keyword_key, post_id, page)); \
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{broken}_terms'::regclass"
    ));
    feed.fold_all();
    assert_eq!((indexes("indisvalid"), indexes("NOT indisvalid")), (3, 0));
    let today = jiff::Timestamp::from_millisecond(NOW).expect("a time").strftime("%Y%m%d").to_string();
    assert_eq!(indexes(&format!("relname LIKE '%{today}%'")), 0);
    check(&fixture, &past, NOW, &mut random, "indexed", 120);
    // Late events of a day that is over are found, too.
    feed.apply((0..50).map(|n| past.event(begin + n * HOUR, &mut random)).collect());
    check(&fixture, &past, NOW, &mut random, "late", 120);
}
