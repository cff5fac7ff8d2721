//! A handler's view of its connection: the answer it gives, and the waits before the answer goes
//! out.
//!
//! A handler never sleeps in the common case: it holds its answer, and all requests of a turn share
//! one wait for the ticket.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::access_log::new_id;
use super::desk::Held;
use super::outlet::{Outlet, REQUEST_ID};
use super::response::{Answer, Shape, error_body, header_lines, render_stream};
use super::shared::BodyBytes;
use super::socket::Socket;
use super::stream::{Producer, Stream};
use crate::clock::monotonic_us;
use crate::runtime::Ticket;

/// Usual size of all headers that an exchange carries.
const CARRIED_BYTES_USUAL: usize = 96;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Nothing is under way any more, and all of it went well.
    Done,
    /// Nothing is under way any more; something of it failed.
    Failed,
    /// The time was over first.
    Late,
}

pub(super) enum Next {
    Request,
    End,
    Stream(Producer),
}

/// One request's side of its connection.
pub struct Exchange<'c> {
    outlet: &'c mut Outlet,
    stream: Option<Producer>,
    socket: &'c mut Socket,
    shape: Shape,
    start: usize,
    // Header lines of whatever answer; empty, and so without memory, for most requests.
    lines: Vec<u8>,
    answered: bool,
    held: bool,
    // Its line in the access log, if that is on.
    logged: usize,
}

