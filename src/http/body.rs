//! The body of a request, by length or in chunks, made contiguous where it lies: right behind its head.
//!
//! Chunks are decoded in place: data moves down over the framing before it, so a chunked body needs no second buffer
//! and what is kept never exceeds head, decoded data and one unfinished line. Offsets count from the request's start.

use std::ops::Range;

use super::Config;
use super::head::{Framing, is_token_byte, line_end};
use super::refusal::Refusal;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// More must come; the request's first `kept` bytes are all that is still needed.
    More { kept: usize },
    /// The body is whole; the next request starts at `consumed`.
    Whole { consumed: usize },
}

pub(super) struct Body {
    start: usize,
    filled: usize,
    framing: Framing,
    chunks: Chunks,
    /// Bytes that came after the head so far, framing included.
    pub(super) received: usize,
    /// Monotonic time of its first wait, which its deadlines count from.
    pub(super) since_ms: Option<u64>,
}

#[derive(Default)]
struct Chunks {
    part: Part,
    extensions: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Default)]
enum Part {
    #[default]
    Size,
    Data {
        left: usize,
    },
    DataEnd,
    Trailers,
}

impl Body {
    pub(super) fn new(head_length: usize, framing: Framing) -> Body {
        Body {
            start: head_length,
            filled: head_length,
            framing,
            chunks: Chunks::default(),
            received: 0,
            since_ms: None,
        }
    }

    /// Where the body lies, once it is whole.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.filled
    }

    /// The bytes from the request's start that its whole will need, where that is known.
    pub(super) fn wanted(&self) -> Option<usize> {
        match self.framing {
            Framing::Length(length) => Some(self.start + length),
            Framing::Chunked => None,
        }
    }

    /// Takes what has arrived: `bytes` is all there is from the request's start.
    pub(super) fn advance(&mut self, bytes: &mut [u8], config: &Config) -> Result<Advance, Refusal> {
        match self.framing {
            Framing::Length(length) => {
                let end = self.start + length;
                self.filled = end;
                Ok(if bytes.len() >= end {
                    Advance::Whole { consumed: end }
                } else {
                    Advance::More { kept: bytes.len() }
                })
            }
            Framing::Chunked => self.advance_chunks(bytes, config),
        }
    }

    fn advance_chunks(&mut self, bytes: &mut [u8], config: &Config) -> Result<Advance, Refusal> {
        let mut raw = self.filled;
        loop {
            let next = match self.chunks.part {
                Part::Size => {
                    let body_left = config.body_bytes_max - (self.filled - self.start);
                    self.chunks.size(&bytes[raw..], body_left, config)?
                }
                Part::Data { left } => {
                    let length = left.min(bytes.len() - raw);
                    bytes.copy_within(raw..raw + length, self.filled);
                    self.filled += length;
                    let part = if length == left { Part::DataEnd } else { Part::Data { left: left - length } };
                    // Data of which nothing is there makes no step.
                    (length > 0).then_some((part, length))
                }
                Part::DataEnd => data_end(&bytes[raw..])?,
                Part::Trailers => match self.chunks.trailer(&bytes[raw..], config)? {
                    Some((true, length)) => return Ok(Advance::Whole { consumed: raw + length }),
                    Some((false, length)) => Some((Part::Trailers, length)),
                    None => None,
                },
            };
            let Some((part, length)) = next else { break };
            self.chunks.part = part;
            raw += length;
        }
        assert!(self.filled <= raw && raw <= bytes.len(), "data moves down within what has come");
        bytes.copy_within(raw.., self.filled);
        Ok(Advance::More { kept: self.filled + bytes.len() - raw })
    }
}

/// The next part and how many bytes it took to get there; none: the line is not whole.
type Next = Option<(Part, usize)>;

impl Chunks {
    fn size(&mut self, bytes: &[u8], body_left: usize, config: &Config) -> Result<Next, Refusal> {
        let Some(end) = line_end(bytes, 0) else {
            let bound = config.chunk_size_digits_max + config.chunk_extension_bytes_max + 2;
            return if bytes.len() > bound { Err(Refusal::Chunk) } else { Ok(None) };
        };
        let line = bytes[..end - 1].strip_suffix(b"\r").ok_or(Refusal::Chunk)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = &line[digits..];
        self.extensions += extension.len();
        if digits == 0
            || digits > config.chunk_size_digits_max
            || extension.len() > config.chunk_extension_bytes_max
            || self.extensions > config.chunk_extensions_bytes_max
            || !are_extensions(extension)
        {
            return Err(Refusal::Chunk);
        }
        let text = std::str::from_utf8(&line[..digits]).map_err(|_| Refusal::Chunk)?;
        let size = usize::from_str_radix(text, 16).map_err(|_| Refusal::Chunk)?;
        if size > body_left {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(Some((if size == 0 { Part::Trailers } else { Part::Data { left: size } }, end)))
    }

    /// One trailer, thrown away, or the empty line after the last one (true).
    fn trailer(&mut self, bytes: &[u8], config: &Config) -> Result<Option<(bool, usize)>, Refusal> {
        let Some(end) = line_end(bytes, 0) else {
            // A CR alone may be half of the empty line at the end, which is no trailer.
            let is_long = bytes != b"\r" && self.trailers + bytes.len() > config.trailers_bytes_max;
            return if is_long { Err(Refusal::Trailer) } else { Ok(None) };
        };
        let line = bytes[..end - 1].strip_suffix(b"\r").ok_or(Refusal::Trailer)?;
        if line.is_empty() {
            return Ok(Some((true, end)));
        }
        self.trailers += end;
        let colon = line.iter().position(|&byte| byte == b':').ok_or(Refusal::Trailer)?;
        if colon == 0
            || !line[..colon].iter().copied().all(is_token_byte)
            || line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
            || self.trailers > config.trailers_bytes_max
        {
            return Err(Refusal::Trailer);
        }
        Ok(Some((false, end)))
    }
}

/// Whether text is `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, a value being a token or quoted (RFC 9112, 7.1.1).
fn are_extensions(text: &[u8]) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let Some(named) = after_mark(rest, b';').and_then(after_token) else { return false };
        rest = match after_mark(named, b'=') {
            None => named,
            Some(value) => match after_token(value).or_else(|| after_quoted(value)) {
                Some(after) => after,
                None => return false,
            },
        };
    }
    true
}

/// What follows a mark and the blanks on both of its sides.
fn after_mark(text: &[u8], mark: u8) -> Option<&[u8]> {
    Some(without_blanks(without_blanks(text).strip_prefix(&[mark])?))
}

fn without_blanks(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|byte| b" \t".contains(byte)).count()..]
}

fn after_token(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().take_while(|byte| is_token_byte(**byte)).count();
    (length > 0).then(|| &text[length..])
}

fn after_quoted(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', escaped, after @ ..] if is_text(*escaped) => after,
            [b'\\', ..] => return None,
            [byte, after @ ..] if is_text(*byte) => after,
            _ => return None,
        };
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

fn data_end(bytes: &[u8]) -> Result<Next, Refusal> {
    match bytes {
        [b'\r', b'\n', ..] => Ok(Some((Part::Size, 2))),
        [] | [b'\r'] => Ok(None),
        _ => Err(Refusal::Chunk),
    }
}
