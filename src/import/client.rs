//! One connection to the server: a body goes out, an answer comes back and is judged.
//! Only an answer that an event-tracker gives counts as one: a page of a proxy that says 200
//! confirms nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use ureq::Agent;
use ureq::http::{HeaderMap, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::row::Refusal;
use crate::limits::{IMPORT_ANSWER_BYTES_MAX, IMPORT_CONNECT_MS_MAX, IMPORT_REQUEST_MS_MAX, IMPORT_RETRY_AFTER_MS_MAX};

/// Where to send to, and as whom.
#[derive(Clone)]
pub struct Server {
    pub url: String,
    /// Sent as a bearer token.
    pub key: Option<String>,
}

/// What came of one try.
#[derive(Debug)]
pub(super) enum Attempt {
    /// All rows were judged: these, by their index, are refused.
    Judged(Vec<(usize, Refusal)>),
    /// Nothing is known of it, or it is not its turn: send it again, after a pause at least this
    /// long.
    Again { why: String, after: Option<Duration> },
    /// The whole is refused: its halves may not be; of a single row, this is why.
    Refused(Refusal),
    /// Trying again is useless. `is_unknown`: the rows may have been accepted.
    Hopeless { why: String, is_unknown: bool },
}

/// A connection that is kept alive between requests.
pub(super) struct Client {
    agent: Agent,
    server: Server,
    /// Is it another machine, to which bodies are sent with zstd?
    is_remote: bool,
}

impl Server {
    /// One line where the URL cannot be one of a server.
    pub fn check(&self) -> Result<(), String> {
        let uri: Uri = self.url.parse().map_err(|e| format!("--url `{}` is no URL: {e}", self.url))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(_)) if uri.query().is_none() => Ok(()),
            _ => Err(format!("--url `{}` must be like http://127.0.0.1:8080", self.url)),
        }
    }
}

/// The same for each way to write the URL of a server; without user and password.
pub(super) fn normalised(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return url.to_owned() };
    let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default().to_ascii_lowercase());
    let port = match (uri.port_u16(), scheme) {
        (None, _) | (Some(80), "http") | (Some(443), "https") => String::new(),
        (Some(port), _) => format!(":{port}"),
    };
    format!("{scheme}://{host}{port}{}", uri.path().trim_end_matches('/'))
}

fn is_on_this_machine(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().to_ascii_lowercase();
    let host = host.trim_matches(['[', ']']).trim_end_matches('.');
    let is_near = |ip: IpAddr| ip.to_canonical().is_loopback() || ip.is_unspecified();
    host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(is_near)
}

/// A client of our own API. It uses the proxy that the environment names, but never to reach this
/// machine: there a proxy would look for the server on its own machine.
pub fn agent(url: &str, wait: Duration) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(Duration::from_millis(IMPORT_CONNECT_MS_MAX)))
        .timeout_global(Some(wait))
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .user_agent(concat!("event-tracker-import/", env!("CARGO_PKG_VERSION")));
    if is_on_this_machine(url) {
        config = config.proxy(None);
    }
    if url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")) {
        config = config.tls_config(tls());
    }
    config.build().new_agent()
}

impl Client {
    pub(super) fn new(server: &Server) -> Client {
        let agent = agent(&server.url, Duration::from_millis(IMPORT_REQUEST_MS_MAX));
        Client { agent, server: server.clone(), is_remote: !is_on_this_machine(&server.url) }
    }

    /// Sends `count` rows once.
    pub(super) fn send(&self, body: &[u8], count: usize) -> Attempt {
        let url = format!("{}/api/events", self.server.url.trim_end_matches('/'));
        let mut request = self.agent.post(&url).header("Content-Type", "application/x-ndjson");
        if let Some(key) = &self.server.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let packed = if self.is_remote { zstd::bulk::compress(body, 1).ok() } else { None };
        if packed.is_some() {
            request = request.header("Content-Encoding", "zstd");
        }
        let answer = request.send(packed.as_deref().unwrap_or(body)).and_then(|mut answer| {
            let text = answer.body_mut().with_config().limit(IMPORT_ANSWER_BYTES_MAX).read_to_vec()?;
            Ok((answer.status().as_u16(), answer.headers().clone(), text))
        });
        match answer {
            Ok((status, headers, text)) => judge(status, &headers, &text, count),
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::BodyExceedsLimit(_))) => {
                Attempt::Hopeless { why: format!("{}: {error}", self.server.url), is_unknown: true }
            }
            Err(error) => Attempt::Again { why: error.to_string(), after: None },
        }
    }
}

/// The system's certificates, so that one of the house is known; those of the web where the system
/// has none.
fn tls() -> TlsConfig {
    let found = rustls_native_certs::load_native_certs().certs;
    let roots = match found.is_empty() {
        true => RootCerts::WebPki,
        false => RootCerts::Specific(Arc::new(found.iter().map(|c| Certificate::from_der(c).to_owned()).collect())),
    };
    TlsConfig::builder().root_certs(roots).build()
}

#[derive(Deserialize)]
struct BatchAnswer {
    received: usize,
    accepted: usize,
    rejected: usize,
    results: Vec<RowAnswer>,
}

#[derive(Deserialize)]
struct RowAnswer {
    index: usize,
    #[serde(flatten)]
    refusal: Refusal,
}