impl<'c> Exchange<'c> {
    pub(super) fn new(outlet: &'c mut Outlet, socket: &'c mut Socket, shape: Shape) -> Exchange<'c> {
        let start = outlet.output.len();
        let logged = outlet.log.count().wrapping_sub(1);
        Exchange { outlet, stream: None, socket, shape, start, lines: Vec::new(), answered: false, held: false, logged }
    }

    pub fn worker(&self) -> usize {
        self.outlet.watch.worker
    }

    /// The connection's ticket: `add` for each thing started, before it can end. Ask again after
    /// [`Exchange::wait`], which may have replaced it.
    pub fn ticket(&self) -> &Arc<Ticket> {
        &self.outlet.watch.ticket
    }

    /// Lets other connections of the worker run if this one has used its time slice. A handler
    /// calls this between the steps of long work. The caller holds no thread-local state and no
    /// `RefCell` borrow.
    pub fn give_way(&mut self) {
        if self.outlet.has_used_slice(monotonic_us()) {
            self.socket.go_round(self.outlet.watch.worker);
            self.outlet.begin_slice(monotonic_us());
        }
    }

    /// Deep calls follow, such as gzip: their stack pages go back to the kernel when the connection
    /// waits next.
    pub fn expect_deep_stack(&mut self) {
        self.outlet.has_deep_stack = true;
    }

    /// An account of body bytes in memory, empty yet.
    pub fn body_bytes(&self) -> BodyBytes {
        BodyBytes::new(self.outlet.shared.clone())
    }

    /// Headers that this request's answer carries whatever it will be, before it is given.
    pub fn carry(&mut self, headers: &[(&str, &str)]) {
        self.lines.reserve(CARRIED_BYTES_USUAL);
        header_lines(&mut self.lines, headers);
    }

    /// Gives the answer, exactly once a request: a second one is ignored, none at all becomes a
    /// 500.
    pub fn respond(&mut self, answer: Answer<'_>) {
        if !self.is_first(&answer) {
            return;
        }
        self.outlet.append(&answer, &self.lines, self.shape, self.logged);
    }

    /// Answers with a body of unknown length: after the handler has returned and
    /// earlier answers are sent, `producer` writes it, in the connection's own coroutine and at its
    /// own pace; then the connection closes. The answer's own body goes first. For HEAD the
    /// producer does not run.
    pub fn stream(&mut self, answer: Answer<'_>, producer: impl FnOnce(&mut Stream<'_>) + Send + 'static) {
        if !self.is_first(&answer) {
            return;
        }
        self.shape.close = true;
        self.outlet.count(answer.status);
        let is_chunked = !self.shape.is_old;
        let start = self.outlet.output.len();
        render_stream(&mut self.outlet.output, &answer, &self.lines, self.shape, &self.outlet.date);
        self.outlet.log.answered(self.logged, answer.status, self.outlet.output.len() - start, None);
        if !self.shape.head_only {
            self.stream = Some(Producer { run: Box::new(producer), is_chunked });
        }
    }

    fn is_first(&mut self, answer: &Answer<'_>) -> bool {
        let is_first = !std::mem::replace(&mut self.answered, true);
        if !is_first {
            tracing::error!(status = answer.status, "a second answer to one request was ignored");
        }
        is_first
    }

    /// Keeps this request's answer back until the connection's ticket has nothing under way; where
    /// the ticket failed then, the answer of `Config::on_failed` goes out in its place.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Waits for what earlier answers of this turn hold on to. A handler that is going to
    /// [`Exchange::wait`] calls this before its first `add`, so that its own deadline never decides
    /// about the requests before it.
    pub fn settle(&mut self) {
        let until = self.outlet.output.len();
        self.outlet.settle();
        self.moved(until);
    }

    /// Sleeps until the ticket has nothing under way, at most `ms` milliseconds. `Late`: the
    /// connection gets a fresh ticket, and what ends later ends on the old one, unheard. Earlier
    /// answers of the turn that were still held are decided here too: sent as they are after
    /// `Done`, else replaced.
    pub fn wait(&mut self, ms: u64) -> Waited {
        let ticket = self.ticket().clone();
        let done = self.outlet.watch.wait(ms);
        let failed = ticket.take_failed();
        let until = self.outlet.output.len();
        self.outlet.release(!done || failed);
        self.moved(until);
        match (done, failed) {
            (false, _) => Waited::Late,
            (true, true) => Waited::Failed,
            (true, false) => Waited::Done,
        }
    }

    /// Earlier answers became longer or shorter: this request's own starts elsewhere.
    fn moved(&mut self, until: usize) {
        self.start = self.start + self.outlet.output.len() - until;
    }

    /// After the handler: makes sure that there is exactly one answer, and says what comes next.
    pub(super) fn finish(mut self, panicked: bool, request_id: Option<&str>) -> Next {
        self.outlet.unsent += 1;
        if panicked {
            self.outlet.output.truncate(self.start);
            self.answer_panic(request_id);
            return Next::End;
        }
        if !self.answered {
            let body = error_body(500, "no_answer", "the server has no answer to this: report it");
            self.respond(Answer { status: 500, content_type: "application/json", headers: &[], body: body.as_bytes() });
        }
        if self.held {
            let range = self.start..self.outlet.output.len();
            let lines = std::mem::take(&mut self.lines);
            self.outlet.held.push(Held { range, lines, shape: self.shape, logged: self.logged });
            // A stream starts only after its own head.
            if self.stream.is_some() && !self.outlet.settle() {
                self.stream = None;
            }
        }
        match self.stream {
            Some(producer) => Next::Stream(producer),
            None if self.shape.close => Next::End,
            None => Next::Request,
        }
    }

    fn answer_panic(&mut self, request_id: Option<&str>) {
        let id = request_id.map_or_else(new_id, str::to_owned);
        tracing::error!(request_id = %id, "a handler panicked");
        self.outlet.shared.stats.handler_panics.fetch_add(1, Ordering::Relaxed);
        // An id of the client's own may hold a quote: it is in the header, not in the body.
        let message = match request_id {
            Some(_) => "report this with its X-Request-Id".to_owned(),
            None => format!("report this with the request id {id}"),
        };
        let body = error_body(500, "internal", &message);
        let mut lines = std::mem::take(&mut self.lines);
        if request_id.is_none() {
            header_lines(&mut lines, &[(REQUEST_ID, &id)]);
        }
        let answer = Answer { status: 500, content_type: "application/json", headers: &[], body: body.as_bytes() };
        self.outlet.append(&answer, &lines, Shape { close: true, has_id: true, ..self.shape }, self.logged);
        self.outlet.log.named(self.logged, &id);
    }
}
