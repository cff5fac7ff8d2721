//! Answers that a client or a proxy may keep for a moment: ETag and 304, gzip where it pays.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cache::Copy;
use crate::http::{Answer, Exchange, Request, weight};
use crate::limits::GZIP_ANSWER_BYTES_MIN;

const FOR_ALL: (&str, &str) = ("Cache-Control", "public, max-age=1, stale-while-revalidate=10");
/// A shared cache would give it to those without a key.
const FOR_ONE: (&str, &str) = ("Cache-Control", "private, max-age=1, stale-while-revalidate=10");
pub(super) const TAG_BYTES: usize = r#"W/"0123456789abcdef""#.len();
const VARIES: (&str, &str) = ("Vary", "Accept-Encoding");

/// The ETag of a body by what it says: two answers that say the same may differ in when they were made, so it is a weak
/// one (RFC 9110, 8.8.1).
pub(super) fn tag_of(says: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    says.hash(&mut hasher);
    format!("W/\"{:016x}\"", hasher.finish())
}

/// Answers 200 with a JSON body made of a copy, or 304 where the client has it. `is_open`: everybody may read it.
pub(super) fn tagged(
    exchange: &mut Exchange<'_>,
    request: &Request<'_>,
    is_open: bool,
    copy: &Copy,
    tag: &str,
    body: &[u8],
) {
    let kept = if is_open { FOR_ALL } else { FOR_ONE };
    let tag = ("ETag", tag);
    if request.headers.get("if-none-match").is_some_and(|known| is_among(known, tag.1)) {
        let headers = [tag, kept, VARIES];
        return exchange.respond(Answer { status: 304, content_type: "", headers: &headers, body: b"" });
    }
    let content_type = "application/json";
    let packed = (body.len() >= GZIP_ANSWER_BYTES_MIN && takes_gzip(request)).then(|| {
        exchange.expect_deep_stack();
        copy.packed(tag.1, || gzip(body))
    });
    match packed.flatten() {
        Some(packed) => {
            let headers = [tag, kept, VARIES, ("Content-Encoding", "gzip")];
            exchange.respond(Answer { status: 200, content_type, headers: &headers, body: &packed });
        }
        None => exchange.respond(Answer { status: 200, content_type, headers: &[tag, kept, VARIES], body }),
    }
}

/// `If-None-Match`: `*`, or a list of tags, compared weakly.
fn is_among(known: &[u8], tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let Ok(known) = std::str::from_utf8(known) else { return false };
    known.split(',').any(|one| one.trim() == "*" || opaque(one) == opaque(tag))
}

/// `Accept-Encoding` names gzip, or everything, with a weight above zero.
fn takes_gzip(request: &Request<'_>) -> bool {
    let Some(Ok(accepted)) = request.headers.get("accept-encoding").map(std::str::from_utf8) else { return false };
    let weight = |coding| weight(accepted, |named| named.eq_ignore_ascii_case(coding));
    weight("gzip").or_else(|| weight("*")).is_some_and(|weight| weight > 0.0)
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::fast());
    encoder.write_all(body).ok()?;
    // Every JSON answer ends like this; an answer without a content coding gets it from `http`.
    encoder.write_all(b"\n").ok()?;
    encoder.finish().ok()
}
