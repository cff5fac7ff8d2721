//! One connection: read what is there, answer every whole request in it, write once.
//!
//! Owns the order of things and the deadlines; what bytes mean is the business of `head` and `body`. The one idea is
//! the turn: a wake-up costs one read and one write whatever number of requests it brought, and what the answers
//! promise is waited for once a turn.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::body::{Advance, Body};
use super::exchange::{Exchange, Next};
use super::head::{Framing, Head, Search};
use super::input::Input;
use super::outlet::{Outlet, REQUEST_ID};
use super::refusal::Refusal;
use super::registry::Entry;
use super::response::Shape;
use super::shared::Shared;
use super::socket::Socket;
use super::stream::{Producer, Stream};
use super::watch::Watch;
use super::wire::Got;
use super::{Method, Request};
use crate::clock::monotonic_us;
use crate::limits::READS_IN_A_ROW_MAX;
use crate::runtime::{Fired, StackTop};

pub(super) type Handler = Box<dyn Fn(&Request<'_>, &mut Exchange<'_>) + Send + Sync>;

pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
    pub(super) handler: Handler,
}

/// Serves a connection until it ends. Runs as a coroutine on the worker of its socket.
pub(super) fn serve(service: &Arc<Service>, worker: usize, stream: TcpStream, peer: SocketAddr) {
    match service.socket(stream) {
        Ok(socket) => Connection::new(service, worker, socket, peer).run(),
        Err(error) => tracing::warn!(%error, "a socket could not be watched"),
    }
}

/// Answers with a refusal and nothing else. With TLS the handshake comes first, in a time that is as short as the
/// goodbye's: without it nobody would hear the refusal.
pub(super) fn turn_away(service: &Arc<Service>, worker: usize, stream: TcpStream, peer: SocketAddr, refusal: Refusal) {
    let Ok(socket) = service.socket(stream) else { return };
    let mut connection = Connection::new(service, worker, socket, peer);
    if connection.socket.has_session() {
        connection.phase = Phase::FirstByte;
        connection.outlet.watch.arm(Fired::Both, service.shared.config.linger_close_ms);
        match connection.receive() {
            Received::Bytes | Received::NotTls => {}
            Received::End => return,
        }
    }
    connection.refuse_and_end(refusal);
}

impl Service {
    fn socket(&self, stream: TcpStream) -> io::Result<Socket> {
        Socket::new(stream, self.shared.config.tls.as_ref().map(|tls| tls.current()))
    }
}

/// Its place in the registry, given up before the socket closes.
struct Seat {
    shared: Arc<Shared>,
    worker: usize,
    entry: Arc<Entry>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.registry.leave(self.worker, &self.entry);
    }
}

/// Responses that wait for their client, counted over all connections until this is dropped.
struct Unsent<'s> {
    shared: &'s Shared,
    bytes: Option<usize>,
}

impl Unsent<'_> {
    /// False: the clients of too many bytes do not read.
    fn count(&mut self, bytes: usize) -> bool {
        if self.bytes.is_none() && self.shared.take_unsent_bytes(bytes) {
            self.bytes = Some(bytes);
        }
        self.bytes.is_some()
    }
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        self.shared.give_unsent_bytes(self.bytes.unwrap_or(0));
    }
}

enum Stage {
    Head(Search),
    Body(Body),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Busy,
    FirstByte,
    Idle,
    Head,
    Body,
}

enum Received {
    Bytes,
    /// There will be none.
    End,
    /// They are no TLS.
    NotTls,
}

/// How a turn ended.
enum Turn {
    /// More bytes are needed.
    Read,
    /// There may be more to answer; others first.
    More,
    /// The client asked for the end.
    Close,
    /// The end is ours: the client may still be sending.
    Linger,
    /// A response that is written as it comes, and then the end.
    Stream(Producer),
}

