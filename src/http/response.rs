//! Answers as bytes: the head that every answer gets, and the bodies of the server's own errors.
//!
//! Knows which answers carry a body and a length; when they are sent is the connection's business.

use std::io::Write;

use super::method::METHODS;
use super::refusal::Refusal;

#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// 200 to 599.
    pub status: u16,
    /// Empty: no `Content-Type`.
    pub content_type: &'static str,
    /// More headers; one with a control character is left out. `Date`, `Content-Length` and `Connection` are ours.
    pub headers: &'a [(&'a str, &'a str)],
    /// Left out if the request or the status forbids it. JSON without a content coding gets a
    /// newline at its end: the prompt of a shell then starts on a line of its own.
    pub body: &'a [u8],
}

impl Answer<'_> {
    fn lacks_newline(&self) -> bool {
        let is_plain = || !self.headers.iter().any(|(name, _)| *name == "Content-Encoding");
        self.content_type == JSON && !self.body.ends_with(b"\n") && is_plain()
    }
}

/// `Date: ` and its value and the end of its line.
pub(super) type DateLine = [u8; 37];

const JSON: &str = "application/json";

#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) head_only: bool,
    pub(super) close: bool,
    /// HTTP/1.0, which has to be told that the connection stays.
    pub(super) is_old: bool,
    /// The lines that it carries name its request already.
    pub(super) has_id: bool,
}

/// Appends an answer; `lines` are header lines that its request gets whatever the answer.
pub(super) fn render(output: &mut Vec<u8>, answer: &Answer<'_>, lines: &[u8], shape: Shape, date: &DateLine) {
    let bodiless = matches!(answer.status, 204 | 304 | 100..=199);
    start(output, answer, bodiless, date);
    let newline: &[u8] = if answer.lacks_newline() { b"\n" } else { b"" };
    if !bodiless {
        put(output, format_args!("Content-Length: {}\r\n", answer.body.len() + newline.len()));
    }
    output.extend_from_slice(lines);
    end(output, answer, shape);
    if !bodiless && !shape.head_only {
        output.extend_from_slice(answer.body);
        output.extend_from_slice(newline);
    }
}

/// Appends the start of an answer whose body is written as it comes: in chunks, or in HTTP/1.0 up to the close.
pub(super) fn render_stream(output: &mut Vec<u8>, answer: &Answer<'_>, lines: &[u8], shape: Shape, date: &DateLine) {
    start(output, answer, false, date);
    if !shape.is_old {
        line(output, "Transfer-Encoding", "chunked");
    }
    output.extend_from_slice(lines);
    end(output, answer, shape);
    if !shape.head_only {
        chunk(output, answer.body, !shape.is_old);
    }
}

/// Appends a piece of a stream; an empty one is none, since an empty chunk would end the body.
pub(super) fn chunk(output: &mut Vec<u8>, bytes: &[u8], is_chunked: bool) {
    if bytes.is_empty() {
        return;
    }
    if !is_chunked {
        return output.extend_from_slice(bytes);
    }
    put(output, format_args!("{:x}\r\n", bytes.len()));
    output.extend_from_slice(bytes);
    output.extend_from_slice(b"\r\n");
}

fn start(output: &mut Vec<u8>, answer: &Answer<'_>, bodiless: bool, date: &DateLine) {
    assert!((200..=599).contains(&answer.status), "{} is no status of a final response", answer.status);
    put(output, format_args!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status)));
    output.extend_from_slice(date);
    // No browser may take a body for another type than the one that it says.
    line(output, "X-Content-Type-Options", "nosniff");
    if !answer.content_type.is_empty() && !bodiless {
        line(output, "Content-Type", answer.content_type);
    }
}

fn end(output: &mut Vec<u8>, answer: &Answer<'_>, shape: Shape) {
    header_lines(output, answer.headers);
    if shape.close {
        output.extend_from_slice(b"Connection: close\r\n");
    } else if shape.is_old {
        output.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    output.extend_from_slice(b"\r\n");
}

pub(super) fn header_lines(output: &mut Vec<u8>, headers: &[(&str, &str)]) {
    for (name, value) in headers {
        // What a handler echoes must never start a line of its own.
        if !has_control(name) && !has_control(value) {
            line(output, name, value);
        }
    }
}

/// Looks at all of it, many bytes at a time: there hardly ever is one.
fn has_control(text: &str) -> bool {
    text.bytes().fold(false, |found, byte| found | (byte.is_ascii_control() & (byte != b'\t')))
}

/// Appends the answer to a request that broke a rule; the connection ends after it.
pub(super) fn render_refusal(output: &mut Vec<u8>, refusal: Refusal, lines: &[u8], date: &DateLine) {
    let (status, tag, message) = refusal.parts();
    let body = error_body(status, tag, message);
    let headers: &[(&str, &str)] = match refusal {
        Refusal::Connect => &[("Allow", METHODS)],
        _ if refusal.is_passing() => &[("Retry-After", "1")],
        _ => &[],
    };
    let answer = Answer { status, content_type: "application/json", headers, body: body.as_bytes() };
    let shape = Shape { head_only: false, close: true, is_old: false, has_id: !lines.is_empty() };
    render(output, &answer, lines, shape, date);
}

/// `tag` and `message` are words of ours that need no escaping.
pub(super) fn error_body(status: u16, tag: &str, message: &str) -> String {
    format!("{{\"status\":{status},\"error\":\"{tag}\",\"message\":\"{message}\"}}")
}

/// The answer in the place of held ones that failed, unless the configuration names another.
pub(super) fn failed() -> Answer<'static> {
    Answer {
        status: 503,
        content_type: "application/json",
        headers: &[("Retry-After", "1")],
        body: br#"{"status":503,"error":"not_stored","message":"nothing was stored: send it again with the same ids"}"#,
    }
}

fn line(output: &mut Vec<u8>, name: &str, value: &str) {
    output.extend_from_slice(name.as_bytes());
    output.extend_from_slice(b": ");
    output.extend_from_slice(value.as_bytes());
    output.extend_from_slice(b"\r\n");
}

fn put(output: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    output.write_fmt(text).expect("a write into a Vec does not fail");
}

/// Of the statuses that this server and its API use; a client needs none (RFC 9112, 4).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}
