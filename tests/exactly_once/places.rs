//! Posts that are deleted, on several instances: in the end the live lists are the ledger's, whoever was first.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use event_tracker::clock::Clock;
use event_tracker::events::{Dimension, Erase, Event, EventType, PostDelete, PostPut, Record};
use event_tracker::ports::{TopQuery, Window};
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::instance::Instance;
use super::stores::Stores;
use crate::ledgers::{DAY, HOUR, MINUTE, event};

/// Instances on one pair of stores, and the time that they share.
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
        let instances = (0..instances).map(|_| Instance::new(stores.ledger(), &stores.live, &clock)).collect();
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
        let windows = [Window::TenMinutes, Window::Hour, Window::Day, Window::Week];
        let read = |window| {
            let query = TopQuery { parts: vec![(dimension, 1.0)], window, hot: false, limit: 100 };
            let live = self.stores.live.top(&query, self.now_ms()).expect("answers").items;
            let ledger = self.stores.ledger().top(&query, self.now_ms(), &self.stores.zone).expect("answers");
            assert_eq!(live, ledger, "{dimension:?} of {window:?}");
            live
        };
        windows.into_iter().map(read).collect()
    }
}

/// One sink of one of two instances is late: with what the ledger has counted before the deletion, or behind it.
pub(crate) fn late_views(stores: &mut Stores) {
    for is_view_first in [true, false] {
        let mut lists = Lists::new(stores, 2);
        (0..2).for_each(|at| lists.live(at));
        let (view, delete) = (lists.view("p", 0), lists.delete("p"));
        lists.instances[0].append(&[lists.view("p", 0), delete]);
        lists.instances[1].append(&[view, lists.view("q", 0)]);
        let order = if is_view_first { [1, 0] } else { [0, 1] };
        // The ledger in one order, the live store in the other.
        order.into_iter().for_each(|at| lists.ledger(at));
        order.into_iter().rev().for_each(|at| lists.live(at));
        lists.settle();
        let listed = |name: &str| (name.to_owned(), 1.0);
        let expected = if is_view_first { vec![listed("q")] } else { vec![listed("p"), listed("q")] };
        for list in lists.lists(Dimension::PostViews) {
            assert_eq!(list, expected, "the view was counted first: {is_view_first}");
        }
    }
}

/// An instance that comes late deletes what others have counted since, minutes as well as hours.
pub(crate) fn late_deletion(stores: &mut Stores) {
    for late_ms in [20 * MINUTE, 7 * HOUR] {
        let mut lists = Lists::new(stores, 2);
        (0..2).for_each(|at| lists.live(at));
        lists.instances[0].append(&[lists.delete("p")]);
        lists.hand.fetch_add(late_ms, Ordering::Relaxed);
        lists.instances[1].append(&[lists.view("p", 0), lists.view("q", 0)]);
        lists.ledger(1);
        lists.settle();
        // A minute that would have been written into the future is there now.
        lists.hand.fetch_add(10 * MINUTE, Ordering::Relaxed);
        for list in lists.lists(Dimension::PostViews).into_iter().skip(1) {
            assert_eq!(list, [("q".to_owned(), 1.0)], "{late_ms} ms late");
        }
    }
}

/// Anything by anybody in any order.
pub(crate) fn explore(stores: &mut Stores, seed: u64, steps: usize) {
    println!("places: SEED={seed}");
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
        1 => Record::PostPut(PostPut {
            post_id: post.into(),
            user_id: user.into(),
            content: "content".into(),
            hashtags: vec![],
            image_urls: vec![],
            created_at_ms: None,
            at_ms: lists.now_ms(),
        }),
        2 if random.random_range(0..3) == 0 => Record::Erase(Erase { user_id: user.into(), at_ms: lists.now_ms() }),
        _ => {
            let ago = [0, 0, 0, -30_000, 5 * MINUTE, 2 * HOUR, 9 * HOUR, 2 * DAY];
            let ago_ms = ago[random.random_range(0..ago.len())];
            lists.of_post(kinds[random.random_range(0..kinds.len())], &user, &post, ago_ms)
        }
    }
}
