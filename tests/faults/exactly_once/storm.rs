//! The shipped sinks on their own threads, at their own pace, while clients append, stores fail at random, instances
//! are killed and the live store is emptied.
//!
//! Which of two instances came first is not ours to say here, so the ledger is asked: its log of likes and its verdicts
//! must be one possible history of what was sent, and everything else must follow from that history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use event_tracker::clock::Clock;
use event_tracker::events::{EventType, Record};
use event_tracker::ports::{LikeOutcome, LiveState, Position, Verdict};
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::instance::{Asked, Instance, Running};
use super::records::{Records, USERS};
use super::stores::Stores;
use crate::support::model::{Model, Stored};

const INSTANCES: usize = 2;
/// One call in so many fails.
const FAULT_ONE_IN: u32 = 6;
const SETTLE_WAIT: Duration = Duration::from_secs(30);

/// A journal, what was appended to it, and who asked.
struct Line {
    instance: Instance,
    running: Running,
    records: Vec<Record<'static>>,
    asked: Vec<Asked>,
}

/// Runs `requests` requests a client, one client an instance, through a storm; then compares everything.
pub(crate) fn storm(stores: &mut Stores, seed: u64, requests: usize) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    stores.clear(TimeZone::UTC);
    let hand = Arc::new(AtomicI64::new(Clock::System.now_ms() + 60_000));
    let clock = Clock::Manual(hand.clone());
    let stores = &*stores;
    let clients: Vec<_> = (0..INSTANCES)
        .map(|_| {
            let mut random = StdRng::seed_from_u64(random.random());
            let mut line = begin(Instance::new(&stores.fixture.ledger, &stores.live, &clock), &mut random);
            let (clock, mut records) = (clock.clone(), Records::new(random, hand.clone()));
            move || {
                for _ in 0..requests {
                    one_request(&mut line, &mut records, stores, &clock);
                }
                line
            }
        })
        .collect();
    let lines: Vec<Line> = std::thread::scope(|scope| {
        let clients: Vec<_> = clients.into_iter().map(|client| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    settle(&lines, stores);
    hand.fetch_add(1_000, Ordering::Relaxed);
    let now_ms = hand.load(Ordering::Relaxed);
    let model = history(&lines, stores);
    model.check_ledger(&stores.fixture, now_ms, &stores.zone, &BTreeMap::new());
    let users: Vec<String> = (0..USERS).map(|user| format!("u{user}")).collect();
    stores.check_live(&model, now_ms, &users);
    for line in &lines {
        let stream = line.instance.journal.stream();
        line.asked.iter().for_each(|asked| asked.check(stream, &model, true));
    }
    lines.iter().map(|line| line.records.len()).sum()
}

fn begin(instance: Instance, random: &mut StdRng) -> Line {
    instance.to_ledger.at_random(random.random(), FAULT_ONE_IN);
    instance.to_live.at_random(random.random(), FAULT_ONE_IN);
    Line { running: instance.spawn(), instance, records: Vec::new(), asked: Vec::new() }
}

fn one_request(line: &mut Line, records: &mut Records, stores: &Stores, clock: &Clock) {
    let some = records.some();
    line.asked.push(line.instance.append(&some));
    line.records.extend(some);
    match records.random.random_range(0..100) {
        0..60 => {}
        60..95 => std::thread::sleep(Duration::from_millis(records.random.random_range(0..15))),
        95..97 => _ = records.hand.fetch_add(records.random.random_range(0..600_000), Ordering::Relaxed),
        97 if stores.redis.is_some() => stores.empty_redis(),
        97 => {}
        _ => {
            let next = line.instance.copy(&stores.fixture.ledger, &stores.live, clock);
            let next = begin(next, &mut records.random);
            let records_so_far = std::mem::take(&mut line.records);
            let zombie = std::mem::replace(line, next);
            line.records = records_so_far;
            // It goes on beside its successor until it learns that it is dead.
            std::thread::sleep(Duration::from_millis(records.random.random_range(0..40)));
            drop(zombie.running);
        }
    }
}

fn settle(lines: &[Line], stores: &Stores) {
    for line in lines {
        line.instance.to_ledger.heal();
        line.instance.to_live.heal();
    }
    let deadline = Instant::now() + SETTLE_WAIT;
    for line in lines {
        let (stream, end) = (line.instance.journal.stream(), line.instance.journal.end_position());
        loop {
            let live = stores.live.open_writer().and_then(|mut writer| writer.state(stream));
            let ledger = stores.fixture.ledger.watermark(stream).expect("the ledger answers");
            let is_told = line.asked.iter().all(Asked::is_answered);
            let is_live = matches!(live, Ok(LiveState::At(at)) if Some(at) == ledger);
            if ledger.is_some_and(|at| at.position == end) && is_live && is_told {
                break;
            }
            let states = line.running.statuses.each_ref().map(|status| (status.state(), status.last_error()));
            assert!(Instant::now() < deadline, "{end:?}: ledger {ledger:?}, live {live:?}, told {is_told}, {states:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The history that the ledger tells, checked against what was sent.
fn history(lines: &[Line], stores: &Stores) -> Model {
    let mut model = Model::default();
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let place = |row: &[String]| (Uuid::parse_str(&row[0]).expect("a stream"), number(&row[1]) as Position);
    for row in stores.fixture.rows("SELECT stream, position, kind FROM verdict") {
        let verdict = if row[2] == "1" { Verdict::Duplicate } else { Verdict::Dead };
        assert_eq!(model.verdicts.insert(place(&row), verdict), None);
        if verdict == Verdict::Dead {
            model.letters.insert(place(&row), (String::new(), 0));
        }
    }
    let columns = "stream, position, post_id, user_id, action, like_count, version";
    for row in stores.fixture.rows(&format!("SELECT {columns} FROM post_like_log ORDER BY post_id, version")) {
        let (stream, position) = place(&row);
        let line = lines.iter().find(|line| line.instance.journal.stream() == stream).expect("one of ours");
        let Record::Event(event) = &line.records[position as usize - 1] else { panic!("{row:?} is no event") };
        assert!(event.post_id.as_deref() == Some(&row[2]) && event.user_id.as_deref() == Some(&row[3]), "{row:?}");
        // The plain fold, in the order that the ledger says, gives what the ledger says.
        model.take_record(stream, position, &Record::Event(event.clone()));
        let liked = row[4] == "LIKE";
        let outcome = LikeOutcome { liked, changed: true, like_count: number(&row[5]), version: number(&row[6]) };
        assert_eq!(model.verdicts[&(stream, position)], Verdict::Like(outcome), "{row:?}");
    }
    // Those were the ones that changed something; now all, in order, with what became of each.
    model.stored.clear();
    let mut chosen = BTreeSet::new();
    for line in lines {
        let stream = line.instance.journal.stream();
        for (position, record) in (1..).zip(&line.records) {
            let verdict = model.verdicts.get(&(stream, position)).copied();
            let event = match record {
                Record::Event(event) => event.clone(),
                _ => {
                    model.take_record(stream, position, record);
                    continue;
                }
            };
            let is_poison = event.keyword.as_deref().is_some_and(|keyword| keyword.contains('\0'));
            assert_eq!(verdict == Some(Verdict::Dead), is_poison, "{position}");
            let is_stored = !matches!(verdict, Some(Verdict::Duplicate | Verdict::Dead));
            if is_stored && event.id_from_client {
                assert!(chosen.insert(event.id), "{} was stored twice", event.id);
            }
            let (kind, net) = match verdict {
                Some(Verdict::Like(LikeOutcome { liked: true, .. })) => (EventType::Like, 1),
                Some(Verdict::Like(_)) => (EventType::Unlike, -1),
                _ => (event.event_type, 0),
            };
            assert!(!is_stored || kind != EventType::Toggle, "a toggle always changes something");
            if is_stored {
                model.stored.push(Stored::new(stream, event, kind, net));
            }
        }
    }
    for line in lines {
        let events = line.records.iter().filter_map(|record| match record {
            Record::Event(event) if event.id_from_client => Some(event),
            _ => None,
        });
        for event in events.filter(|event| !event.keyword.as_deref().is_some_and(|keyword| keyword.contains('\0'))) {
            assert!(chosen.contains(&event.id), "{} was taken for a duplicate of nothing", event.id);
        }
    }
    model
}
