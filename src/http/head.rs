//! The head of a request: where it ends, what it says, and everything that makes it unacceptable.
//!
//! `httparse` splits and checks characters. The rules on top are ours, and stricter where two
//! readers of the same bytes could disagree about where a request ends. The search for the end of a
//! head continues where the last search stopped, so that a head that comes byte by byte costs its
//! length. A whole head is parsed once. The parsed parts are kept as offsets, which stay true if the
//! buffer moves or grows under a body.

use std::mem::MaybeUninit;

use super::Config;
use super::method::Method;
use super::refusal::Refusal;
use crate::limits::{HEADERS_MAX, METHOD_BYTES_MAX, REQUEST_ID_BYTES_MAX};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

#[derive(Clone, Copy, Default)]
struct Span {
    start: u16,
    length: u16,
}

impl Span {
    fn of(whole: &[u8], part: &[u8]) -> Span {
        if part.is_empty() {
            // One that was left out lies anywhere.
            return Span::default();
        }
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        assert!(start < whole.len() && part.len() <= whole.len() - start, "a part of a head lies within it");
        let offset = |at: usize| u16::try_from(at).expect("a head is shorter than 64 KiB");
        Span { start: offset(start), length: offset(part.len()) }
    }

    fn text(self, whole: &[u8]) -> &[u8] {
        &whole[usize::from(self.start)..][..usize::from(self.length)]
    }
}

#[derive(Clone, Copy, Default)]
struct Field {
    name: Span,
    value: Span,
}

/// A parsed head; offsets count from the first byte of its request.
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// The connection ends after this request.
    pub(super) close: bool,
    /// HTTP/1.0, which has to be told that the connection stays.
    pub(super) is_old: bool,
    path: Span,
    query: Span,
    /// Host and port of an absolute target.
    authority: Span,
    /// Of an `X-Request-Id` that can be believed; empty where there is none.
    request_id: Span,
    fields: [Field; HEADERS_MAX],
    field_count: usize,
}

impl Head {
    pub(super) fn new() -> Head {
        Head {
            method: Method::Get,
            framing: Framing::Length(0),
            expects_continue: false,
            close: false,
            is_old: false,
            path: Span::default(),
            query: Span::default(),
            authority: Span::default(),
            request_id: Span::default(),
            fields: [Field::default(); HEADERS_MAX],
            field_count: 0,
        }
    }

    /// Takes the head at the start of the bytes that have come: its length, once it is whole. `search` remembers how far
    /// earlier calls came.
    pub(super) fn read(
        &mut self,
        search: &mut Search,
        bytes: &[u8],
        config: &Config,
    ) -> Result<Option<usize>, Refusal> {
        let Some(length) = search.advance(bytes, config)? else { return Ok(None) };
        parse(self, &bytes[..length], config)?;
        Ok(Some(length))
    }

    /// The path as sent. ASCII: the parser has seen to it.
    pub(super) fn path<'a>(&self, request: &'a [u8]) -> &'a str {
        match self.path.text(request) {
            // An absolute target may name nothing but the host, which OPTIONS asks about (RFC 9112, 3.2.4).
            [] if self.method == Method::Options => "*",
            [] => "/",
            path => ascii(path),
        }
    }

    pub(super) fn query<'a>(&self, request: &'a [u8]) -> &'a str {
        ascii(self.query.text(request))
    }

    pub(super) fn authority<'a>(&self, request: &'a [u8]) -> &'a str {
        ascii(self.authority.text(request))
    }

    pub(super) fn request_id<'a>(&self, request: &'a [u8]) -> Option<&'a str> {
        let id = self.request_id.text(request);
        if id.is_empty() { None } else { std::str::from_utf8(id).ok() }
    }

    pub(super) fn headers<'a>(&'a self, request: &'a [u8]) -> Headers<'a> {
        Headers { request, fields: &self.fields[..self.field_count] }
    }
}

fn ascii(part: &[u8]) -> &str {
    std::str::from_utf8(part).expect("`split_target` lets nothing but visible ASCII through")
}

/// The headers of a request, in their order.
#[derive(Clone, Copy)]
pub struct Headers<'a> {
    request: &'a [u8],
    fields: &'a [Field],
}

