//! Keys: who may ask for what. A right without keys is open; keys come from the environment or a file, never from a
//! flag that `ps` shows, and are never logged.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use subtle::{Choice, ConstantTimeEq};

use super::answer::{Answered, Failure};
use super::query::decode;
use crate::http::Request;
use crate::limits::{KEY_BYTES_MAX, KEY_BYTES_MIN, KEYS_MAX};

/// Padding may be there or not, and bits after the last byte do not matter: some clients write them.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// Files of variables often quote values, and not every reader of such files removes the quotes.
const QUOTES: [char; 3] = ['"', '\'', '`'];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Sending events: the only keys that a page may carry.
    Ingest,
    /// The same, and posts, likes and the deletion of recent searches, of any user.
    Write,
    /// Lists, counts and metrics.
    Read,
    /// Everything: also exports and erasures.
    Admin,
}

#[derive(Clone, Debug, Default)]
pub struct Keys {
    pub ingest: KeyList,
    pub write: KeyList,
    pub read: KeyList,
    pub admin: KeyList,
}

/// Keys of one right; empty: open.
#[derive(Clone, Default)]
pub struct KeyList(Vec<String>);

impl KeyList {
    /// Reads keys separated by commas or line ends. The error names `setting` and the number of the key, never the key.
    pub fn parse(setting: &str, text: &str) -> Result<KeyList, String> {
        let keys: Vec<&str> = text.split([',', '\n', '\r']).map(str::trim).filter(|key| !key.is_empty()).collect();
        if keys.is_empty() && !text.trim().is_empty() {
            return Err(format!("{setting} is set but holds no key"));
        }
        if keys.len() > KEYS_MAX {
            return Err(format!("{setting} may hold at most {KEYS_MAX} keys"));
        }
        for (number, key) in (1..).zip(&keys) {
            if key.starts_with(QUOTES) || key.ends_with(QUOTES) {
                return Err(format!(
                    "{setting}: key {number} stands in quotes, which would be part of it: remove them"
                ));
            }
            if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(format!(
                    "{setting}: key {number} must have {KEY_BYTES_MIN} to {KEY_BYTES_MAX} visible ASCII characters \
                     (openssl rand -hex 24 makes one)"
                ));
            }
        }
        Ok(KeyList(keys.into_iter().map(str::to_owned).collect()))
    }

    pub fn with(mut self, more: KeyList) -> KeyList {
        self.0.extend(more.0);
        self
    }

    /// Everybody may.
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.is_open()
    }

    pub fn shares_one_with(&self, other: &KeyList) -> bool {
        self.0.iter().any(|key| other.0.contains(key))
    }

    /// In a time that tells nothing about the keys but their lengths: every one is compared to its end.
    pub(super) fn holds(&self, presented: &[u8]) -> bool {
        let found = self.0.iter().fold(Choice::from(0), |found, key| found | key.as_bytes().ct_eq(presented));
        found.into()
    }
}

/// How many, never which.
impl fmt::Debug for KeyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Keys {
    pub fn cover_everything(&self) -> bool {
        [Right::Ingest, Right::Write, Right::Read, Right::Admin].into_iter().all(|right| !self.are_open(right))
    }

    /// No right has a key.
    pub(super) fn are_none(&self) -> bool {
        [&self.ingest, &self.write, &self.read, &self.admin].into_iter().all(KeyList::is_open)
    }

    /// Everybody has this right.
    pub(super) fn are_open(&self, right: Right) -> bool {
        match right {
            // Who set only write keys meant events, too.
            Right::Ingest => self.ingest.is_open() && self.write.is_open(),
            Right::Write => self.write.is_open(),
            Right::Read => self.read.is_open(),
            Right::Admin => self.admin.is_open(),
        }
    }

    /// The keys that give a right; those of admins give every right.
    fn of(&self, right: Right) -> [&KeyList; 3] {
        let (own, other) = match right {
            Right::Ingest => (&self.ingest, &self.write),
            Right::Write => (&self.write, &self.admin),
            Right::Read => (&self.read, &self.admin),
            Right::Admin => (&self.admin, &self.admin),
        };
        [own, other, &self.admin]
    }

