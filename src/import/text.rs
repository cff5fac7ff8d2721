//! The bytes of an input, unpacked: a file or a stream, plain, gzip or zstd. A resumed import goes to
//! its place by seeking in a plain file, and by reading on in all others.

use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An input is read and unpacked in pieces of this size.
const READ_BYTES: usize = 256 * 1024;
/// The first bytes of an input, whose hash tells it from another.
const HEAD_BYTES: usize = 64 * 1024;
/// White space and byte-order mark that are read to find the format.
const PEEK_BYTES_MAX: usize = 4 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What tells an input from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    /// As packed; a stream has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) modified_ms: Option<u64>,
    /// Of its first 64 KiB.
    pub(super) head: Uuid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

pub(super) struct Input {
    pub(super) identity: Identity,
    pub(super) text: Text,
    pub(super) file: File,
}

impl Input {
    /// Opens a file, or standard input for `-`. `resumable`: a stream is to be known again by its
    /// head.
    pub(super) fn open(path: &Path, resumable: bool) -> Result<Input, String> {
        let failed = |e: io::Error| format!("cannot read {}: {e}", path.display());
        let (file, head, identity) = identify(path, resumable).map_err(failed)?;
        let packing = packing(&head).map_err(|why| format!("{}: {why}", path.display()))?;
        let is_seekable = identity.size.is_some() && packing == Packing::Plain;
        let text = Text::new(&file, head, packing, is_seekable).map_err(failed)?;
        Ok(Input { identity, text, file })
    }

    /// Keeps other imports from a file while `file` is open. The error: one is under way.
    pub(super) fn lock(&self) -> Result<(), String> {
        // On a file system without locks, every import may go on.
        match self.identity.size.map(|_| self.file.try_lock()) {
            Some(Err(TryLockError::WouldBlock)) => Err("another import of it is under way".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Opens it and reads its first bytes.
fn identify(path: &Path, resumable: bool) -> io::Result<(File, Vec<u8>, Identity)> {
    let mut file = match path == Path::new("-") {
        true => File::from(io::stdin().as_fd().try_clone_to_owned()?),
        false => File::open(path)?,
    };
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    let is_file = about.is_file();
    if is_file {
        file.seek(SeekFrom::Start(0))?;
    }
    let mut head = Vec::new();
    let head_bytes = if is_file || resumable { HEAD_BYTES } else { 4 };
    (&mut file).take(head_bytes as u64).read_to_end(&mut head)?;
    let modified = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let identity = Identity {
        size: is_file.then_some(about.len()),
        modified_ms: is_file.then_some(u64::try_from(modified.as_millis()).unwrap_or(u64::MAX)),
        head: Uuid::new_v5(&Uuid::NAMESPACE_OID, &head),
    };
    Ok((file, head, identity))
}

/// Without a byte-order mark.
pub(super) fn unmarked(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

fn buffered(inner: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::with_capacity(READ_BYTES, inner))
}

fn packing(head: &[u8]) -> Result<Packing, &'static str> {
    match head {
        [0x1f, 0x8b, ..] => Ok(Packing::Gzip),
        // A frame, or one that is skipped (pzstd begins with such).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Packing::Zstd),
        [b'B', b'Z', b'h', ..] => Err("is bzip2: bzip2 -dc FILE | event-tracker import -"),
        [0xfd, b'7', b'z', b'X', ..] => Err("is xz: xz -dc FILE | event-tracker import -"),
        [b'P', b'K', 3, 4, ..] => Err("is a zip archive: unzip -p FILE | event-tracker import -"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err("is UTF-16: iconv -f UTF-16 -t UTF-8 FILE | event-tracker import -"),
        _ => Ok(Packing::Plain),
    }
}

struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(bytes)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

pub(super) struct Text {
    reader: Box<dyn BufRead + Send>,
    offset: u64,
    read: Arc<AtomicU64>,
    seekable: Option<File>,
}

impl Text {
    /// `head` was read from the file already.
    fn new(file: &File, head: Vec<u8>, packing: Packing, is_seekable: bool) -> io::Result<Text> {
        let read = Arc::new(AtomicU64::new(0));
        let raw = Counted { inner: Cursor::new(head).chain(file.try_clone()?), count: read.clone() };
        let raw = BufReader::with_capacity(READ_BYTES, raw);
        let reader: Box<dyn BufRead + Send> = match packing {
            Packing::Plain => Box::new(raw),
            Packing::Gzip => buffered(flate2::bufread::MultiGzDecoder::new(raw)),
            Packing::Zstd => buffered(zstd::stream::read::Decoder::with_buffer(raw)?),
        };
        let seekable = if is_seekable { Some(file.try_clone()?) } else { None };
        Ok(Text { reader, offset: 0, read, seekable })
    }

    /// Bytes before this place, unpacked.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes read so far, as packed: what a progress bar shows.
    pub(super) fn bytes_read(&self) -> Arc<AtomicU64> {
        self.read.clone()
    }

    /// Passes over a byte-order mark and returns the first byte after it that is no white space.
    pub(super) fn begin(&mut self) -> io::Result<Option<u8>> {
        let first = |start: &[u8]| unmarked(start).iter().copied().find(|b| !b.is_ascii_whitespace());
        let mut start = Vec::new();
        // Byte by byte: a stream may give no more for a long time.
        while start.len() < BYTE_ORDER_MARK.len() || first(&start).is_none() && start.len() < PEEK_BYTES_MAX {
            if (&mut self.reader).take(1).read_to_end(&mut start)? == 0 {
                break;
            }
        }
        let first = first(&start);
        let mark = start.len() - unmarked(&start).len();
        self.offset = mark as u64;
        start.drain(..mark);
        let rest = std::mem::replace(&mut self.reader, Box::new(io::empty()));
        self.reader = Box::new(Cursor::new(start).chain(rest));
        Ok(first)
    }

    /// Goes on to a place that an earlier run has reached.
    pub(super) fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        if let Some(file) = &self.seekable {
            let mut file = file.try_clone()?;
            file.seek(SeekFrom::Start(offset))?;
            self.read.store(offset, Ordering::Relaxed);
            let counted = Counted { inner: file, count: self.read.clone() };
            self.reader = buffered(counted);
            self.offset = offset;
            return Ok(());
        }
        let ahead = offset.saturating_sub(self.offset);
        let skipped = io::copy(&mut (&mut *self).take(ahead), &mut io::sink())?;
        if skipped < ahead { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) } else { Ok(()) }
    }
}

impl Read for Text {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(bytes)?;
        self.offset += length as u64;
        Ok(length)
    }
}

impl BufRead for Text {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.offset += length as u64;
        self.reader.consume(length);
    }
}
