//! Settings: flags and environment variables of the same names, checked once into what the program is built from.

mod access;
mod tls;

pub use access::{AccessSettings, RawAccess};

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::tz::TimeZone;

use crate::app::{Ack, Classes};
use crate::events::PageRules;
use crate::logging::{Directives, LogFormat};
use crate::{http, limits};

const DAY_MS: i64 = 86_400_000;

/// Settings as they are given.
#[derive(Clone, Debug, Args)]
pub struct Raw {
    /// Address and port to listen on; another than loopback needs keys, or INSECURE_OPEN=true
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: String,
    #[command(flatten)]
    stores: RawStores,
    /// Threads that serve connections: a number, or auto for one a core
    #[arg(long, env = "WORKERS", default_value = "auto", value_parser = number(cores(), 128), value_name = "NUMBER|auto")]
    workers: usize,
    /// Pin each worker to a core
    #[arg(long, env = "PIN_WORKERS", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pin_workers: bool,
    /// When an event is answered
    #[arg(long, env = "ACK", default_value = "journal", value_enum)]
    ack: Ack,
    #[command(flatten)]
    log: Log,
    /// Older events are refused, and older rows are deleted
    #[arg(long, env = "RETENTION_DAYS", default_value_t = limits::RETENTION_DAYS, value_name = "DAYS")]
    retention_days: u32,
    /// Older events are refused without an admin key, unless the server has no keys at all
    #[arg(long, env = "EVENT_AGE_MAX", default_value_t = limits::EVENT_AGE_DAYS, value_name = "DAYS",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::RETENTION_DAYS_MAX)))]
    event_age_max: u32,
    /// Count /a/ for the page /a. Events that were counted before keep their page
    #[arg(long, env = "PAGE_TRIM_SLASH", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    page_trim_slash: bool,
    /// Count a fragment that begins with #/ as a part of the page. Events that were counted before keep their page
    #[arg(long, env = "PAGE_HASH", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    page_hash: bool,
    /// All journal segments together; past it events are refused (503) until the stores have caught up
    #[arg(long, env = "JOURNAL_MAX_BYTES", default_value_t = limits::JOURNAL_BYTES_MAX, value_name = "BYTES")]
    journal_max_bytes: u64,
    /// Free space that the journal leaves on its disk
    #[arg(long, env = "JOURNAL_MIN_FREE", default_value_t = limits::JOURNAL_FREE_BYTES_MIN, value_name = "BYTES")]
    journal_min_free: u64,
    /// Allow the journal on tmpfs, which loses it with the power
    #[arg(long, env = "ALLOW_TMPFS", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    allow_tmpfs: bool,
    /// Salvage a damaged journal before the start, as `journal salvage` does. Only a flag: given once, by a person
    #[arg(long)]
    salvage: bool,
    #[command(flatten)]
    tls: tls::RawTls,
    #[command(flatten)]
    access: access::RawAccess,
    #[command(flatten)]
    cache: Classes,
    #[command(flatten)]
    http: http::Config,
}

/// Where everything is kept, as given.
#[derive(Clone, Debug, Args)]
pub struct RawStores {
    #[command(flatten)]
    ledger: RawLedger,
    /// Live store: redis://[user:password@]host[:port][/db] or rediss://…; unset: memory
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    redis_url: Option<String>,
    /// Connections to PostgreSQL for reads: a number, or auto
    // Two cores keep about four blocking clients busy; more only queue in the store.
    #[arg(long, env = "PG_POOL", default_value = "auto", value_parser = number((cores() * 2).clamp(2, 16), 256), value_name = "NUMBER|auto")]
    pg_pool: usize,
    /// Connections to Redis for reads: a number, or auto
    #[arg(long, env = "REDIS_POOL", default_value = "auto", value_parser = number(cores().clamp(2, 8), 256), value_name = "NUMBER|auto")]
    redis_pool: usize,
    /// Whose days the 7-day lists mean
    #[arg(long, env = "TIME_ZONE", default_value = "UTC", value_parser = time_zone, value_name = "NAME")]
    time_zone: TimeZone,
}

/// Where the ledger is, as given: all that `export` and `seed` want of the stores.
#[derive(Clone, Debug, Args)]
pub struct RawLedger {
    /// Ledger: postgres://user:password@host/database; unset: SQLite in DATA_DIR
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// Journal and embedded ledger; one process a directory
    #[arg(long, env = "DATA_DIR", default_value = "./data", value_name = "DIRECTORY")]
    data_dir: PathBuf,
}