struct Connection {
    // Dropped in this order: the deadline and the registry let go of the socket's number before it closes.
    outlet: Outlet,
    seat: Seat,
    socket: Socket,
    input: Input,
    head: Head,
    stage: Stage,
    phase: Phase,
    service: Arc<Service>,
    shared: Arc<Shared>,
    peer: SocketAddr,
    stack: StackTop,
    is_streaming: bool,
    reads_in_a_row: usize,
    /// When the first byte of the earliest request came that is not answered.
    begun_us: u64,
    /// The monotonic clock after the last read or write, whichever was later: it is looked at twice a turn.
    now_us: u64,
}

impl Connection {
    fn new(service: &Arc<Service>, worker: usize, socket: Socket, peer: SocketAddr) -> Connection {
        let shared = &service.shared;
        let entry = shared.registry.enter(worker, socket.number());
        let now_us = monotonic_us();
        Connection {
            outlet: Outlet::new(shared.clone(), Watch::new(worker, socket.number())),
            seat: Seat { shared: shared.clone(), worker, entry },
            socket,
            input: Input::default(),
            head: Head::new(),
            stage: Stage::Head(Search::default()),
            phase: Phase::Busy,
            service: service.clone(),
            shared: shared.clone(),
            peer,
            stack: StackTop::here(),
            is_streaming: false,
            reads_in_a_row: 0,
            begun_us: now_us,
            now_us,
        }
    }

    fn run(&mut self) {
        self.become_idle(Phase::FirstByte);
        loop {
            match self.receive() {
                Received::Bytes => {}
                Received::End => return self.end_of_input(),
                Received::NotTls => return self.refuse_and_end(Refusal::PlainHttp),
            }
            let mut turn = self.answer_all();
            while let Turn::More = turn {
                if self.flush().is_err() {
                    return;
                }
                self.go_round();
                turn = self.answer_all();
            }
            if self.flush().is_err() {
                return;
            }
            match turn {
                Turn::Read | Turn::More => {}
                Turn::Close if self.input.is_empty() => return,
                Turn::Close | Turn::Linger => return self.linger(),
                Turn::Stream(producer) => return self.stream(producer),
            }
        }
    }

    /// Waits for bytes and reads once.
    fn receive(&mut self) -> Received {
        let mut has_waited = false;
        loop {
            let has_used_slice = self.reads_in_a_row > 0 && self.outlet.has_used_slice(self.now_us);
            if self.reads_in_a_row >= READS_IN_A_ROW_MAX || has_used_slice {
                self.go_round();
                self.reads_in_a_row = 0;
            }
            if !self.socket.is_readable() {
                self.reads_in_a_row = 0;
                if !self.wait_readable() {
                    return Received::End;
                }
                has_waited = true;
            }
            // One that brings nothing counts as well: a handshake, or records without data.
            self.reads_in_a_row += 1;
            if self.input.has_no_buffer() {
                self.input.put(self.outlet.lend());
            }
            match self.socket.read(self.input.room()) {
                Ok(Got::Bytes(length)) => {
                    self.now_us = monotonic_us();
                    if self.input.is_empty() && matches!(self.stage, Stage::Head(_)) {
                        self.begun_us = self.now_us;
                    }
                    self.input.came(length);
                    if has_waited {
                        self.outlet.begin_slice(self.now_us);
                    }
                    self.shared.stats.of(self.seat.worker).came(length);
                    if let Stage::Body(body) = &mut self.stage {
                        body.received += length;
                    }
                    return Received::Bytes;
                }
                Ok(Got::Nothing) => {}
                Ok(Got::NotTls) => return Received::NotTls,
                Ok(Got::End) => return Received::End,
                Err(error) => {
                    if error.kind() == ErrorKind::InvalidData {
                        tracing::debug!(peer = %self.peer, %error, "TLS ended");
                        self.shared.stats.tls_failures.fetch_add(1, Ordering::Relaxed);
                    }
                    return Received::End;
                }
            }
        }
    }

