//! The head of a request: where it ends, what it says, and everything that makes it unacceptable.
//!
//! `httparse` splits and checks characters; the rules on top are ours, and stricter where two readers of the same bytes
//! could disagree about where a request ends. A head that came in one piece is parsed at once. Of one that did not, the end
//! is searched for, from where the search stopped the last time, so that a byte at a time costs its length, and it is
//! parsed again when it is whole. What was found is kept as offsets: they stay true when the buffer moves or grows under
//! a body. A head that is the connection's last one again, byte for byte, says the same and is not parsed at all.

use std::mem::MaybeUninit;

use super::Config;
use super::method::Method;
use super::refusal::Refusal;
use crate::limits::{HEAD_BYTES_REMEMBERED_MAX, HEADERS_MAX, METHOD_BYTES_MAX, REQUEST_ID_BYTES_MAX};

/// Browsers send up to twenty. Room for all that may come would put a page of unused stack between two used ones.
const HEADERS_USUAL: usize = 32;

/// How long the body is.
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
        // All others lie within the head, which is shorter than 64 KiB.
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Span { start: u16::try_from(start).unwrap_or(0), length: u16::try_from(part.len()).unwrap_or(0) }
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
    /// The bytes of the head that all of this is of; empty where it is none, or too long to be remembered.
    said: Vec<u8>,
    /// The value of its `Host`.
    host: Span,
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
            said: Vec::new(),
            host: Span::default(),
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
        if search.is_fresh() {
            if !self.said.is_empty() && bytes.starts_with(&self.said) {
                return Ok(Some(self.said.len()));
            }
            if let Some(length) = parse_at_once(self, bytes, config)? {
                return Ok(Some(length));
            }
        }
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

/// A part of the target.
fn ascii(part: &[u8]) -> &str {
    debug_assert!(part.is_ascii());
    // SAFETY: `split_target` lets nothing but visible ASCII through, and only what lies behind the head is ever moved.
    unsafe { std::str::from_utf8_unchecked(part) }
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

/// How far the search for the end of a head has come.
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

/// The position after the next line feed.
pub(super) fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr(b'\n', &bytes[from..]).map(|at| from + at + 1)
}

/// A head that came in one piece, as nearly all do: parsed without a search for its end first. None: the search has to
/// look, because it is not whole, or to say what is wrong.
fn parse_at_once(head: &mut Head, bytes: &[u8], config: &Config) -> Result<Option<usize>, Refusal> {
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Ok(None);
    }
    parsed::<_, HEADERS_USUAL>(bytes, config, |length, parsed| {
        let Ok(httparse::Status::Complete(length)) = length else { return Ok(None) };
        let bytes = &bytes[..length];
        if length > config.head_bytes_max || !has_strict_lines(parsed, bytes, config) {
            return Ok(None);
        }
        take(head, parsed, bytes)?;
        Ok(Some(length))
    })
}

/// Each line of a parsed head ends with CR LF, where the parser would take a line feed alone, and the first one is
/// within its bound.
fn has_strict_lines(parsed: &httparse::Request<'_, '_>, bytes: &[u8], config: &Config) -> bool {
    const VERSION: &str = " HTTP/1.1";
    let offset = |part: &str| (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
    // The parser saw a line feed before each start of a line; what stands before that is left to look at.
    let ends_strictly = |start: usize| start >= 2 && bytes.get(start - 2) == Some(&b'\r');
    let target = parsed.path.unwrap_or_default();
    let line = offset(target).wrapping_add(target.len() + VERSION.len());
    line <= config.request_line_bytes_max
        && bytes.get(line) == Some(&b'\r')
        && parsed.headers.iter().skip(1).all(|header| ends_strictly(offset(header.name)))
        && ends_strictly(bytes.len())
        && ends_strictly(bytes.len() - 2)
}

/// A whole head: the connection's own from here on, if it breaks no rule.
fn parse(head: &mut Head, bytes: &[u8], config: &Config) -> Result<(), Refusal> {
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(Refusal::RequestLine);
    }
    parsed::<_, HEADERS_MAX>(bytes, config, |length, parsed| match length {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => take(head, parsed, bytes),
        Ok(_) => Err(Refusal::LineEnding),
        Err(httparse::Error::Version) => Err(wrong_version(bytes)),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::HeadTooLarge),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => Err(Refusal::Field),
        Err(_) => Err(Refusal::RequestLine),
    })
}