    pub(super) fn admit<K: AsRef<[u8]>>(&self, right: Right, presented: impl Iterator<Item = K>) -> Answered {
        if self.are_open(right) {
            return Ok(());
        }
        let lists = self.of(right);
        let mut denied = Failure::KeyRequired;
        for key in presented {
            // Every list is compared, for the reason that `holds` has.
            if lists.iter().fold(false, |found, list| found | list.holds(key.as_ref())) {
                return Ok(());
            }
            denied = Failure::KeyRefused;
        }
        Err(denied)
    }
}

/// The keys that a request brings: `Authorization: Bearer …` or `Basic …` (of `key:`), `X-Api-Key`, and `?key=`.
pub(super) fn presented<'h>(request: &Request<'h>, with_query: bool) -> impl Iterator<Item = Cow<'h, [u8]>> {
    let [bearer, basic] = credentials(request.headers.get("authorization").unwrap_or_default());
    let header = request.headers.get("x-api-key").map(<[u8]>::trim_ascii).map(Cow::Borrowed);
    let query = request.query.split('&').find_map(|pair| pair.strip_prefix("key=")).filter(|_| with_query);
    // As it is, too: few who write a URL by hand encode a plus sign.
    let decoded = query.and_then(|key| decode(key, true).ok()).map(|key| match key {
        Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
        Cow::Owned(key) => Cow::Owned(key.into_bytes()),
    });
    let query = query.map(|key| Cow::Borrowed(key.as_bytes()));
    [bearer, basic, header, query, decoded].into_iter().flatten().filter(|key| !key.is_empty())
}

/// The key of `Bearer key`, or else of `Basic` with `key:` in base64, up to the first colon.
fn credentials(authorization: &[u8]) -> [Option<Cow<'_, [u8]>>; 2] {
    let end = authorization.iter().position(|byte| *byte == b' ').unwrap_or(authorization.len());
    let (scheme, rest) = authorization.split_at(end);
    let token = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return [Some(Cow::Borrowed(token)), None];
    }
    let basic = scheme.eq_ignore_ascii_case(b"basic").then(|| BASE64.decode(token).ok()).flatten();
    let key = basic.map(|pair| Cow::Owned(pair.split(|byte| *byte == b':').next().unwrap_or_default().to_vec()));
    [None, key]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "0123456789abcdef, fedcba9876543210\n";

    #[test]
    fn only_a_whole_key_of_the_list_is_let_in() {
        let keys = Keys { admin: KeyList::parse("ADMIN_KEYS", KEYS).unwrap(), ..Keys::default() };
        assert_eq!(keys.admin.len(), 2);
        let admit = |presented: &[&str]| keys.admit(Right::Admin, presented.iter());
        assert!(admit(&["0123456789abcdef"]).is_ok());
        assert!(admit(&["fedcba9876543210"]).is_ok());
        assert!(admit(&["of another system", "fedcba9876543210"]).is_ok());
        for wrong in ["0123456789abcde", "0123456789abcdef0", "0123456789abcdeF", "0123456789abcdef,", ""] {
            assert!(matches!(admit(&[wrong]), Err(Failure::KeyRefused)), "{wrong}");
        }
        assert!(matches!(admit(&[]), Err(Failure::KeyRequired)));
        assert!(Keys::default().admit(Right::Admin, [""; 0].iter()).is_ok());
    }

    #[test]
    fn a_key_that_could_be_guessed_is_refused_and_never_shown() {
        for text in ["short", "0123456789abcdef,0123 56789abcdef", "0123456789abcdéf", &"x".repeat(257)] {
            let error = KeyList::parse("ADMIN_KEYS", text).unwrap_err();
            assert!(error.contains("ADMIN_KEYS") && !error.contains(text) && !error.contains("0123"), "{error}");
        }
        assert!(KeyList::parse("ADMIN_KEYS", " , ").is_err(), "set, and yet no key");
        assert!(KeyList::parse("ADMIN_KEYS", " ").unwrap().is_open());
        assert_eq!(format!("{:?}", KeyList::parse("ADMIN_KEYS", KEYS).unwrap()), "2 keys");
    }
}
