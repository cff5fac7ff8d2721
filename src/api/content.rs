//! Bodies: content type, content coding, decompression within its bound, UTF-8; and those that are one JSON object.

use std::borrow::Cow;
use std::io::Read;

use serde::Deserialize;

use super::json_guard::check_depth;
use super::wire::{Rejection, bad_json, too_deep};
use crate::http::Request;
use crate::limits::{BODY_DECODED_BYTES_MAX, JSON_DEPTH_MAX};

/// How the events of a body are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One JSON value; or lines of JSON under a type that does not say so.
    Json,
    /// A JSON value a line.
    Lines,
}

/// The body's bytes, decompressed, and its shape.
pub(super) fn read<'a>(request: &Request<'a>) -> Result<(Cow<'a, [u8]>, Shape), Rejection> {
    let shape = shape(request.headers.get("content-type"))?;
    Ok((decompressed(request)?, shape))
}

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

fn decompressed<'a>(request: &Request<'a>) -> Result<Cow<'a, [u8]>, Rejection> {
    let body = request.body;
    let coding = request.headers.get("content-encoding").unwrap_or(b"").trim_ascii();
    let is = |name: &[u8]| coding.eq_ignore_ascii_case(name);
    if coding.is_empty() || is(b"identity") {
        Ok(Cow::Borrowed(body))
    } else if is(b"gzip") || is(b"x-gzip") {
        bounded(flate2::read::MultiGzDecoder::new(body))
    } else if is(b"deflate") {
        bounded(flate2::read::ZlibDecoder::new(body))
    } else if is(b"zstd") {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(|_| broken())?;
        // A frame may ask for a window of 2 GiB: no more than a body can be.
        decoder.window_log_max(23).map_err(|_| broken())?;
        bounded(decoder)
    } else {
        Err(Rejection::new("unsupported_content_coding", "use gzip, deflate, zstd or none"))
    }
}

const _: () = assert!(BODY_DECODED_BYTES_MAX == 1 << 23, "the window of zstd is as large as a body");

fn bounded(decoder: impl Read) -> Result<Cow<'static, [u8]>, Rejection> {
    let mut out = Vec::new();
    let read = decoder.take(BODY_DECODED_BYTES_MAX as u64 + 1).read_to_end(&mut out);
    if out.len() > BODY_DECODED_BYTES_MAX {
        let message = format!("a body may have at most {BODY_DECODED_BYTES_MAX} bytes after decompression");
        return Err(Rejection::new("body_too_large", message));
    }
    read.map(|_| Cow::Owned(out)).map_err(|_| broken())
}

fn broken() -> Rejection {
    Rejection::new("invalid_content_coding", "the compressed body is damaged or cut short")
}

/// The body as text.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(bytes).map_err(|_| Rejection::new("invalid_utf8", "the body is not UTF-8"))
}

/// The fields of a body that is one object, bounded in size and nesting; those that it does not name are ignored.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str, bytes_max: usize) -> Result<T, Rejection> {
    if text.len() > bytes_max {
        return Err(Rejection::new("body_too_large", format!("this body may have at most {bytes_max} bytes")));
    }
    // A derived struct would take an array of values as well.
    match text.trim_ascii_start().as_bytes().first() {
        None => return Err(Rejection::new("empty_body", "send a JSON object")),
        Some(b'{') => {}
        Some(_) => return Err(Rejection::new("invalid_json", "send a JSON object")),
    }
    check_depth(text, JSON_DEPTH_MAX).map_err(too_deep)?;
    serde_json::from_str(text).map_err(|e| bad_json(&e))
}
