//! Cross-origin requests (the Fetch standard): who may post from a browser, and what a preflight hears. Never with
//! credentials: keys of browsers are no secret, cookies are not ours.

use crate::http::{Answer, Exchange, Method, Request};

const MAX_AGE: (&str, &str) = ("Access-Control-Max-Age", "86400");
const ALLOWED_HEADERS: (&str, &str) =
    ("Access-Control-Allow-Headers", "Content-Type, Content-Encoding, Authorization, X-Api-Key, If-None-Match");
const EXPOSED_HEADERS: (&str, &str) = (
    "Access-Control-Expose-Headers",
    "ETag, Retry-After, X-Event-Dropped, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset",
);
const VARIES: (&str, &str) = ("Vary", "Origin");

/// `ALLOWED_ORIGINS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Unset: every origin may send events, none may read.
    Ingestion,
    /// `*`: every origin may do everything that its key may.
    All,
    /// These, exactly as browsers write them (`https://example.org`).
    Listed(Vec<String>),
}

impl Origins {
    /// Reads the setting.
    pub fn parse(text: Option<&str>) -> Result<Origins, String> {
        let Some(text) = text else { return Ok(Origins::Ingestion) };
        if text.trim() == "*" {
            return Ok(Origins::All);
        }
        let origins = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let listed = origins.map(|origin| {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            let is_origin = host.is_some_and(|host| {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@,".contains(&b))
            });
            if is_origin {
                Ok(origin.to_ascii_lowercase())
            } else {
                Err(format!(
                    "ALLOWED_ORIGINS: `{origin}` is no origin: scheme, host and port only, as https://example.org"
                ))
            }
        });
        listed.collect::<Result<Vec<_>, _>>().map(Origins::Listed)
    }

    /// What `Access-Control-Allow-Origin` says to a page of `origin`; `None`: nothing, and the page learns nothing.
    fn allowed<'r>(&self, origin: &'r str, path: &str) -> Option<&'r str> {
        match self {
            Origins::Ingestion if takes_events(path) => Some("*"),
            Origins::Ingestion => None,
            Origins::All => Some("*"),
            Origins::Listed(origins) => origins.iter().any(|one| one.eq_ignore_ascii_case(origin)).then_some(origin),
        }
    }

    /// Answers a preflight: an OPTIONS with `Access-Control-Request-Method`. False: it is none.
    pub(super) fn preflight(&self, request: &Request<'_>, allow: &str, exchange: &mut Exchange<'_>) -> bool {
        if request.headers.get("access-control-request-method").is_none() {
            return false;
        }
        let mut headers = vec![("Allow", allow)];
        // The origin itself stands in what every answer carries: a second one would make browsers refuse both.
        let origin = request.headers.get("origin").and_then(|origin| std::str::from_utf8(origin).ok());
        if origin.is_some_and(|origin| self.allowed(origin, request.path).is_some()) {
            headers.extend([("Access-Control-Allow-Methods", allow), ALLOWED_HEADERS, MAX_AGE]);
        }
        exchange.respond(Answer { status: 204, content_type: "", headers: &headers, body: b"" });
        true
    }

    /// Adds what the answer to a request carries whatever it will be. False: the request changes something and comes
    /// from a page that may not do that. A "simple" request needs no preflight, so the browser has sent it already: only
    /// its effect can be kept from happening.
    pub(super) fn lets_in(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) -> bool {
        let origin = request.headers.get("origin");
        let allowed = origin.and_then(|origin| self.allowed(std::str::from_utf8(origin).ok()?, request.path));
        match allowed {
            Some(allowed) => exchange.carry(&[("Access-Control-Allow-Origin", allowed), EXPOSED_HEADERS, VARIES]),
            // A cache must not give this answer to a page that may read it.
            None if matches!(self, Origins::Listed(_)) => exchange.carry(&[VARIES]),
            None => {}
        }
        let Some(origin) = origin else { return true };
        let changes = matches!(request.method, Method::Post | Method::Put | Method::Delete);
        !changes || allowed.is_some() || takes_events(request.path) || is_own(origin, request)
    }
}

/// A page of this server: its origin is the host that was asked.
fn is_own(origin: &[u8], request: &Request<'_>) -> bool {
    let host = [&b"http://"[..], b"https://"].iter().find_map(|scheme| origin.strip_prefix(*scheme));
    host.is_some_and(|host| request.headers.get("host").is_some_and(|asked| asked.eq_ignore_ascii_case(host)))
}

/// Paths that beacons and scripts of any page send events to.
pub(super) fn takes_events(path: &str) -> bool {
    matches!(path, "/api/events" | "/api/users/events" | "/api/events/batch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_a_list_of_origins() {
        assert_eq!(Origins::parse(None), Ok(Origins::Ingestion));
        assert_eq!(Origins::parse(Some(" * ")), Ok(Origins::All));
        let listed = Origins::parse(Some("https://Example.org, http://localhost:3000")).unwrap();
        assert_eq!(listed, Origins::Listed(vec!["https://example.org".into(), "http://localhost:3000".into()]));
        for wrong in ["example.org", "https://", "https://example.org/", "https://a b"] {
            assert!(Origins::parse(Some(wrong)).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