fn judge(status: u16, headers: &HeaderMap, text: &[u8], count: usize) -> Attempt {
    let hopeless = |why| Attempt::Hopeless { why, is_unknown: !(300..500).contains(&status) };
    if let (200..=299 | 400 | 422, Some(rows)) = (status, rows(text, count)) {
        return Attempt::Judged(rows);
    }
    let error: Option<Refusal> = serde_json::from_slice(text).ok();
    let told = error.as_ref().map_or_else(|| status.to_string(), |e| format!("{status} {}: {}", e.error, e.message));
    match (status, error) {
        (408 | 429 | 500.., _) if status != 501 && status != 505 => {
            Attempt::Again { why: told, after: retry_after(headers) }
        }
        (401 | 403, _) => hopeless(format!("the server wants a key for this (API_KEY): {told}")),
        (400 | 413 | 422, Some(refusal)) => Attempt::Refused(refusal),
        (413, None) => {
            let message = "something before the server takes no body of this size";
            Attempt::Refused(Refusal::new("body_too_large", message))
        }
        (300..=399, _) => {
            let to = headers.get("location").and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
            hopeless(format!("the server is somewhere else ({status} to {to}): give its own address as --url"))
        }
        (_, Some(_)) => hopeless(format!("the server refuses: {told}")),
        _ => {
            let says = String::from_utf8_lossy(&text[..text.len().min(200)]).trim().replace(['\n', '\r'], " ");
            hopeless(format!("this is no answer of an event-tracker: {status} `{says}`"))
        }
    }
}

/// The refused rows of a batch's answer, if it is the answer to that many rows.
fn rows(text: &[u8], count: usize) -> Option<Vec<(usize, Refusal)>> {
    let answer: BatchAnswer = serde_json::from_slice(text).ok()?;
    let adds_up = answer.received == count
        && answer.accepted + answer.rejected == count
        && answer.results.len() == answer.rejected
        && answer.results.iter().all(|row| row.index < count);
    adds_up.then(|| answer.results.into_iter().map(|row| (row.index, row.refusal)).collect())
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    let wait = text.parse().map(Duration::from_secs).ok().or_else(|| {
        let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        SystemTime::try_from(at).ok()?.duration_since(SystemTime::now()).ok()
    })?;
    Some(wait.min(Duration::from_millis(IMPORT_RETRY_AFTER_MS_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, text: &str) -> Attempt {
        judge(status, &HeaderMap::new(), text.as_bytes(), 2)
    }

    #[test]
    fn only_an_answer_to_these_rows_confirms_them() {
        let good = r#"{"received":2,"accepted":2,"rejected":0,"duplicates":0,"results":[]}"#;
        assert!(matches!(judged(202, good), Attempt::Judged(rows) if rows.is_empty()));
        for (status, text) in [
            (200, "<html>log in</html>"),
            (202, r#"{"eventId":"x"}"#),
            (202, r#"{"received":1,"accepted":1,"rejected":0,"duplicates":0,"results":[]}"#),
            (202, r#"{"received":2,"accepted":1,"rejected":0,"duplicates":0,"results":[]}"#),
            (204, ""),
            (400, "Bad Request"),
            (404, r#"{"status":404,"error":"not_found","message":"there is nothing under this path"}"#),
            (401, ""),
            (302, ""),
            (501, ""),
        ] {
            assert!(matches!(judged(status, text), Attempt::Hopeless { .. }), "{status} {text}");
        }
    }

    #[test]
    fn refused_rows_are_told_from_a_refused_whole() {
        let one = r#"{"received":2,"accepted":1,"rejected":1,"duplicates":0,
            "results":[{"index":1,"status":"rejected","error":"too_old","message":"\u00e4"}]}"#;
        let Attempt::Judged(rows) = judged(202, one) else { panic!() };
        assert_eq!(rows, [(1, Refusal::new("too_old", "ä"))]);
        let whole = r#"{"status":400,"error":"invalid_json","message":"m"}"#;
        assert!(matches!(judged(400, whole), Attempt::Refused(r) if r.error == "invalid_json"));
        assert!(matches!(judged(413, ""), Attempt::Refused(_)));
    }

    #[test]
    fn overload_is_waited_out_as_long_as_the_server_says() {
        let mut headers = HeaderMap::new();
        for (text, expected) in [("3", Some(3)), ("86400", Some(60)), ("soon", None)] {
            headers.insert("retry-after", text.parse().unwrap());
            for status in [429, 503] {
                let Attempt::Again { after, .. } = judge(status, &headers, b"", 2) else { panic!() };
                assert_eq!(after, expected.map(Duration::from_secs), "{text}");
            }
        }
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(30);
        let date = at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        headers.insert("retry-after", date.parse().unwrap());
        assert!((28..=30).contains(&retry_after(&headers).unwrap().as_secs()), "{date}");
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (url, expected) in [
            ("http://127.0.0.1:8080", true),
            ("http://127.1.2.3", true),
            ("http://localhost", true),
            ("HTTPS://LocalHost.:8080", true),
            ("http://app.localhost:8080", true),
            ("http://[::1]:8080/x", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://0.0.0.0:8080", true),
            ("https://events.example.org", false),
            ("http://notlocalhost", false),
            ("http://128.0.0.1", false),
        ] {
            let server = Server { url: url.into(), key: None };
            assert_eq!(is_on_this_machine(&server.url), expected, "{url}");
            server.check().unwrap();
        }
        for url in ["127.0.0.1:8080", "ftp://x", "http://", "nonsense", "http://x?y"] {
            assert!(Server { url: url.into(), key: None }.check().is_err(), "{url}");
        }
    }

    #[test]
    fn a_server_is_known_again_however_its_url_is_written() {
        for (url, expected) in [
            ("HTTP://Events.Example.org:80/", "http://events.example.org"),
            ("https://u:p@events.example.org:443/a/", "https://events.example.org/a"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:443", "http://[::1]:443"),
        ] {
            assert_eq!(normalised(url), expected);
        }
    }
}
