//! A request's head, read naively over its whole text: every rule that it breaks, or what it says. The server stops at
//! the first rule that it sees broken, so its status must be one of those here.

use std::collections::BTreeSet;

use event_tracker::http::probe::{SeenHead, read_head};
use event_tracker::http::{Config, Method};

#[derive(Debug)]
pub(crate) enum Verdict {
    NotWhole,
    Broken(BTreeSet<u16>),
    Good(SeenHead),
}

/// Small bounds, so that generated input reaches them.
pub(crate) fn config() -> Config {
    Config { request_line_bytes_max: 60, head_bytes_max: 200, headers_max: 6, ..Config::default() }
}

/// The server's result is the model's, wherever the text is cut.
pub(crate) fn check(bytes: &[u8], cuts: &[usize]) {
    for config in [config(), Config::default()] {
        let real = read_head(bytes, cuts, &config);
        let text = String::from_utf8_lossy(bytes);
        match (read(bytes, &config), real) {
            (Verdict::NotWhole, Ok(None)) => {}
            (Verdict::Broken(statuses), Err((status, _))) if statuses.contains(&status) => {}
            (Verdict::Good(expected), Ok(Some(seen))) => assert_eq!(seen, expected, "{text:?}"),
            (model, real) => panic!("{model:?}, but {real:?}: {text:?} cut at {cuts:?}"),
        }
    }
}

pub(crate) fn read(bytes: &[u8], config: &Config) -> Verdict {
    let mut broken = BTreeSet::new();
    let end = (4..=bytes.len()).find(|end| bytes[..*end].ends_with(b"\r\n\r\n"));
    let head = &bytes[..end.unwrap_or(bytes.len())];
    if (0..head.len()).any(|at| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r')) {
        broken.insert(400);
    }
    let line_length = match head.windows(2).position(|pair| pair == b"\r\n") {
        Some(length) => length,
        // The last byte may be half of the line's end.
        None => head.len().saturating_sub(1),
    };
    if line_length > config.request_line_bytes_max {
        broken.insert(414);
    }
    // A method is refused as soon as it is too long.
    if let Some(start) = bytes.get(..33)
        && !start.iter().any(|byte| b" \r\n".contains(byte))
    {
        broken.extend([400, 501]);
    }
    if head.len() > config.head_bytes_max || (end.is_none() && head.len() == config.head_bytes_max) {
        broken.insert(431);
    }
    if end.is_none() {
        return if broken.is_empty() { Verdict::NotWhole } else { Verdict::Broken(broken) };
    }
    let seen = read_whole(head, config, &mut broken);
    match seen {
        Some(seen) if broken.is_empty() => Verdict::Good(seen),
        _ => Verdict::Broken(broken),
    }
}

fn read_whole(head: &[u8], config: &Config, broken: &mut BTreeSet<u16>) -> Option<SeenHead> {
    // One character a byte, so that text has the bytes' positions.
    let text: String = head[..head.len() - 4].iter().map(|&byte| char::from(byte)).collect();
    let mut lines = text.split("\r\n");
    let words: Vec<&str> = lines.next()?.split(' ').collect();
    let [name, target, version] = words[..] else {
        broken.insert(400);
        // Which version it wanted to be may be what is seen first.
        broken.insert(505);
        return None;
    };
    let is_digit_pair =
        |text: &str| matches!(text.as_bytes(), [a, b'.', b] if a.is_ascii_digit() && b.is_ascii_digit());
    match version.strip_prefix("HTTP/") {
        Some("1.1" | "1.0") => {}
        Some(other) if is_digit_pair(other) => drop(broken.insert(505)),
        _ => drop(broken.insert(400)),
    }
    let method = method(name);
    if !is_token(name) {
        broken.insert(400);
    } else if name == "CONNECT" {
        broken.insert(405);
    } else if method.is_none() {
        broken.insert(501);
    }
    if target.is_empty() || !target.chars().all(|c| c.is_ascii_graphic() && c != '#') {
        broken.insert(400);
    }
    let local = local_part(method, target);
    if local.is_none() {
        broken.insert(400);
    }
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| field(line, broken)).collect();
    if headers.len() > config.headers_max {
        broken.insert(431);
    }
    let is_old = version == "HTTP/1.0";
    let content_length = framing(&headers, is_old, broken);
    let options: Vec<String> = values(&headers, "connection").flat_map(list).collect();
    let says = |option: &str| options.iter().any(|found| found == option);
    let local = local?;
    let (path, query) = local.split_once('?').unwrap_or((&local, ""));
    Some(SeenHead {
        length: head.len(),
        method: method?,
        path: match path {
            // A target without a path: what OPTIONS asks about is the server.
            "" if method == Some(Method::Options) => "*".into(),
            "" => "/".into(),
            path => path.into(),
        },
        query: query.into(),
        headers: headers.iter().map(|(name, value)| (latin(name), latin(value))).collect(),
        content_length,
        expects_continue: !is_old && values(&headers, "expect").next().is_some(),
        close: says("close") || (is_old && !says("keep-alive")),
        is_old,
    })
}

