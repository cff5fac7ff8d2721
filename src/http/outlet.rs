//! The way out of a connection: answers collect in one output and leave in one write.
//!
//! An answer that promises something still under way is *held*: the write waits for the connection's
//! ticket. If the ticket failed, each held answer is replaced.

use std::sync::Arc;

use super::access_log::{Lines, new_id};
use super::desk::{self, Held, Lent};
use super::head::Head;
use super::refusal::Refusal;
use super::response::{Answer, DateLine, Shape, header_lines, render, render_refusal};
use super::shared::Shared;
use super::watch::Watch;
use crate::limits::TIME_SLICE_US;

/// The header by which a request is found in logs.
pub(super) const REQUEST_ID: &str = "X-Request-Id";

/// Everything about a connection but its input and its socket.
pub(super) struct Outlet {
    pub(super) output: Vec<u8>,
    pub(super) date: DateLine,
    date_until_us: u64,
    pub(super) watch: Watch,
    pub(super) shared: Arc<Shared>,
    pub(super) held: Vec<Held>,
    /// Answers that wait for the next write.
    pub(super) unsent: u64,
    pub(super) log: Lines,
    /// What a stream has written.
    pub(super) streamed: u64,
    /// When other connections of the worker last had their turn.
    slice_since_us: u64,
    /// Deep calls have touched stack pages that nothing needs now.
    pub(super) has_deep_stack: bool,
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

    /// Appends the answer to a broken request; `seen` is its head, where that could be read.
    pub(super) fn refuse(&mut self, refusal: Refusal, seen: Option<(&Head, &[u8])>) {
        let (status, tag, _) = refusal.parts();
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

    /// An id for a response that an operator may look for: a server error, or one in the access log.
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

    pub(super) fn release(&mut self, failed: bool) {
        if failed {
            let sent = std::mem::take(&mut self.output);
            let mut copied = 0;
            for Held { range, lines, shape, logged } in std::mem::take(&mut self.held) {
                assert!(copied <= range.start && range.end <= sent.len(), "deferred responses ascend");
                self.output.extend_from_slice(&sent[copied..range.start]);
                copied = range.end;
                self.append(&(self.shared.config.on_failed)(), &lines, shape, logged);
            }
            self.output.extend_from_slice(&sent[copied..]);
        }
        self.held.clear();
    }

    pub(super) fn append(&mut self, answer: &Answer<'_>, lines: &[u8], shape: Shape, logged: usize) {
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

    pub(super) fn count(&self, status: u16) {
        self.shared.stats.of(self.watch.worker).response(status);
    }
}
