//! Cross-origin requests (the Fetch standard): which pages may send events, which may do more, and
//! the answers to their preflights.
//!
//! Every origin may send events, with credentials, because `sendBeacon` always sends them. Everything
//! else needs `ALLOWED_ORIGINS` and has no credentials: keys come in headers, cookies are not ours.

use super::names::{Name, are_labels, name_of, parts};
use super::query::Query;
use crate::http::{Answer, Exchange, Method, Request};

const MAX_AGE: (&str, &str) = ("Access-Control-Max-Age", "86400");
const WITH_CREDENTIALS: (&str, &str) = ("Access-Control-Allow-Credentials", "true");
const EXPOSED_HEADERS: (&str, &str) = (
    "Access-Control-Expose-Headers",
    "ETag, Retry-After, X-Event-Dropped, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset",
);
const VARIES: (&str, &str) = ("Vary", "Origin");
const PREFLIGHT_VARIES: (&str, &str) = ("Vary", "Access-Control-Request-Headers");

/// Schemes of web views and of browser extensions: their origins are `scheme://host`, too.
const OTHER_SCHEMES: [&str; 7] =
    ["app", "capacitor", "chrome-extension", "ionic", "moz-extension", "safari-web-extension", "tauri"];

/// `ALLOWED_ORIGINS`; empty: no origin may do more than send events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    /// As browsers write them: in lower case, without the scheme's own port.
    exact: Vec<String>,
    /// `https://*.example.org:8443` as `https://` and `.example.org:8443`.
    below: Vec<(String, String)>,
}

impl Origins {
    /// Reads origins separated by commas. Upper case and the scheme's own port are normalised. A
    /// pattern that no browser's `Origin` can match is an error.
    pub fn parse(text: &str) -> Result<Origins, String> {
        let mut origins = Origins::default();
        for pattern in parts(text) {
            origins.add(pattern).map_err(|why| {
                format!(
                    "ALLOWED_ORIGINS: `{pattern}` {why}; an origin is scheme, host and perhaps port, as \
                     https://example.org or https://*.example.org; also * and null"
                )
            })?;
        }
        if origins == Origins::default() && !text.trim().is_empty() {
            return Err("ALLOWED_ORIGINS is set but names no origin".to_owned());
        }
        Ok(origins)
    }

    fn add(&mut self, pattern: &str) -> Result<(), &'static str> {
        if pattern == "*" {
            self.any = true;
            return Ok(());
        }
        let lower = pattern.to_ascii_lowercase();
        if lower == "null" {
            self.exact.push(lower);
            return Ok(());
        }
        let (scheme, authority) = lower.split_once("://").ok_or("has no scheme")?;
        if !matches!(scheme, "http" | "https") && !OTHER_SCHEMES.contains(&scheme) {
            return Err("has a scheme that no page has");
        }
        let (host, port) = host_and_port(scheme, authority)?;
        match name_of(host)? {
            Name::Exact(host) => self.exact.push(format!("{scheme}://{host}{port}")),
            Name::Below(end) => self.below.push((format!("{scheme}://"), format!("{end}{port}"))),
            Name::Address(address) if address.is_ipv6() => self.exact.push(format!("{scheme}://[{address}]{port}")),
            Name::Address(address) => self.exact.push(format!("{scheme}://{address}{port}")),
        }
        Ok(())
    }

    fn allow(&self, origin: &str) -> bool {
        let is_below = |(start, end): &(String, String)| {
            let labels = origin.strip_prefix(start.as_str()).and_then(|rest| rest.strip_suffix(end.as_str()));
            labels.is_some_and(are_labels)
        };
        self.any || self.exact.iter().any(|one| one.eq_ignore_ascii_case(origin)) || self.below.iter().any(is_below)
    }

    fn differ(&self) -> bool {
        let has_patterns = !self.exact.is_empty() || !self.below.is_empty();
        has_patterns && !self.any
    }
}

