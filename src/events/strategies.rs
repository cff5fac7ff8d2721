//! The table of all kinds of events, each by its type, its name and its number.

use super::click::Click;
use super::like::{Like, Unlike};
use super::page_view::PageView;
use super::search::Search;
use super::{EventStrategy, EventType};

/// Every kind of event that a client may send.
pub static STRATEGIES: [&dyn EventStrategy; 5] = [&Click, &PageView, &Search, &Like, &Unlike];

impl EventType {
    /// By the number that the journal stores.
    pub fn from_code(code: u8) -> Option<EventType> {
        STRATEGIES.iter().map(|s| s.event_type()).chain([EventType::Toggle]).find(|t| *t as u8 == code)
    }

    /// By the name that a client sends, in any case.
    pub fn from_name(name: &str) -> Option<EventType> {
        STRATEGIES.iter().find(|s| s.name().eq_ignore_ascii_case(name)).map(|s| s.event_type())
    }

    /// The name that clients and the ledger use. A toggle that the ledger has not resolved has none of its own.
    pub fn name(self) -> &'static str {
        self.strategy().name()
    }

    pub fn strategy(self) -> &'static dyn EventStrategy {
        match self {
            EventType::Click => &Click,
            EventType::PageView => &PageView,
            EventType::Search => &Search,
            EventType::Like | EventType::Toggle => &Like,
            EventType::Unlike => &Unlike,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_name_and_its_code() {
        for strategy in STRATEGIES {
            let t = strategy.event_type();
            assert_eq!(EventType::from_name(&t.name().to_lowercase()), Some(t));
            assert_eq!(EventType::from_code(t as u8), Some(t));
        }
        assert_eq!(EventType::from_name("TOGGLE"), None);
    }
}
