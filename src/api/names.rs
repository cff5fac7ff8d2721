//! Hosts in settings: a name, `*.example.org`, or an address, in the form in which browsers send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host of a setting. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Exact(String),
    /// `*.example.org`, kept as `.example.org`.
    Below(String),
    Address(IpAddr),
}

/// Reads a host without a port. The error says what is wrong with it, as the end of a sentence.
pub(super) fn name_of(text: &str) -> Result<Name, &'static str> {
    let literal = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = literal.parse::<Ipv6Addr>() {
        return Ok(Name::Address(address.into()));
    }
    let (is_below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
    if name.contains('*') {
        return Err("may have a star only as its whole first label, once");
    }
    if !name.is_ascii() {
        return Err("is not in the form that browsers send (xn--…)");
    }
    let labels = name.strip_suffix('.').unwrap_or(name);
    if !are_labels(labels) {
        return Err("is no host");
    }
    // A browser reads such a host as an address, and sends that in its usual form (URL Standard, 3.5).
    let is_number = labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if is_number {
        let address = labels.parse::<Ipv4Addr>().ok().filter(|_| !is_below);
        return address.map(|address| Name::Address(address.into())).ok_or("is no address");
    }
    let name = name.to_ascii_lowercase();
    Ok(if is_below { Name::Below(format!(".{name}")) } else { Name::Exact(name) })
}

/// The parts of a list between commas, without blanks and without empty ones.
pub(super) fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Whether text is one label or several with dots in between.
pub(super) fn are_labels(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}
