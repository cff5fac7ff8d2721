//! Answers: JSON bodies, and the one map from failures to the errors of the contract. A tag never changes its meaning; a
//! message says what to do.

use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

use super::query::TIME_MS_MAX;
use super::wire::Rejection;
use crate::app::App;
use crate::app::ingest::Decisions;
use crate::app::reads::Read;
use crate::cache::FillError;
use crate::http::{Answer, Exchange, Waited};
use crate::journal::AppendError;
use crate::limits::{LEDGER_WAIT_MS, READ_WAIT_MS};
use crate::ports::{StoreError, Verdict};

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

#[derive(Debug)]
pub(super) enum Failure {
    /// Input that is not taken.
    Rejected(Rejection),
    /// The journal takes nothing now: ours, not the client's.
    Refused(AppendError),
    NotDurable,
    /// The ledger refuses a record's data: sending it again would not help.
    Dead,
    /// It happened before its user was erased, and so it is nothing that could be stored.
    Erased,
    Unfilled(FillError),
    /// A read that is not cached did not bring a value. `None`: it did not end in time, or too many wait.
    Unread(Option<StoreError>),
    /// A body that serde refuses, which it never should.
    Unwritable,
    NotFound(&'static str),
    /// As many of these as may be are under way: a tag and a sentence.
    TooMany(&'static str, &'static str),
    KeyRequired,
    KeyRefused,
}

pub(super) type Answered = Result<(), Failure>;

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Failure {
        Failure::Rejected(rejection)
    }
}

impl From<AppendError> for Failure {
    fn from(why: AppendError) -> Failure {
        Failure::Refused(why)
    }
}

const RETRY: &[(&str, &str)] = &[("Retry-After", "1")];

impl Failure {
    pub(super) fn answer(self, exchange: &mut Exchange<'_>) {
        let none: &[(&str, &str)] = &[];
        let (status, tag, message, headers) = match self {
            Failure::Rejected(rejection) => return rejected(exchange, rejection),
            Failure::NotDurable => return exchange.respond(not_durable()),
            Failure::Refused(why) => {
                let (tag, message) = refusal(why);
                (503, tag, message, RETRY)
            }
            Failure::Dead => (422, "refused_by_ledger", "the ledger refuses the data; it is kept in dead_letter", none),
            Failure::Erased => (410, "user_erased", ERASED, none),
            Failure::Unfilled(FillError::TooLarge) => (400, "range_too_large", RANGE_TOO_LARGE, none),
            Failure::Unfilled(FillError::TooBroad) => {
                let message = "more posts match than can be ranked in time: ask for a longer keyword";
                (400, "search_too_broad", message, none)
            }
            Failure::Unfilled(FillError::Internal) => (500, "internal", UNREADABLE, none),
            Failure::Unread(Some(failure)) if !matches!(failure, StoreError::Retry(_) | StoreError::Cancelled(_)) => {
                tracing::error!(error = %failure, "a read failed");
                (500, "internal", UNREADABLE, none)
            }
            Failure::Unfilled(FillError::Away | FillError::Busy) | Failure::Unread(_) => {
                (503, "store_unavailable", "the stores do not answer; events are still taken. Ask again", RETRY)
            }
            Failure::Unwritable => (500, "internal", "the answer could not be written; please report this", none),
            Failure::NotFound(message) => (404, "not_found", message, none),
            Failure::TooMany(tag, message) => (503, tag, message, &[("Retry-After", "10")][..]),
            Failure::KeyRequired => {
                let message = "send a key: Authorization: Bearer …, or X-Api-Key";
                (401, "key_required", message, &[("WWW-Authenticate", "Bearer")][..])
            }
            Failure::KeyRefused => (403, "key_refused", "this key is not for this request", none),
        };
        error_with(exchange, status, tag, message, headers);
    }
}

/// What is said of an event that happened before its user was erased.
pub(super) const ERASED: &str = "its user was erased, and it happened before that: nothing of it is kept";
const UNREADABLE: &str = "the server failed to read this; the reason is in its log";
const RANGE_TOO_LARGE: &str = "the range holds more than can be read in time: ask for a shorter one, or for one that \
                               begins and ends at whole hours";

fn refusal(why: AppendError) -> (&'static str, &'static str) {
    match why {
        AppendError::Busy => ("busy", "too much waits for the disk: send it again, with the same ids"),
        AppendError::Full => ("journal_full", "the stores must catch up first: send it again, with the same ids"),
        AppendError::Failed => ("journal_unavailable", "the disk refuses to write: send it again, with the same ids"),
        AppendError::Forked => {
            ("journal_forked", "the ledger knows another history of this journal: an operator must look")
        }
        AppendError::Closing => ("closing", "this server is stopping: send it again, with the same ids"),
    }
}

