//! Answers: JSON bodies and the errors of the contract. A tag never changes its meaning; a message says what to do.

use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

use super::query::TIME_MS_MAX;
use super::wire::Rejection;
use crate::app::App;
use crate::app::ingest::Decisions;
use crate::http::{Answer, Exchange, Waited};
use crate::journal::AppendError;
use crate::ports::StoreError;

const JSON: &str = "application/json";
/// An answer about one person, which no shared cache may keep.
pub(super) const PRIVATE: (&str, &str) = ("Cache-Control", "private");

#[derive(Serialize)]
struct ErrorBody<'a> {
    status: u16,
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<Cow<'static, str>, String>,
}

/// What stands in the place of answers that waited for the disk in vain.
pub fn not_durable() -> Answer<'static> {
    Answer {
        status: 503,
        content_type: JSON,
        headers: &[("Retry-After", "1")],
        body: br#"{"status":503,"error":"journal_unavailable","message":"nothing was acknowledged: send it again, with the same ids"}"#,
    }
}

/// A JSON body.
pub(super) fn json(exchange: &mut Exchange<'_>, status: u16, body: &impl Serialize) {
    json_with(exchange, status, &[], body);
}

/// A JSON body with headers.
pub(super) fn json_with(exchange: &mut Exchange<'_>, status: u16, headers: &[(&str, &str)], body: &impl Serialize) {
    match serde_json::to_vec(body) {
        Ok(body) => exchange.respond(Answer { status, content_type: JSON, headers, body: &body }),
        Err(_) => unwritable(exchange),
    }
}

/// A body that serde refuses, which it never should.
pub(super) fn unwritable(exchange: &mut Exchange<'_>) {
    let body = br#"{"status":500,"error":"internal","message":"the answer could not be written; please report this"}"#;
    exchange.respond(Answer { status: 500, content_type: JSON, headers: &[], body });
}

/// An error.
pub(super) fn error(exchange: &mut Exchange<'_>, status: u16, tag: &str, message: &str) {
    error_with(exchange, status, tag, message, &[]);
}

/// An error with headers.
pub(super) fn error_with(exchange: &mut Exchange<'_>, status: u16, tag: &str, message: &str, headers: &[(&str, &str)]) {
    let body = ErrorBody { status, error: tag, message, errors: BTreeMap::new() };
    json_with(exchange, status, headers, &body);
}

/// Input that is not taken: 400 with its fields, or the status that fits its tag.
pub(super) fn rejected(exchange: &mut Exchange<'_>, rejection: Rejection) {
    let status = match rejection.tag {
        "body_too_large" | "event_too_large" | "too_many_events" => 413,
        "length_required" => 411,
        "unsupported_content_type" | "unsupported_content_coding" => 415,
        "bodies_full" => 503,
        _ => 400,
    };
    let headers: &[(&str, &str)] = match rejection.tag {
        "unsupported_content_type" => &[("Accept-Post", "application/json, text/plain, application/x-ndjson")],
        "unsupported_content_coding" => &[("Accept-Encoding", "gzip, deflate, zstd")],
        "bodies_full" => &[("Retry-After", "1")],
        _ => &[],
    };
    let Rejection { tag, message, fields } = rejection;
    json_with(exchange, status, headers, &ErrorBody { status, error: tag, message: &message, errors: fields });
}

/// The journal takes nothing now: ours, not the client's.
pub(super) fn refused(exchange: &mut Exchange<'_>, why: AppendError) {
    let (tag, message) = match why {
        AppendError::Busy => ("busy", "too much waits for the disk: send it again, with the same ids"),
        AppendError::Full => ("journal_full", "the stores must catch up first: send it again, with the same ids"),
        AppendError::Failed => ("journal_unavailable", "the disk refuses to write: send it again, with the same ids"),
        AppendError::Forked => {
            ("journal_forked", "the ledger knows another history of this journal: an operator must look")
        }
        AppendError::Closing => ("closing", "this server is stopping: send it again, with the same ids"),
    };
    error_with(exchange, 503, tag, message, &[("Retry-After", "1")]);
}

/// Waits for the ledger's (or live store's) part of what is in the journal. `Done`: it has decided. `Late`: it has not
/// yet, but the events are safe. `None`: they are not, and that was answered.
pub(super) fn waited(exchange: &mut Exchange<'_>, ms: u64, decisions: &Decisions) -> Option<Waited> {
    let waited = exchange.wait(ms);
    if waited == Waited::Late {
        decisions.abandon();
    }
    if waited == Waited::Failed || !decisions.are_durable() {
        exchange.respond(not_durable());
        return None;
    }
    Some(waited)
}

/// The ledger refuses a record's data: sending it again would not help.
pub(super) fn dead(exchange: &mut Exchange<'_>) {
    error(exchange, 422, "refused_by_ledger", "the ledger refuses the data; it is kept in dead_letter");
}

/// It happened before its user was erased, and so it is nothing that could be stored.
pub(super) fn erased(exchange: &mut Exchange<'_>) {
    error(exchange, 410, "user_erased", ERASED);
}

/// What is said of it.
pub(super) const ERASED: &str = "its user was erased, and it happened before that: nothing of it is kept";

/// A store did not answer in time, and nothing else can.
pub(super) fn store_away(exchange: &mut Exchange<'_>) {
    let message = "the stores do not answer; events are still taken. Ask again";
    error_with(exchange, 503, "store_unavailable", message, &[("Retry-After", "1")]);
}

/// A fault of ours, which was logged.
pub(super) fn internal(exchange: &mut Exchange<'_>) {
    error(exchange, 500, "internal", "the server failed to read this; the reason is in its log");
}

/// A read that is not cached did not bring a value. `None`: it did not end in time.
pub(super) fn read_failed(exchange: &mut Exchange<'_>, failure: Option<StoreError>) {
    match failure {
        None | Some(StoreError::Retry(_) | StoreError::Cancelled(_)) => store_away(exchange),
        Some(failure) => {
            tracing::error!(error = %failure, "a read failed");
            internal(exchange);
        }
    }
}

/// An exact read that would take too long: asking again does not help.
pub(super) fn range_too_large(exchange: &mut Exchange<'_>) {
    let message = "the range holds more than can be read in time: ask for a shorter one, or for one that begins and \
                   ends at whole hours";
    error(exchange, 400, "range_too_large", message);
}

/// A search that would take too long: asking again does not help.
pub(super) fn search_too_broad(exchange: &mut Exchange<'_>) {
    let message = "more posts match than can be ranked in time: ask for a longer keyword";
    error(exchange, 400, "search_too_broad", message);
}

/// Milliseconds since the epoch as RFC 3339, for answers.
pub fn rfc3339(ms: i64) -> String {
    // The last bucket of a series may end after the last moment that can be written.
    jiff::Timestamp::from_millisecond(ms.min(TIME_MS_MAX)).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// `asOf`: `None` before anything was applied.
pub(super) fn as_of(ms: i64) -> Option<String> {
    (ms > 0).then(|| rfc3339(ms))
}

/// `asOf` and `stale` of answers that come from the live store.
pub(super) fn live_as_of(app: &App) -> (Option<String>, bool) {
    (as_of(app.live_status.as_of_ms()), app.is_live_stale())
}
