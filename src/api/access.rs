//! Who may ask for what, before a request is looked at: the address's rate, the page's origin, the key's right.

use std::net::IpAddr;

use super::client::Proxies;
use super::cors::Origins;
use super::keys::Keys;
use super::rates::Rates;
use super::{Api, answer};
use crate::clock::monotonic_us;
use crate::http::{Exchange, Request};

/// The rules of access.
pub struct Access {
    pub(super) keys: Keys,
    pub(super) origins: Origins,
    proxies: Proxies,
    rates: Option<Rates>,
}

impl Access {
    /// `rate_limit` in requests a second for each client address; 0: none.
    pub fn new(keys: Keys, origins: Origins, proxies: Proxies, rate_limit: u64) -> Access {
        Access { keys, origins, proxies, rates: (rate_limit > 0).then(|| Rates::new(rate_limit)) }
    }

    /// Where a request comes from.
    pub(super) fn client_of(&self, request: &Request<'_>) -> IpAddr {
        self.proxies.client_of(request)
    }
}

impl Api {
    /// What is asked of every request. False: it was answered.
    pub(super) fn lets_in(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) -> bool {
        if !self.access.origins.lets_in(request, exchange) {
            let message = "pages of this origin may not do this: see ALLOWED_ORIGINS";
            answer::error(exchange, 403, "origin_refused", message);
            return false;
        }
        match &self.access.rates {
            // Who watches the server must never be refused for asking.
            Some(rates) if !request.path.starts_with("/healthz/") => self.is_within_rate(rates, request, exchange),
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