    fn go_round(&mut self) {
        self.socket.go_round(self.seat.worker);
        self.outlet.begin_slice(monotonic_us());
    }

    /// Sleeps until the socket has something. False: a stop is under way and nothing was begun.
    fn wait_readable(&mut self) -> bool {
        if self.input.is_empty() && matches!(self.stage, Stage::Head(_)) {
            if !self.input.has_no_buffer() {
                self.outlet.give_back(self.input.take());
            }
            if self.outlet.take_deep_stack() {
                self.stack.give_back_below();
            }
            if self.phase == Phase::FirstByte {
                // Its time counts from connecting.
                self.seat.entry.idle(self.now_ms());
            } else {
                self.become_idle(Phase::Idle);
            }
            if self.shared.is_stopping() {
                return false;
            }
        }
        self.socket.wait_readable();
        self.seat.entry.busy();
        true
    }

    fn become_idle(&mut self, phase: Phase) {
        let config = &self.shared.config;
        let now_ms = self.now_ms();
        self.seat.entry.idle(now_ms);
        self.phase = phase;
        let after_ms = if phase == Phase::Idle { config.idle_ms } else { config.first_byte_ms };
        self.outlet.watch.arm_from(now_ms, Fired::Read, after_ms);
    }

    fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    /// Answers the whole requests of the input, as many as one turn may.
    fn answer_all(&mut self) -> Turn {
        self.outlet.date(self.now_us);
        for _ in 0..self.shared.config.pipeline_requests_max {
            match self.next_body() {
                Ok(None) => return Turn::Read,
                Ok(Some((body, consumed))) => match self.dispatch(body, consumed) {
                    Next::Request => {}
                    Next::End if self.head.close => return Turn::Close,
                    Next::End => return Turn::Linger,
                    Next::Stream(producer) => {
                        self.is_streaming = true;
                        return Turn::Stream(producer);
                    }
                },
                Err(refusal) => {
                    self.refuse(refusal);
                    return Turn::Linger;
                }
            }
            let is_full = self.outlet.output.len() >= self.shared.config.unsent_bytes_max;
            if is_full || (!self.input.is_empty() && self.outlet.has_used_slice(monotonic_us())) {
                return Turn::More;
            }
        }
        if self.input.is_empty() { Turn::Read } else { Turn::More }
    }

    /// The next request, once all of it is here: its body and where the one after it starts.
    fn next_body(&mut self) -> Result<Option<(Range<usize>, usize)>, Refusal> {
        if matches!(self.stage, Stage::Head(_)) && !self.take_head()? {
            return Ok(None);
        }
        let Stage::Body(body) = &mut self.stage else { return Ok(None) };
        match body.advance(self.input.bytes_mut(), &self.shared.config)? {
            Advance::Whole { consumed } => {
                let range = body.range();
                self.stage = Stage::Head(Search::default());
                Ok(Some((range, consumed)))
            }
            Advance::More { kept } => {
                self.input.keep(kept);
                self.await_body()?;
                Ok(None)
            }
        }
    }

