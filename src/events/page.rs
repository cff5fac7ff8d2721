//! The page that a url belongs to: one name for all spellings of it. A name is its own spelling,
//! `page_key(page_key(url)) == page_key(url)`, so a filter takes what a list shows.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::limits::PAGE_KEY_BYTES_MAX;

/// What names a page beside the path (`PAGE_TRIM_SLASH`, `PAGE_HASH`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRules {
    /// A slash at the end names no other page.
    pub trim_slash: bool,
    /// A fragment that begins with `#/` is a route of its own.
    pub keep_hash: bool,
}

/// One for the process: ledger, live store and filters must use the same rules.
static RULES: OnceLock<PageRules> = OnceLock::new();

/// Sets the rules, before the first event is read. Later calls change nothing.
pub fn set_page_rules(rules: PageRules) {
    let _ = RULES.set(rules);
}

/// The page of a url: its path, percent-decoded if the result is printable UTF-8 and means the same, else in
/// the normal form of RFC 3986, 6.2.2. At most [`PAGE_KEY_BYTES_MAX`] bytes.
pub fn page_key(url: &str) -> Cow<'_, str> {
    let rules = RULES.get().copied().unwrap_or_default();
    let page = page_of(url, rules);
    if page.len() <= PAGE_KEY_BYTES_MAX {
        return page;
    }
    let cut = &page[..page.floor_char_boundary(PAGE_KEY_BYTES_MAX)];
    // The cut may have removed the byte that kept the rest from being decoded.
    Cow::Owned(page_of(cut, rules).into_owned())
}

fn page_of(url: &str, rules: PageRules) -> Cow<'_, str> {
    let raw = path_of(url, rules);
    if raw.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'%') {
        return raw;
    }
    let normal = normalised(&raw);
    let decoded = decoded(&normal).filter(|text| path_of(text, rules) == text.as_str());
    Cow::Owned(decoded.unwrap_or(normal))
}

/// The path as it is written, with a route of the fragment if the rules keep it.
fn path_of(url: &str, rules: PageRules) -> Cow<'_, str> {
    let rest = after_authority(url);
    let path = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    // Two slashes at the beginning would name a host.
    let slashes = path.bytes().take_while(|byte| *byte == b'/').count();
    let path = &path[slashes.saturating_sub(1)..];
    let path = if rules.trim_slash { path.trim_end_matches('/') } else { path };
    let path = if path.is_empty() { "/" } else { path };
    match route_of(rest, rules) {
        Some(route) => Cow::Owned(format!("{path}#{route}")),
        None => Cow::Borrowed(path),
    }
}

/// `//` begins an authority only after a scheme or at the very beginning, before any `/`, `?` or `#`.
fn after_authority(url: &str) -> &str {
    let Some(first) = url.find(['/', '?', '#']) else { return url };
    let (scheme, rest) = url.split_at(first);
    match rest.strip_prefix("//") {
        Some(rest) if scheme.is_empty() || scheme.ends_with(':') => {
            &rest[rest.find(['/', '?', '#']).unwrap_or(rest.len())..]
        }
        _ => url,
    }
}

fn route_of(rest: &str, rules: PageRules) -> Option<&str> {
    let (_, fragment) = rest.split_once('#').filter(|(_, fragment)| rules.keep_hash && fragment.starts_with('/'))?;
    let route = &fragment[..fragment.find(['?', '#']).unwrap_or(fragment.len())];
    let route = if rules.trim_slash { route.trim_end_matches('/') } else { route };
    (!route.is_empty()).then_some(route)
}

/// RFC 3986, 6.2.2: upper-case hex, unreserved characters as themselves, and every byte that a URI cannot
/// have as an escape. A percent sign that begins no escape stays as it is.
fn normalised(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (byte, was_escaped) in units(path) {
        let is_plain = match was_escaped {
            true => byte.is_ascii_alphanumeric() || b"-._~".contains(&byte),
            false => byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte),
        };
        if is_plain { out.push(byte.into()) } else { push_escape(&mut out, byte) }
    }
    out
}

