//! The bytes of a socket as they travel: non-blocking calls, and what the event loop has said since.
//!
//! Events are edges, so the wire remembers them. A short read has drained the socket, so the next one
//! waits for an event, without a probing call. After a hang-up no other event comes, so reads go on to
//! the end.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};

use may::io::{CoIo, WaitIo};

const READABLE: usize = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as usize;
const HUNG_UP: usize = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as usize;

pub(super) struct Wire {
    pub(super) io: CoIo<TcpStream>,
    pub(super) readable: bool,
    hung_up: bool,
}

pub(super) enum Got {
    Bytes(usize),
    /// Wait first.
    Nothing,
    End,
    /// The client speaks HTTP where TLS is spoken; from here on the socket is a plain one.
    NotTls,
}

impl Wire {
    pub(super) fn new(io: CoIo<TcpStream>) -> Wire {
        Wire { io, readable: false, hung_up: false }
    }

    pub(super) fn wait(&mut self) -> usize {
        let events = self.io.wait_io();
        self.readable |= events & READABLE != 0;
        self.hung_up |= events & HUNG_UP != 0;
        events
    }

    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<Got> {
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
    let no_address = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel writes at most `room.len()` bytes to `room`, which outlives the call; the sender's address is not asked for.
    let got =
        unsafe { libc::syscall(libc::SYS_recvfrom, socket, room.as_mut_ptr(), room.len(), 0, no_address, no_address) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let (flags, no_address) = (libc::MSG_NOSIGNAL, std::ptr::null_mut::<libc::c_void>());
    // SAFETY: the kernel reads `bytes.len()` bytes of `bytes`, which outlives the call; the socket knows its other end.
    let went = unsafe { libc::syscall(libc::SYS_sendto, socket, bytes.as_ptr(), bytes.len(), flags, no_address, 0) };
    usize::try_from(went).map_err(|_| io::Error::last_os_error())
}

/// The bytes of a write, which takes some or fails.
pub(super) fn written(length: usize) -> io::Result<usize> {
    if length == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(length) }
}

fn again(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
