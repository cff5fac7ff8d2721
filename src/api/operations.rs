//! Health and metrics: what those who run the server ask.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::answer::{self, Answered, Failure};
use super::keys::Right;
use super::state::Api;
use crate::http::{Answer, Exchange, Method, Request, Waited};
use crate::limits::READ_WAIT_MS;
use crate::metrics::Format;
use crate::runtime::{stuck_workers, worker_count};
use crate::sinks::{SinkState, SinkStatus};

#[derive(Serialize)]
struct Status {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

fn answer_status(exchange: &mut Exchange<'_>, status: &'static str, reason: Option<String>) -> Answered {
    let (code, headers): (u16, &[(&str, &str)]) = match status {
        "ok" => (200, &[]),
        _ => (503, &[("Retry-After", "1")]),
    };
    answer::json_with(exchange, code, headers, &Status { status, reason })
}

/// Answers while the stores are opened: the process lives, is not ready, and does nothing else yet.
pub fn starting(request: &Request<'_>, exchange: &mut Exchange<'_>) {
    let is_read = matches!(request.method, Method::Get | Method::Head);
    let answered = match request.path.trim_end_matches('/') {
        "/healthz/live" if is_read => answer_status(exchange, "ok", None),
        "/healthz/ready" if is_read => answer_status(exchange, "starting", None),
        _ => {
            let message = "the server is starting: send it again";
            answer::error_with(exchange, 503, "starting", message, &[("Retry-After", "1")]);
            Ok(())
        }
    };
    if let Err(failure) = answered {
        failure.answer(exchange);
    }
}

impl Api {
    /// Live: every worker runs. A stuck one cannot answer for itself, so the others tell.
    pub(super) fn live(&self, _: &str, _: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let stuck = stuck_workers();
        let reason = (stuck > 0).then(|| format!("{stuck} of {} workers stand still", worker_count()));
        answer_status(exchange, if stuck > 0 { "stuck" } else { "ok" }, reason)
    }

    /// Ready: the journal takes events, no stop is under way, and the ledger follows or waits for its store. An
    /// unreachable store does not make it unready; a stopped ledger does, as only a person can start it again.
    pub(super) fn ready(&self, _: &str, _: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let stopped = self.app.ledger_status.state() == SinkState::Stopped;
        match self.app.journal.is_writable() {
            _ if stopped => {
                let reason = "the ledger has stopped; the log says why".to_owned();
                answer_status(exchange, "unavailable", Some(reason))
            }
            Err(why) => answer_status(exchange, "unavailable", Some(why.to_string())),
            Ok(()) if crate::shutdown::is_under_way() => answer_status(exchange, "stopping", None),
            Ok(()) => answer_status(exchange, "ok", None),
        }
    }

    /// Each store and its sink; 503 if one is unreachable or its sink does not follow.
    pub(super) fn deps(&self, _: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let app = &self.app;
        app.ask_stores(exchange.ticket());
        let in_vain = exchange.wait(READ_WAIT_MS) == Waited::Late;
        let (ledger, live) = (app.health.ledger.answer(in_vain), app.health.live.answer(in_vain));
        let dead_letters = ledger.as_ref().and_then(|answer| answer.as_ref().ok().copied().flatten());
        let ledger = ledger.map(|answer| answer.map(drop));
        let mut all_well = app.journal.is_writable().is_ok();
        let mut sinks = Map::new();
        // What a store says may name its servers and roles.
        let tells_errors = self.access.admit(Right::Read, request).is_ok();
        for (status, answer) in [(&app.ledger_status, ledger), (&app.live_status, live)] {
            let failure = answer.unwrap_or_else(|| Err("no answer in time".to_owned())).err();
            all_well &= failure.is_none() && status.state() == SinkState::Following;
            let mut sink = self.sink(status, failure.is_none());
            if tells_errors {
                sink["lastError"] = json!(status.last_error().or(failure));
            }
            sinks.insert(status.name.to_owned(), sink);
        }
        let (journal_bytes, segments) = app.journal.size();
        let body = json!({
            "status": if all_well { "ok" } else { "degraded" },
            "version": env!("CARGO_PKG_VERSION"),
            "commit": env!("EVENT_TRACKER_COMMIT"),
            "deadLetters": dead_letters,
            "journalBytes": journal_bytes,
            "journal": {
                "writable": app.journal.is_writable().is_ok(),
                "stream": app.journal.stream().to_string(),
                "position": app.journal.end_position(),
                "segments": segments,
                "bytes": journal_bytes,
            },
            "sinks": sinks,
        });
        answer::json(exchange, if all_well { 200 } else { 503 }, &body)
    }

    fn sink(&self, status: &SinkStatus, is_up: bool) -> Value {
        json!({
            "state": status.state().name(),
            "store": if is_up { "up" } else { "down" },
            "position": status.position(),
            "lagEvents": self.app.lag_events(status),
            "asOf": answer::as_of(status.as_of_ms()),
        })
    }

    pub(super) fn metrics_text(&self, _: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let format = Format::preferred(request.headers.get("accept"));
        let text = self.metrics.encode(format).map_err(|_| Failure::Unwritable)?;
        let (content_type, headers) = (format.content_type(), &[("Vary", "Accept")]);
        exchange.respond(Answer { status: 200, content_type, headers, body: text.as_bytes() });
        Ok(())
    }
}
