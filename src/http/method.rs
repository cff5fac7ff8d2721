//! The methods of requests.

use super::refusal::Refusal;

/// The methods that a path may have, as `Allow` lists them.
pub const METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

/// A method that HTTP defines and a handler sees. CONNECT is refused before: this is no proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Trace,
}

impl Method {
    pub(super) fn of(name: &str) -> Result<Method, Refusal> {
        Ok(match name {
            "GET" => Method::Get,
            "POST" => Method::Post,
            "HEAD" => Method::Head,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            "PATCH" => Method::Patch,
            "TRACE" => Method::Trace,
            "CONNECT" => return Err(Refusal::Connect),
            _ => return Err(Refusal::Method),
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Patch => "PATCH",
            Method::Trace => "TRACE",
        }
    }
}
