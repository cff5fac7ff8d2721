//! What a handler has of its connection: the answer it gives, and the waits before the answer goes out.
//!
//! Answers collect in one output and leave in one write. One that promises something still under way is *held*: the
//! write waits for the connection's ticket, and where the ticket failed, each held answer is replaced. So a handler
//! never sleeps for the common case, and all requests of a turn share one wait.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::access_log::{Lines, new_id};
use super::desk::{self, Lent};
use super::head::Head;
use super::refusal::Refusal;
use super::response::{Answer, Dated, Shape, error_body, header_lines, render, render_refusal, render_stream};
use super::server::{BodyBytes, Shared};
use super::socket::Socket;
use super::stream::{Producer, Stream};
use crate::clock::monotonic_us;
use crate::limits::TIME_SLICE_US;
use crate::runtime::{Deadline, Fired, Ticket, arm, arm_from, register, unregister};

/// The header by which a request is found in logs.
pub(super) const REQUEST_ID: &str = "X-Request-Id";

/// What headers that are carried usually take together.
const CARRIED_BYTES_USUAL: usize = 96;

/// An answer in the output that must not leave as it is before its ticket is done.
pub(super) struct Held {
    range: Range<usize>,
    lines: Vec<u8>,
    shape: Shape,
    /// Its line in the access log, if that is on.
    logged: usize,
}

/// The connection's ticket and deadline: one thing to wait for and one time to give up.
pub(super) struct Watch {
    pub(super) worker: usize,
    pub(super) ticket: Arc<Ticket>,
    deadline: Arc<Deadline>,
    socket: i32,
}

impl Watch {
    /// For the coroutine that calls.
    pub(super) fn new(worker: usize, socket: i32) -> Watch {
        let ticket = Arc::new(Ticket::of_current(worker));
        let deadline = Deadline::new(socket, ticket.clone());
        register(worker, deadline.clone());
        Watch { worker, ticket, deadline, socket }
    }

    pub(super) fn arm(&self, action: Fired, after_ms: u64) {
        arm(self.worker, &self.deadline, action, after_ms);
    }

    /// The same, counted from a time that is known already.
    pub(super) fn arm_from(&self, now_ms: u64, action: Fired, after_ms: u64) {
        arm_from(self.worker, &self.deadline, now_ms, action, after_ms);
    }

    pub(super) fn disarm(&self) {
        self.deadline.clear();
    }

    pub(super) fn fired(&self) -> Fired {
        self.deadline.fired()
    }

    /// Waits for the ticket, at most so long: false when the time is over. An expired ticket is of no more use, even
    /// where the last completion came at the same moment: the next thing under way gets a fresh one.
    pub(super) fn wait(&mut self, ms: u64) -> bool {
        self.arm(Fired::Ticket, ms);
        let done = self.ticket.wait();
        self.disarm();
        if self.fired() == Fired::Ticket {
            *self = Watch::new(self.worker, self.socket);
        }
        done
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        unregister(self.worker, &self.deadline);
    }
}

/// Everything about a connection but its input and its socket.
pub(super) struct Outlet {
    pub(super) output: Vec<u8>,
    date: Dated,
    date_until_us: u64,
    pub(super) watch: Watch,
    pub(super) shared: Arc<Shared>,
    held: Vec<Held>,
    stream: Option<Producer>,
    /// Answers that wait for the next write.
    pub(super) unsent: u64,
    pub(super) log: Lines,
    /// What a stream has written.
    pub(super) streamed: u64,
    /// When other connections of the worker last had their turn.
    slice_since_us: u64,
    /// Deep calls have touched stack pages that nothing needs now.
    has_deep_stack: bool,
}

impl Outlet {
    pub(super) fn new(shared: Arc<Shared>, watch: Watch) -> Outlet {
        Outlet {
            output: Vec::new(),
            date: desk::UNDATED,
            date_until_us: 0,
            watch,
            shared,
            held: Vec::new(),
            stream: None,
            unsent: 0,
            log: Lines::default(),
            streamed: 0,
            slice_since_us: 0,
            has_deep_stack: false,
        }
    }

    /// Whether deep calls were made since this was last asked.
    pub(super) fn take_deep_stack(&mut self) -> bool {
        std::mem::take(&mut self.has_deep_stack)
    }

