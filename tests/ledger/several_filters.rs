//! Counts over several filters: whatever is counted, comes late or is erased, they are what rows say, and lists of events by what
//! they name say it.

use std::collections::BTreeMap;

use event_tracker::events::{Erase, Event, EventType, Record, page_key};
use event_tracker::ports::CountFilter;
use jiff::tz::TimeZone;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::ledgers::{DAY, Fixture, HOUR, NOW, each_ledger, event, seeded};
use crate::living::{Pace, Past, live_through};

const USERS: usize = 8;
const BEGIN: i64 = NOW - 40 * DAY;

/// Every event that was sent, an erased person's without url.
#[derive(Default)]
struct Named {
    rows: Vec<Event<'static>>,
    erased: BTreeMap<String, i64>,
}

impl Named {
    fn count(&self, filter: &CountFilter) -> u64 {
        let is_counted = |row: &&Event<'_>| {
            filter.event_type.is_none_or(|kind| kind == row.event_type)
                && filter.component_id.is_none_or(|id| row.component_id == Some(id))
                && filter
                    .element_id
                    .as_deref()
                    .is_none_or(|id| row.component_id.is_none() && row.element_id.as_deref() == Some(id))
                && filter.post_id.as_deref().is_none_or(|post| row.post_id.as_deref() == Some(post))
                && filter
                    .keyword
                    .as_deref()
                    .is_none_or(|of| row.keyword.as_ref().is_some_and(|k| k.to_lowercase() == of))
                && filter.page.as_deref().is_none_or(|page| row.url.as_deref().is_some_and(|url| page_key(url) == page))
                && filter.from_ms.is_none_or(|from| row.event_time_ms >= from)
                && filter.to_ms.is_none_or(|to| row.event_time_ms < to)
        };
        self.rows.iter().filter(is_counted).count() as u64
    }
}

/// Of two to four values, a type or none.
fn random_filter(now: i64, random: &mut StdRng) -> CountFilter {
    let mut edge = || {
        let at = random.random_range(BEGIN - DAY..now + 2 * HOUR);
        at - at.rem_euclid([DAY, HOUR, HOUR, 1][random.random_range(0..4)])
    };
    let (one, other) = (edge(), edge());
    let without = random.random_range(0..6);
    let mut value = || random.random_range(0..3);
    let (component, keyword, post, page) = (value(), value(), value(), value());
    let kind = [None, Some(EventType::Click), Some(EventType::PageView)][value() as usize];
    CountFilter {
        event_type: kind,
        component_id: (without != 0 && without != 4 && component > 0).then_some(i64::from(component)),
        element_id: (without != 0 && without != 4 && component == 0).then(|| "buy".to_owned()),
        keyword: (without != 1 && without != 4).then(|| format!("oak {keyword}")),
        post_id: (without != 2 && without != 5).then(|| format!("p{post}")),
        page: (without != 3 && without != 5).then(|| format!("/{page}")),
        from_ms: Some(one.min(other)),
        to_ms: Some(one.max(other)),
    }
}

