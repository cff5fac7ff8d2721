//! The table of all kinds of events, each by its type, its name and its number.

use super::click::CLICK;
use super::like::{LIKE, UNLIKE};
use super::page_view::PAGE_VIEW;
use super::search::SEARCH;
use super::{EventStrategy, EventType};

/// Every kind of event that a client may send.
pub static STRATEGIES: [EventStrategy; 5] = [CLICK, PAGE_VIEW, SEARCH, LIKE, UNLIKE];

impl EventType {
    /// By the number that the journal stores.
    pub fn from_code(code: u8) -> Option<EventType> {
        STRATEGIES.iter().map(|s| s.event_type).chain([EventType::Toggle]).find(|t| *t as u8 == code)
    }

    /// By the name that a client sends, in any case.
    pub fn from_name(name: &str) -> Option<EventType> {
        STRATEGIES.iter().find(|s| s.name.eq_ignore_ascii_case(name)).map(|s| s.event_type)
    }

    /// The name that clients and the ledger use. A toggle that the ledger has not resolved has none of its own.
    pub fn name(self) -> &'static str {
        self.strategy().name
    }

    pub fn strategy(self) -> &'static EventStrategy {
        match self {
            EventType::Click => &CLICK,
            EventType::PageView => &PAGE_VIEW,
            EventType::Search => &SEARCH,
            EventType::Like | EventType::Toggle => &LIKE,
            EventType::Unlike => &UNLIKE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_name_and_its_code() {
        for strategy in &STRATEGIES {
            let t = strategy.event_type;
            assert_eq!(EventType::from_name(&t.name().to_lowercase()), Some(t));
            assert_eq!(EventType::from_code(t as u8), Some(t));
        }
        assert_eq!(EventType::from_name("TOGGLE"), None);
    }
}
