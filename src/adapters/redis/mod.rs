//! The live store in Redis 7 or later: sorted sets by bucket, recent lists, everything by script.
//!
//! Keys begin with `et:{t0}:<format>:<zone>:`, so that a program with another format or `TIME_ZONE`
//! has its own. There `gen` names the generation; under `<generation>:` are
//! `m:<dimension>:<minute>`, `h:…:<hour>` and `d:…:<day>` (sorted sets; for the dimension `users`
//! HyperLogLogs), `totals` (hash: `<dimension>`, or `1:<TYPE>`), `wm` (hash: stream →
//! `position:crc`), `folded` (first minute that is not in its hour and day yet), `open` (minutes
//! from there on that have counts), `trimmed` (buckets that lost members, by expiry), `r:<user>`
//! (list of `ms:folded`, or `ms:folded\0typed`), `forgotten` (`user\0folded`, by the time up to
//! which it is), `tombstones` (hash: post → version, negative if the post was put again),
//! `tombstone_times` (posts by the time of their tombstone) and `u:…` (unions, kept a second). All
//! share one hash slot; `rebuild` is the lock of a rebuild. `et:{t0}:generations` has each `gen`
//! key by the time of its last use.

mod cache;
mod connection;
pub mod inspect;
mod keys;
mod rebuild;
mod script;
mod writer;

pub use cache::RedisCache;

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use r2d2::ManageConnection;
use redis::FromRedisValue;

use crate::events::Dimension;
use crate::limits::{LIVE_UNION_KEPT_MS, RECENT_SEARCHES_MAX, REDIS_CHECK_OUT_MS_MAX};
use crate::live::{Calendar, lists_posts, reading, still_recent};
use crate::ports::{LiveStore, LiveTop, LiveWriter, StoreError, TopQuery, Window};

use connection::{Connector, READER_TIMEOUT, WRITER_TIMEOUT, Wire, is_refusal, store_error};
use keys::{bucket_name, key_prefix};
use script::{RECENT, Script, TOP, TOTALS, USERS, unexpected};
use writer::RedisWriter;

/// See the module. Clones share one pool.
#[derive(Clone)]
pub struct RedisLive {
    connector: Connector,
    pool: r2d2::Pool<Connector>,
    calendar: Arc<Calendar>,
    generation_key: Arc<str>,
}

impl RedisLive {
    /// A store at `url` with up to `pool_size` connections for readers; days are those of
    /// `time_zone`. Connects when it is first needed: fails only if the url is not one of Redis.
    pub fn new(url: &str, pool_size: usize, time_zone: TimeZone) -> Result<RedisLive, StoreError> {
        let client = redis::Client::open(url).map_err(|error| StoreError::Fatal(format!("redis url: {error}")))?;
        let connector = Connector { client, timeout: READER_TIMEOUT };
        let pool = pool_of(connector.clone(), pool_size, Duration::from_millis(REDIS_CHECK_OUT_MS_MAX));
        let generation_key = format!("{}gen", key_prefix(&time_zone)).into();
        Ok(RedisLive { connector, pool, calendar: Arc::new(Calendar::new(time_zone)), generation_key })
    }

