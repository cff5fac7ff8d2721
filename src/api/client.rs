//! Who asks: the address of the other end, or, where that is a trusted proxy, the one that the proxy names.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::http::Request;

/// `TRUSTED_PROXIES`: addresses and networks whose `X-Forwarded-For` counts.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Reads addresses and networks (`10.0.0.0/8`, `2001:db8::/32`) separated by commas.
    pub fn parse(text: &str) -> Result<Proxies, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let network = |part: &str| {
            let network = part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| format!("TRUSTED_PROXIES: `{part}` is no address and no network"))
        };
        parts.map(network).collect::<Result<Vec<_>, _>>().map(Proxies)
    }

    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address: from the right, the first of `X-Forwarded-For` that is no trusted proxy. Whatever stands to
    /// the left of it is that client's own word.
    pub(super) fn client_of(&self, request: &Request<'_>) -> IpAddr {
        let peer = request.peer.ip().to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        // Several fields are one list, in their order (RFC 9110, 5.3).
        let fields = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"x-forwarded-for"));
        let fields: Vec<&[u8]> = fields.map(|(_, value)| value).collect();
        let mut client = peer;
        for hop in fields.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
            let Some(address) = std::str::from_utf8(hop).ok().and_then(|text| address_in(text.trim())) else { break };
            client = address;
            if !self.trusts(address) {
                break;
            }
        }
        client
    }
}

/// An address as proxies write it: plain, with a port, or in brackets.
fn address_in(text: &str) -> Option<IpAddr> {
    let plain = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    plain.or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_network_is_named() {
        assert!(Proxies::parse("").unwrap().0.is_empty());
        assert_eq!(Proxies::parse(" 10.0.0.0/8, ::1 ,").unwrap().0.len(), 2);
        assert!(Proxies::parse("10.0.0.0/8,proxy").unwrap_err().contains("`proxy`"));
    }

    #[test]
    fn a_mapped_address_is_its_ipv4() {
        let proxies = Proxies::parse("127.0.0.1").unwrap();
        assert!(proxies.trusts("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!proxies.trusts("127.0.0.2".parse().unwrap()));
    }

    #[test]
    fn proxies_write_addresses_in_several_ways() {
        for text in ["192.0.2.1", "192.0.2.1:99", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:1"] {
            assert_eq!(address_in(text), Some(IpAddr::from([192, 0, 2, 1])), "{text}");
        }
        assert_eq!(address_in("[2001:db8::1]"), "2001:db8::1".parse().ok());
        assert_eq!(address_in("unknown"), None);
    }
}
