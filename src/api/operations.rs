//! Health and metrics: what those who run the server ask.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Api, answer};
use crate::http::{Answer, Exchange, Method, Request};
use crate::runtime::{stuck_workers, worker_count};
use crate::sinks::{SinkState, SinkStatus};

#[derive(Serialize)]
struct Status {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Answers while the stores are opened: the process lives, is not ready, and does nothing else yet.
pub fn starting(request: &Request<'_>, exchange: &mut Exchange<'_>) {
    let is_read = matches!(request.method, Method::Get | Method::Head);
    let retry = [("Retry-After", "1")];
    match request.path.trim_end_matches('/') {
        "/healthz/live" if is_read => answer::json(exchange, 200, &Status { status: "ok", reason: None }),
        "/healthz/ready" if is_read => {
            answer::json_with(exchange, 503, &retry, &Status { status: "starting", reason: None });
        }
        _ => answer::error_with(exchange, 503, "starting", "the server is starting: send it again", &retry),
    }
}

impl Api {
    /// Live: every worker runs. A stuck one cannot answer for itself, so the others tell.
    pub(super) fn live(&self, _: &Request<'_>, exchange: &mut Exchange<'_>) {
        let stuck = stuck_workers();
        if stuck > 0 {
            let reason = Some(format!("{stuck} of {} workers stand still", worker_count()));
            return answer::json_with(exchange, 503, &[("Retry-After", "1")], &Status { status: "stuck", reason });
        }
        let body = br#"{"status":"ok"}"#;
        exchange.respond(Answer { status: 200, content_type: "application/json", headers: &[], body });
    }

    /// Ready: the journal takes events, no stop is under way, and the ledger follows or waits for its store. An
    /// unreachable store does not make it unready; a stopped ledger does, as only a person can start it again.
    pub(super) fn ready(&self, _: &Request<'_>, exchange: &mut Exchange<'_>) {
        if self.app.ledger_status.state() == SinkState::Stopped {
            let reason = Some("the ledger has stopped; the log says why".to_owned());
            let body = Status { status: "unavailable", reason };
            return answer::json_with(exchange, 503, &[("Retry-After", "1")], &body);
        }
        match self.app.journal.is_writable() {
            Ok(()) if !crate::shutdown::is_under_way() => {
                answer::json(exchange, 200, &Status { status: "ok", reason: None });
            }
            Ok(()) => {
                let body = Status { status: "stopping", reason: None };
                answer::json_with(exchange, 503, &[("Retry-After", "1")], &body);
            }
            Err(why) => {
                let body = Status { status: "unavailable", reason: Some(why.to_string()) };
                answer::json_with(exchange, 503, &[("Retry-After", "1")], &body);
            }
        }
    }

    /// Each store and its sink; 503 where one is away or its sink does not follow.
    pub(super) fn deps(&self, _: &Request<'_>, exchange: &mut Exchange<'_>) {
        let (ledger, live) = self.app.ping(exchange.ticket());
        // Both are under way at once: the first wait covers both.
        let ledger = self.finish(ledger, exchange);
        let live = self.finish(live, exchange);
        let mut all_well = self.app.journal.is_writable().is_ok();
        let mut sinks = Map::new();
        for (status, answered) in [(&self.app.ledger_status, ledger), (&self.app.live_status, live)] {
            let up = matches!(answered, Some(Ok(())));
            let ping_error = match answered {
                Some(Err(error)) => Some(error.to_string()),
                None => Some("no answer in time".to_owned()),
                Some(Ok(())) => None,
            };
            all_well &= up && status.state() == SinkState::Following;
            sinks.insert(status.name().to_owned(), self.sink(status, up, ping_error));
        }
        let (journal_bytes, segments) = self.app.journal.size();
        let body = json!({
            "status": if all_well { "ok" } else { "degraded" },
            "journal": {
                "writable": self.app.journal.is_writable().is_ok(),
                "stream": self.app.journal.stream().to_string(),
                "position": self.app.journal.end_position(),
                "segments": segments,
                "bytes": journal_bytes,
            },
            "sinks": sinks,
        });
        answer::json(exchange, if all_well { 200 } else { 503 }, &body);
    }

    fn sink(&self, status: &SinkStatus, up: bool, ping_error: Option<String>) -> Value {
        json!({
            "state": status.state().name(),
            "store": if up { "up" } else { "down" },
            "position": status.position(),
            "lagEvents": self.app.lag_events(status),
            "asOf": answer::as_of(status.as_of_ms()),
            "lastError": status.last_error().or(ping_error),
        })
    }

    pub(super) fn metrics_text(&self, _: &Request<'_>, exchange: &mut Exchange<'_>) {
        match self.metrics.encode() {
            Ok(text) => exchange.respond(Answer {
                status: 200,
                content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                headers: &[],
                body: text.as_bytes(),
            }),
            Err(_) => answer::error(exchange, 500, "internal", "the metrics could not be written; please report this"),
        }
    }
}