fn latin(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("one byte")).collect()
}

fn method(name: &str) -> Option<Method> {
    let known = [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("PATCH", Method::Patch),
        ("TRACE", Method::Trace),
    ];
    known.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// What is asked for on this server; none: no form of a target.
fn local_part(method: Option<Method>, target: &str) -> Option<String> {
    if target.starts_with('/') || (method == Some(Method::Options) && target == "*") {
        return Some(target.to_owned());
    }
    let lower = target.to_ascii_lowercase();
    let scheme = ["http://", "https://"].into_iter().find(|scheme| lower.starts_with(scheme))?;
    let rest = &target[scheme.len()..];
    let authority: String = rest.chars().take_while(|c| !"/?".contains(*c)).collect();
    is_host(&authority).then(|| rest[authority.len()..].to_owned())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rfind(']').filter(|_| text.starts_with('[')) {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_literal = host.len() > 2
        && host.starts_with('[')
        && host.ends_with(']')
        && host[1..host.len() - 1].chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c));
    let is_name = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=".contains(c));
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port = (port.is_empty() || port.starts_with(':')) && digits.len() <= 5;
    (is_literal || is_name) && is_port && digits.chars().all(|c| c.is_ascii_digit())
}

fn field<'t>(line: &'t str, broken: &mut BTreeSet<u16>) -> Option<(&'t str, &'t str)> {
    let split = line.split_once(':').filter(|(name, _)| is_token(name));
    let Some((name, value)) = split else {
        broken.insert(400);
        return None;
    };
    if value.chars().any(|c| c != '\t' && c.is_ascii_control()) {
        broken.insert(400);
    }
    Some((name, value.trim_matches([' ', '\t'])))
}

fn values<'h>(headers: &'h [(&str, &'h str)], name: &'h str) -> impl Iterator<Item = &'h str> {
    headers.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(|item| item.trim_matches([' ', '\t']).to_ascii_lowercase()).collect()
}

/// How the body is framed, after every rule about it.
fn framing(headers: &[(&str, &str)], is_old: bool, broken: &mut BTreeSet<u16>) -> Option<usize> {
    let hosts: Vec<&str> = values(headers, "host").collect();
    if hosts.len() > 1 || (hosts.is_empty() && !is_old) || !hosts.iter().all(|host| is_host(host)) {
        broken.insert(400);
    }
    if values(headers, "expect").any(|value| !value.eq_ignore_ascii_case("100-continue")) {
        broken.insert(417);
    }
    let lengths: Vec<&str> = values(headers, "content-length").collect();
    let codings: Vec<&str> = values(headers, "transfer-encoding").collect();
    if lengths.iter().any(|length| length.is_empty() || !length.chars().all(|c| c.is_ascii_digit())) {
        broken.insert(400);
    }
    if lengths.len() > 1 || codings.len() > 1 || (!lengths.is_empty() && !codings.is_empty()) {
        broken.insert(400);
    }
    if !codings.is_empty() && is_old {
        broken.insert(400);
    }
    for coding in codings.iter().map(|coding| list(coding)).filter(|coding| *coding != ["chunked"]) {
        let is_early = coding[..coding.len() - 1].iter().any(|item| item == "chunked");
        let is_malformed = coding.len() > 1 && coding.iter().any(String::is_empty);
        broken.insert(if is_early || is_malformed || coding == [""] { 400 } else { 501 });
    }
    if !codings.is_empty() {
        return None;
    }
    // Too long for a number is too long for a body.
    Some(lengths.first().map_or(0, |length| length.parse().unwrap_or(usize::MAX)))
}
