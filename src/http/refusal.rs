//! Why the server itself refuses a request: one name a rule, with the status and the words that the client gets.
//!
//! Every refusal closes the connection: after a broken frame nobody knows where the next request starts.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    RequestLine,
    Field,
    LineEnding,
    Target,
    Host,
    ContentLength,
    TransferEncoding,
    AmbiguousLength,
    Chunk,
    Trailer,
    HeadTimeout,
    BodyTimeout,
    BodyTooLarge,
    LineTooLong,
    Expectation,
    HeadTooLarge,
    Method,
    TransferCoding,
    Version,
    BodiesFull,
    ConnectionsFull,
    AddressFull,
    PlainHttp,
    Connect,
}

impl Refusal {
    pub(super) fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Refusal::RequestLine => (400, "bad_request_line", "send METHOD SP target SP HTTP/1.1 CRLF"),
            Refusal::Field => (400, "bad_header", "send each header as name: value, without control characters"),
            Refusal::LineEnding => (400, "bad_line_ending", "end every line of the head with CRLF"),
            Refusal::Target => (400, "bad_target", "send an ASCII path that starts with / and has no fragment"),
            Refusal::Host => (400, "bad_host", "send exactly one Host header with a host and perhaps a port"),
            Refusal::ContentLength => (400, "bad_content_length", "send Content-Length once, as plain digits"),
            Refusal::TransferEncoding => {
                (400, "bad_transfer_encoding", "send Transfer-Encoding: chunked once, in HTTP/1.1")
            }
            Refusal::AmbiguousLength => (400, "ambiguous_length", "send Content-Length or Transfer-Encoding, not both"),
            Refusal::Chunk => {
                (400, "bad_chunk", "send chunks as hexadecimal size, extensions (;name=value) if any, CRLF, data, CRLF")
            }
            Refusal::Trailer => (400, "bad_trailer", "send fewer and well-formed trailers, or none"),
            Refusal::HeadTimeout => (408, "head_timeout", "send the whole request head sooner"),
            Refusal::BodyTimeout => (408, "body_timeout", "send the whole body sooner"),
            Refusal::BodyTooLarge => (413, "body_too_large", "send a smaller body: split the batch"),
            Refusal::LineTooLong => (414, "target_too_long", "send a shorter target"),
            Refusal::Expectation => (417, "bad_expectation", "expect nothing but 100-continue"),
            Refusal::HeadTooLarge => (431, "head_too_large", "send fewer or shorter headers"),
            Refusal::Method => (501, "unknown_method", "use a standard method"),
            Refusal::TransferCoding => (501, "unknown_transfer_coding", "use no transfer coding but chunked"),
            Refusal::Version => (505, "unsupported_version", "use HTTP/1.1"),
            Refusal::BodiesFull => (503, "bodies_full", "the server is busy with large bodies: send it again later"),
            Refusal::ConnectionsFull => (503, "connections_full", "the server has no connection left: try again later"),
            Refusal::PlainHttp => (400, "plain_http", "this port speaks TLS: use https://"),
            Refusal::Connect => (405, "method_not_allowed", "this server is no proxy"),
            Refusal::AddressFull => (429, "too_many_connections", "open fewer connections from one address"),
        }
    }

    /// The answer will be another one later, and the client should be told when.
    pub(super) fn is_passing(self) -> bool {
        matches!(self, Refusal::BodiesFull | Refusal::ConnectionsFull | Refusal::AddressFull)
    }
}
