//! Posts that are deleted, on several instances: in the end the live lists are the ledger's, whoever was first.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use event_tracker::clock::Clock;
use event_tracker::events::{Dimension, Erase, Event, EventType, PostDelete, Record};
use event_tracker::ports::TopQuery;
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::instance::Instance;
use super::stores::Stores;
use crate::support::ledgers::{self, DAY, HOUR, MINUTE, event};
use crate::support::model::WINDOWS;

struct Lists<'s> {
    stores: &'s mut Stores,
    hand: Arc<AtomicI64>,
    instances: Vec<Instance>,
}

impl<'s> Lists<'s> {
    fn new(stores: &'s mut Stores, instances: usize) -> Lists<'s> {
        stores.clear(TimeZone::UTC);
        // Redis expires keys by its own clock: ours is never behind it.
        let today = Clock::System.now_ms().div_euclid(DAY) * DAY;
        let hand = Arc::new(AtomicI64::new(today + DAY + 7 * HOUR + 30 * MINUTE));
        let clock = Clock::Manual(hand.clone());
        let instances = (0..instances).map(|_| Instance::new(&stores.fixture.ledger, &stores.live, &clock)).collect();
        Lists { stores, hand, instances }
    }

    fn now_ms(&self) -> i64 {
        self.hand.load(Ordering::Relaxed)
    }

    fn view(&self, post: &str, ago_ms: i64) -> Record<'static> {
        self.of_post(EventType::PageView, "somebody", post, ago_ms)
    }

    fn of_post(&self, kind: EventType, user: &str, post: &str, ago_ms: i64) -> Record<'static> {
        let (user_id, post_id) = (Some(user.to_owned().into()), Some(post.to_owned().into()));
        let event = event(kind, self.now_ms() - ago_ms);
        Record::Event(Event { user_id, post_id, received_at_ms: self.now_ms(), ..event })
    }

    fn delete(&self, post: &str) -> Record<'static> {
        Record::PostDelete(PostDelete { post_id: post.to_owned().into(), at_ms: self.now_ms() })
    }

    fn put(&self, post: &str, user: &str) -> Record<'static> {
        Record::PostPut(ledgers::put(user, post, "content", self.now_ms()))
    }

    fn ledger(&mut self, at: usize) {
        self.instances[at].step_ledger().expect("nothing fails");
    }

    fn live(&mut self, at: usize) {
        self.instances[at].step_live().expect("nothing fails");
    }

    /// Everything is applied, and a list may be a second old.
    fn settle(&mut self) {
        for at in 0..self.instances.len() {
            while self.instances[at].step_ledger().expect("nothing fails") {}
        }
        for at in 0..self.instances.len() {
            while self.instances[at].step_live().expect("nothing fails") {}
        }
        self.hand.fetch_add(1_000, Ordering::Relaxed);
    }

    /// Live lists of every window, which are those of the ledger.
    fn lists(&self, dimension: Dimension) -> Vec<Vec<(String, f64)>> {
        let read = |window| {
            let query = TopQuery { parts: vec![(dimension, 1.0)], window, hot: false, limit: 100 };
            let live = self.stores.live.top(&query, self.now_ms()).expect("answers").items;
            let ledger = self.stores.fixture.ledger.top(&query, self.now_ms(), &self.stores.zone).expect("answers");
            assert_eq!(live, ledger, "{dimension:?} of {window:?}");
            live
        };
        WINDOWS.into_iter().map(read).collect()
    }
}

/// The ledger decides in one order, the live store learns of it in the other.
fn in_both_orders(stores: &mut Stores, records: impl Fn(&Lists<'_>) -> [Record<'static>; 2], expected: [&[&str]; 2]) {
    for (order, expected) in [[0, 1], [1, 0]].into_iter().zip(expected) {
        let mut lists = Lists::new(stores, 2);
        (0..2).for_each(|at| lists.live(at));
        let [first, second] = records(&lists);
        lists.instances[0].append(&[lists.view("p", 0), first]);
        lists.instances[1].append(&[second, lists.view("q", 0)]);
        order.into_iter().for_each(|at| lists.ledger(at));
        order.into_iter().rev().for_each(|at| lists.live(at));
        lists.settle();
        for list in lists.lists(Dimension::PostViews) {
            let names: Vec<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, expected, "{order:?}");
        }
    }
}

/// One follower of one of two instances is late, with a view from before the deletion or after it.
pub(crate) fn late_views(stores: &mut Stores) {
    in_both_orders(stores, |lists| [lists.delete("p"), lists.view("p", 0)], [&["q"], &["q"]]);
}

/// The post is put on one instance and deleted on the other.
pub(crate) fn late_puts(stores: &mut Stores) {
    in_both_orders(stores, |lists| [lists.delete("p"), lists.put("p", "u")], [&["p", "q"], &["q"]]);
}

pub(crate) fn explore(stores: &mut Stores, seed: u64, steps: usize) {
    println!("tombstones: SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut lists = Lists::new(stores, 3);
    for _ in 0..steps {
        let at = random.random_range(0..3);
        match random.random_range(0..20) {
            0..9 => {
                let records: Vec<_> = (0..random.random_range(1..6)).map(|_| record(&lists, &mut random)).collect();
                lists.instances[at].append(&records);
            }
            9..13 => lists.ledger(at),
            13..17 => lists.live(at),
            17 => lists.instances[at].fold().expect("nothing fails"),
            18 => {
                let by_ms = [MINUTE, 10 * MINUTE, 2 * HOUR, 10 * HOUR][random.random_range(0..4)];
                lists.hand.fetch_add(random.random_range(0..by_ms), Ordering::Relaxed);
            }
            _ => lists.instances[at].keep_house(),
        }
    }
    lists.settle();
    for dimension in [Dimension::PostViews, Dimension::PostClicks, Dimension::PostLikes] {
        lists.lists(dimension);
    }
}

fn record(lists: &Lists<'_>, random: &mut StdRng) -> Record<'static> {
    let (user, post) = (format!("u{}", random.random_range(0..3)), format!("p{}", random.random_range(0..3)));
    let kinds = [EventType::PageView, EventType::PageView, EventType::Click, EventType::Like, EventType::Toggle];
    match random.random_range(0..12) {
        0 => lists.delete(&post),
        1 => lists.put(&post, &user),
        2 if random.random_range(0..3) == 0 => Record::Erase(Erase { user_id: user.into(), at_ms: lists.now_ms() }),
        _ => {
            let ago = [0, 0, 0, -30_000, 5 * MINUTE, 2 * HOUR, 9 * HOUR, 2 * DAY];
            let ago_ms = ago[random.random_range(0..ago.len())];
            lists.of_post(kinds[random.random_range(0..kinds.len())], &user, &post, ago_ms)
        }
    }
}