    /// A time slice begins: other connections of the worker have just had their turn.
    pub(super) fn begin_slice(&mut self, now_us: u64) {
        self.slice_since_us = now_us;
    }

    /// The connection has used its time slice.
    pub(super) fn has_used_slice(&self, now_us: u64) -> bool {
        now_us.saturating_sub(self.slice_since_us) >= TIME_SLICE_US
    }

    /// Buffers for a turn; the input's goes to the caller.
    pub(super) fn lend(&mut self) -> Vec<u8> {
        let Lent { input, output, held } = desk::lend();
        self.output = output;
        self.held = held;
        input
    }

    /// Gives them back: everything was sent.
    pub(super) fn give_back(&mut self, input: Vec<u8>) {
        let output = std::mem::take(&mut self.output);
        let held = std::mem::take(&mut self.held);
        desk::give_back(Lent { input, output, held });
    }

    /// Answers from here on are dated with `now_us`.
    pub(super) fn date(&mut self, now_us: u64) {
        if now_us >= self.date_until_us {
            (self.date, self.date_until_us) = desk::date(now_us);
        }
    }

    pub(super) fn has_stream(&self) -> bool {
        self.stream.is_some()
    }

    pub(super) fn take_stream(&mut self) -> Option<Producer> {
        self.stream.take()
    }

    /// Appends the answer to a broken request; `seen` is its head, where that could be read.
    pub(super) fn refuse(&mut self, refusal: Refusal, seen: Option<(&Head, &[u8])>) {
        let (status, tag, _) = refusal.parts();
        self.shared.stats.count_refusal(refusal);
        self.count(status);
        let sent_id = seen.and_then(|(head, bytes)| head.request_id(bytes));
        let id = sent_id.map(str::to_owned).or_else(|| self.id_for(status));
        let mut lines = Vec::new();
        if let Some(id) = &id {
            header_lines(&mut lines, &[(REQUEST_ID, id)]);
        }
        let start = self.output.len();
        render_refusal(&mut self.output, refusal, &lines, &self.date);
        if self.shared.config.access_log > 0 {
            let request = seen.map(|(head, bytes)| (head.method, head.path(bytes)));
            self.log.refused(tag, request, &self.shared.config);
            self.log.answered(self.log.count() - 1, status, self.output.len() - start, id.as_deref());
        }
    }

    /// An id for an answer that somebody may ask about: an error of ours, or one that is in the access log.
    fn id_for(&self, status: u16) -> Option<String> {
        let is_needed = status >= 500 || (status >= 400 && self.shared.config.access_log > 0);
        is_needed.then(new_id)
    }

    /// Waits until what the held answers promise has happened; replaces them where it has not (false).
    pub(super) fn settle(&mut self) -> bool {
        if self.held.is_empty() {
            return true;
        }
        self.watch.ticket.wait();
        let failed = self.watch.ticket.take_failed();
        self.release(failed);
        !failed
    }

    fn release(&mut self, failed: bool) {
        if failed {
            let sent = std::mem::take(&mut self.output);
            let mut copied = 0;
            for Held { range, lines, shape, logged } in std::mem::take(&mut self.held) {
                self.output.extend_from_slice(&sent[copied..range.start]);
                copied = range.end;
                self.append(&(self.shared.config.on_failed)(), &lines, shape, logged);
            }
            self.output.extend_from_slice(&sent[copied..]);
        }
        self.held.clear();
    }

    fn append(&mut self, answer: &Answer<'_>, lines: &[u8], shape: Shape, logged: usize) {
        self.count(answer.status);
        let made = if shape.has_id { None } else { self.id_for(answer.status) };
        let start = self.output.len();
        match &made {
            None => render(&mut self.output, answer, lines, shape, &self.date),
            Some(id) => {
                let mut lines = lines.to_vec();
                header_lines(&mut lines, &[(REQUEST_ID, id)]);
                render(&mut self.output, answer, &lines, shape, &self.date);
            }
        }
        self.log.answered(logged, answer.status, self.output.len() - start, made.as_deref());
    }