impl<'a> Headers<'a> {
    /// The first header of that name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let request = self.request;
        self.fields.iter().map(move |field| (field.name.text(request), field.value.text(request)))
    }
}

/// The highest weight (`q`) that a field such as `Accept` gives to one that `matches`; `None`: it names none.
pub fn weight(field: &str, matches: impl Fn(&str) -> bool) -> Option<f32> {
    let weights = field.split(',').filter_map(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_it = matches(parts.next()?);
        let q = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        is_it.then(|| q.map_or(1.0, |q| q.parse().unwrap_or(0.0)))
    });
    weights.reduce(f32::max)
}

#[derive(Default)]
pub(super) struct Search {
    scanned: usize,
    line_start: usize,
}

impl Search {
    /// Nothing was looked at yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.scanned == 0
    }

    /// Looks at what has come since: the length of the head once it is whole.
    fn advance(&mut self, bytes: &[u8], config: &Config) -> Result<Option<usize>, Refusal> {
        if self.line_start == 0 {
            within_method(bytes)?;
        }
        while let Some(end) = line_end(bytes, self.scanned) {
            let text_end = end - 1;
            if text_end == 0 || bytes[text_end - 1] != b'\r' {
                return Err(Refusal::LineEnding);
            }
            let length = text_end - 1 - self.line_start;
            if self.line_start == 0 {
                within_line(length, config)?;
            } else if length == 0 {
                return if end <= config.head_bytes_max { Ok(Some(end)) } else { Err(Refusal::HeadTooLarge) };
            }
            self.scanned = end;
            self.line_start = end;
        }
        self.scanned = bytes.len();
        if self.line_start == 0 {
            // The last byte may be the CR of the end.
            within_line(bytes.len().saturating_sub(1), config)?;
        }
        if bytes.len() >= config.head_bytes_max { Err(Refusal::HeadTooLarge) } else { Ok(None) }
    }
}

/// A method that is too long is no long target: the client must learn which of the two is wrong.
fn within_method(bytes: &[u8]) -> Result<(), Refusal> {
    let Some(start) = bytes.get(..=METHOD_BYTES_MAX) else { return Ok(()) };
    if start.iter().any(|byte| b" \r\n".contains(byte)) {
        return Ok(());
    }
    Err(if start.iter().copied().all(is_token_byte) { Refusal::Method } else { Refusal::RequestLine })
}

/// The bytes of a token (RFC 9110, 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn within_line(length: usize, config: &Config) -> Result<(), Refusal> {
    if length > config.request_line_bytes_max { Err(Refusal::LineTooLong) } else { Ok(()) }
}

pub(super) fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr(b'\n', &bytes[from..]).map(|at| from + at + 1)
}

/// A whole head: the connection's own from here on, if it breaks no rule.
fn parse(head: &mut Head, bytes: &[u8], config: &Config) -> Result<(), Refusal> {
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(Refusal::RequestLine);
    }
    let mut room = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut room[..config.headers_max]) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => take(head, &parsed, bytes),
        Ok(_) => Err(Refusal::LineEnding),
        Err(httparse::Error::Version) => Err(wrong_version(bytes)),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::HeadTooLarge),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => Err(Refusal::Field),
        Err(_) => Err(Refusal::RequestLine),
    }
}

/// What was parsed becomes the connection's head, if it breaks no rule.
fn take(head: &mut Head, parsed: &httparse::Request<'_, '_>, bytes: &[u8]) -> Result<(), Refusal> {
    let method = Method::of(parsed.method.unwrap_or_default())?;
    let (authority, path, query) = split_target(method, parsed.path.unwrap_or_default())?;
    head.method = method;
    head.authority = Span::of(bytes, authority.as_bytes());
    head.path = Span::of(bytes, path.as_bytes());
    head.query = Span::of(bytes, query.as_bytes());
    head.is_old = parsed.version == Some(0);
    head.field_count = parsed.headers.len();
    let mut rules = Rules::default();
    for (field, header) in head.fields.iter_mut().zip(parsed.headers.iter()) {
        *field = Field { name: Span::of(bytes, header.name.as_bytes()), value: Span::of(bytes, header.value) };
        rules.see(header.name, header.value.trim_ascii())?;
    }
    head.request_id = Span::of(bytes, rules.request_id);
    head.framing = rules.framing(head.is_old)?;
    head.expects_continue = rules.expects_continue && !head.is_old;
    head.close = rules.close || (head.is_old && !rules.keep_alive);
    Ok(())
}

