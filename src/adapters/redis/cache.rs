//! The shared cache in Redis: an entry (hash), a mark, a lock and a fence for each key, everything by script.
//!
//! Keys: `et:{c<slot>}:` and `e:`, `x:`, `l:` or `f:` and the cache's own key; what belongs to one key shares a hash slot.
//! Hints go through the channel `et:cache`: `s` or `r` and the key, `d` and a JSON list of keys that were deleted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, ScriptInvocation, Value};

use super::RedisLive;
use super::connection::store_error;
use super::script::{Script, from_value, script, unexpected};
use crate::limits::{
    CACHE_CALL_MS_MAX, CACHE_FENCE_KEPT_MS, CACHE_HINT_PING_MS, CACHE_HINT_READ_MS, REDIS_CONNECT_MS_MAX, RETRY_MS_MAX,
};
use crate::ports::{Acquired, CacheEntry, CacheRead, Change, LockToken, NewEntry, SharedCache, StoreError};

const CHANNEL: &str = "et:cache";
/// Hash slots of a cluster that keys are spread over.
const SLOTS: u32 = 256;

// Writes nothing, so that a Redis that refuses writes still serves what it has.
static READ: Script = script!(" flags=no-writes", "cache/found.lua", "cache/read.lua");
static ACQUIRE: Script = script!("", "cache/found.lua", "cache/acquire.lua");
static STORE: Script = script!("", "cache/found.lua", "cache/store.lua");
static KEEP: Script = script!(" flags=allow-oom", "cache/found.lua", "cache/keep.lua");
static RELEASE: Script = script!(" flags=allow-oom", "cache/found.lua", "cache/release.lua");
static RENEW: Script = script!(" flags=allow-oom", "cache/found.lua", "cache/renew.lua");

/// The keys of an entry, its mark, its lock and its fence.
fn names_of(key: &str) -> [String; 4] {
    let slot = crc32c::crc32c(key.as_bytes()) % SLOTS;
    ['e', 'x', 'l', 'f'].map(|kind| format!("et:{{c{slot}}}:{kind}:{key}"))
}

/// On the server of a live store, through connections of its own: a call has less time, since a fill comes after it.
pub struct RedisCache(RedisLive);

impl RedisCache {
    /// With up to `pool_size` connections. Connects when it is first needed.
    pub fn new(live: &RedisLive, pool_size: usize) -> RedisCache {
        RedisCache(live.with_pool(pool_size, Duration::from_millis(CACHE_CALL_MS_MAX)))
    }

    fn invoke<T: FromRedisValue>(&self, invocation: &ScriptInvocation<'_>) -> Result<T, StoreError> {
        self.0.read(|wire| wire.exchange(|connection| invocation.invoke(connection)))
    }

    /// An entry that is found is read again: it is kept for the whole cap from now on, if the server takes writes.
    fn found(&self, entry_key: &str, values: Vec<Value>) -> Result<CacheEntry, StoreError> {
        let (entry, is_kept) = entry_of(values)?;
        if !is_kept && let Err(error) = self.invoke::<i64>(&KEEP.key(entry_key)) {
            tracing::debug!(%error, "a cached entry is not kept longer");
        }
        Ok(entry)
    }
}

type EntryValues = (Value, Vec<u8>, u32, i64, u64, u32, i64, i64, i64);

/// An entry, and whether it is kept for the whole cap.
fn entry_of(values: Vec<Value>) -> Result<(CacheEntry, bool), StoreError> {
    let (_, value, fill_ms, as_of_ms, fence, fresh_ttl_ms, cap_ms, left_ms, full_ms): EntryValues =
        from_value(Value::Array(values))?;
    let fresh_left_ms = left_ms - cap_ms;
    let entry = CacheEntry { value: value.into(), fill_ms, as_of_ms, fence, fresh_ttl_ms, fresh_left_ms };
    Ok((entry, cap_ms >= full_ms))
}

fn mark_of(values: Vec<Value>) -> Result<(Box<[u8]>, u32), StoreError> {
    let (_, error, left_ms): (Value, Vec<u8>, i64) = from_value(Value::Array(values))?;
    // -2: it ended within the script.
    Ok((error.into(), left_ms.clamp(0, i64::from(u32::MAX)) as u32))
}

fn kind_of(values: &[Value]) -> Result<String, StoreError> {
    values.first().cloned().map_or_else(|| Err(unexpected("an empty answer")), from_value)
}

fn text(token: LockToken) -> String {
    format!("{token:032x}")
}

impl SharedCache for RedisCache {
    fn read(&self, key: &str) -> Result<CacheRead, StoreError> {
        let [entry, mark, ..] = names_of(key);
        let values: Vec<Value> = self.invoke(READ.key(&entry).key(mark))?;
        match kind_of(&values)?.as_str() {
            "entry" => self.found(&entry, values).map(CacheRead::Entry),
            "mark" => mark_of(values).map(|(error, left_ms)| CacheRead::Throttled { error, left_ms }),
            _ => Ok(CacheRead::Missing),
        }
    }

