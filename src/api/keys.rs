//! Keys: who may ask for what. A right without keys is open; keys come from the environment or a file, never from a
//! flag that `ps` shows, and are never logged.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

use super::cors::takes_events;
use super::{Api, answer};
use crate::http::{Exchange, Request};
use crate::limits::{KEY_BYTES_MAX, KEY_BYTES_MIN, KEYS_MAX};

/// Files of variables often quote values, and not every reader of such files removes the quotes.
const QUOTES: [char; 3] = ['"', '\'', '`'];

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Sending events, likes and posts, and taking them back: anybody's, since users are not known here.
    Write,
    /// Lists, counts and metrics.
    Read,
    /// Exports, and what changes or removes what others did.
    Admin,
}

/// The keys of every right.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    pub write: KeyList,
    pub read: KeyList,
    pub admin: KeyList,
}

/// Keys of one right; empty: open.
#[derive(Clone, Default)]
pub struct KeyList(Vec<String>);

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It brings no key.
    Missing,
    /// It brings one that is not for this.
    Wrong,
}

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

    /// These and those.
    pub fn with(mut self, more: KeyList) -> KeyList {
        self.0.extend(more.0);
        self
    }

    /// Everybody may.
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// As [`KeyList::is_open`].
    pub fn is_empty(&self) -> bool {
        self.is_open()
    }

    /// In a time that tells nothing about the keys but their lengths: every one is compared to its end.
    fn holds(&self, presented: &[u8]) -> bool {
        let found = self.0.iter().fold(Choice::from(0), |found, key| found | key.as_bytes().ct_eq(presented));
        found.into()
    }

    fn admit<'k>(&self, presented: impl Iterator<Item = &'k [u8]>) -> Result<(), Denied> {
        if self.is_open() {
            return Ok(());
        }
        let mut denied = Denied::Missing;
        for key in presented {
            if self.holds(key) {
                return Ok(());
            }
            denied = Denied::Wrong;
        }
        Err(denied)
    }
}

/// How many, never which.
impl fmt::Debug for KeyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Keys {
    /// Nothing is open to whoever reaches the server.
    pub fn cover_everything(&self) -> bool {
        ![&self.write, &self.read, &self.admin].into_iter().any(KeyList::is_open)
    }

    fn of(&self, right: Right) -> &KeyList {
        match right {
            Right::Write => &self.write,
            Right::Read => &self.read,
            Right::Admin => &self.admin,
        }
    }
}

/// The keys that a request brings: `Authorization: Bearer …` and `X-Api-Key`. A proxy's own `Authorization: Basic` is
/// none.
/// Beacons cannot set headers: where events are sent, `?key=` is one too. A key has nothing that needs percent-encoding
/// by those who make it as README says; one that is encoded is not recognised.
fn presented<'h>(request: &Request<'h>) -> impl Iterator<Item = &'h [u8]> {
    let headers = request.headers;
    let bearer = headers.get("authorization").and_then(|value| {
        let (scheme, token) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
    });
    let key = headers.get("x-api-key").map(<[u8]>::trim_ascii);
    let query = request.query.split('&').find_map(|pair| pair.strip_prefix("key=")).map(str::as_bytes);
    let query = query.filter(|_| takes_events(request.path));
    [bearer, key, query].into_iter().flatten().filter(|key| !key.is_empty())
}

impl Api {
    /// Whether a request brings a key of that right; what was wrong is answered.
    pub(super) fn admits(&self, right: Right, request: &Request<'_>, exchange: &mut Exchange<'_>) -> bool {
        let keys = self.access.keys.of(right);
        // Before any header is looked for: most servers behind a proxy have no keys of their own.
        if keys.is_open() {
            return true;
        }
        match keys.admit(presented(request)) {
            Ok(()) => return true,
            Err(Denied::Missing) => {
                let message = "send a key: Authorization: Bearer …, or X-Api-Key";
                let headers = [("WWW-Authenticate", "Bearer")];
                answer::error_with(exchange, 401, "key_required", message, &headers);
            }
            Err(Denied::Wrong) => answer::error(exchange, 403, "key_refused", "this key is not for this request"),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "0123456789abcdef, fedcba9876543210\n";

    #[test]
    fn only_a_whole_key_of_the_list_is_let_in() {
        let keys = KeyList::parse("ADMIN_KEYS", KEYS).unwrap();
        assert_eq!(keys.len(), 2);
        let admit = |presented: &[&str]| keys.admit(presented.iter().map(|key| key.as_bytes()));
        assert_eq!(admit(&["0123456789abcdef"]), Ok(()));
        assert_eq!(admit(&["fedcba9876543210"]), Ok(()));
        assert_eq!(admit(&["of another system", "fedcba9876543210"]), Ok(()));
        for wrong in ["0123456789abcde", "0123456789abcdef0", "0123456789abcdeF", "0123456789abcdef,", ""] {
            assert_eq!(admit(&[wrong]), Err(Denied::Wrong), "{wrong}");
        }
        assert_eq!(admit(&[]), Err(Denied::Missing));
        assert_eq!(KeyList::default().admit([].into_iter()), Ok(()));
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
