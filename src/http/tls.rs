//! TLS for those without a proxy: the certificate, which can be read again while the server runs, and a session.
//!
//! rustls turns bytes into bytes; what waits is the wire's business and its deadlines are the connection's. A session
//! never waits in a read: a handshake is a read that brings nothing, under the deadline of the first byte.

use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::wire::{Got, Wire, written};
use crate::limits::TLS_READ_BYTES_MAX;
use crate::process;

/// A certificate and its key, from files that are read at start and whenever [`Tls::reload`] is called.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads both PEM files: TLS 1.2 and 1.3, `http/1.1` in ALPN, no client certificates.
    ///
    /// The error is one line that names the setting, the file and what is wrong with it.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Tls, String> {
        let current = RwLock::new(Arc::new(read(&certificate, &key)?));
        Ok(Tls { certificate, key, current })
    }

    /// Reads the files again: connections from here on get the new certificate, those that are open keep theirs. After
    /// an error the old one stays.
    pub fn reload(&self) -> Result<(), String> {
        let fresh = Arc::new(read(&self.certificate, &self.key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What is unsafe about the files, a sentence for the log.
    pub fn warning(&self) -> Option<String> {
        let is_open = process::others_read(&self.key);
        is_open.then(|| format!("TLS_KEY {} can be read by every user of this machine: chmod 600", self.key.display()))
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, String> {
    let (in_certificate, in_key) =
        (format!("TLS_CERT {}", certificate.display()), format!("TLS_KEY {}", key.display()));
    let wrong = |setting: &str, error: &pem::Error| match error {
        pem::Error::Io(error) => format!("{setting}: {error}"),
        pem::Error::NoItemsFound => format!("{setting} holds no private key in PEM"),
        error => format!("{setting} is not PEM: {error}"),
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| wrong(&in_certificate, &error))?;
    if chain.is_empty() {
        return Err(format!("{in_certificate} holds no certificate in PEM"));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(&in_key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map(|config| config.with_no_client_auth()).map_err(|error| error.to_string())?;
    let mut config = config.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => format!("{in_key} is not the key of {in_certificate}"),
        error => format!("{in_certificate} and {in_key} cannot be used: {error}"),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

pub(super) struct Session {
    connection: ServerConnection,
    /// Nothing came yet: what the client speaks is open.
    is_fresh: bool,
    /// Something is inside that needs no event of the wire: plaintext, or the client's end.
    has_more: bool,
}

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Session> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Session { connection, is_fresh: true, has_more: false })
    }

    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Reads plaintext. Takes from the wire only where it is readable, and no more than a record's worth at a time, so
    /// that the connection's own bound on reads in a row still means something.
    pub(super) fn read(&mut self, wire: &mut Wire, room: &mut [u8]) -> io::Result<Got> {
        if self.is_fresh && wire.readable {
            match wire.peek()? {
                // A handshake begins with 22, every method with a letter.
                Some(first) if first.is_ascii_alphabetic() => return Ok(Got::NotTls),
                first => self.is_fresh = first.is_none(),
            }
        }
        let length = room.len().min(TLS_READ_BYTES_MAX);
        let room = &mut room[..length];
        let (mut filled, mut taken) = (0, 0);
        while filled < length {
            match self.connection.reader().read(&mut room[filled..]) {
                Ok(0) => return Ok(self.at_end(filled)),
                Ok(count) => filled += count,
                // The wire's end without the session's: nobody can tell who cut it, and what is half here stays so.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(self.at_end(filled)),
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(_) if !wire.readable || taken >= TLS_READ_BYTES_MAX => break,
                Err(_) => taken += self.take(wire)?,
            }
        }
        self.has_more = filled == length;
        Ok(if filled > 0 { Got::Bytes(filled) } else { Got::Nothing })
    }

    /// What was read before the end comes first.
    fn at_end(&mut self, filled: usize) -> Got {
        self.has_more = true;
        if filled > 0 { Got::Bytes(filled) } else { Got::End }
    }

    /// One read of the wire: how many bytes it brought.
    fn take(&mut self, wire: &mut Wire) -> io::Result<usize> {
        let count = match self.connection.read_tls(wire) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        };
        let processed = self.connection.process_new_packets();
        // Our part of a handshake, or the alert that says what was wrong.
        let pushed = self.push(wire);
        processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        pushed.map(|()| count)
    }

    /// Writes what is encrypted already, as far as it goes without waiting.
    pub(super) fn push(&mut self, wire: &mut Wire) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(wire).and_then(written) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes in as much as the session's own bound allows, and writes once; what was left of earlier writes goes first.
    /// False: nothing was left to write.
    pub(super) fn write_step(&mut self, wire: &mut Wire, bytes: &mut &[u8]) -> io::Result<bool> {
        if bytes.is_empty() && !self.connection.wants_write() {
            return Ok(false);
        }
        *bytes = &bytes[self.connection.writer().write(bytes)?..];
        written(self.connection.write_tls(wire)?)?;
        Ok(true)
    }

    /// As `Socket::write_some`. Nothing more is taken in while something encrypted waits, so that a reader who falls
    /// behind is seen by what the caller has left.
    pub(super) fn write_some(&mut self, wire: &mut Wire, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            self.push(wire)?;
            if self.connection.wants_write() || taken == bytes.len() {
                return Ok(taken);
            }
            let end = bytes.len().min(taken + TLS_READ_BYTES_MAX);
            taken += self.connection.writer().write(&bytes[taken..end])?;
        }
    }

    /// The alert by which the client knows that nothing was cut off.
    pub(super) fn say_end(&mut self) {
        self.connection.send_close_notify();
    }
}