    fn acquire(&self, key: &str, token: LockToken, lease_ms: u32, seen: Option<u64>) -> Result<Acquired, StoreError> {
        let [entry, mark, lock, fence] = names_of(key);
        let mut call = ACQUIRE.key(&entry);
        call.key(mark)
            .key(lock)
            .key(fence)
            .arg(text(token))
            .arg(lease_ms)
            .arg(seen.map_or_else(String::new, |fence| fence.to_string()));
        let values: Vec<Value> = self.invoke(call.arg(CACHE_FENCE_KEPT_MS))?;
        match kind_of(&values)?.as_str() {
            "entry" => self.found(&entry, values).map(Acquired::Newer),
            "mark" => mark_of(values).map(|(error, left_ms)| Acquired::Throttled { error, left_ms }),
            "busy" => Ok(Acquired::Busy),
            _ => {
                let (_, fence): (Value, u64) = from_value(Value::Array(values))?;
                Ok(Acquired::Owned { fence })
            }
        }
    }

    fn renew(&self, locks: &[(&str, LockToken)], lease_ms: u32) -> Result<Vec<bool>, StoreError> {
        let renew = |(key, token): &(&str, LockToken)| {
            let [.., lock, _] = names_of(key);
            self.invoke(RENEW.key(lock).arg(text(*token)).arg(lease_ms))
        };
        locks.iter().map(renew).collect()
    }

    fn store(&self, key: &str, token: LockToken, entry: &NewEntry<'_>) -> Result<bool, StoreError> {
        let mut call = STORE.prepare_invoke();
        call.key(&names_of(key)).arg(text(token)).arg(entry.value);
        call.arg(entry.fill_ms).arg(entry.as_of_ms).arg(entry.fence).arg(entry.fresh_ttl_ms).arg(entry.stale_cap_ms);
        self.invoke(call.arg(CHANNEL).arg(key))
    }

    fn fail(&self, key: &str, token: LockToken, error: &[u8], throttle_ms: u32) -> Result<bool, StoreError> {
        let [_, mark, lock, _] = names_of(key);
        self.invoke(RELEASE.key(mark).key(lock).arg(text(token)).arg(error).arg(throttle_ms).arg(CHANNEL).arg(key))
    }

    /// Commands, no script: every like comes by here, and a script takes the server several times as long.
    fn invalidate(&self, keys: &[&str]) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for key in keys {
            pipeline.unlink(&names_of(key)[..3]).ignore();
        }
        // Behind the deletions: whoever reads again finds nothing.
        pipeline.publish(CHANNEL, format!("d{}", serde_json::json!(keys))).ignore();
        self.0.read(|wire| wire.exchange(|connection| pipeline.exec(connection)))
    }

    fn watch(&self, on_change: Box<dyn Fn(Change<'_>) + Send>, stop: Arc<AtomicBool>) -> Result<(), StoreError> {
        let client = self.0.connector.client.clone();
        let run = move || {
            while !stop.load(Ordering::Relaxed) {
                if let Err(error) = listen(&client, &*on_change, &stop) {
                    tracing::debug!(error = %store_error(&error), "no hints from other instances for the moment");
                }
                std::thread::sleep(Duration::from_millis(RETRY_MS_MAX / 10));
            }
        };
        let spawned = std::thread::Builder::new().name("cache-hints".into()).spawn(run);
        spawned.map(drop).map_err(|error| StoreError::Fatal(format!("a thread for hints: {error}")))
    }
}

/// Listens on a connection of its own until it breaks.
fn listen(client: &redis::Client, on_change: &dyn Fn(Change<'_>), stop: &AtomicBool) -> redis::RedisResult<()> {
    let mut connection = client.get_connection_with_timeout(Duration::from_millis(REDIS_CONNECT_MS_MAX))?;
    let mut hints = connection.as_pubsub();
    hints.set_read_timeout(Some(Duration::from_millis(CACHE_HINT_READ_MS)))?;
    hints.subscribe(CHANNEL)?;
    on_change(Change::Anything);
    let mut heard = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        match hints.get_message() {
            Ok(message) => {
                heard = Instant::now();
                let payload: String = message.get_payload()?;
                match payload.split_at_checked(1) {
                    Some(("s", key)) => on_change(Change::Stored(key)),
                    Some(("r", key)) => on_change(Change::Removed(key)),
                    Some(("d", keys)) => {
                        let keys: Vec<String> = serde_json::from_str(keys).unwrap_or_default();
                        keys.iter().for_each(|key| on_change(Change::Removed(key)));
                    }
                    _ => {}
                }
            }
            // Silence is usual; a server that does not answer a PING either is gone.
            Err(error) if error.is_timeout() && heard.elapsed() > Duration::from_millis(CACHE_HINT_PING_MS) => {
                hints.ping::<Value>()?;
                heard = Instant::now();
            }
            Err(error) if error.is_timeout() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
