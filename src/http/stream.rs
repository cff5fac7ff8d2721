//! An answer that is written as it comes: exports, server-sent events.
//!
//! The producer runs in the connection's coroutine, after everything before it was sent, and the
//! connection ends with it. Two ways to write, for two kinds of readers: one that needs every byte
//! is waited for, one that only wants the latest is dropped when it falls behind.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::outlet::Outlet;
use super::response::chunk;
use super::socket::Socket;
use crate::limits::STREAM_BEHIND_BYTES_MAX;
use crate::runtime::{Fired, Ticket};

pub(super) struct Producer {
    pub(super) run: Box<dyn FnOnce(&mut Stream<'_>) + Send>,
    pub(super) is_chunked: bool,
}

pub struct Stream<'c> {
    socket: &'c mut Socket,
    outlet: &'c mut Outlet,
    is_chunked: bool,
    is_broken: bool,
}

impl<'c> Stream<'c> {
    pub(super) fn new(socket: &'c mut Socket, outlet: &'c mut Outlet, is_chunked: bool) -> Stream<'c> {
        Stream { socket, outlet, is_chunked, is_broken: false }
    }

    /// Nobody has gone and no stop is under way: a live stream asks before each piece.
    pub fn is_open(&self) -> bool {
        !self.is_broken && !self.outlet.shared.is_stopping()
    }

    /// Writes a piece and waits for a slow reader, as long as it makes progress.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        chunk(&mut self.outlet.output, bytes, self.is_chunked);
        self.send_all()
    }

    /// Writes a piece without waiting. An error when the reader has fallen behind by too much, or
    /// is gone.
    pub fn offer(&mut self, bytes: &[u8]) -> io::Result<()> {
        chunk(&mut self.outlet.output, bytes, self.is_chunked);
        let written = self.socket.write_some(&self.outlet.output).inspect_err(|_| self.is_broken = true)?;
        self.sent(written);
        if self.outlet.output.len() > STREAM_BEHIND_BYTES_MAX {
            self.is_broken = true;
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// The connection's ticket, as in an exchange: what is added to it ends a [`Stream::wait`].
    pub fn ticket(&self) -> &Arc<Ticket> {
        &self.outlet.watch.ticket
    }

    /// Sleeps until the ticket has nothing under way, at most `ms`: false when the time is over.
    pub fn wait(&mut self, ms: u64) -> bool {
        self.outlet.watch.wait(ms)
    }

    pub fn pause(&mut self, ms: u64) {
        // Something that never ends: the deadline does, and the ticket with it.
        self.ticket().add();
        self.wait(ms);
    }

    /// The body will not be whole: the connection is cut without its end, so that the reader can
    /// tell.
    pub fn abandon(&mut self) {
        self.is_broken = true;
    }

    /// After the producer: the last chunk. False: the client has left, or the body is not whole
    /// and must not look as if it were.
    pub(super) fn finish(mut self, panicked: bool) -> bool {
        if panicked {
            tracing::error!("the producer of a stream panicked");
            self.outlet.shared.stats.handler_panics.fetch_add(1, Ordering::Relaxed);
        }
        if panicked || self.is_broken {
            self.socket.reset_on_close();
            return false;
        }
        if self.is_chunked {
            self.outlet.output.extend_from_slice(b"0\r\n\r\n");
        }
        self.send_all().is_ok()
    }

    fn send_all(&mut self) -> io::Result<()> {
        if self.is_broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let (watch, stall_ms) = (&self.outlet.watch, self.outlet.shared.config.write_stall_ms);
        let sent = self.socket.write_all(&self.outlet.output, || {
            watch.arm(Fired::Both, stall_ms);
            Ok(())
        });
        watch.disarm();
        self.is_broken = sent.is_err();
        self.sent(self.outlet.output.len());
        sent
    }

    fn sent(&mut self, length: usize) {
        self.outlet.shared.stats.of(self.outlet.watch.worker).went(length);
        self.outlet.streamed += length as u64;
        self.outlet.output.drain(..length);
    }
}