/// What `httparse` makes of the bytes and at most `ROOM` headers, for as long as `then` looks at it.
fn parsed<'b, T, const ROOM: usize>(
    bytes: &'b [u8],
    config: &Config,
    then: impl FnOnce(httparse::Result<usize>, &httparse::Request<'_, 'b>) -> T,
) -> T {
    let mut room = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; ROOM];
    let mut request = httparse::Request::new(&mut []);
    let length = request.parse_with_uninit_headers(bytes, &mut room[..config.headers_max.min(ROOM)]);
    then(length, &request)
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
    // Nothing is remembered of one that breaks a rule.
    let mut said = std::mem::take(&mut head.said);
    let mut rules = Rules { known_host: std::mem::take(&mut head.host).text(&said), ..Rules::default() };
    for (field, header) in head.fields.iter_mut().zip(parsed.headers.iter()) {
        *field = Field { name: Span::of(bytes, header.name.as_bytes()), value: Span::of(bytes, header.value) };
        rules.see(header.name, header.value.trim_ascii())?;
    }
    head.request_id = Span::of(bytes, rules.request_id);
    head.framing = rules.framing(head.is_old)?;
    head.expects_continue = rules.expects_continue && !head.is_old;
    head.close = rules.close || (head.is_old && !rules.keep_alive);
    let host = Span::of(bytes, rules.host);
    said.clear();
    if bytes.len() <= HEAD_BYTES_REMEMBERED_MAX {
        said.extend_from_slice(bytes);
        head.said = said;
        head.host = host;
    }
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
    let (is_clean, has_query) = look_over(target.as_bytes());
    if !is_clean {
        return Err(Refusal::Target);
    }
    let query = if has_query { target.find('?') } else { None };
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
    // No authority has a question mark, so the first one is the path's end whatever was left out before it.
    let Some(query) = query.map(|at| at - (target.len() - local.len())) else { return Ok((authority, local, "")) };
    Ok((authority, &local[..query], &local[query + 1..]))
}

/// Whether a target is visible ASCII without a fragment, and whether it has a query: eight bytes at a time.
fn look_over(target: &[u8]) -> (bool, bool) {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    // Of bytes below 128: the high bit where one is zero, or was less than what is taken away.
    let below = |word: u64, least: u8| !((word | HIGHS) - ONES * u64::from(least)) & HIGHS;
    let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (mut odd, mut query) = (0, 0);
    let mut look = |bytes: [u8; 8]| {
        let word = u64::from_ne_bytes(bytes);
        odd |= word & HIGHS | below(word, 0x21) | is(word, 0x7f) | is(word, b'#');
        query |= is(word, b'?');
    };
    match target.last_chunk() {
        Some(last) => {
            target.as_chunks().0.iter().for_each(|bytes| look(*bytes));
            // It has some bytes of the one before again.
            look(*last);
        }
        None => {
            let mut all = [b'/'; 8];
            all[..target.len()].copy_from_slice(target);
            look(all);
        }
    }
    (odd == 0, query != 0)
}

/// What the headers that frame a message said.
#[derive(Default)]
struct Rules<'h, 'k> {
    request_id: &'h [u8],
    host: &'h [u8],
    /// A host that was seen to be one.
    known_host: &'k [u8],
    hosts: usize,
    length: Option<usize>,
    is_chunked: bool,
    expects_continue: bool,
    close: bool,
    keep_alive: bool,
}

impl<'h> Rules<'h, '_> {
    fn see(&mut self, name: &str, value: &'h [u8]) -> Result<(), Refusal> {
        // The length first: most headers are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                self.hosts += 1;
                let is_known = !value.is_empty() && value == self.known_host;
                if self.hosts > 1 || !(is_known || is_host(value)) {
                    return Err(Refusal::Host);
                }
                self.host = value;
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
            let end = value.iter().position(|&byte| !IS_OF_NAME[usize::from(byte)]).unwrap_or(value.len());
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
const IS_OF_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b".-_~%!$&'()*+,;=";
    let mut mark = 0;
    while mark < marks.len() {
        table[marks[mark] as usize] = true;
        mark += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::look_over;

    #[test]
    fn a_look_at_eight_bytes_sees_what_a_look_at_each_sees() {
        for length in 1..=17 {
            for at in 0..length {
                for byte in 0..=255 {
                    let mut target = vec![b'a'; length];
                    target[at] = byte;
                    let is_clean = (0x21..0x7f).contains(&byte) && byte != b'#';
                    let (seen_clean, seen_query) = look_over(&target);
                    assert_eq!(seen_clean, is_clean, "{target:?}");
                    assert!(!is_clean || seen_query == (byte == b'?'), "{target:?}");
                }
            }
        }
    }
}
