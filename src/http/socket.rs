//! A socket on its worker: plain, or with a TLS session between the wire and the connection.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use may::io::{CoIo, WaitIo};
use rustls::ServerConfig;

use super::tls::Session;
use super::wire::{Got, Wire, written};
use crate::runtime::spawn_on;

/// What `WaitIoWaker::wakeup` sets; no event of the kernel's uses that bit.
const ROUND: usize = 0x8000_0000;

pub(super) struct Socket {
    wire: Wire,
    session: Option<Box<Session>>,
}

impl Socket {
    /// Puts an accepted socket under the event loop of the worker that it belongs to: this one.
    pub(super) fn new(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Socket> {
        let io = CoIo::new(stream).map_err(|refused| io::Error::other(refused.to_string()))?;
        let session = tls.map(|config| Session::new(config).map(Box::new)).transpose()?;
        Ok(Socket { wire: Wire::new(io), session })
    }

    pub(super) fn number(&self) -> RawFd {
        self.wire.io.as_raw_fd()
    }

    pub(super) fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// A read would not wait, as far as is known.
    pub(super) fn is_readable(&self) -> bool {
        self.wire.readable || self.session.as_ref().is_some_and(|session| session.has_more())
    }

    pub(super) fn wait_readable(&mut self) {
        while !self.is_readable() {
            self.wait_event();
        }
    }

    /// Sleeps until the event loop says anything new about the socket.
    pub(super) fn wait_event(&mut self) {
        self.wire.wait();
        if let Some(session) = &mut self.session {
            // Part of a handshake may wait for room. What is wrong with the wire, the next read says.
            let _ = session.push(&mut self.wire);
        }
    }

    /// One read; with TLS as many as it takes to fill the room, up to a record's worth.
    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<Got> {
        let Some(session) = &mut self.session else { return self.wire.read(room) };
        let got = session.read(&mut self.wire, room);
        if matches!(got, Ok(Got::NotTls)) {
            self.session = None;
        }
        got
    }

    /// Writes all of it. It calls `stalled` before it waits for the other side, once for each piece that this took: a
    /// wait that ends without progress (the other side may send) is the same stall. An error of `stalled` ends the write.
    pub(super) fn write_all(
        &mut self,
        mut bytes: &[u8],
        mut stalled: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut has_stalled = false;
        loop {
            match self.write_step(&mut bytes) {
                Ok(true) => has_stalled = false,
                Ok(false) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !has_stalled {
                        stalled()?;
                        has_stalled = true;
                    }
                    // Any event will do: a write that still would wait only comes back here.
                    self.wire.wait();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes off `bytes` what one write brings on its way. False: nothing was left to write.
    fn write_step(&mut self, bytes: &mut &[u8]) -> io::Result<bool> {
        if let Some(session) = &mut self.session {
            return session.write_step(&mut self.wire, bytes);
        }
        if bytes.is_empty() {
            return Ok(false);
        }
        *bytes = &bytes[written(self.wire.write(bytes)?)?..];
        Ok(true)
    }

    /// Writes what fits without waiting: how much that was.
    pub(super) fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(session) = &mut self.session {
            return session.write_some(&mut self.wire, bytes);
        }
        let mut sent = 0;
        while sent < bytes.len() {
            match self.wire.write(&bytes[sent..]).and_then(written) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// Lets every other connection of the worker have its turn, by way of the event loop: a plain yield would come back
    /// before the loop looks at any other socket.
    pub(super) fn go_round(&mut self, worker: usize) {
        let waker = self.wire.io.waker();
        spawn_on(worker, move || waker.wakeup());
        while self.wire.wait() & ROUND == 0 {}
    }

    /// Our side ends: with TLS it says so first, as long as a deadline is armed. What the client still sends is read as
    /// it comes, and only thrown away.
    pub(super) fn half_close(&mut self) {
        if let Some(session) = &mut self.session {
            session.say_end();
            // Where it is closed already, nothing is left to do; the same below.
            let _ = self.write_all(b"", || Ok(()));
            self.session = None;
        }
        let _ = self.wire.io.inner().shutdown(Shutdown::Write);
    }

    /// The close that follows throws away what is unsent and resets the connection: no end of a session is said that
    /// would make it look whole.
    pub(super) fn reset_on_close(&mut self) {
        self.session = None;
        let _ = socket2::SockRef::from(self.wire.io.inner()).set_linger(Some(Duration::ZERO));
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(session) = &mut self.session {
            session.say_end();
            // A courtesy: it never waits.
            let _ = session.push(&mut self.wire);
        }
    }
}
