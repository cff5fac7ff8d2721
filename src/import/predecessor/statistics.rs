//! `statistics(event_type, metadata, count)`: `count` events of that type with that metadata.
//!
//! The predecessor kept neither times nor users of them: they are of one moment, in the session `imported`. The id of
//! each is that of the database, the type, the metadata and its number among its like, so that a count that has grown
//! adds what it has grown by as long as the server remembers.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::reader::{Column, Record, Shape, as_text};
use super::{Rows, Translation};
use crate::import::Judge;
use crate::import::progress::counted;
use crate::import::row::Refusal;

pub(super) struct Statistics {
    pub(super) origin: Uuid,
    pub(super) at_ms: i64,
    pub(super) judge: Judge,
}

impl Translation for Statistics {
    fn shape(&self) -> Shape {
        // Grouped by the key: what is read of it has to be the same expression.
        let columns = vec![
            Column { name: "event_type", is_needed: true, sql: Box::new(as_text) },
            Column { name: "metadata", is_needed: true, sql: Box::new(as_text) },
            Column { name: "count", is_needed: true, sql: Box::new(|name, _| format!("sum({name})::bigint::text")) },
        ];
        Shape { key: &["event_type", "metadata"], columns, is_grouped: true }
    }

    fn translate(&mut self, record: &Record) -> Rows {
        let [event_type, metadata, count] = &record[..] else { unreachable!("three columns were asked for") };
        let event_type = event_type.clone().unwrap_or_default();
        let Some(count) = count.as_deref().and_then(|count| count.parse::<u64>().ok()) else {
            let said = count.as_deref().unwrap_or("nothing");
            return Rows::One(Err(Refusal::new(
                "invalid_count",
                format!("the count is {said}, which is no number of events"),
            )));
        };
        let origin =
            Uuid::new_v5(&self.origin, format!("{event_type}\0{}", metadata.as_deref().unwrap_or("")).as_bytes());
        let base = json!({
            "eventType": event_type,
            "sessionId": "imported",
            "timestamp": self.at_ms,
            "metadata": metadata.as_deref().map_or(Value::Null, lenient),
        });
        let event = move |number: u64| {
            let mut event = base.clone();
            event["eventId"] = json!(Uuid::new_v5(&origin, &number.to_be_bytes()));
            event.to_string().into_bytes()
        };
        if count == 0 {
            return Rows::Many { count, event: Box::new(event) };
        }
        // A million events that lack a field would be a million refusals: the record is judged once.
        match (self.judge)(&String::from_utf8_lossy(&event(0))) {
            Ok(()) => Rows::Many { count, event: Box::new(event) },
            Err(Refusal { error, message }) => Rows::One(Err(Refusal {
                error,
                message: format!("{message} (a record of {})", counted(count, "event", "events")),
            })),
        }
    }
}

/// The metadata as an object, with whole numbers where they were kept as text.
fn lenient(text: &str) -> Value {
    let Ok(mut metadata) = serde_json::from_str::<Map<String, Value>>(text) else { return Value::Null };
    for name in ["componentId", "resultCount"] {
        if let Some(value) = metadata.get_mut(name)
            && let Some(number) = value.as_str().and_then(|text| text.parse::<i64>().ok())
        {
            *value = json!(number);
        }
    }
    Value::Object(metadata)
}