/// The bytes that a path stands for, each with whether it is written as an escape.
fn units(path: &str) -> impl Iterator<Item = (u8, bool)> {
    let mut rest = path.as_bytes();
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        let escape = escaped(rest);
        rest = &rest[if escape.is_some() { 3 } else { 1 }..];
        Some((escape.unwrap_or(first), escape.is_some()))
    })
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    [byte >> 4, byte & 15].into_iter().for_each(|digit| out.push(HEX[usize::from(digit)].into()));
}

/// The byte of the escape that `bytes` begin with.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// The text behind the escapes, if it is printable and none of it would be read as an escape, query or fragment.
fn decoded(normal: &str) -> Option<String> {
    let bytes = units(normal).map(|unit| if matches!(unit, (b'?' | b'#', true)) { None } else { Some(unit.0) });
    let out: Vec<u8> = bytes.collect::<Option<_>>()?;
    let has_escape = (0..out.len()).any(|at| escaped(&out[at..]).is_some());
    String::from_utf8(out).ok().filter(|text| !has_escape && text.chars().all(is_printable))
}

/// Neither a control or format character (which may turn the text round) nor a blank other than the space,
/// and assigned: by the table that `escape_debug` of a string uses.
fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_control();
    }
    // Behind another character, because a combining mark at the beginning is escaped, too.
    let mut bytes = [b'x'; 5];
    let length = 1 + character.encode_utf8(&mut bytes[1..]).len();
    std::str::from_utf8(&bytes[..length]).is_ok_and(|text| text.escape_debug().nth(1) != Some('\\'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: PageRules = PageRules { trim_slash: false, keep_hash: false };
    const BOTH: PageRules = PageRules { trim_slash: true, keep_hash: true };

    #[test]
    fn a_page_is_the_path_alone() {
        for (url, page) in [
            ("/a/b?x=1#y", "/a/b"),
            ("https://example.org", "/"),
            ("https://example.org?q=1", "/"),
            ("https://example.org/a#b", "/a"),
            ("/login?next=https://app.example/dash", "/login"),
            ("//example.org/a", "/a"),
            ("", "/"),
            ("?q", "/"),
            ("a/b", "a/b"),
            ("https:%2F%2Fexample.org", "https:%2F%2Fexample.org"),
            ("/%2Fexample.org/a", "/%2Fexample.org/a"),
        ] {
            assert_eq!(page_of(url, PLAIN), page, "{url}");
        }
        assert_eq!(page_key(&"한".repeat(600)).len(), 510);
        assert!(matches!(page_key("https://example.org/a?b"), Cow::Borrowed("/a")));
    }

    #[test]
    fn rules_drop_a_slash_and_keep_a_route() {
        for (url, page) in [
            ("https://h/a/", "/a"),
            ("https://h/", "/"),
            ("https://h/#/", "/"),
            ("/app/?q#/users/1/?tab=2", "/app#/users/1"),
            ("/app#top", "/app"),
            ("/a%2F", "/a%2F"),
        ] {
            assert_eq!(page_of(url, BOTH), page, "{url}");
        }
    }

    #[test]
    fn printable_is_what_can_be_seen_and_turns_nothing_round() {
        assert!("é한글 \u{1F408}a\u{301}~".chars().all(is_printable));
        for hidden in
            "\0\n\u{7F}\u{85}\u{AD}\u{200B}\u{200E}\u{2028}\u{202E}\u{2066}\u{FEFF}\u{E000}\u{FFFF}\u{E0001}".chars()
        {
            assert!(!is_printable(hidden), "{hidden:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn a_page_is_its_own_page(
            pieces in prop::collection::vec(prop_oneof![
                "[/?#:%a-f0-9. ]{1,4}", "\\PC{1,3}", "%[0-9a-fA-F]{2}", "%C3%A9", "%e2%80%ae", "%25|%2F|%3f|%23|//|#/", "[a-z]{300}",
            ], 0..8),
            trim_slash in any::<bool>(), keep_hash in any::<bool>(),
        ) {
            let url = pieces.concat();
            let rules = PageRules { trim_slash, keep_hash };
            let page = page_of(&url, rules).into_owned();
            let key = page_key(&url).into_owned();
            prop_assert!(key.len() <= PAGE_KEY_BYTES_MAX);
            prop_assert_eq!(page_key(&key).into_owned(), key);
            prop_assert!(page.chars().all(is_printable));
            prop_assert_eq!(page_of(&page, rules).into_owned(), page);
        }
    }
}
