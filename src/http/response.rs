//! Answers as bytes: the head that every answer gets, and the bodies of the server's own errors.
//!
//! Knows which answers carry a body and a length; when they are sent is the connection's business.

use std::io::Write;

use super::method::METHODS;
use super::refusal::Refusal;

/// What a handler answers.
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

const OK_LINE: &[u8; 17] = b"HTTP/1.1 200 OK\r\n";
const JSON: &str = "application/json";
/// Every answer has it: no browser may take a body for another type than the one that it says.
const NOSNIFF_LINE: &[u8] = b"X-Content-Type-Options: nosniff\r\n";
const JSON_LINES: &[u8; 81] = b"X-Content-Type-Options: nosniff\r\nContent-Type: application/json\r\nContent-Length: ";
const DATE_AT: usize = OK_LINE.len();
const USUAL_BYTES: usize = DATE_AT + size_of::<DateLine>() + JSON_LINES.len();

/// The start of an answer of this second, as it is for most: 200 with JSON, up to its length.
#[derive(Clone, Copy)]
pub(super) struct Dated([u8; USUAL_BYTES]);

impl Dated {
    pub(super) const fn new(date: &DateLine) -> Dated {
        let mut usual = [0; USUAL_BYTES];
        let (start, rest) = usual.split_at_mut(DATE_AT);
        let (middle, end) = rest.split_at_mut(date.len());
        start.copy_from_slice(OK_LINE);
        middle.copy_from_slice(date);
        end.copy_from_slice(JSON_LINES);
        Dated(usual)
    }

    fn line(&self) -> &[u8] {
        &self.0[DATE_AT..USUAL_BYTES - JSON_LINES.len()]
    }
}

/// How the answer to one request differs from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The answer to HEAD: everything but the body.
    pub(super) head_only: bool,
    /// The connection ends after it.
    pub(super) close: bool,
    /// HTTP/1.0, which has to be told that the connection stays.
    pub(super) is_old: bool,
    /// The lines that it carries name its request already.
    pub(super) has_id: bool,
}

/// Appends an answer; `lines` are header lines that its request gets whatever the answer.
pub(super) fn render(output: &mut Vec<u8>, answer: &Answer<'_>, lines: &[u8], shape: Shape, date: &Dated) {
    let bodiless = matches!(answer.status, 204 | 304 | 100..=199);
    if answer.status == 200 && answer.content_type == JSON {
        output.extend_from_slice(&date.0);
    } else {
        start(output, answer, bodiless, date);
        if !bodiless {
            output.extend_from_slice(b"Content-Length: ");
        }
    }
    let newline: &[u8] = if answer.lacks_newline() { b"\n" } else { b"" };
    if !bodiless {
        number(output, answer.body.len() + newline.len());
        output.extend_from_slice(b"\r\n");
    }
    output.extend_from_slice(lines);
    end(output, answer, shape);
    if !bodiless && !shape.head_only {
        output.extend_from_slice(answer.body);
        output.extend_from_slice(newline);
    }
}

/// Appends the start of an answer whose body is written as it comes: in chunks, or in HTTP/1.0 up to the close.
pub(super) fn render_stream(output: &mut Vec<u8>, answer: &Answer<'_>, lines: &[u8], shape: Shape, date: &Dated) {
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
    // A write into a Vec does not fail.
    let _ = write!(output, "{:x}\r\n", bytes.len());
    output.extend_from_slice(bytes);
    output.extend_from_slice(b"\r\n");
}

fn start(output: &mut Vec<u8>, answer: &Answer<'_>, bodiless: bool, date: &Dated) {
    status_line(output, answer.status);
    output.extend_from_slice(date.line());
    output.extend_from_slice(NOSNIFF_LINE);
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

/// Appends headers, each a line.
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
pub(super) fn render_refusal(output: &mut Vec<u8>, refusal: Refusal, lines: &[u8], date: &Dated) {
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

fn number(output: &mut Vec<u8>, mut value: usize) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    output.extend_from_slice(&digits[at..]);
}

fn status_line(output: &mut Vec<u8>, status: u16) {
    let line: &[u8] = match status {
        200 => OK_LINE,
        201 => b"HTTP/1.1 201 Created\r\n",
        202 => b"HTTP/1.1 202 Accepted\r\n",
        204 => b"HTTP/1.1 204 No Content\r\n",
        304 => b"HTTP/1.1 304 Not Modified\r\n",
        400 => b"HTTP/1.1 400 Bad Request\r\n",
        404 => b"HTTP/1.1 404 Not Found\r\n",
        503 => b"HTTP/1.1 503 Service Unavailable\r\n",
        other => {
            // A write into a Vec does not fail.
            let _ = write!(output, "HTTP/1.1 {other} {}\r\n", reason(other));
            return;
        }
    };
    output.extend_from_slice(line);
}

fn reason(status: u16) -> &'static str {
    match status {
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        401 => "Unauthorized",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
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
        502 => "Bad Gateway",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Status",
    }
}
