//! What comes out of a ledger, page after page.

use event_tracker::events::{Event, EventType, Record};
use event_tracker::ports::{ExportQuery, Ledger};
use rand::RngExt;

use crate::support::ledgers::{DAY, HOUR, NOW, each_ledger, random_event, seeded};

// claims: L19
#[test]
fn an_export_gives_what_was_stored_once_in_order_of_time_however_many_share_one() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let mut stored: Vec<Event<'static>> = Vec::new();
        for size in [700, 2_600] {
            let mut events: Vec<Event<'static>> = Vec::new();
            while events.len() < size {
                let mut event = random_event(&mut random);
                // More of one millisecond than a page holds, and likes apart: a toggle is stored as what it became.
                event.event_time_ms = if random.random_range(0..3) > 0 { NOW - HOUR } else { event.event_time_ms };
                if !event.event_type.is_like() {
                    events.push(event);
                }
            }
            feed.apply(events.iter().cloned().map(Record::Event).collect());
            stored.extend(events);
        }
        let no_more = (None, None, None);
        let of_type = (Some(EventType::Search), None, None);
        let of_time = (None, Some(NOW - HOUR), Some(NOW - HOUR + 1));
        for (event_type, from_ms, to_ms) in [no_more, of_type, of_time, (None, Some(NOW + DAY), None)] {
            let query = ExportQuery { event_type, from_ms, to_ms };
            let found = all_pages(&*fixture.ledger, &query);
            assert!(found.is_sorted_by_key(|event| event.event_time_ms));
            let mut expected: Vec<&Event<'_>> = stored
                .iter()
                .filter(|e| event_type.is_none_or(|kind| kind == e.event_type))
                .filter(|e| from_ms.is_none_or(|from| e.event_time_ms >= from))
                .filter(|e| to_ms.is_none_or(|to| e.event_time_ms < to))
                .collect();
            let mut found: Vec<&Event<'_>> = found.iter().collect();
            assert_eq!(found.len(), expected.len(), "{query:?}");
            found.sort_by_key(|event| event.id);
            expected.sort_by_key(|event| event.id);
            for (found, expected) in found.iter().zip(expected) {
                // The order and the blanks of properties are the store's.
                let same = Event { properties: None, id_from_client: false, ..expected.clone() };
                assert_eq!(Event { properties: None, ..(*found).clone() }, same);
                assert_eq!(found.properties.is_some(), expected.properties.is_some());
            }
        }
    });
}

fn all_pages(ledger: &dyn Ledger, query: &ExportQuery) -> Vec<Event<'static>> {
    let mut found = Vec::new();
    let mut after = None;
    for _ in 0..10_000 {
        let page = ledger.export(query, after).expect("answers");
        found.extend(page.events);
        match page.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
    panic!("it never ends");
}
