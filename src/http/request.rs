//! The request that a handler sees.

use std::net::SocketAddr;

use super::{Headers, Method};

#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub method: Method,
    /// As sent, still percent-encoded; `*` for an OPTIONS of the server.
    pub path: &'a str,
    /// As sent; empty where there is none.
    pub query: &'a str,
    /// Host and port of a target in absolute form, else empty.
    pub authority: &'a str,
    /// As sent, in their order.
    pub headers: Headers<'a>,
    /// Without its framing; content codings are the handler's.
    pub body: &'a [u8],
    /// The other end of the connection, which may be a proxy.
    pub peer: SocketAddr,
}
