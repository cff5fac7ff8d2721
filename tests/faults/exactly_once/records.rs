//! What clients send: few users, posts and keywords, so that everything meets everything; late, early, twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use event_tracker::events::{Erase, Event, EventType, Forget, Record};
use rand::RngExt;
use rand::rngs::StdRng;
use uuid::Uuid;

use crate::support::ledgers::{DAY, HOUR, KEYWORDS, MINUTE, random_event};

pub(crate) const USERS: usize = 4;

pub(crate) struct Records {
    pub(crate) random: StdRng,
    pub(crate) hand: Arc<AtomicI64>,
    /// Events with ids that clients chose, for sending again.
    pub(crate) sent: Vec<Event<'static>>,
    pub(crate) erases: bool,
}

impl Records {
    pub(crate) fn new(random: StdRng, hand: Arc<AtomicI64>) -> Records {
        Records { random, hand, sent: Vec::new(), erases: false }
    }

    /// What one request holds. Some are of plain events only: a ledger may have a shorter way for those.
    pub(crate) fn some(&mut self) -> Vec<Record<'static>> {
        let mut records: Vec<_> = (0..self.random.random_range(1..9)).map(|_| self.record()).collect();
        if self.chance(3) {
            let is_plain = |record: &Record<'_>| match record {
                Record::Event(event) => !event.id_from_client && !event.event_type.is_like(),
                _ => false,
            };
            records.retain(is_plain);
        }
        if records.is_empty() { self.some() } else { records }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_range(0..one_in) == 0
    }

    fn record(&mut self) -> Record<'static> {
        // No two records are of the same moment: which of two searches is newer must not depend on who came first.
        let step_ms = self.random.random_range(1..200);
        let now_ms = self.hand.fetch_add(step_ms, Ordering::Relaxed) + step_ms;
        let user = format!("u{}", self.random.random_range(0..USERS));
        if self.erases && self.chance(40) {
            return Record::Erase(Erase { user_id: user.into(), at_ms: now_ms });
        }
        match self.random.random_range(0..100) {
            0..4 => {
                let keyword = self.random.random_range(0..2 * KEYWORDS.len());
                let keyword = KEYWORDS.get(keyword).map(|keyword| (*keyword).into());
                return Record::Forget(Forget { user_id: user.into(), keyword, at_ms: now_ms });
            }
            4..20 if !self.sent.is_empty() => {
                let again = self.random.random_range(0..self.sent.len());
                return Record::Event(Event { received_at_ms: now_ms, ..self.sent[again].clone() });
            }
            _ => {}
        }
        let late = [0, 0, 0, -30_000, 5 * MINUTE, 59 * MINUTE, 4 * HOUR, 2 * DAY, 9 * DAY];
        let late = late[self.random.random_range(0..late.len())];
        let late = if late > 0 { self.random.random_range(0..late) } else { late };
        let mut new = Event {
            id: Uuid::from_u128(self.random.random()),
            id_from_client: self.chance(3),
            user_id: Some(user.into()),
            event_time_ms: now_ms - late,
            received_at_ms: now_ms,
            ..random_event(&mut self.random)
        };
        if new.event_type == EventType::Search && self.chance(40) {
            new.keyword = Some("nul\0".into());
        }
        if new.id_from_client {
            self.sent.push(new.clone());
        }
        Record::Event(new)
    }
}