    fn count(&self, status: u16) {
        self.shared.stats.of(self.watch.worker).response(status);
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Nothing is under way any more, and all of it went well.
    Done,
    /// Nothing is under way any more; something of it failed.
    Failed,
    /// The time was over first.
    Late,
}

/// One request's side of its connection.
pub struct Exchange<'c> {
    outlet: &'c mut Outlet,
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
        Exchange { outlet, socket, shape, start, lines: Vec::new(), answered: false, held: false, logged }
    }

    /// The worker that the connection lives on.
    pub fn worker(&self) -> usize {
        self.outlet.watch.worker
    }

    /// The connection's ticket: `add` for each thing started, before it can end. Ask again after [`Exchange::wait`],
    /// which may have replaced it.
    pub fn ticket(&self) -> &Arc<Ticket> {
        &self.outlet.watch.ticket
    }

    /// Lets other connections of the worker run if this one has used its time slice. A handler calls this between the
    /// steps of long work. The caller holds no thread-local state and no `RefCell` borrow.
    pub fn give_way(&mut self) {
        if self.outlet.has_used_slice(monotonic_us()) {
            self.socket.go_round(self.outlet.watch.worker);
            self.outlet.begin_slice(monotonic_us());
        }
    }

    /// Deep calls follow, such as gzip: their stack pages go back to the kernel when the connection waits next.
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

    /// Gives the answer, exactly once a request: a second one is ignored, none at all becomes a 500.
    pub fn respond(&mut self, answer: Answer<'_>) {
        if self.answered {
            tracing::error!(status = answer.status, "a second answer to one request was ignored");
            return;
        }
        self.answered = true;
        self.outlet.append(&answer, &self.lines, self.shape, self.logged);
    }

    /// Answers with a body whose length nobody knows yet: after the handler has returned and earlier answers are sent,
    /// `producer` writes it, in the connection's own coroutine and at its own pace; then the connection closes. The
    /// answer's own body goes first. For HEAD the producer does not run.
    pub fn stream(&mut self, answer: Answer<'_>, producer: impl FnOnce(&mut Stream<'_>) + Send + 'static) {
        if self.answered {
            tracing::error!(status = answer.status, "a second answer to one request was ignored");
            return;
        }
        self.answered = true;
        self.shape.close = true;
        self.outlet.count(answer.status);
        let is_chunked = !self.shape.is_old;
        let start = self.outlet.output.len();
        render_stream(&mut self.outlet.output, &answer, &self.lines, self.shape, &self.outlet.date);
        self.outlet.log.answered(self.logged, answer.status, self.outlet.output.len() - start, None);
        if !self.shape.head_only {
            self.outlet.stream = Some(Producer { run: Box::new(producer), is_chunked });
        }
    }

    /// Keeps this request's answer back until the connection's ticket has nothing under way; where the ticket failed
    /// then, the answer of `Config::on_failed` goes out in its place.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Waits for what earlier answers of this turn hold on to. A handler that is going to [`Exchange::wait`] calls this
    /// before its first `add`, so that its own deadline never decides about the requests before it.
    pub fn settle(&mut self) {
        let until = self.outlet.output.len();
        self.outlet.settle();
        self.moved(until);
    }

    /// Sleeps until the ticket has nothing under way, at most `ms` milliseconds. `Late`: the connection gets a fresh
    /// ticket, and what ends later ends on the old one, unheard. Earlier answers of the turn that were still held are
    /// decided here too: sent as they are after `Done`, else replaced.
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

    /// After the handler: an answer there is, whatever happened. True: the connection goes on.
    pub(super) fn finish(mut self, panicked: bool, request_id: Option<&str>) -> bool {
        self.outlet.unsent += 1;
        if panicked {
            self.outlet.output.truncate(self.start);
            self.outlet.stream = None;
            self.answer_panic(request_id);
            return false;
        }
        if !self.answered {
            let body = error_body(500, "no_answer", "the server has no answer to this: report it");
            self.respond(Answer { status: 500, content_type: "application/json", headers: &[], body: body.as_bytes() });
        }
        if self.held {
            let range = self.start..self.outlet.output.len();
            let lines = std::mem::take(&mut self.lines);
            self.outlet.held.push(Held { range, lines, shape: self.shape, logged: self.logged });
            // A stream starts only behind its own head.
            if self.outlet.has_stream() && !self.outlet.settle() {
                self.outlet.stream = None;
            }
        }
        !self.shape.close
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