/// A version that exists elsewhere, or no version at all.
fn wrong_version(bytes: &[u8]) -> Refusal {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.split(|&byte| byte == b' ').collect::<Vec<_>>().as_slice() {
        [_, _, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Refusal::Version
        }
        _ => Refusal::RequestLine,
    }
}

/// Authority, path and query of a target in any of its forms; only the absolute one has an authority.
fn split_target(method: Method, target: &str) -> Result<(&str, &str, &str), Refusal> {
    if target.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(Refusal::Target);
    }
    let (authority, local) = if target.starts_with('/') || (method == Method::Options && target == "*") {
        ("", target)
    } else {
        let (scheme, rest) = target.split_once("://").ok_or(Refusal::Target)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(Refusal::Target);
        }
        let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !is_host(authority.as_bytes()) {
            return Err(Refusal::Target);
        }
        (authority, local)
    };
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    Ok((authority, path, query))
}

/// What the headers that frame a message said.
#[derive(Default)]
struct Rules<'h> {
    request_id: &'h [u8],
    hosts: usize,
    length: Option<usize>,
    is_chunked: bool,
    expects_continue: bool,
    close: bool,
    keep_alive: bool,
}

impl<'h> Rules<'h> {
    fn see(&mut self, name: &str, value: &'h [u8]) -> Result<(), Refusal> {
        // The length first: most headers are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                self.hosts += 1;
                if self.hosts > 1 || !is_host(value) {
                    return Err(Refusal::Host);
                }
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::Expectation);
                }
                self.expects_continue = true;
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            // One that cannot be believed is none; of several, the first.
            12 if self.request_id.is_empty() && name.eq_ignore_ascii_case("x-request-id") && is_request_id(value) => {
                self.request_id = value;
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let earlier = self.length.replace(content_length(value)?);
                if earlier.is_some() {
                    return Err(Refusal::ContentLength);
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.is_chunked {
                    return Err(Refusal::TransferEncoding);
                }
                is_only_chunked(value)?;
                self.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, is_old: bool) -> Result<Framing, Refusal> {
        if self.hosts == 0 && !is_old {
            return Err(Refusal::Host);
        }
        match (self.is_chunked, self.length) {
            (true, Some(_)) => Err(Refusal::AmbiguousLength),
            (true, None) if is_old => Err(Refusal::TransferEncoding),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

fn is_request_id(value: &[u8]) -> bool {
    value.len() <= REQUEST_ID_BYTES_MAX && value.iter().all(u8::is_ascii_graphic)
}

fn content_length(value: &[u8]) -> Result<usize, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::ContentLength);
    }
    let add = |sum: usize, digit: &u8| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
    // Saturated, a number past all bounds is too large rather than wrong.
    Ok(value.iter().fold(0, add))
}

fn is_only_chunked(value: &[u8]) -> Result<(), Refusal> {
    let codings: Vec<&[u8]> = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).collect();
    let chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match codings.as_slice() {
        [only] if chunked(only) => Ok(()),
        [before @ .., _] if before.iter().any(chunked) || codings.iter().any(|coding| coding.is_empty()) => {
            Err(Refusal::TransferEncoding)
        }
        _ => Err(Refusal::TransferCoding),
    }
}

/// `host`, `host:port`, `[ipv6]` or `[ipv6]:port` (RFC 3986, 3.2).
fn is_host(value: &[u8]) -> bool {
    let port = match value.strip_prefix(b"[") {
        Some(literal) => {
            let Some(end) = literal.iter().position(|&byte| byte == b']') else { return false };
            if end == 0 || !literal[..end].iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte)) {
                return false;
            }
            &literal[end + 1..]
        }
        None => {
            let end = value.iter().position(|&byte| !is_name_byte(byte)).unwrap_or(value.len());
            if end == 0 {
                return false;
            }
            &value[end..]
        }
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// The bytes of a registered name: unreserved, sub-delims and the percent sign.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_~%!$&'()*+,;=".contains(&byte)
}