impl Past for Named {
    fn event(&mut self, at: i64, random: &mut StdRng) -> Record<'static> {
        let kind = [EventType::Click, EventType::PageView, EventType::Search][random.random_range(0..3)];
        let mut some = |least: i32| (random.random_range(0..4) >= least).then(|| random.random_range(0..3));
        let (component, keyword, post, url) = (some(2), some(2), some(1), some(1));
        let user = format!("u{}", random.random_range(0..USERS));
        let event = Event {
            user_id: Some(user.clone().into()),
            component_id: component.filter(|id| *id > 0).map(i64::from),
            // Of some events with a component, too: those are not found by their element.
            element_id: component.filter(|id| *id != 1).map(|_| "buy".into()),
            keyword: keyword.map(|n: i32| format!("Oak {n}").into()),
            post_id: post.map(|n: i32| format!("p{n}").into()),
            url: url.map(|n: i32| format!("https://example.org/{n}?user={user}").into()),
            ..event(kind, at)
        };
        // What comes after an erasure and happened before it is dropped.
        if self.erased.get(&user).is_none_or(|up_to| at > *up_to) {
            self.rows.push(event.clone());
        }
        Record::Event(event)
    }

    fn erase(&mut self, up_to: i64, random: &mut StdRng) -> Record<'static> {
        let user = format!("u{}", random.random_range(0..USERS));
        let theirs =
            self.rows.iter_mut().filter(|row| row.event_time_ms <= up_to && row.user_id.as_deref() == Some(&*user));
        theirs.for_each(|row| row.url = None);
        let known = self.erased.entry(user.clone()).or_insert(up_to);
        *known = (*known).max(up_to);
        Record::Erase(Erase { user_id: user.into(), at_ms: up_to })
    }

    fn check(&self, fixture: &Fixture, now: i64, random: &mut StdRng, of: &str) {
        for _ in 0..6 {
            let filter = random_filter(now, random);
            let counted = fixture.ledger.count(&filter).expect("counts");
            assert_eq!(counted, self.count(&filter), "{} {of} {filter:?}", fixture.name);
        }
    }
}

fn heads(fixture: &Fixture, hours: i64) -> i64 {
    fixture.number(&format!("SELECT count(*) FROM posting_head WHERE hours = {hours}"))
}

// claims: L12
#[test]
fn counts_of_several_filters_are_exact_whatever_is_counted_late_or_erased() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let spans = [HOUR, 8 * HOUR, 80 * HOUR];
        let pace = Pace { begin: BEGIN, spans, events: 1..30, late: 5, back: 30 * DAY };
        let (past, _) = live_through::<Named>(fixture, &pace, &mut random);
        for _ in 0..20 {
            past.check(fixture, NOW, &mut random, "folded whole");
        }
        let counted = fixture.number("SELECT count(*) FROM series WHERE minutes = 60 AND event_type = 0");
        assert_eq!(heads(fixture, 1), counted, "{}: every hour that was counted has lists", fixture.name);
        assert!(heads(fixture, 24) >= 10, "{}", fixture.name);
        // What is read of days that are over is lists, not rows.
        fixture.rows("DELETE FROM events");
        let today = NOW - NOW % DAY;
        for _ in 0..20 {
            let mut filter = random_filter(NOW, &mut random);
            (filter.from_ms, filter.to_ms) = (Some(today - 30 * DAY), Some(today - 3 * HOUR));
            let counted = fixture.ledger.count(&filter).expect("counts");
            assert_eq!(counted, past.count(&filter), "{} {filter:?}", fixture.name);
        }
    });
}

/// Blocks that something else wrote over are not believed, nor are heads; days are made anew of hours, and hours of rows.
#[test]
fn lists_that_cannot_be_read_change_no_answer() {
    each_ledger(|fixture| {
        let (mut past, mut feed, mut random) = (Named::default(), fixture.feed(), seeded());
        let at = NOW - 3 * DAY;
        feed.apply((0..400).map(|n| past.event(at + n * HOUR / 8, &mut random)).collect());
        feed.fold_all();
        let check = |random: &mut StdRng, of: &str| {
            for _ in 0..10 {
                past.check(fixture, NOW, random, of);
            }
        };
        check(&mut random, "whole");
        let broken = if fixture.name == "postgres" { "'\\x808080808080'::bytea" } else { "x'808080808080'" };
        fixture.rows(&format!("UPDATE posting_head SET counts = {broken} WHERE hours = 24"));
        check(&mut random, "heads are broken");
        fixture.rows("DELETE FROM posting_head WHERE hours = 24");
        fixture.rows(&format!("UPDATE posting_block SET block = {broken} WHERE hours = 1"));
        check(&mut random, "hours are broken");
        feed.fold_all();
        assert!(heads(fixture, 24) > 0, "{}", fixture.name);
        check(&mut random, "made anew");
        fixture.rows("DELETE FROM posting_block WHERE hours = 24");
        check(&mut random, "blocks of days are gone");
        fixture.rows("UPDATE posting_head SET blocks = 0");
        check(&mut random, "too much was there to be listed");
    });
}

