//! `POST /api/events`: one event, a batch in any of its shapes, and the answers of both.

use std::cell::OnceCell;

use serde::Serialize;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::answer::{self, Answered, Decided, Failure, decided};
use super::content::Shape;
use super::query::Query;
use super::rows::Rows;
use super::state::Api;
use super::wire::{AgeMax, Receipt, Rejection, WireEvent};
use super::{content, rows, wire};
use crate::app::ingest::{Decisions, Taken};
use crate::app::{Ack, likes_key};
use crate::events::{Event, EventType};
use crate::http::{Answer, Exchange, Request, Waited};
use crate::limits::{BODY_DECODED_BYTES_MAX, EVENT_BYTES_MAX, LEDGER_WAIT_MS};
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

fn liked(events: &[Event<'_>]) -> Vec<Box<str>> {
    let likes = events.iter().filter(|event| matches!(event.event_type, EventType::Like | EventType::Unlike));
    likes.filter_map(|event| event.post_id.as_deref().map(likes_key)).collect()
}

type Step = Result<Option<Later>, Failure>;

impl Api {
    pub(super) fn post_events(&self, _: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        match self.take_body(request, exchange) {
            Ok(None) => Ok(()),
            Ok(Some(Later::One { id, liked, decisions })) => self.answer_one(id, &liked, &decisions, exchange),
            Ok(Some(Later::Rows { body, rows, liked, decisions })) => {
                self.answer_rows(body, &rows, &liked, &decisions, exchange)
            }
            Err(failure) => {
                if matches!(failure, Failure::Rejected(_)) {
                    self.app.counters.rejected.fetch_add(1, Ordering::Relaxed);
                }
                Err(failure)
            }
        }
    }

    fn take_body(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Step {
        let wait = !request.query.is_empty() && Query::parse(request.query)?.get("wait") == Some("true");
        if request.body.is_empty() && !declares_body(request) {
            let message = "send Content-Length, or Transfer-Encoding: chunked";
            return Err(Rejection::new("length_required", message).into());
        }
        if wait || self.app.ack == Ack::Ledger {
            exchange.settle();
        }
        let body = content::read_checked(request, BODY_DECODED_BYTES_MAX, rows::check_beginning, exchange)?;
        // Each old day costs a partition and recounts, so only admins may send old events.
        let known = OnceCell::new();
        let is_admin = || *known.get_or_init(|| self.access.is_admin(request));
        let receipt = Receipt {
            now_ms: self.app.clock.now_ms(),
            age: AgeMax { ms: self.app.event_age_ms, admin_ms: self.app.retention_ms, is_admin: &is_admin },
            sent_at_ms: None,
            truncated: &self.app.counters.truncated,
        };
        let is_batch = request.path == "/api/events/batch";
        let bytes = body.bytes();
        if let (Shape::Json, false, Some(parsed)) = (body.shape, is_batch, single(bytes)) {
            let event = parsed.into_event(receipt, || self.app.new_id(receipt.now_ms))?;
            return self.take_one(&event, wait, exchange);
        }
        let mut pause = || exchange.give_way();
        let rows = match body.shape {
            Shape::Lines => Some(rows::of_lines(bytes, &mut pause)?),
            Shape::Json => rows::of_json(bytes, &mut pause)?,
        };
        match rows {
            Some(rows) => self.take_rows(bytes, rows, receipt, wait, exchange),
            None if is_batch => {
                let rows = Rows { ranges: std::iter::once(0..bytes.len()).collect(), sent_at: None };
                self.take_rows(bytes, rows, receipt, wait, exchange)
            }
            None => {
                let event = judge_row(bytes, receipt, || self.app.new_id(receipt.now_ms))?;
                self.take_one(&event, wait, exchange)
            }
        }
    }

    fn take_one(&self, event: &Event<'_>, wait: bool, exchange: &mut Exchange<'_>) -> Step {
        match self.app.take_event(event, exchange.ticket(), wait)? {
            Taken::Now => accepted(event.id, exchange),
            Taken::Durable => {
                accepted(event.id, exchange);
                exchange.hold();
            }
            Taken::Decided(decisions) => {
                return Ok(Some(Later::One { id: event.id, liked: liked(std::slice::from_ref(event)), decisions }));
            }
        }
        Ok(None)
    }

    /// A batch: each row on its own, the accepted ones together.
    fn take_rows(
        &self,
        bytes: &[u8],
        rows: Rows,
        receipt: Receipt<'_>,
        wait: bool,
        exchange: &mut Exchange<'_>,
    ) -> Step {
        let sent_at_ms = rows.sent_at.map(|range| wire::sent_at(&bytes[range])).transpose()?.flatten();
        let receipt = Receipt { sent_at_ms, ..receipt };
        let received = rows.ranges.len();
        let mut events = Vec::with_capacity(received);
        let mut places = Vec::with_capacity(received);
        let mut body = BatchBody { received, accepted: 0, rejected: 0, duplicates: 0, results: Vec::new() };
        for (index, row) in rows.ranges.into_iter().enumerate() {
            exchange.give_way();
            match judge_row(&bytes[row], receipt, || self.app.new_id(receipt.now_ms)) {
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
            answer::json(exchange, 400, &body)?;
            return Ok(None);
        }
        let ticket = exchange.ticket().clone();
        match self.app.take_events(&events, &ticket, wait, &mut || exchange.give_way()) {
            Err(why) => {
                // Part of it may be under way: nobody's later answer shall depend on that.
                if exchange.ticket().is_pending() {
                    exchange.wait(LEDGER_WAIT_MS);
                }
                return Err(why.into());
            }
            Ok(Taken::Now) => answer::json(exchange, 202, &body)?,
            Ok(Taken::Durable) => {
                answer::json(exchange, 202, &body)?;
                exchange.hold();
            }
            Ok(Taken::Decided(decisions)) => {
                let liked = liked(&events);
                return Ok(Some(Later::Rows { body, rows: places, liked, decisions }));
            }
        }
        Ok(None)
    }

    fn answer_one(&self, id: Uuid, liked: &[Box<str>], decisions: &Decisions, exchange: &mut Exchange<'_>) -> Answered {
        match decided(exchange, decisions)? {
            Decided::Now(verdict) => {
                self.forget(liked, exchange);
                let duplicate = matches!(verdict, Some(Verdict::Duplicate));
                answer::json(exchange, 201, &Single { event_id: id.to_string(), duplicate })
            }
            Decided::Later => {
                accepted(id, exchange);
                Ok(())
            }
        }
    }

    fn answer_rows(
        &self,
        mut body: BatchBody,
        rows: &[(usize, Uuid)],
        liked: &[Box<str>],
        decisions: &Decisions,
        exchange: &mut Exchange<'_>,
    ) -> Answered {
        if answer::waited(exchange, decisions)? != Waited::Done {
            return answer::json(exchange, 202, &body);
        }
        self.forget(liked, exchange);
        for (at, verdict) in decisions.verdicts() {
            settle_row(&mut body, rows[at], verdict);
        }
        body.results.sort_by_key(|row| row.index);
        // As if each row was refused at the door.
        answer::json(exchange, if body.accepted == 0 { 400 } else { 201 }, &body)
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

fn single(bytes: &[u8]) -> Option<WireEvent<'_>> {
    if bytes.len() > EVENT_BYTES_MAX || bytes.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    wire::parse(content::text(bytes).ok()?).ok().filter(|parsed| parsed.events.is_none())
}

fn judge_row<'a>(row: &'a [u8], receipt: Receipt<'_>, new_id: impl FnOnce() -> Uuid) -> Result<Event<'a>, Rejection> {
    if row.len() > EVENT_BYTES_MAX {
        let message = format!("an event may have at most {EVENT_BYTES_MAX} bytes");
        return Err(Rejection::new("event_too_large", message));
    }
    wire::event(content::text(row)?, receipt, new_id)
}
