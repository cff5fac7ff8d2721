//! A socket on its worker: non-blocking calls, and what the event loop has said since.
//!
//! The events are edges, so this remembers them: a read that was short has drained the socket and the next one waits
//! for an event, without a probing call; after a hang-up there is no other event, so reads go on to the end. With TLS a
//! session stands between the wire and the connection; without, that is one look at an `Option`.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use may::io::{CoIo, WaitIo};
use rustls::ServerConfig;

use super::tls::Session;
use crate::runtime::spawn_on;

const READABLE: usize = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as usize;
const HUNG_UP: usize = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as usize;
/// What `WaitIoWaker::wakeup` sets; no event of the kernel's uses that bit.
const ROUND: usize = 0x8000_0000;

pub(super) struct Socket {
    wire: Wire,
    session: Option<Box<Session>>,
}

/// The bytes as they travel.
pub(super) struct Wire {
    io: CoIo<TcpStream>,
    pub(super) readable: bool,
    hung_up: bool,
}

/// What a read came to.
pub(super) enum Got {
    Bytes(usize),
    /// Wait first.
    Nothing,
    End,
    /// The client speaks HTTP where TLS is spoken; from here on the socket is a plain one.
    NotTls,
}

impl Socket {
    /// Puts an accepted socket under the event loop of the worker that it belongs to: this one.
    pub(super) fn new(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Socket> {
        let io = CoIo::new(stream).map_err(|refused| io::Error::other(refused.to_string()))?;
        let session = tls.map(|config| Session::new(config).map(Box::new)).transpose()?;
        Ok(Socket { wire: Wire { io, readable: false, hung_up: false }, session })
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

    /// Writes all of it; `stalled` is called before a wait for the other side, once for each piece that it took: a wait
    /// that ends without progress (the other side may send) is the same stall.
    pub(super) fn write_all(&mut self, mut bytes: &[u8], mut stalled: impl FnMut()) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            return session.write_all(&mut self.wire, bytes, stalled);
        }
        let mut has_stalled = false;
        while !bytes.is_empty() {
            match self.wire.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => {
                    bytes = &bytes[length..];
                    has_stalled = false;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !has_stalled {
                        stalled();
                        has_stalled = true;
                    }
                    // Any event will do: a write that still would wait only comes back here.
                    self.wire.wait();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what fits without waiting: how much that was.
    pub(super) fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(session) = &mut self.session {
            return session.write_some(&mut self.wire, bytes);
        }
        let mut written = 0;
        while written < bytes.len() {
            match self.wire.write(&bytes[written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
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
        if let Some(mut session) = self.session.take() {
            session.say_end();
            // Where it is closed already, nothing is left to do; the same below.
            let _ = session.write_all(&mut self.wire, b"", || ());
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

impl Wire {
    pub(super) fn wait(&mut self) -> usize {
        let events = self.io.wait_io();
        self.readable |= events & READABLE != 0;
        self.hung_up |= events & HUNG_UP != 0;
        events
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<Got> {
        loop {
            return match receive(self.io.as_raw_fd(), room) {
                Ok(0) => Ok(Got::End),
                Ok(length) => {
                    self.readable = length == room.len() || self.hung_up;
                    Ok(Got::Bytes(length))
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    Ok(Got::Nothing)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// The next byte, left where it is. None: nothing is there, or the end.
    pub(super) fn peek(&mut self) -> io::Result<Option<u8>> {
        let mut first = [0];
        match self.io.inner().peek(&mut first) {
            Ok(count) => Ok((count > 0).then_some(first[0])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// As a session reads and writes it: what would wait is an error, an interrupted call is made again.
impl Read for Wire {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match Wire::read(self, room)? {
            Got::Bytes(length) => Ok(length),
            Got::End => Ok(0),
            Got::Nothing | Got::NotTls => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        again(|| send(self.io.as_raw_fd(), bytes))
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        again(|| self.io.inner().write_vectored(pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// recv and send without libc's wrappers: those are points where a thread may be cancelled, which costs two locked
/// instructions a call in a process of several threads.
fn receive(socket: RawFd, room: &mut [u8]) -> io::Result<usize> {
    let nobody = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel writes at most `room.len()` bytes to `room`, which outlives the call; nobody asks who sent them.
    let got = unsafe { libc::syscall(libc::SYS_recvfrom, socket, room.as_mut_ptr(), room.len(), 0, nobody, nobody) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let (flags, nobody) = (libc::MSG_NOSIGNAL, std::ptr::null_mut::<libc::c_void>());
    // SAFETY: the kernel reads `bytes.len()` bytes of `bytes`, which outlives the call; the socket knows its other end.
    let went = unsafe { libc::syscall(libc::SYS_sendto, socket, bytes.as_ptr(), bytes.len(), flags, nobody, 0) };
    usize::try_from(went).map_err(|_| io::Error::last_os_error())
}

fn again(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