// claims: L23
#[test]
fn nothing_of_an_erased_person_stays_in_lists() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let at = NOW - NOW % DAY - 2 * DAY;
        let view = |user: &'static str, at: i64| {
            let (post_id, url) = (Some("p1".into()), Some(format!("/home/{user}").into()));
            Record::Event(Event { user_id: Some(user.into()), post_id, url, ..event(EventType::PageView, at) })
        };
        feed.apply(vec![view("zoe", at), view("ann", at), view("ann", at + HOUR), view("ann", NOW - 2 * HOUR)]);
        feed.fold_all();
        let hex = if fixture.name == "postgres" { "encode(block, 'hex')" } else { "lower(hex(block))" };
        let naming = |name: &str| {
            let name: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
            fixture.number(&format!("SELECT count(*) FROM posting_block WHERE {hex} LIKE '%{name}%'"))
        };
        let count = |page: &str| {
            let page = Some(page.to_owned());
            let (from_ms, to_ms) = (Some(at - DAY), Some(NOW));
            let filter = CountFilter { post_id: Some("p1".into()), page, from_ms, to_ms, ..CountFilter::default() };
            fixture.ledger.count(&filter).expect("counts")
        };
        // In the hour and in its day.
        assert_eq!((naming("zoe"), naming("ann"), count("/home/zoe")), (2, 4, 1), "{}", fixture.name);
        feed.apply(vec![Record::Erase(Erase { user_id: "zoe".into(), at_ms: NOW })]);
        assert_eq!((count("/home/zoe"), count("/home/ann")), (0, 3), "{}", fixture.name);
        let untouched = fixture.number("SELECT count(*) FROM posting_head WHERE blocks > 0");
        assert_eq!(untouched, 2, "{}: the other hours stay", fixture.name);
        feed.fold_all();
        assert_eq!((naming("zoe"), naming("ann")), (0, 4), "{}", fixture.name);
        assert_eq!((count("/home/zoe"), count("/home/ann")), (0, 3), "{}", fixture.name);
    });
}

/// What comes in and is counted while an hour's rows are read, by another instance: its lists are of before, and not written.
#[test]
fn lists_of_rows_that_changed_while_they_were_read_are_not_kept() {
    let Some(fixture) = Fixture::postgres() else { return };
    let (mut past, mut feed, mut random) = (Named::default(), fixture.feed(), seeded());
    let at = NOW - NOW % DAY - DAY + 5 * HOUR;
    feed.apply((0..50).map(|n| past.event(at + n, &mut random)).collect());
    feed.fold_all();
    fixture.rows("DELETE FROM posting_head");
    let mut other = ::postgres::Client::connect(&fixture.url, ::postgres::NoTls).expect("connects");
    let mut holding = other.transaction().expect("begins");
    let day = jiff::Timestamp::from_millisecond(at).expect("a time").strftime("events_%Y%m%d").to_string();
    holding.batch_execute(&format!("LOCK TABLE {day} IN ACCESS EXCLUSIVE MODE")).expect("locks");
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%element_id FROM events%'";
    std::thread::scope(|scope| {
        let folding = scope.spawn(|| feed.writer.fold(NOW, &TimeZone::UTC).expect("folds"));
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while fixture.number(waits) == 0 {
            assert!(std::time::Instant::now() < until, "its rows are read");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        // As a batch and a count of it leave them.
        let late = "INSERT INTO events SELECT * FROM events LIMIT 1; \
             UPDATE series SET count = count + 1 WHERE minutes = 60 AND event_type = 0";
        holding.batch_execute(late).expect("comes in");
        holding.commit().expect("ends");
        folding.join().expect("folds");
    });
    assert_eq!(heads(&fixture, 1), 0, "what was read is not all there is");
    // Another housekeeper does not wait for what this one was overtaken by.
    fixture.feed().fold_all();
    assert_eq!(heads(&fixture, 1), 1);
}
