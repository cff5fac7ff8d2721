//! `/api/statistics/stream`: server-sent events, each when the board has a new one.

use std::time::{Duration, Instant};

use super::answer::{Answered, Failure};
use super::board::Place;
use super::query::Query;
use super::state::Api;
use crate::http::{Answer, Exchange, Request, Stream};
use crate::limits::{STREAM_HEARTBEAT_MS, STREAM_LOOK_MS};

impl Api {
    pub(super) fn stream(&self, _: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        Query::known(request.query, &[])?;
        let message = "as many streams as may be are under way: ask again once one of them has ended";
        let place = self.streams.enter(&self.app).ok_or(Failure::TooMany("too_many_streams", message))?;
        let headers = [("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")];
        let body = b"retry: 2000\n\n";
        let answer = Answer { status: 200, content_type: "text/event-stream", headers: &headers, body };
        exchange.stream(answer, move |stream| send(&place, stream));
        Ok(())
    }
}

/// Until the reader has gone or fallen behind, or the server stops.
fn send(place: &Place, stream: &mut Stream<'_>) {
    let heartbeat = Duration::from_millis(STREAM_HEARTBEAT_MS);
    let mut sent = 0;
    let mut beat = Instant::now();
    while stream.is_open() {
        let (number, event) = place.latest();
        let mut offered = Ok(());
        if number != sent {
            offered = stream.offer(&event);
            sent = number;
        }
        if offered.is_ok() && beat.elapsed() >= heartbeat {
            offered = stream.offer(b": still here\n\n");
            beat = Instant::now();
        }
        if offered.is_err() {
            return;
        }
        stream.pause(STREAM_LOOK_MS);
    }
}
