//! A socket on its worker: non-blocking calls, and what the event loop has said since.
//!
//! The events are edges, so this remembers them: a read that was short has drained the socket and the next one waits
//! for an event, without a probing call; after a hang-up there is no other event, so reads go on to the end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use may::io::{CoIo, WaitIo};

use crate::runtime::spawn_on;

const READABLE: usize = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as usize;
const HUNG_UP: usize = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as usize;
/// What `WaitIoWaker::wakeup` sets; no event of the kernel's uses that bit.
const ROUND: usize = 0x8000_0000;

pub(super) struct Socket {
    io: CoIo<TcpStream>,
    readable: bool,
    hung_up: bool,
}

/// What a read came to.
pub(super) enum Got {
    Bytes(usize),
    /// Wait first.
    Nothing,
    End,
}

impl Socket {
    /// Puts an accepted socket under the event loop of the worker that it belongs to: this one.
    pub(super) fn new(stream: TcpStream) -> io::Result<Socket> {
        let io = CoIo::new(stream).map_err(|refused| io::Error::other(refused.to_string()))?;
        Ok(Socket { io, readable: false, hung_up: false })
    }

    pub(super) fn number(&self) -> RawFd {
        self.io.as_raw_fd()
    }

    /// A read would not wait, as far as is known.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    pub(super) fn wait_readable(&mut self) {
        while !self.readable {
            self.wait();
        }
    }

    /// Sleeps until the event loop says anything new about the socket.
    pub(super) fn wait_event(&mut self) {
        self.wait();
    }

    fn wait(&mut self) -> usize {
        let events = self.io.wait_io();
        self.readable |= events & READABLE != 0;
        self.hung_up |= events & HUNG_UP != 0;
        events
    }

    /// One read.
    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<Got> {
        loop {
            return match self.io.inner().read(room) {
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

    /// Writes all of it; `stalled` is called before a wait for the other side, once for each piece that it took: a wait
    /// that ends without progress (the other side may send) is the same stall.
    pub(super) fn write_all(&mut self, mut bytes: &[u8], mut stalled: impl FnMut()) -> io::Result<()> {
        let mut has_stalled = false;
        while !bytes.is_empty() {
            match self.io.inner().write(bytes) {
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
                    self.wait();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what fits without waiting: how much that was.
    pub(super) fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.io.inner().write(&bytes[written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Lets every other connection of the worker have its turn, by way of the event loop: a plain yield would come back
    /// before the loop looks at any other socket.
    pub(super) fn go_round(&mut self, worker: usize) {
        let waker = self.io.waker();
        spawn_on(worker, move || waker.wakeup());
        while self.wait() & ROUND == 0 {}
    }

    pub(super) fn half_close(&self) {
        // Where it is closed already, nothing is left to do.
        let _ = self.io.inner().shutdown(Shutdown::Write);
    }

    /// The close that follows throws away what is unsent and resets the connection.
    pub(super) fn reset_on_close(&self) {
        let _ = socket2::SockRef::from(self.io.inner()).set_linger(Some(Duration::ZERO));
    }
}
