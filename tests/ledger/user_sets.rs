//! Sets of users: whatever is counted, comes late or is erased, distinct users of any range are exact.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use event_tracker::events::{Erase, Event, EventType, Record};
use jiff::tz::TimeZone;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::ledgers::{DAY, Fixture, HOUR, NOW, each_ledger, event, seeded};

const USERS: usize = 25;
/// Two spans of 32 days are over by then, wherever they begin.
const BEGIN: i64 = NOW - 97 * DAY;

/// When something happened, and whose it is while it is anybody's; and who was erased, up to when.
#[derive(Default)]
struct Past {
    rows: Vec<(i64, Option<String>)>,
    erased: BTreeMap<String, i64>,
}

impl Past {
    fn event(&mut self, at: i64, random: &mut StdRng) -> Record<'static> {
        let user = format!("u{}", random.random_range(0..USERS));
        if self.erased.get(&user).is_none_or(|up_to| at > *up_to) {
            self.rows.push((at, Some(user.clone())));
        }
        let kind = [EventType::Click, EventType::PageView][random.random_range(0..2)];
        Record::Event(Event { user_id: Some(user.into()), component_id: Some(1), ..event(kind, at) })
    }

    fn erase(&mut self, up_to: i64, random: &mut StdRng) -> Record<'static> {
        let user = format!("u{}", random.random_range(0..USERS));
        let theirs = self.rows.iter_mut().filter(|(at, whose)| *at <= up_to && whose.as_ref() == Some(&user));
        theirs.for_each(|(_, whose)| *whose = None);
        let known = self.erased.entry(user.clone()).or_insert(up_to);
        *known = (*known).max(up_to);
        Record::Erase(Erase { user_id: user.into(), at_ms: up_to })
    }

    fn users(&self, range: &Range<i64>) -> u64 {
        let theirs = self.rows.iter().filter(|(at, _)| range.contains(at)).filter_map(|(_, whose)| whose.as_ref());
        theirs.collect::<BTreeSet<&String>>().len() as u64
    }
}

fn check(fixture: &Fixture, past: &Past, now: i64, random: &mut StdRng, of: &str) {
    let mut end = || {
        let at = random.random_range(BEGIN - DAY..now + 2 * HOUR);
        at - at.rem_euclid([32 * DAY, DAY, DAY, HOUR, 1][random.random_range(0..5)])
    };
    for _ in 0..4 {
        let (one, other) = (end(), end());
        let range = one.min(other)..one.max(other);
        let read = fixture.ledger.users(range.start, range.end).expect("answers");
        assert_eq!(read, Some(past.users(&range)), "{} {of} {range:?}", fixture.name);
    }
    let forgotten = "SELECT count(*) FROM user_number WHERE user_id NOT IN (SELECT user_id FROM user_hour)";
    assert_eq!(fixture.number(forgotten), 0, "{} {of}: nobody has a number who is named nowhere else", fixture.name);
}

// claims: L23
#[test]
fn distinct_users_of_any_range_are_exact_whatever_is_counted_late_or_erased() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let (mut past, mut feed, mut now) = (Past::default(), fixture.feed(), BEGIN);
        while now < NOW {
            let span = [4 * HOUR, 40 * HOUR, 60 * HOUR][random.random_range(0..3)];
            now = (now + random.random_range(0..span)).min(NOW);
            feed.apply((0..random.random_range(1..5)).map(|_| past.event(now, &mut random)).collect());
            let back = [HOUR, DAY, 50 * DAY][random.random_range(0..3)];
            let before = (now - random.random_range(0..back)).max(BEGIN);
            match random.random_range(0..10) {
                0 | 1 => {
                    feed.apply(vec![past.event(before, &mut random)]);
                    check(fixture, &past, now, &mut random, "late");
                }
                2 => {
                    let up_to = if random.random_range(0..4) == 0 { before } else { now };
                    feed.apply(vec![past.erase(up_to, &mut random)]);
                    check(fixture, &past, now, &mut random, "erased");
                }
                3..7 => {
                    feed.writer.fold(now, &TimeZone::UTC).expect("folds");
                    check(fixture, &past, now, &mut random, "folded");
                }
                _ => {}
            }
        }
        while feed.writer.fold(NOW, &TimeZone::UTC).expect("folds") {}
        check(fixture, &past, NOW, &mut random, "folded whole");
        for (hours, least) in [(1, 40), (24, 40), (32 * 24, 1)] {
            let kept = fixture.number(&format!("SELECT count(*) FROM user_set WHERE hours = {hours}"));
            assert!(kept >= least, "{}: {kept} sets of {hours} hours", fixture.name);
        }
        let without = "SELECT count(*) FROM series AS s WHERE minutes = 60 AND event_type = 0 \
                       AND NOT EXISTS (SELECT 1 FROM user_set WHERE hours = 1 AND user_set.at = s.at / 60)";
        assert_eq!(fixture.number(without), 0, "{}: every hour that was counted has one", fixture.name);
    });
}

/// A set that something else wrote over is not believed, and made anew.
#[test]
fn a_set_that_cannot_be_read_changes_no_answer() {
    each_ledger(|fixture| {
        let (mut past, mut feed, mut random) = (Past::default(), fixture.feed(), seeded());
        let at = NOW - 3 * DAY;
        feed.apply((0..40).map(|hour| past.event(at + hour * HOUR, &mut random)).collect());
        while feed.writer.fold(NOW, &TimeZone::UTC).expect("folds") {}
        let range = at - DAY..NOW;
        let users = || fixture.ledger.users(range.start, range.end).expect("answers");
        assert_eq!(users(), Some(past.users(&range)), "{}", fixture.name);
        let broken = if fixture.name == "postgres" { "'broken'::bytea" } else { "x'00'" };
        fixture.rows(&format!("UPDATE user_set SET members = {broken} WHERE hours = 1"));
        fixture.rows("DELETE FROM user_set WHERE hours > 1");
        assert_eq!(users(), Some(past.users(&range)), "{}", fixture.name);
        while feed.writer.fold(NOW, &TimeZone::UTC).expect("folds") {}
        assert!(fixture.number("SELECT count(*) FROM user_set WHERE hours = 24") > 0, "{}", fixture.name);
        assert_eq!(users(), Some(past.users(&range)), "{}", fixture.name);
    });
}