/// What is logged.
#[derive(Clone, Debug, Args)]
pub struct Log {
    /// What is logged: off, error, warn, info, debug, trace, or a list such as info,event_tracker::journal=debug
    #[arg(long = "log", env = "LOG", default_value = "info", value_name = "LEVEL")]
    pub directives: Directives,
    /// How it is logged
    #[arg(long = "log-format", env = "LOG_FORMAT", default_value = "text", value_enum)]
    pub format: LogFormat,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerKind {
    Postgres(String),
    /// In the data directory.
    Sqlite,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveKind {
    Redis(String),
    Memory,
}

#[derive(Clone, Debug)]
pub struct Stores {
    pub ledger: LedgerKind,
    pub live: LiveKind,
    pub data_dir: PathBuf,
    pub pg_pool: u32,
    pub redis_pool: usize,
    pub time_zone: TimeZone,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub stores: Stores,
    pub workers: usize,
    pub pin_workers: bool,
    pub ack: Ack,
    pub log: Log,
    pub retention_ms: i64,
    /// Events older than this need an admin key; at most `retention_ms`.
    pub event_age_ms: i64,
    pub pages: PageRules,
    /// Its `connections_max` is 0 for "as many as the system allows".
    pub http: http::Config,
    pub journal: crate::journal::Settings,
    pub allow_tmpfs: bool,
    pub access: AccessSettings,
    pub cache: Classes,
    pub salvage: bool,
}

impl Raw {
    /// The settings, or one line that says which of them is wrong and what it may be.
    pub fn check(self) -> Result<Settings, String> {
        let access = self.access.check()?;
        let proxies = access.rules.proxies.clone();
        let retention_ms = retention_ms(self.retention_days)?;
        let settings = Settings {
            stores: self.stores.check()?,
            workers: self.workers,
            retention_ms,
            event_age_ms: (i64::from(self.event_age_max) * DAY_MS).min(retention_ms),
            pages: PageRules { trim_slash: self.page_trim_slash, keep_hash: self.page_hash },
            journal: crate::journal::Settings {
                bytes_max: self.journal_max_bytes,
                free_bytes_min: self.journal_min_free,
                ..Default::default()
            },
            pin_workers: self.pin_workers,
            ack: self.ack,
            log: self.log,
            allow_tmpfs: self.allow_tmpfs,
            http: http::Config {
                listen: access::listen(&self.listen, &access)?,
                is_trusted: Arc::new(move |address| proxies.trusts(address)),
                tls: self.tls.check()?.map(Arc::new),
                ..self.http.check()?
            },
            access,
            cache: self.cache,
            salvage: self.salvage,
        };
        if settings.journal.bytes_max < 4 * settings.journal.segment_bytes {
            return Err(format!("JOURNAL_MAX_BYTES must be at least {}", 4 * settings.journal.segment_bytes));
        }
        Ok(settings)
    }
}

impl RawStores {
    /// As [`Raw::check`].
    pub fn check(self) -> Result<Stores, String> {
        Ok(Stores {
            ledger: ledger_kind(self.ledger.database_url)?,
            live: live_kind(self.redis_url)?,
            data_dir: self.ledger.data_dir,
            pg_pool: self.pg_pool as u32,
            redis_pool: self.redis_pool,
            time_zone: self.time_zone,
        })
    }
}

impl RawLedger {
    /// As [`Raw::check`], for a command that reads in one thread and needs no live store.
    pub fn check(self) -> Result<Stores, String> {
        RawStores { ledger: self, redis_url: None, pg_pool: 2, redis_pool: 1, time_zone: TimeZone::UTC }.check()
    }
}

/// How long events are taken, from days.
pub fn retention_ms(days: u32) -> Result<i64, String> {
    let (min, max) = (limits::RETENTION_DAYS_MIN, limits::RETENTION_DAYS_MAX);
    match (min..=max).contains(&days) {
        true => Ok(i64::from(days) * DAY_MS),
        false => Err(format!("RETENTION_DAYS must be {min} to {max}, not {days}")),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A store's URL without the blanks and line breaks around it, which files and shells add. `None`: not set.
fn store_url(name: &str, url: Option<String>) -> Result<Option<String>, String> {
    let Some(url) = url.map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()) else { return Ok(None) };
    match url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err(format!("{name} holds a blank or a line break (write a blank as %20)")),
        false => Ok(Some(url)),
    }
}

fn ledger_kind(url: Option<String>) -> Result<LedgerKind, String> {
    match store_url("DATABASE_URL", url)? {
        None => Ok(LedgerKind::Sqlite),
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            Ok(LedgerKind::Postgres(url))
        }
        Some(_) => Err("DATABASE_URL must begin with postgres:// (unset it for SQLite in the data directory)".into()),
    }
}

fn live_kind(url: Option<String>) -> Result<LiveKind, String> {
    match store_url("REDIS_URL", url)? {
        None => Ok(LiveKind::Memory),
        Some(url) if url.starts_with("redis://") || url.starts_with("rediss://") => Ok(LiveKind::Redis(url)),
        Some(_) => {
            Err("REDIS_URL must begin with redis:// or rediss:// (unset it to keep live statistics in memory)".into())
        }
    }
}

/// Parses a number from 1 to `max`, or `auto`.
fn number(auto: usize, max: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(auto);
        }
        let number = text.parse().ok().filter(|number| (1..=max).contains(number));
        number.ok_or_else(|| format!("it must be auto or 1 to {max}"))
    }
}

pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    if name.eq_ignore_ascii_case("UTC") {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| format!("`{name}` is not known here (an IANA name such as Asia/Seoul)"))
}

/// A store's URL without what is secret in it: scheme, hosts and path. A password that was not percent-encoded makes
/// the parts ambiguous; then only the scheme is shown.
pub fn without_password(url: &str) -> String {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
        return "…".to_owned();
    }
    format!("{scheme}://{}", place(&url[scheme.len() + 3..]).unwrap_or("…"))
}

/// Hosts and path of what follows the scheme; `None` if a part of them could belong to a password.
fn place(rest: &str) -> Option<&str> {
    let place = match rest.rsplit_once('@') {
        None => rest,
        // The last @ of several, or one behind a question mark, may stand in a password or in a parameter.
        Some((user, _)) if user.contains(['@', '?']) => return None,
        Some((_, place)) => place,
    };
    let place = place.split(['?', '#']).next()?;
    let hosts = place.split('/').next()?;
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-%/".contains(&b));
    let is_host = |host: &str| {
        // Without an @ in the URL, a password may stand where the port should be.
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !host.ends_with(']') => (name, port),
            _ => (host, ""),
        };
        let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let is_name = inner.map_or(is_plain(name), |address| address.parse::<std::net::Ipv6Addr>().is_ok());
        is_name && (port.is_empty() || port.parse::<u16>().is_ok())
    };
    (hosts.split(',').all(is_host) && is_plain(&place[hosts.len()..])).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn settings(arguments: &[&str]) -> Result<Settings, String> {
        #[derive(clap::Parser)]
        struct OnlyRaw {
            #[command(flatten)]
            raw: Raw,
        }
        let parsed = OnlyRaw::try_parse_from(std::iter::once(&"event-tracker").chain(arguments));
        parsed.map_err(|e| e.to_string())?.raw.check()
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (arguments, name) in [
            (["--listen", "nonsense"], "LISTEN"),
            (["--listen", "0.0.0.0:1"], "INSECURE_OPEN"),
            (["--database-url", "mysql://x"], "DATABASE_URL"),
            (["--redis-url", "http://x"], "REDIS_URL"),
            (["--workers", "0"], "WORKERS"),
            (["--time-zone", "Mars/Base"], "TIME_ZONE"),
            (["--journal-max-bytes", "1"], "JOURNAL_MAX_BYTES"),
            (["--log", "loud"], "LOG"),
            (["--retention-days", "8"], "RETENTION_DAYS"),
            (["--retention-days", "4294967295"], "RETENTION_DAYS"),
            (["--shutdown-ms", "18446744073709551615"], "SHUTDOWN_MS"),
            (["--head-bytes-max", "70000"], "HEAD_BYTES_MAX"),
            (["--idle-ms", "0"], "IDLE_MS"),
            (["--tls-cert", "a.pem"], "TLS_KEY"),
            (["--tls-key", "a.pem"], "TLS_CERT"),
            (["--cache-likes", "ttl=5"], "CACHE_LIKES"),
            (["--event-age-max", "0"], "EVENT_AGE_MAX"),
            (["--request-line-bytes-max", "20000"], "REQUEST_LINE_BYTES_MAX"),
        ] {
            let error = settings(&arguments).unwrap_err();
            // Errors of the parser name the flag, and several lines become one in `commands`.
            assert!(error.contains(name) || error.contains(&format!("'{} <", arguments[0])), "{error}");
        }
    }

    #[test]
    fn nothing_set_means_embedded_stores_on_loopback() {
        let settings = settings(&[]).unwrap();
        assert_eq!((settings.stores.ledger, settings.stores.live), (LedgerKind::Sqlite, LiveKind::Memory));
        assert!(settings.http.listen.ip().is_loopback());
    }

    #[test]
    fn passwords_are_never_shown() {
        for (url, shown) in [
            ("postgres://u:p@h:5/db?password=x", "postgres://h:5/db"),
            ("postgres://h:5,[::1]:6/db?password=x", "postgres://h:5,[::1]:6/db"),
            ("redis://:p%40@h", "redis://h"),
            ("redis://h/0", "redis://h/0"),
            ("postgres://u:S3CR/ET@h:1/db", "postgres://h:1/db"),
            ("postgres://u:S3CR#ET@h:1/db", "postgres://h:1/db"),
            ("postgres://u:S3CR ET@h:1/db", "postgres://h:1/db"),
            ("postgres://u:S3CR?ET@h:1/db", "postgres://…"),
            ("postgres://u:S3CR@ET@h:1/db", "postgres://…"),
            ("postgres://h/db?password=S3CR@ET", "postgres://…"),
            ("redis://:S3CRET:6379", "redis://…"),
            ("postgres://u:S3CRET/db", "postgres://…"),
            ("postgres://u:S3CR/ET?x@h/db", "postgres://…"),
            ("postgres://u:S3CRET h/db", "postgres://…"),
            ("u:S3CRET@h://x", "…"),
            ("S3CRET", "…"),
        ] {
            assert_eq!(without_password(url), shown, "{url}");
        }
    }
}
