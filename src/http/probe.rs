//! Entrances to the parsers for tests and fuzzing, which compare them with models. Built with the
//! feature `test-hooks` only.

use super::Config;
use super::body::{Advance, Body};
use super::head::{Framing, Head, Search};
use super::method::Method;
use super::refusal::Refusal;

/// Status and tag of a refusal.
pub type Refused = (u16, &'static str);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenHead {
    /// Bytes of the head, its empty line included.
    pub length: usize,
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// `None`: the body comes in chunks.
    pub content_length: Option<usize>,
    pub expects_continue: bool,
    pub close: bool,
    pub is_old: bool,
}

/// A decoded body and how many bytes it took, framing included.
pub type SeenBody = (Vec<u8>, usize);

/// The head at the start of `bytes`, which come in pieces that end at `cuts` and at the end. `None`:
/// not whole.
pub fn read_head(bytes: &[u8], cuts: &[usize], config: &Config) -> Result<Option<SeenHead>, Refused> {
    let (mut search, mut head) = (Search::default(), Head::new());
    for end in ends(bytes, cuts) {
        if let Some(length) = head.read(&mut search, &bytes[..end], config).map_err(told)? {
            return Ok(Some(seen(&head, &bytes[..length])));
        }
    }
    Ok(None)
}

fn seen(head: &Head, bytes: &[u8]) -> SeenHead {
    let fields = head.headers(bytes);
    SeenHead {
        length: bytes.len(),
        method: head.method,
        path: head.path(bytes).to_owned(),
        query: head.query(bytes).to_owned(),
        headers: fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
        content_length: match head.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        },
        expects_continue: head.expects_continue,
        close: head.close,
        is_old: head.is_old,
    }
}

/// The body in chunks at the start of `bytes`, in pieces as above. `None`: not whole.
pub fn read_chunks(bytes: &[u8], cuts: &[usize], config: &Config) -> Result<Option<SeenBody>, Refused> {
    let mut body = Body::new(0, Framing::Chunked);
    let mut buffer = Vec::new();
    let mut came = 0;
    for end in ends(bytes, cuts) {
        buffer.extend_from_slice(&bytes[came..end]);
        came = end;
        let length = buffer.len();
        match body.advance(&mut buffer, config).map_err(told)? {
            Advance::Whole { consumed } => {
                return Ok(Some((buffer[body.range()].to_vec(), came - (length - consumed))));
            }
            Advance::More { kept } => buffer.truncate(kept),
        }
    }
    Ok(None)
}

fn told(refusal: Refusal) -> Refused {
    let (status, tag, _) = refusal.parts();
    (status, tag)
}

fn ends(bytes: &[u8], cuts: &[usize]) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    ends
}
