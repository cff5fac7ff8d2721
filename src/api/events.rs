//! `POST /api/events`: one event, a batch in any of its shapes, and the answers of both.

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::content::Shape;
use super::query::Query;
use super::wire::{Receipt, Rejection};
use super::{Api, answer, content, wire};
use crate::app::ingest::{Decisions, Taken};
use crate::app::{Ack, likes_key};
use crate::events::{Event, EventType};
use crate::http::{Answer, Exchange, Request, Waited};
use crate::limits::{EVENT_BYTES_MAX, LEDGER_WAIT_MS, REQUEST_EVENTS_MAX};
use crate::ports::Verdict;
use std::sync::atomic::Ordering;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Single {
    event_id: String,
    duplicate: bool,
}

#[derive(Serialize)]
struct BatchBody {
    received: usize,
    accepted: usize,
    rejected: usize,
    duplicates: usize,
    results: Vec<RowResult>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RowResult {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    status: &'static str,
    error: &'static str,
    message: String,
}

/// What a request still waits for once its body is no longer needed: a body may be 8 MiB unpacked, and many may wait.
enum Later {
    One {
        id: Uuid,
        liked: Vec<Box<str>>,
        decisions: Decisions,
    },
    /// The accepted rows by their index in the batch, with their ids.
    Rows {
        body: BatchBody,
        rows: Vec<(usize, Uuid)>,
        liked: Vec<Box<str>>,
        decisions: Decisions,
    },
}

/// What is cached of the posts whose likes these events change.
fn liked(events: &[Event<'_>]) -> Vec<Box<str>> {
    let likes = events.iter().filter(|event| matches!(event.event_type, EventType::Like | EventType::Unlike));
    likes.filter_map(|event| event.post_id.as_deref().map(likes_key)).collect()
}

type Step = Result<Option<Later>, Rejection>;

impl Api {
    pub(super) fn post_events(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        match self.take_body(request, exchange) {
            Ok(None) => {}
            Ok(Some(Later::One { id, liked, decisions })) => self.answer_one(id, &liked, &decisions, exchange),
            Ok(Some(Later::Rows { body, rows, liked, decisions })) => {
                self.answer_rows(body, &rows, &liked, &decisions, exchange);
            }
            Err(rejection) => {
                self.app.counters.rejected.fetch_add(1, Ordering::Relaxed);
                answer::rejected(exchange, rejection);
            }
        }
    }

    fn take_body(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Step {
        let wait = !request.query.is_empty() && Query::parse(request.query)?.get("wait") == Some("true");
        if request.body.is_empty() && !declares_body(request) {
            return Err(Rejection::new("length_required", "send Content-Length, or Transfer-Encoding: chunked"));
        }
        if wait || self.app.ack == Ack::Ledger {
            exchange.settle();
        }
        let (body, shape) = content::read(request)?;
        let receipt = Receipt { now_ms: self.app.clock.now_ms(), retention_ms: self.app.retention_ms };
        if shape == Shape::Lines {
            return self.take_rows(lines(&body)?, receipt, wait, exchange);
        }
        let text = content::text(&body)?.trim_ascii();
        match text.as_bytes().first() {
            None => Err(Rejection::new("empty_body", "send one event, an array of events, or one event a line")),
            Some(b'[') => self.take_rows(array(text)?, receipt, wait, exchange),
            Some(_) if request.path == "/api/events/batch" || is_lines(text) => match envelope(text) {
                Ok(Some(rows)) => self.take_rows(array(rows)?, receipt, wait, exchange),
                _ => self.take_rows(lines(text.as_bytes())?, receipt, wait, exchange),
            },
            Some(_) => self.take_object(text, receipt, wait, exchange),
        }
    }

    /// One event, or the envelope of a batch.
    fn take_object(&self, text: &str, receipt: Receipt, wait: bool, exchange: &mut Exchange<'_>) -> Step {
        if text.len() > EVENT_BYTES_MAX {
            // Only an envelope may be as large; its rows are judged one by one.
            return match envelope(text)? {
                Some(rows) => self.take_rows(array(rows)?, receipt, wait, exchange),
                None => wire::event(text, receipt, || self.app.new_id(receipt.now_ms)).map(|_| None),
            };
        }
        let parsed = match wire::parse(text) {
            Ok(parsed) => parsed,
            Err(rejection) => match envelope(text) {
                Ok(Some(rows)) => return self.take_rows(array(rows)?, receipt, wait, exchange),
                _ => return Err(rejection),
            },
        };
        if let Some(rows) = parsed.events {
            return self.take_rows(array(rows.get())?, receipt, wait, exchange);
        }
        let event = parsed.into_event(receipt, || self.app.new_id(receipt.now_ms))?;
        Ok(self.take_one(&event, wait, exchange))
    }

    fn take_one(&self, event: &Event<'_>, wait: bool, exchange: &mut Exchange<'_>) -> Option<Later> {
        match self.app.take_event(event, exchange.ticket(), wait) {
            Err(why) => answer::refused(exchange, why),
            Ok(Taken::Now) => accepted(event.id, exchange),
            Ok(Taken::Durable) => {
                accepted(event.id, exchange);
                exchange.hold();
            }
            Ok(Taken::Decided(decisions)) => {
                return Some(Later::One { id: event.id, liked: liked(std::slice::from_ref(event)), decisions });
            }
        }
        None
    }

    /// A batch: each row on its own, the accepted ones together.
    fn take_rows(&self, rows: Vec<&[u8]>, receipt: Receipt, wait: bool, exchange: &mut Exchange<'_>) -> Step {
        if rows.len() > REQUEST_EVENTS_MAX {
            let message = format!("a request may have at most {REQUEST_EVENTS_MAX} events");
            return Err(Rejection::new("too_many_events", message));
        }
        let mut events = Vec::with_capacity(rows.len());
        let mut places = Vec::with_capacity(rows.len());
        let mut body = BatchBody { received: rows.len(), accepted: 0, rejected: 0, duplicates: 0, results: Vec::new() };
        for (index, row) in rows.into_iter().enumerate() {
            let event =
                content::text(row).and_then(|text| wire::event(text, receipt, || self.app.new_id(receipt.now_ms)));
            match event {
                Ok(event) => {
                    places.push((index, event.id));
                    events.push(event);
                }
                Err(rejection) => body.results.push(rejected_row(index, rejection)),
            }
        }
        body.rejected = body.results.len();
        self.app.counters.rejected.fetch_add(body.rejected as u64, Ordering::Relaxed);
        body.accepted = events.len();
        if events.is_empty() {
            answer::json(exchange, 400, &body);
            return Ok(None);
        }
        match self.app.take_events(&events, exchange.ticket(), wait) {
            Err(why) => {
                // Part of it may be under way: nobody's later answer shall depend on that.
                if exchange.ticket().is_pending() {
                    exchange.wait(LEDGER_WAIT_MS);
                }
                answer::refused(exchange, why);
            }
            Ok(Taken::Now) => answer::json(exchange, 202, &body),
            Ok(Taken::Durable) => {
                answer::json(exchange, 202, &body);
                exchange.hold();
            }
            Ok(Taken::Decided(decisions)) => {
                let liked = liked(&events);
                return Ok(Some(Later::Rows { body, rows: places, liked, decisions }));
            }
        }
        Ok(None)
    }

    fn answer_one(&self, id: Uuid, liked: &[Box<str>], decisions: &Decisions, exchange: &mut Exchange<'_>) {
        match answer::waited(exchange, LEDGER_WAIT_MS, decisions) {
            None => {}
            Some(Waited::Done) => match decisions.verdicts().first() {
                Some((_, Verdict::Dead)) => answer::dead(exchange),
                Some((_, Verdict::Erased)) => answer::erased(exchange),
                verdict => {
                    self.forget(liked, exchange);
                    let duplicate = matches!(verdict, Some((_, Verdict::Duplicate)));
                    answer::json(exchange, 201, &Single { event_id: id.to_string(), duplicate });
                }
            },
            Some(_) => accepted(id, exchange),
        }
    }

    fn answer_rows(
        &self,
        mut body: BatchBody,
        rows: &[(usize, Uuid)],
        liked: &[Box<str>],
        decisions: &Decisions,
        exchange: &mut Exchange<'_>,
    ) {
        match answer::waited(exchange, LEDGER_WAIT_MS, decisions) {
            None => {}
            Some(Waited::Done) => {
                self.forget(liked, exchange);
                for (at, verdict) in decisions.verdicts() {
                    settle_row(&mut body, rows[at], verdict);
                }
                body.results.sort_by_key(|row| row.index);
                // As where each row was refused at the door.
                answer::json(exchange, if body.accepted == 0 { 400 } else { 201 }, &body);
            }
            Some(_) => answer::json(exchange, 202, &body),
        }
    }
}

fn declares_body(request: &Request<'_>) -> bool {
    ["content-length", "transfer-encoding"].iter().any(|name| request.headers.get(name).is_some())
}

fn accepted(id: Uuid, exchange: &mut Exchange<'_>) {
    // Written by hand: this is what nearly every request is answered.
    const BEFORE: &[u8] = br#"{"eventId":""#;
    const AFTER: &[u8] = br#""}"#;
    const ID_END: usize = BEFORE.len() + Hyphenated::LENGTH;
    let mut body = [0; ID_END + AFTER.len()];
    body[..BEFORE.len()].copy_from_slice(BEFORE);
    id.hyphenated().encode_lower(&mut body[BEFORE.len()..ID_END]);
    body[ID_END..].copy_from_slice(AFTER);
    exchange.respond(Answer { status: 202, content_type: "application/json", headers: &[], body: &body });
}

fn settle_row(body: &mut BatchBody, (index, id): (usize, Uuid), verdict: Verdict) {
    match verdict {
        Verdict::Like(_) | Verdict::Post(_) | Verdict::Erasure => {}
        Verdict::Duplicate => body.duplicates += 1,
        Verdict::Dead => {
            let message = "the ledger refuses the event's data; it is kept in dead_letter";
            refused_row(body, index, id, "refused_by_ledger", message);
        }
        Verdict::Erased => refused_row(body, index, id, "user_erased", answer::ERASED),
    }
}

fn refused_row(body: &mut BatchBody, index: usize, id: Uuid, error: &'static str, message: &'static str) {
    body.accepted -= 1;
    body.rejected += 1;
    let (event_id, message) = (Some(id.to_string()), message.into());
    body.results.push(RowResult { index, event_id, status: "rejected", error, message });
}

fn rejected_row(index: usize, rejection: Rejection) -> RowResult {
    let Rejection { tag, message, .. } = rejection;
    RowResult { index, event_id: None, status: "rejected", error: tag, message }
}

fn array(text: &str) -> Result<Vec<&[u8]>, Rejection> {
    let rows: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| wire::bad_json(&e))?;
    Ok(rows.into_iter().map(|row| row.get().as_bytes()).collect())
}

/// The rows of `{"events":[…]}`, unjudged; `None` where the object is no envelope.
fn envelope(text: &str) -> Result<Option<&str>, Rejection> {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        events: Option<&'a RawValue>,
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|e| wire::bad_json(&e))?;
    Ok(envelope.events.map(RawValue::get))
}

/// More than one line that begins like an object: NDJSON under a type that does not say so.
fn is_lines(text: &str) -> bool {
    text.split_once('\n')
        .is_some_and(|(first, rest)| first.trim_ascii_end().ends_with('}') && rest.trim_ascii_start().starts_with('{'))
}

fn lines(bytes: &[u8]) -> Result<Vec<&[u8]>, Rejection> {
    let rows: Vec<&[u8]> =
        bytes.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect();
    if rows.is_empty() { Err(Rejection::new("empty_body", "send one event a line")) } else { Ok(rows) }
}