fn rejected(exchange: &mut Exchange<'_>, rejection: Rejection) {
    let (status, headers): (u16, &[(&str, &str)]) = match rejection.tag {
        "body_too_large" | "event_too_large" | "too_many_events" => (413, &[]),
        "length_required" => (411, &[]),
        "unsupported_content_type" => (415, &[("Accept-Post", "application/json, text/plain, application/x-ndjson")]),
        "unsupported_content_coding" => (415, &[("Accept-Encoding", "gzip, deflate, zstd")]),
        "bodies_full" => (503, RETRY),
        _ => (400, &[]),
    };
    let Rejection { tag, message, fields } = rejection;
    respond(exchange, status, headers, &ErrorBody { status, error: tag, message: &message, errors: fields });
}

/// What stands in the place of answers that waited for the disk in vain.
pub fn not_durable() -> Answer<'static> {
    Answer {
        status: 503,
        content_type: JSON,
        headers: RETRY,
        body: br#"{"status":503,"error":"journal_unavailable","message":"nothing was acknowledged: send it again, with the same ids"}"#,
    }
}

pub(super) fn json(exchange: &mut Exchange<'_>, status: u16, body: &impl Serialize) -> Answered {
    json_with(exchange, status, &[], body)
}

pub(super) fn json_with(
    exchange: &mut Exchange<'_>,
    status: u16,
    headers: &[(&str, &str)],
    body: &impl Serialize,
) -> Answered {
    let body = serde_json::to_vec(body).map_err(|_| Failure::Unwritable)?;
    exchange.respond(Answer { status, content_type: JSON, headers, body: &body });
    Ok(())
}

pub(super) fn empty(exchange: &mut Exchange<'_>, status: u16) -> Answered {
    exchange.respond(Answer { status, content_type: "", headers: &[], body: b"" });
    Ok(())
}

pub(super) fn error(exchange: &mut Exchange<'_>, status: u16, tag: &str, message: &str) {
    error_with(exchange, status, tag, message, &[]);
}

pub(super) fn error_with(exchange: &mut Exchange<'_>, status: u16, tag: &str, message: &str, headers: &[(&str, &str)]) {
    respond(exchange, status, headers, &ErrorBody { status, error: tag, message, errors: BTreeMap::new() });
}

fn respond(exchange: &mut Exchange<'_>, status: u16, headers: &[(&str, &str)], body: &ErrorBody<'_>) {
    // Texts and numbers in memory: nothing of this can fail to be written.
    let body = serde_json::to_vec(body).unwrap_or_default();
    exchange.respond(Answer { status, content_type: JSON, headers, body: &body });
}

/// Waits for the ledger's (or live store's) part of what is in the journal. `Done`: it has decided. `Late`: it has not
/// yet, but the events are safe.
pub(super) fn waited(exchange: &mut Exchange<'_>, decisions: &Decisions) -> Result<Waited, Failure> {
    let waited = exchange.wait(LEDGER_WAIT_MS);
    if waited == Waited::Late {
        decisions.abandon();
    }
    if waited == Waited::Failed || !decisions.are_durable() {
        return Err(Failure::NotDurable);
    }
    Ok(waited)
}

pub(super) enum Decided {
    /// It is in the journal and will be applied in order.
    Later,
    Now(Option<Verdict>),
}

pub(super) fn decided(exchange: &mut Exchange<'_>, decisions: &Decisions) -> Result<Decided, Failure> {
    if waited(exchange, decisions)? != Waited::Done {
        return Ok(Decided::Later);
    }
    match decisions.verdict() {
        Some(Verdict::Dead) => Err(Failure::Dead),
        Some(Verdict::Erased) => Err(Failure::Erased),
        verdict => Ok(Decided::Now(verdict)),
    }
}

pub(super) fn finish<T>(read: Read<T>, exchange: &mut Exchange<'_>) -> Result<T, Failure> {
    let pending = read.map_err(|_| Failure::Unread(None))?;
    let value = match exchange.wait(READ_WAIT_MS) {
        Waited::Late => None,
        Waited::Done | Waited::Failed => pending.take(),
    };
    value.ok_or(Failure::Unread(None))?.map_err(|error| Failure::Unread(Some(error)))
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
