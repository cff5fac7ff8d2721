//! Bodies: content type, content coding, decompression within its bounds, UTF-8; and those that are one JSON object.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

use serde::Deserialize;

use super::json_guard::check_depth;
use super::wire::{Rejection, bad_json, too_deep};
use crate::http::{BodyBytes, Exchange, Request};
use crate::limits::{
    BODY_DECODED_BYTES_MAX, BODY_DECODED_BYTES_MIN, BODY_DECODED_RATIO_MAX, DECODER_INPUT_BYTES, DECODER_OUTPUT_BYTES,
    JSON_DEPTH_MAX,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One JSON value; or lines of JSON under a type that does not say so.
    Json,
    Lines,
}

pub(super) struct Body<'a> {
    bytes: Cow<'a, [u8]>,
    pub(super) shape: Shape,
    /// Counts the decoded bytes as long as they are in memory.
    _held: Option<BodyBytes>,
}

impl Body<'_> {
    /// All of it but a byte-order mark.
    pub(super) fn bytes(&self) -> &[u8] {
        without_mark(&self.bytes)
    }

    pub(super) fn text(&self) -> Result<&str, Rejection> {
        text(self.bytes())
    }
}

/// What is wrong with a body already, given its first decoded bytes.
pub(super) type Check = fn(&[u8], Shape) -> Result<(), Rejection>;

pub(super) fn read<'a>(
    request: &Request<'a>,
    bytes_max: usize,
    exchange: &mut Exchange<'_>,
) -> Result<Body<'a>, Rejection> {
    read_checked(request, bytes_max, |_, _| Ok(()), exchange)
}

/// As [`read`], but decoding stops as soon as `check` finds a fault.
pub(super) fn read_checked<'a>(
    request: &Request<'a>,
    bytes_max: usize,
    check: Check,
    exchange: &mut Exchange<'_>,
) -> Result<Body<'a>, Rejection> {
    let shape = shape(request.headers.get("content-type"))?;
    let body = request.body;
    let coding = request.headers.get("content-encoding").unwrap_or(b"").trim_ascii();
    let is = |name: &[u8]| coding.eq_ignore_ascii_case(name);
    if coding.is_empty() || is(b"identity") {
        if body.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        return Ok(Body { bytes: Cow::Borrowed(body), shape, _held: None });
    }
    exchange.expect_deep_stack();
    let allowed = BODY_DECODED_BYTES_MIN + BODY_DECODED_RATIO_MAX * body.len();
    let bytes_max = bytes_max.min(allowed);
    let mut decoded = Decoded { bytes: Vec::new(), bytes_max, shape, check, held: exchange.body_bytes() };
    let source = Source { rest: body, work: DECODER_INPUT_BYTES, exchange };
    if is(b"gzip") || is(b"x-gzip") {
        decoded.fill(flate2::bufread::MultiGzDecoder::new(source), 1)?;
    } else if is(b"deflate") {
        decoded.fill(flate2::bufread::ZlibDecoder::new(source), 1)?;
    } else if is(b"zstd") {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(|_| broken())?;
        // A frame may ask for a window of 2 GiB: no more than a body can be.
        decoder.window_log_max(23).map_err(|_| broken())?;
        // The decoder's window holds up to as much as the body.
        decoded.fill(decoder, 2)?;
    } else {
        return Err(Rejection::new("unsupported_content_coding", "use gzip, deflate, zstd or none"));
    }
    Ok(Body { bytes: Cow::Owned(decoded.bytes), shape, _held: Some(decoded.held) })
}

const _: () = assert!(BODY_DECODED_BYTES_MAX == 1 << 23, "the window of zstd is as large as a body");

fn shape(content_type: Option<&[u8]>) -> Result<Shape, Rejection> {
    let essence = content_type.unwrap_or(b"application/json").split(|b| *b == b';').next().unwrap_or(b"").trim_ascii();
    let is = |name: &[u8]| essence.eq_ignore_ascii_case(name);
    if is(b"application/json") || is(b"text/plain") || essence.is_empty() {
        Ok(Shape::Json)
    } else if is(b"application/x-ndjson") || is(b"application/ndjson") || is(b"application/jsonl") {
        Ok(Shape::Lines)
    } else {
        let message = "send application/json, text/plain or application/x-ndjson";
        Err(Rejection::new("unsupported_content_type", message))
    }
}

/// The wire's bytes for a decoder. Each time that the decoder asks for more, other connections may run.
struct Source<'s, 'c> {
    rest: &'s [u8],
    work: usize,
    exchange: &'s mut Exchange<'c>,
}

impl Read for Source<'_, '_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(room)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Source<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // A decoder whose output is full asks again without taking anything.
        self.work += DECODER_INPUT_BYTES / 8;
        if self.work >= DECODER_INPUT_BYTES {
            self.work = 0;
            self.exchange.give_way();
        }
        Ok(&self.rest[..self.rest.len().min(DECODER_INPUT_BYTES)])
    }

    fn consume(&mut self, count: usize) {
        self.rest = &self.rest[count..];
        self.work += count;
    }
}

struct Decoded {
    bytes: Vec<u8>,
    bytes_max: usize,
    shape: Shape,
    check: Check,
    held: BodyBytes,
}

impl Decoded {
    /// Decodes everything, or up to the first limit. The decoder holds as much as is decoded `copies - 1` times.
    fn fill(&mut self, mut decoder: impl Read, copies: usize) -> Result<(), Rejection> {
        loop {
            self.make_room(copies)?;
            let room = (self.bytes.capacity() - self.bytes.len()).min(DECODER_OUTPUT_BYTES) as u64;
            let read = decoder.by_ref().take(room).read_to_end(&mut self.bytes);
            if self.bytes.len() > self.bytes_max {
                return Err(too_large(self.bytes_max));
            }
            if read.map_err(|_| broken())? == 0 {
                return Ok(());
            }
        }
    }

    /// Grows by doubling, up to one byte more than is allowed.
    fn make_room(&mut self, copies: usize) -> Result<(), Rejection> {
        let (length, capacity) = (self.bytes.len(), self.bytes.capacity());
        if length < capacity {
            return Ok(());
        }
        // Later looks would cost more than they save.
        if (1..=BODY_DECODED_BYTES_MIN).contains(&length) {
            (self.check)(&self.bytes, self.shape)?;
        }
        let larger = (capacity * 2).max(DECODER_OUTPUT_BYTES).min(self.bytes_max + 1);
        if !self.held.take((larger - capacity) * copies) {
            return Err(Rejection::new("bodies_full", "the server is busy with large bodies: send it again later"));
        }
        self.bytes.reserve_exact(larger - length);
        Ok(())
    }
}

fn too_large(bytes_max: usize) -> Rejection {
    Rejection::new("body_too_large", format!("this body may have at most {bytes_max} bytes, decompressed"))
}

fn broken() -> Rejection {
    Rejection::new("invalid_content_coding", "the compressed body is damaged or cut short")
}

pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(bytes).map_err(|_| Rejection::new("invalid_utf8", "the body is not UTF-8"))
}

/// The fields of a body that is one object, bounded in nesting; those that it does not name are ignored.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Rejection> {
    // A derived struct would take an array of values as well.
    match text.trim_ascii_start().as_bytes().first() {
        None => return Err(Rejection::new("empty_body", "send a JSON object")),
        Some(b'{') => {}
        Some(_) => return Err(Rejection::new("invalid_json", "send a JSON object")),
    }
    check_depth(text, JSON_DEPTH_MAX).map_err(too_deep)?;
    serde_json::from_str(text).map_err(|e| bad_json(&e))
}
