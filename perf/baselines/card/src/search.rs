//! Search behind the card's cache: TTL with jitter, early refresh, one flight a key in the process, a lock in Redis,
//! null objects, and an answer even where the lock fails.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use r2d2_redis::redis;
use rand::RngExt;
use serde_json::{Value, json};

use crate::{Shared, answer_row};

const TTL_SECONDS: usize = 60;
const NULL_TTL_SECONDS: usize = 10;
const LOCK_MS: usize = 3_000;
const LOCK_TRIES: usize = 50;
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const FIND: &str = "SELECT p.post_id, p.user_id, p.content, p.hashtags, coalesce(s.like_count, 0) FROM post p \
     LEFT JOIN post_stat s USING (post_id) WHERE $1 = ANY(p.hashtags) OR p.content LIKE '%' || $1 || '%' \
     ORDER BY 5 DESC, p.created_at DESC LIMIT 20";

/// A search under way: the first who asks fills it, the others of this process wait.
#[derive(Default)]
pub(crate) struct Flight(OnceLock<Option<Value>>);

impl Shared {
    pub(crate) fn search(&self, query: &str) -> io::Result<Value> {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let keyword = decoded(value("keyword").unwrap_or(""));
        let posts = self.cached(&keyword)?;
        self.searched(value("userId"), &keyword)?;
        Ok(json!({"keyword": keyword, "posts": posts}))
    }

    fn cached(&self, keyword: &str) -> io::Result<Value> {
        let key = format!("card:search:{keyword}");
        if let Some((found, left)) = self.look(&key)? {
            // Early refresh: the nearer the end, the likelier.
            let early = left < 5 && rand::rng().random_range(0..5) >= left;
            if !early {
                return Ok(found);
            }
        }
        let flight = Arc::new(Flight::default());
        let entry = self.flights.get_or_insert(key.clone(), flight.clone());
        if !Arc::ptr_eq(entry.value(), &flight) {
            return match wait(entry.value()) {
                Some(found) => Ok(found),
                None => self.find(keyword),
            };
        }
        let found = self.fill(&key, keyword);
        let _ = flight.0.set(found.as_ref().ok().cloned());
        entry.remove();
        found
    }

    fn look(&self, key: &str) -> io::Result<Option<(Value, i64)>> {
        let mut redis = self.redis.get().map_err(io::Error::other)?;
        let (text, left): (Option<String>, i64) =
            redis::pipe().cmd("GET").arg(key).cmd("TTL").arg(key).query(&mut *redis).map_err(io::Error::other)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).map(|found| (found, left)))
    }

    /// Under the lock of Redis, or without it after too long: an answer is guaranteed.
    fn fill(&self, key: &str, keyword: &str) -> io::Result<Value> {
        let lock = format!("{key}:lock");
        for _ in 0..LOCK_TRIES {
            let mut redis = self.redis.get().map_err(io::Error::other)?;
            let taken: Option<String> = redis::cmd("SET")
                .arg(&lock)
                .arg(1)
                .arg("NX")
                .arg("PX")
                .arg(LOCK_MS)
                .query(&mut *redis)
                .map_err(io::Error::other)?;
            drop(redis);
            if taken.is_some() {
                break;
            }
            if let Some((found, _)) = self.look(key)? {
                return Ok(found);
            }
            may::coroutine::sleep(LOOK_AGAIN);
        }
        let found = self.find(keyword)?;
        let is_null = found.as_array().is_some_and(Vec::is_empty);
        let ttl = if is_null { NULL_TTL_SECONDS } else { TTL_SECONDS };
        let jittered = ttl + rand::rng().random_range(0..=ttl / 5);
        self.redis(redis::cmd("SET").arg(key).arg(found.to_string()).arg("EX").arg(jittered))?;
        self.redis(redis::cmd("DEL").arg(&lock))?;
        Ok(found)
    }

    fn find(&self, keyword: &str) -> io::Result<Value> {
        let mut postgres = self.postgres.get().map_err(io::Error::other)?;
        let rows = postgres.query(FIND, &[&keyword]).map_err(io::Error::other)?;
        Ok(rows.iter().map(answer_row).collect())
    }
}

fn wait(flight: &Flight) -> Option<Value> {
    for _ in 0..LOCK_TRIES {
        if let Some(found) = flight.0.get() {
            return found.clone();
        }
        may::coroutine::sleep(LOOK_AGAIN);
    }
    None
}

/// Percent-decoding; what is no UTF-8 is replaced.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