    /// Conditions that make the server less than safe to use, each a sentence for the log at start.
    /// An error says why it will never serve this URL. A server that does not answer, or forbids
    /// INFO, has neither.
    pub fn examine(&self) -> Result<Vec<String>, String> {
        let ask = |mut wire: Wire| wire.exchange(|connection| redis::cmd("INFO").query::<String>(connection));
        match self.connector.connect().and_then(ask) {
            Ok(info) => Ok(warnings(&info)),
            Err(error) if is_refusal(&error) => Err(error.to_string()),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The same server with connections of its own, whose calls may take `call_timeout`.
    fn with_pool(&self, pool_size: usize, call_timeout: Duration) -> RedisLive {
        let connector = Connector { timeout: call_timeout, ..self.connector.clone() };
        let pool = pool_of(connector.clone(), pool_size, call_timeout);
        RedisLive { connector, pool, ..self.clone() }
    }

    /// Runs a read, once more on a new connection if the pooled one turned out to be dead: it did
    /// not time out, so there is time.
    fn read<T>(&self, run: impl Fn(&mut Wire) -> redis::RedisResult<T>) -> Result<T, StoreError> {
        let mut wire = self.pool.get().map_err(|error| StoreError::Retry(format!("redis: {error}")))?;
        let result = match run(&mut wire) {
            Err(error) if wire.is_broken() && !error.is_timeout() => run(&mut wire),
            result => result,
        };
        result.map_err(|error| store_error(&error))
    }

    fn read_script<T: FromRedisValue>(
        &self,
        script: &Script,
        arguments: impl Fn(&mut redis::Cmd),
    ) -> Result<T, StoreError> {
        let mut command = script::call(script, &self.generation_key);
        arguments(&mut command);
        script::reply(self.read(|wire| script::run(wire, script, &command))?).map_err(|error| match error {
            StoreError::Fenced { .. } => {
                StoreError::Retry("redis: the live store is empty and waits to be rebuilt".into())
            }
            error => error,
        })
    }
}

/// Reads a URL and connects to nothing. The error is one line without any part of a password.
pub fn check_url(url: &str) -> Result<(), String> {
    let client = redis::Client::open(url).map_err(|error| error.to_string())?;
    let target = client.get_connection_info();
    if matches!(target.addr(), redis::ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err("#insecure is not offered: the certificate is always checked".to_owned());
    }
    if matches!(target.addr(), redis::ConnectionAddr::Tcp(_, 0) | redis::ConnectionAddr::TcpTls { port: 0, .. }) {
        return Err("no server can have port 0".to_owned());
    }
    if target.redis_settings().db() < 0 {
        return Err("the database is a number from 0 on".to_owned());
    }
    // The client ignores options that it does not know.
    let (_, query) = url.split_once('?').unwrap_or((url, ""));
    let options = query.split('#').next().unwrap_or("").split('&').filter(|option| !option.is_empty());
    match options.map(|option| option.split('=').next().unwrap_or(option)).find(|name| *name != "protocol") {
        Some(name) => Err(format!("unknown option `{name}` (there is only protocol=resp2 or resp3)")),
        None => Ok(()),
    }
}

fn pool_of(connector: Connector, size: usize, check_out: Duration) -> r2d2::Pool<Connector> {
    r2d2::Pool::builder()
        .max_size(u32::try_from(size.max(1)).unwrap_or(u32::MAX))
        .min_idle(Some(0))
        .connection_timeout(check_out)
        .test_on_check_out(false)
        // A failure reaches the reader that it fails; the pool's own log line would be the second.
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(connector)
}

impl LiveStore for RedisLive {
    fn open_writer(&self) -> Result<Box<dyn LiveWriter>, StoreError> {
        let connector = Connector { timeout: WRITER_TIMEOUT, ..self.connector.clone() };
        let (calendar, generation_key) = (Arc::clone(&self.calendar), Arc::clone(&self.generation_key));
        Ok(Box::new(RedisWriter { wire: connector.wire(), connector, calendar, generation_key }))
    }

    fn top(&self, query: &TopQuery, now_ms: i64) -> Result<LiveTop, StoreError> {
        let (approximate, rows): (bool, Vec<(String, f64)>) =
            self.read_script(&TOP, |command| top_arguments(command, query, now_ms, &self.calendar))?;
        let items = rows.into_iter().map(|(name, score)| (name, -score)).collect();
        Ok(LiveTop { items, approximate })
    }

    fn users(&self, window: Window, now_ms: i64) -> Result<u64, StoreError> {
        let (users,) = self.read_script(&USERS, |command| users_arguments(command, window, now_ms, &self.calendar))?;
        Ok(users)
    }

    fn recent(&self, user_id: &str, now_ms: i64) -> Result<Vec<String>, StoreError> {
        let (elements,): (Vec<String>,) = self.read_script(&RECENT, |command| _ = command.arg(user_id))?;
        let mut keywords = Vec::with_capacity(elements.len());
        for element in elements.iter().take(RECENT_SEARCHES_MAX) {
            let (at, keyword) = element.split_once(':').ok_or_else(|| unexpected(element))?;
            let at_ms: i64 = at.parse().map_err(|_| unexpected(element))?;
            if keywords.is_empty() && !still_recent(at_ms, now_ms) {
                break;
            }
            keywords.push(keyword.split_once('\0').map_or(keyword, |(_, typed)| typed).to_owned());
        }
        Ok(keywords)
    }

    fn totals(&self) -> Result<Vec<(Dimension, String, i64)>, StoreError> {
        let (fields,): (Vec<(String, i64)>,) = self.read_script(&TOTALS, |_| {})?;
        let mut totals = Vec::with_capacity(fields.len());
        for (field, count) in fields {
            let (code, name) = field.split_once(':').unwrap_or((&field, ""));
            let dimension = code.parse().ok().and_then(Dimension::from_code).ok_or_else(|| unexpected(&field))?;
            totals.push((dimension, name.to_owned(), count));
        }
        totals.sort();
        Ok(totals)
    }

    fn ping(&self) -> Result<(), StoreError> {
        self.read(|wire| wire.exchange(|connection| redis::cmd("PING").exec(connection)))
    }
}

fn top_arguments(command: &mut redis::Cmd, query: &TopQuery, now_ms: i64, calendar: &Calendar) {
    let reading = reading(query.window, query.hot, now_ms, calendar);
    let mut name = format!("{:?}:{}", query.window, if query.hot { "hot" } else { "count" });
    for (dimension, weight) in &query.parts {
        name.push_str(&format!(":{}x{weight}", *dimension as u8));
    }
    name.push_str(&format!(":{}", reading.as_of_ms));
    command.arg(name).arg(LIVE_UNION_KEPT_MS).arg(query.limit).arg(u8::from(lists_posts(query)));
    command.arg(reading.as_of_ms).arg(reading.half_life_ms.unwrap_or(0.0));
    command.arg(reading.unfolded.start).arg(reading.unfolded.end);
    command.arg(query.parts.len());
    for (dimension, weight) in &query.parts {
        command.arg(*dimension as u8).arg(*weight);
    }
    command.arg(reading.buckets.len());
    for (bucket, weight) in reading.buckets {
        let (kind, number) = bucket_name(bucket);
        command.arg(kind).arg(number).arg(weight);
    }
}

fn users_arguments(command: &mut redis::Cmd, window: Window, now_ms: i64, calendar: &Calendar) {
    let reading = reading(window, false, now_ms, calendar);
    command.arg(format!("users:{window:?}:{}", reading.as_of_ms)).arg(LIVE_UNION_KEPT_MS);
    command.arg(reading.unfolded.start).arg(reading.unfolded.end);
    command.arg(reading.buckets.len());
    for (bucket, _) in reading.buckets {
        let (kind, number) = bucket_name(bucket);
        command.arg(kind).arg(number);
    }
}

/// A field of the answer to INFO, or nothing.
fn info_field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or("").trim()
}

fn warnings(info: &str) -> Vec<String> {
    let field = |name| info_field(info, name);
    let mut warnings = Vec::new();
    let version = field("redis_version");
    if version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 7) {
        warnings.push(format!("Redis {version} is older than 7: our scripts do not run on it"));
    }
    let policy = field("maxmemory_policy");
    if field("maxmemory") != "0" && !policy.is_empty() && policy != "noeviction" {
        warnings.push(format!(
            "maxmemory-policy is {policy}: Redis may evict buckets of the live store and counts become too low; \
             noeviction is safe"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::warnings;

    #[test]
    fn warns_of_eviction_and_of_old_servers_only() {
        let info = |version, maxmemory, policy| {
            format!("# Server\r\nredis_version:{version}\r\nmaxmemory:{maxmemory}\r\nmaxmemory_policy:{policy}\r\n")
        };
        assert!(warnings(&info("7.0.15", "0", "allkeys-lru")).is_empty());
        assert!(warnings(&info("8.2.1", "1000", "noeviction")).is_empty());
        assert_eq!(warnings(&info("7.0.15", "1000", "volatile-ttl")).len(), 1);
        assert_eq!(warnings(&info("6.2.1", "1000", "allkeys-lfu")).len(), 2);
    }
}
