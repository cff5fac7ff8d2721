//! Who may ask for what, before a request is looked at: its host, the page's origin, the client's rate, the key's right.

use std::net::IpAddr;

use super::client::Proxies;
use super::cors::Origins;
use super::hosts::Hosts;
use super::keys::Keys;
use super::rates::Rates;
use super::{Api, answer};
use crate::clock::monotonic_us;
use crate::http::{Exchange, Request};
use crate::limits::EVENTS_ALIAS_BYTES_MAX;

/// The rules of access, as they are set.
#[derive(Clone, Debug)]
pub struct AccessRules {
    pub keys: Keys,
    pub origins: Origins,
    pub hosts: Hosts,
    pub proxies: Proxies,
    /// One more path that takes events.
    pub events_alias: Option<String>,
    /// Requests per second of a client; 0: no limit.
    pub rate_limit: u64,
}

/// The rules of access, and what they remember.
pub struct Access {
    pub(super) rules: AccessRules,
    checks_host: bool,
    rates: Option<Rates>,
}

impl Access {
    /// `is_local`: the server listens on loopback.
    pub fn new(rules: AccessRules, is_local: bool) -> Access {
        // Elsewhere a server has many names. With a key for each right, a foreign page can do nothing.
        let checks_host = !rules.hosts.is_empty() || (is_local && !rules.keys.cover_everything());
        let rates = (rules.rate_limit > 0).then(|| Rates::new(rules.rate_limit));
        Access { rules, checks_host, rates }
    }

    /// The client that a request comes from.
    pub(super) fn client_of(&self, request: &Request<'_>) -> IpAddr {
        self.rules.proxies.client_of(request)
    }

    /// Paths to which scripts and beacons of any page send events.
    pub(super) fn takes_events(&self, path: &str) -> bool {
        matches!(path, "/api/events" | "/api/users/events" | "/api/events/batch")
            || self.rules.events_alias.as_deref() == Some(path)
    }

    /// Whether the request's Host, and the authority of its target if it has one, are served.
    fn serves_host_of(&self, request: &Request<'_>) -> bool {
        let hosts = &self.rules.hosts;
        let named = request.headers.get("host").is_none_or(|host| hosts.serve(host));
        named && (request.authority.is_empty() || hosts.serve(request.authority.as_bytes()))
    }
}

/// First segments of the server's own paths.
const OWN_PATHS: [&str; 8] = [
    "/api/events",
    "/api/users",
    "/api/posts",
    "/api/search",
    "/api/statistics",
    "/api/export",
    "/healthz",
    "/metrics",
];

/// Reads `EVENTS_ALIAS`: a path as it is sent, which no other route has.
pub fn events_alias(text: &str) -> Result<Option<String>, String> {
    let path = text.trim();
    if path.is_empty() {
        return Ok(None);
    }
    let is_path = path.len() <= EVENTS_ALIAS_BYTES_MAX
        && path.starts_with('/')
        && !path.ends_with('/')
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    if !is_path {
        return Err(format!("EVENTS_ALIAS `{path}` is no path: write it as /collect, without a slash at its end"));
    }
    let is_taken = |own: &str| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match OWN_PATHS.into_iter().find(|own| is_taken(own)) {
        Some(own) => Err(format!("EVENTS_ALIAS `{path}` is taken: choose a path that is not below {own}")),
        None => Ok(Some(path.to_owned())),
    }
}

impl Api {
    /// What is asked of every request. False: it was answered.
    pub(super) fn lets_in(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) -> bool {
        // A probe names any host, and must never be refused for asking too often.
        let is_probe = request.path.starts_with("/healthz/");
        if self.access.checks_host && !is_probe && !self.access.serves_host_of(request) {
            let message =
                "this server does not answer for this host: ask for localhost, or add the host to ALLOWED_HOSTS";
            answer::error(exchange, 421, "misdirected", message);
            return false;
        }
        if !self.access.admits_page(request, exchange) {
            let message = "pages of this origin may not do this: see ALLOWED_ORIGINS";
            answer::error(exchange, 403, "origin_refused", message);
            return false;
        }
        match &self.access.rates {
            Some(rates) if !is_probe => self.is_within_rate(rates, request, exchange),
            _ => true,
        }
    }

    fn is_within_rate(&self, rates: &Rates, request: &Request<'_>, exchange: &mut Exchange<'_>) -> bool {
        let allowance = rates.ask(self.access.client_of(request), monotonic_us());
        let [limit, remaining, reset, retry] =
            [rates.limit(), allowance.remaining, allowance.reset_s, allowance.retry_s].map(|n| n.to_string());
        exchange.carry(&[
            ("X-RateLimit-Limit", &limit),
            ("X-RateLimit-Remaining", &remaining),
            ("X-RateLimit-Reset", &reset),
        ]);
        if !allowance.passes {
            let message = "more requests a second than this address may send: come again after Retry-After";
            answer::error_with(exchange, 429, "rate_limited", message, &[("Retry-After", &retry)]);
        }
        allowance.passes
    }
}