    /// Takes the next head; false: it is not whole.
    fn take_head(&mut self) -> Result<bool, Refusal> {
        let config = &self.shared.config;
        let Stage::Head(search) = &mut self.stage else { return Ok(true) };
        if search.is_fresh() && self.input.skip_line_end() {
            return Ok(false);
        }
        let (bytes, head) = (self.input.bytes_mut(), &mut self.head);
        let Some(length) = head.read(search, bytes, config)? else {
            if self.phase != Phase::Head {
                self.phase = Phase::Head;
                self.outlet.watch.arm(Fired::Read, config.head_ms);
            }
            self.input.make_room(config.head_bytes_max, &self.shared)?;
            return Ok(false);
        };
        self.stage = Stage::Body(Body::new(length, head.framing));
        if matches!(head.framing, Framing::Length(body) if body > config.body_bytes_max) {
            return Err(Refusal::BodyTooLarge);
        }
        if head.expects_continue && bytes.len() == length && head.framing != Framing::Length(0) {
            self.outlet.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        Ok(true)
    }

    /// Room and time for the rest of a body. The time moves with what has come: the whole has its bound, and after a
    /// first grace every second must have brought its bytes.
    fn await_body(&mut self) -> Result<(), Refusal> {
        let now_ms = self.now_ms();
        let config = &self.shared.config;
        let Stage::Body(body) = &mut self.stage else { return Ok(()) };
        let since_ms = *body.since_ms.get_or_insert(now_ms);
        let earned_ms = body.received as u64 * 1_000 / config.body_bytes_per_second_min.max(1);
        let end_ms = since_ms + config.body_ms.min(config.body_rate_after_ms + earned_ms);
        self.phase = Phase::Body;
        self.outlet.watch.arm_from(now_ms, Fired::Read, end_ms.saturating_sub(now_ms));
        let wanted = body.wanted().unwrap_or(usize::MAX);
        self.input.make_room(wanted, &self.shared)
    }

    fn dispatch(&mut self, body: Range<usize>, consumed: usize) -> Next {
        let head = &self.head;
        if self.phase != Phase::Busy {
            self.phase = Phase::Busy;
            self.outlet.watch.disarm();
        }
        let is_last = head.close || self.shared.is_stopping() || self.outlet.watch.fired() != Fired::No;
        let bytes = &*self.input.bytes_mut();
        let sent_id = head.request_id(bytes);
        let config = &self.shared.config;
        let request_id = match config.access_log {
            0 => sent_id.map(Cow::Borrowed),
            _ => {
                let request = (head.method, head.path(bytes));
                self.outlet.log.begin((config, &self.shared.sampling), request, sent_id).map(Cow::Owned)
            }
        };
        let shape = Shape {
            head_only: head.method == Method::Head,
            close: is_last,
            is_old: head.is_old,
            has_id: request_id.is_some(),
        };
        let request = Request {
            method: head.method,
            path: head.path(bytes),
            query: head.query(bytes),
            authority: head.authority(bytes),
            headers: head.headers(bytes),
            body: &bytes[body],
            peer: self.peer,
        };
        self.shared.stats.of(self.seat.worker).request();
        let mut exchange = Exchange::new(&mut self.outlet, &mut self.socket, shape);
        if let Some(id) = &request_id {
            exchange.carry(&[(REQUEST_ID, id)]);
        }
        let handled = catch_unwind(AssertUnwindSafe(|| (self.service.handler)(&request, &mut exchange)));
        let next = exchange.finish(handled.is_err(), request_id.as_deref());
        self.input.consume(consumed, &self.shared);
        next
    }

    /// Sends the answers, once what they promise has happened.
    fn flush(&mut self) -> io::Result<()> {
        self.outlet.settle();
        let Outlet { output, watch, .. } = &mut self.outlet;
        if output.is_empty() {
            return Ok(());
        }
        let mut has_stalled = false;
        let mut unsent = Unsent { shared: &self.shared, bytes: None };
        let mut is_refused = false;
        let sent = self.socket.write_all(output, || {
            has_stalled = true;
            if !unsent.count(output.len()) {
                is_refused = true;
                return Err(ErrorKind::QuotaExceeded.into());
            }
            watch.arm(Fired::Both, self.shared.config.write_stall_ms);
            Ok(())
        });
        drop(unsent);
        self.shared.stats.of(self.seat.worker).went(output.len());
        output.clear();
        self.count_durations();
        if has_stalled {
            self.after_stall(is_refused);
        }
        sent
    }

    /// What is left of the input begins to count now: it is a later request.
    fn count_durations(&mut self) {
        let now_us = monotonic_us();
        self.now_us = now_us;
        let answers = std::mem::take(&mut self.outlet.unsent);
        if answers > 0 {
            self.shared.stats.of(self.seat.worker).took(now_us - self.begun_us, answers);
        }
        if !self.outlet.log.is_empty() {
            self.outlet.log.tell(self.peer, now_us - self.begun_us, self.is_streaming);
        }
        self.begun_us = now_us;
    }

    /// Runs the producer of a stream and closes.
    fn stream(&mut self, Producer { run, is_chunked }: Producer) {
        self.is_streaming = false;
        let mut stream = Stream::new(&mut self.socket, &mut self.outlet, is_chunked);
        let ran = catch_unwind(AssertUnwindSafe(|| run(&mut stream)));
        let has_ended = stream.finish(ran.is_err());
        self.outlet.log.streamed(self.outlet.streamed);
        self.outlet.log.tell(self.peer, monotonic_us() - self.begun_us, false);
        if has_ended {
            self.linger();
        }
    }

    /// The one deadline was taken for the write: a request that is half here gets a new one.
    /// `is_refused`: too many bytes wait for other clients, so this one was not waited for.
    fn after_stall(&mut self, is_refused: bool) {
        if is_refused || self.outlet.watch.fired() == Fired::Both {
            self.shared.stats.timeouts.fetch_add(1, Ordering::Relaxed);
            self.socket.reset_on_close();
        }
        match self.phase {
            Phase::Head => self.outlet.watch.arm(Fired::Read, self.shared.config.head_ms),
            Phase::Body => self.outlet.watch.arm(Fired::Read, self.shared.config.body_rate_after_ms),
            Phase::Busy | Phase::FirstByte | Phase::Idle => self.outlet.watch.disarm(),
        }
    }

    /// Nothing more comes: because the client ended, which needs no answer, or because its time was over.
    fn end_of_input(&mut self) {
        if self.outlet.watch.fired() != Fired::Read {
            return;
        }
        self.shared.stats.timeouts.fetch_add(1, Ordering::Relaxed);
        let refusal = match self.phase {
            Phase::Head => Refusal::HeadTimeout,
            Phase::Body => Refusal::BodyTimeout,
            Phase::Busy | Phase::FirstByte | Phase::Idle => return,
        };
        self.refuse_and_end(refusal);
    }

    /// Answers with a refusal and ends the connection.
    fn refuse_and_end(&mut self, refusal: Refusal) {
        if self.input.has_no_buffer() {
            self.input.put(self.outlet.lend());
        }
        self.now_us = monotonic_us();
        self.outlet.date(self.now_us);
        self.refuse(refusal);
        if self.flush().is_ok() {
            self.linger();
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let seen = matches!(self.stage, Stage::Body(_)).then(|| (&self.head, &*self.input.bytes_mut()));
        self.outlet.refuse(refusal, seen);
    }

    /// Closes without losing the answer: a close with unread bytes would reset the connection, and the client might
    /// never see what was sent. So our side ends, and the client's rest is read and thrown away for a while.
    fn linger(&mut self) {
        let config = &self.shared.config;
        self.outlet.watch.arm(Fired::Both, config.linger_close_ms);
        self.socket.half_close();
        self.input.consume_all(&self.shared);
        let mut left = config.linger_close_bytes_max;
        // A deadline that ended our reading makes every read without data look like the client's end: the first such
        // one is ours, and what the client does next is an event.
        let mut is_our_end = self.outlet.watch.fired() == Fired::Read;
        while left > 0 {
            self.socket.wait_readable();
            match self.socket.read(self.input.room()) {
                Ok(Got::Bytes(length)) => left = left.saturating_sub(length),
                Ok(Got::Nothing | Got::NotTls) => {}
                Ok(Got::End) if is_our_end => {
                    is_our_end = false;
                    self.socket.wait_event();
                }
                Ok(Got::End) | Err(_) => return,
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.input.consume_all(&self.shared);
        if !self.input.has_no_buffer() {
            self.outlet.output.clear();
            self.outlet.give_back(self.input.take());
        }
    }
}
