//! `ALLOWED_HOSTS`: the names under which this server may be asked.
//!
//! This is the defence against DNS rebinding: a page binds its own name to 127.0.0.1, and the
//! browser then takes the tracker for a part of that page. The Host header still has the page's name.

use std::net::{IpAddr, Ipv4Addr};

use super::names::{Name, name_of, parts};

/// The hosts that are served beside this machine's own names.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    any: bool,
    addresses: Vec<IpAddr>,
    /// In lower case, without a final dot.
    exact: Vec<String>,
    /// `.example.org`: every host that ends like this.
    below: Vec<String>,
}

impl Hosts {
    /// Reads hosts separated by commas: names, `*.example.org`, addresses, `*` for any.
    pub fn parse(text: &str) -> Result<Hosts, String> {
        let mut hosts = Hosts::default();
        for part in parts(text) {
            match name_of(part) {
                _ if part == "*" => hosts.any = true,
                Ok(Name::Address(address)) => hosts.addresses.push(address),
                Ok(Name::Exact(name)) => hosts.exact.push(name.trim_end_matches('.').to_owned()),
                Ok(Name::Below(end)) => hosts.below.push(end.trim_end_matches('.').to_owned()),
                Err(why) => return Err(format!("ALLOWED_HOSTS: `{part}` {why}; name a host as example.org, no port")),
            }
        }
        if hosts.is_empty() && !text.trim().is_empty() {
            return Err("ALLOWED_HOSTS is set but names no host".to_owned());
        }
        Ok(hosts)
    }

    pub fn is_empty(&self) -> bool {
        !self.any && self.addresses.is_empty() && self.exact.is_empty() && self.below.is_empty()
    }

    /// Whether a Host header or an authority, with any port, names a host that is served.
    pub(super) fn serve(&self, host: &[u8]) -> bool {
        if self.any {
            return true;
        }
        let Ok(host) = std::str::from_utf8(host) else { return false };
        let (host, address) = match host.strip_prefix('[').and_then(|literal| literal.split_once(']')) {
            Some((literal, _)) => ("", literal.parse::<IpAddr>().ok()),
            None => {
                let host = host.split_once(':').map_or(host, |(host, _)| host);
                let host = host.strip_suffix('.').unwrap_or(host);
                (host, host.parse::<Ipv4Addr>().ok().map(IpAddr::from))
            }
        };
        match address {
            Some(address) => address.to_canonical().is_loopback() || self.addresses.contains(&address),
            None => {
                let is = |name: &String| host.eq_ignore_ascii_case(name);
                is_localhost(host) || self.exact.iter().any(is) || self.below.iter().any(|end| ends_with(host, end))
            }
        }
    }
}

fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || ends_with(host, ".localhost")
}

fn ends_with(host: &str, end: &str) -> bool {
    let start = host.len().checked_sub(end.len()).and_then(|at| host.split_at_checked(at));
    start.is_some_and(|(start, rest)| !start.is_empty() && rest.eq_ignore_ascii_case(end))
}
