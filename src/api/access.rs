//! Who may ask for what, before a request is looked at: its host, the page's origin, the client's rate, the key's right.

use std::borrow::Cow;

use super::answer::{self, Answered};
use super::client::Proxies;
use super::cors::Origins;
use super::hosts::Hosts;
use super::keys::{Keys, Right, presented};
use super::rates::Rates;
use crate::clock::monotonic_us;
use crate::http::{Exchange, Request};
use crate::limits::EVENTS_ALIAS_BYTES_MAX;

#[derive(Clone, Debug)]
pub struct AccessRules {
    pub keys: Keys,
    pub origins: Origins,
    pub hosts: Hosts,
    pub proxies: Proxies,
    pub events_alias: Option<String>,
    /// Requests per second of a client; 0: no limit.
    pub rate_limit: u64,
}

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

    /// Paths to which scripts and beacons of any page send events.
    pub(super) fn takes_events(&self, path: &str) -> bool {
        matches!(path, "/api/events" | "/api/users/events" | "/api/events/batch")
            || self.rules.events_alias.as_deref() == Some(path)
    }

    fn serves_host_of(&self, request: &Request<'_>) -> bool {
        let hosts = &self.rules.hosts;
        let named = request.headers.get("host").is_none_or(|host| hosts.serve(host));
        named && (request.authority.is_empty() || hosts.serve(request.authority.as_bytes()))
    }
}

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

impl Access {
    /// What is asked of every request. False: it was answered.
    pub(super) fn lets_in(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) -> bool {
        // A probe names any host, and must never be refused for asking too often.
        let is_probe = request.path.starts_with("/healthz/");
        if self.checks_host && !is_probe && !self.serves_host_of(request) {
            let message =
                "this server does not answer for this host: ask for localhost, or add the host to ALLOWED_HOSTS";
            answer::error(exchange, 421, "misdirected", message);
            return false;
        }
        if !self.rules.origins.admit_page(request, self.takes_events(request.path), exchange) {
            let message = "pages of this origin may not do this: see ALLOWED_ORIGINS";
            answer::error(exchange, 403, "origin_refused", message);
            return false;
        }
        match &self.rates {
            Some(rates) if !is_probe => self.is_within_rate(rates, request, exchange),
            _ => true,
        }
    }

    fn is_within_rate(&self, rates: &Rates, request: &Request<'_>, exchange: &mut Exchange<'_>) -> bool {
        let allowance = rates.ask(self.rules.proxies.client_of(request), monotonic_us());
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

    /// Answers a preflight; false: it is none.
    pub(super) fn preflight(&self, request: &Request<'_>, allow: &str, exchange: &mut Exchange<'_>) -> bool {
        self.rules.origins.preflight(request, self.takes_events(request.path), allow, exchange)
    }

    /// Whether a request brings an admin key, or the server has no keys at all.
    pub(super) fn is_admin(&self, request: &Request<'_>) -> bool {
        let keys = &self.rules.keys;
        keys.are_none() || self.presented(request).any(|key| keys.admin.holds(&key))
    }

    pub(super) fn admit(&self, right: Right, request: &Request<'_>) -> Answered {
        // Before any header is looked for: most servers behind a proxy have no keys of their own.
        if self.rules.keys.are_open(right) {
            return Ok(());
        }
        self.rules.keys.admit(right, self.presented(request))
    }

    /// Beacons cannot set headers: a request that sends events may bring `?key=`.
    fn presented<'h>(&self, request: &Request<'h>) -> impl Iterator<Item = Cow<'h, [u8]>> {
        presented(request, self.takes_events(request.path))
    }
}