/// The host of an origin's authority, and its port as browsers write it: `:8443`, or nothing.
fn host_and_port<'a>(scheme: &str, authority: &'a str) -> Result<(&'a str, String), &'static str> {
    let host_end = if authority.starts_with('[') { authority.find(']').map(|at| at + 1) } else { authority.find(':') };
    let (host, port) = authority.split_at(host_end.unwrap_or(authority.len()));
    if port.is_empty() {
        return Ok((host, String::new()));
    }
    let digits = port.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number: u16 = digits.and_then(|digits| digits.parse().ok()).ok_or("is no origin")?;
    let is_own = matches!((scheme, number), ("http", 80) | ("https", 443));
    Ok((host, if is_own { String::new() } else { format!(":{number}") }))
}

impl Origins {
    /// Adds the headers that every answer to this request carries. False: the request has an effect
    /// and comes from a page that may not have it. A "simple" request needs no preflight, so the
    /// browser has sent it already: only its effect can be prevented.
    pub(super) fn admit_page(&self, request: &Request<'_>, takes_events: bool, exchange: &mut Exchange<'_>) -> bool {
        let sent = request.headers.get("origin");
        let origin = sent.and_then(|origin| std::str::from_utf8(origin).ok());
        if takes_events {
            if let Some(origin) = origin {
                exchange.carry(&[allow_origin(origin), WITH_CREDENTIALS, EXPOSED_HEADERS, VARIES]);
            }
            return true;
        }
        let allowed = origin.filter(|origin| self.allow(origin));
        match allowed {
            Some(_) if self.any => exchange.carry(&[allow_origin("*"), EXPOSED_HEADERS]),
            Some(origin) => exchange.carry(&[allow_origin(origin), EXPOSED_HEADERS, VARIES]),
            // A cache must not give this answer to a page that may read it.
            None if self.differ() => exchange.carry(&[VARIES]),
            None => {}
        }
        allowed.is_some() || !is_foreign(request, sent)
    }

    /// Answers a preflight: an OPTIONS with `Access-Control-Request-Method`. False: it is none.
    pub(super) fn preflight(
        &self,
        request: &Request<'_>,
        takes_events: bool,
        allow: &str,
        exchange: &mut Exchange<'_>,
    ) -> bool {
        let header = |name| request.headers.get(name).and_then(|value| std::str::from_utf8(value).ok());
        if header("access-control-request-method").is_none() {
            return false;
        }
        let mut headers = vec![("Allow", allow)];
        // Every answer of the request carries the origin: a second one would make browsers refuse both.
        let is_allowed = |origin| takes_events || self.allow(origin);
        if header("origin").is_some_and(is_allowed) {
            headers.extend([("Access-Control-Allow-Methods", allow), MAX_AGE, PREFLIGHT_VARIES]);
            let wanted = header("access-control-request-headers").filter(|wanted| !wanted.is_empty());
            // Any of them: scripts that trace requests add headers of their own.
            headers.extend(wanted.map(|wanted| ("Access-Control-Allow-Headers", wanted)));
        }
        exchange.respond(Answer { status: 204, content_type: "", headers: &headers, body: b"" });
        true
    }
}

fn is_foreign(request: &Request<'_>, origin: Option<&[u8]>) -> bool {
    match request.method {
        Method::Post | Method::Put | Method::Delete => origin.is_some_and(|origin| !is_own(origin, request)),
        // A link or an image sends no Origin.
        Method::Get if request.path == "/api/search" => {
            let site = request.headers.get("sec-fetch-site");
            site.is_some_and(|site| site.eq_ignore_ascii_case(b"cross-site")) && records_search(request)
        }
        _ => false,
    }
}

fn allow_origin(origin: &str) -> (&str, &str) {
    ("Access-Control-Allow-Origin", origin)
}

/// A page of this server: its origin is the host that was asked.
fn is_own(origin: &[u8], request: &Request<'_>) -> bool {
    let host = [&b"http://"[..], b"https://"].iter().find_map(|scheme| origin.strip_prefix(*scheme));
    host.is_some_and(|host| request.headers.get("host").is_some_and(|asked| asked.eq_ignore_ascii_case(host)))
}

/// Whether a search becomes an event. A query that cannot be read is refused later.
fn records_search(request: &Request<'_>) -> bool {
    !Query::parse(request.query).is_ok_and(|query| query.get("record") == Some("false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_kept_as_browsers_write_them() {
        let kept = |text: &str| Origins::parse(text).map(|origins| origins.exact);
        for (text, origin) in [
            ("https://Example.org:443", "https://example.org"),
            ("HTTP://localhost:080", "http://localhost"),
            ("http://localhost:03000", "http://localhost:3000"),
            ("http://[0:0::1]:3000", "http://[::1]:3000"),
            ("https://example.org.", "https://example.org."),
            ("null", "null"),
        ] {
            assert_eq!(kept(text), Ok(vec![origin.to_owned()]), "{text}");
        }
        assert_eq!(Origins::parse(" "), Ok(Origins::default()));
        assert!(Origins::parse("https://a.example,*").is_ok_and(|origins| origins.any));
        for wrong in ["example.org", "https://example.org/", "https://a b", ","] {
            let error = Origins::parse(wrong).unwrap_err();
            assert!(error.starts_with("ALLOWED_ORIGINS") && !error.contains('\n'), "{error}");
        }
    }
}
