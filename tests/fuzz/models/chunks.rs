//! A body in chunks, read naively over its whole text.

use event_tracker::http::Config;
use event_tracker::http::probe::{SeenBody, read_chunks};

/// Small bounds, so that generated input reaches them.
pub(crate) fn config() -> Config {
    Config {
        body_bytes_max: 40,
        chunk_size_digits_max: 3,
        chunk_extension_bytes_max: 6,
        chunk_extensions_bytes_max: 10,
        trailers_bytes_max: 20,
        ..Config::default()
    }
}

/// The server's verdict is the model's, wherever the text is cut.
pub(crate) fn check(bytes: &[u8], cuts: &[usize]) {
    for config in [config(), Config::default()] {
        let real = read_chunks(bytes, cuts, &config).map_err(|(status, _)| status);
        assert_eq!(real, read(bytes, &config), "{:?} cut at {cuts:?}", String::from_utf8_lossy(bytes));
    }
}

/// The data and how many bytes they took, or the status of the refusal; `None`: not whole.
pub(crate) fn read(bytes: &[u8], config: &Config) -> Result<Option<SeenBody>, u16> {
    let (mut data, mut at, mut extensions) = (Vec::new(), 0, 0);
    loop {
        let rest = &bytes[at..];
        let Some(line) = line(rest)? else {
            let longest = config.chunk_size_digits_max + config.chunk_extension_bytes_max + 2;
            return if rest.len() > longest { Err(400) } else { Ok(None) };
        };
        at += line.len() + 2;
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        let (size, extension) = line.split_at(digits);
        extensions += extension.len();
        let is_good = (1..=config.chunk_size_digits_max).contains(&digits)
            && are_extensions(extension)
            && extension.len() <= config.chunk_extension_bytes_max
            && extensions <= config.chunk_extensions_bytes_max;
        if !is_good {
            return Err(400);
        }
        let size = size.iter().fold(0, |sum, digit| sum * 16 + char::from(*digit).to_digit(16).expect("hex") as usize);
        if data.len() + size > config.body_bytes_max {
            return Err(413);
        }
        if size == 0 {
            return Ok(trailers(&bytes[at..], config)?.map(|length| (data, at + length)));
        }
        let Some(chunk) = bytes.get(at..at + size) else { return Ok(None) };
        data.extend_from_slice(chunk);
        match &bytes[at + size..] {
            [b'\r', b'\n', ..] => at += size + 2,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(400),
        }
    }
}

/// The grammar of RFC 9112, 7.1.1, by trying every end of every part.
fn are_extensions(text: &[u8]) -> bool {
    let is_token = |text: &[u8]| {
        !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
    };
    let is_one = |text: &[u8]| {
        let Some(rest) = trim_start(text).strip_prefix(b";") else { return false };
        let named = trim_start(rest);
        is_token(named)
            || named.iter().position(|b| *b == b'=').is_some_and(|at| {
                let (name, value) = (trim_end(&named[..at]), trim_start(&named[at + 1..]));
                is_token(name) && (is_token(value) || is_quoted(value))
            })
    };
    text.is_empty() || (1..=text.len()).any(|end| is_one(&text[..end]) && are_extensions(&text[end..]))
}

fn is_quoted(text: &[u8]) -> bool {
    let Some(inner) = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")) else { return false };
    let mut is_escaped = false;
    for byte in inner {
        let is_text = *byte == b'\t' || !byte.is_ascii_control();
        if !is_text || (*byte == b'"' && !is_escaped) {
            return false;
        }
        is_escaped = *byte == b'\\' && !is_escaped;
    }
    !is_escaped
}

fn trim_start(text: &[u8]) -> &[u8] {
    &text[text.iter().position(|b| *b != b' ' && *b != b'\t').unwrap_or(text.len())..]
}

fn trim_end(text: &[u8]) -> &[u8] {
    &text[..text.iter().rposition(|b| *b != b' ' && *b != b'\t').map_or(0, |at| at + 1)]
}

/// How long they are, the empty line included.
fn trailers(bytes: &[u8], config: &Config) -> Result<Option<usize>, u16> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let Some(line) = line(rest)? else {
            // A CR may be half of the empty line, which does not count.
            let is_long = rest != b"\r" && at + rest.len() > config.trailers_bytes_max;
            return if is_long { Err(400) } else { Ok(None) };
        };
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(Some(at));
        }
        let text: String = line.iter().map(|&byte| char::from(byte)).collect();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let is_good = text.split_once(':').is_some_and(|(name, _)| !name.is_empty() && name.chars().all(is_name))
            && !text.chars().any(|c| c.is_ascii_control() && c != '\t');
        if !is_good || at > config.trailers_bytes_max {
            return Err(400);
        }
    }
}

/// The text up to the first line feed, which a CR must precede.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, u16> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    bytes[..end].strip_suffix(b"\r").map(Some).ok_or(400)
}
