//! What clients send: few users, posts and keywords, so that everything meets everything; late, early, twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use event_tracker::events::{Erase, Event, EventType, Forget, Record};
use rand::RngExt;
use rand::rngs::StdRng;
use uuid::Uuid;

use crate::support::ledgers::{DAY, HOUR, MINUTE, event};

pub(crate) const USERS: usize = 4;
const KEYWORDS: [&str; 8] = ["Chair", "chair", "ÉCOLE", "école", "고양이", "lamp", "Sofa", "x"];

/// Makes records by a seed; time moves on with each.
pub(crate) struct Records {
    pub(crate) random: StdRng,
    pub(crate) hand: Arc<AtomicI64>,
    /// Events with ids that clients chose, for sending again.
    pub(crate) sent: Vec<Event<'static>>,
    /// Now and then somebody is erased.
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
        let kinds = [EventType::Click, EventType::PageView, EventType::Search, EventType::Search];
        let likes = [EventType::Like, EventType::Unlike, EventType::Toggle, EventType::Toggle];
        let kind = [kinds, likes][self.random.random_range(0..2)][self.random.random_range(0..4)];
        let late = [0, 0, 0, -30_000, 5 * MINUTE, 59 * MINUTE, 4 * HOUR, 2 * DAY, 9 * DAY];
        let late = late[self.random.random_range(0..late.len())];
        let late = if late > 0 { self.random.random_range(0..late) } else { late };
        let mut new = event(kind, now_ms - late);
        new.received_at_ms = now_ms;
        new.id = Uuid::from_u128(self.random.random());
        new.user_id = Some(user.into());
        self.fill(&mut new);
        if self.chance(3) {
            new.id_from_client = true;
            self.sent.push(new.clone());
        }
        Record::Event(new)
    }

    fn fill(&mut self, new: &mut Event<'static>) {
        if new.event_type.is_like() || self.chance(3) {
            new.post_id = Some(format!("p{}", self.random.random_range(0..4)).into());
        }
        if new.event_type == EventType::Search || self.chance(8) {
            let poison = self.chance(60);
            new.keyword = Some(if poison { "nul\0" } else { KEYWORDS[self.random.random_range(0..8)] }.into());
            new.result_count = Some(self.random.random_range(0..2));
        }
        if new.event_type == EventType::PageView || self.chance(8) {
            new.url = Some(["/a?x=1", "https://example.org/b#c", "/c"][self.random.random_range(0..3)].into());
        }
        if new.event_type == EventType::Click || self.chance(8) {
            new.component_id = Some(self.random.random_range(1..4));
        }
    }
}
