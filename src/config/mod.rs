//! Settings: flags and environment variables of the same names, checked once into what the program is built from.

mod access;
mod cache;
mod tls;

pub use access::{AccessSettings, RawAccess};

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;

use crate::app::{Ack, Classes};
use crate::{http, limits};

/// Settings as they are given.
#[derive(Clone, Debug, Args)]
pub struct Raw {
    /// Address and port to listen on; another than loopback needs keys, or INSECURE_OPEN=true
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: String,
    #[command(flatten)]
    stores: RawStores,
    /// Threads that serve connections: a number, or auto for one a core
    #[arg(long, env = "WORKERS", default_value = "auto", value_name = "NUMBER|auto")]
    workers: String,
    /// Pin each worker to a core
    #[arg(long, env = "PIN_WORKERS", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pin_workers: bool,
    /// When an event is answered
    #[arg(long, env = "ACK", default_value = "journal", value_enum)]
    ack: Ack,
    #[command(flatten)]
    log: RawLog,
    /// Events older than this are refused
    #[arg(long, env = "RETENTION_DAYS", default_value_t = limits::RETENTION_DAYS, value_name = "DAYS")]
    retention_days: u32,
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
    cache: cache::RawCache,
    #[command(flatten)]
    http: http::RawLimits,
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
    #[arg(long, env = "PG_POOL", default_value = "auto", value_name = "NUMBER|auto")]
    pg_pool: String,
    /// Connections to Redis for reads: a number, or auto
    #[arg(long, env = "REDIS_POOL", default_value = "auto", value_name = "NUMBER|auto")]
    redis_pool: String,
    /// Whose days the 7-day lists mean
    #[arg(long, env = "TIME_ZONE", default_value = "UTC", value_name = "NAME")]
    time_zone: String,
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

/// What is logged, as given.
#[derive(Clone, Debug, Args)]
pub struct RawLog {
    /// What is logged: error, warn, info, debug, trace, or directives such as info,event_tracker::sinks=debug
    #[arg(long, env = "LOG", default_value = "info", value_name = "LEVEL")]
    log: String,
    /// How it is logged
    #[arg(long, env = "LOG_FORMAT", default_value = "text", value_enum)]
    log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Which ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerKind {
    Postgres(String),
    /// In the data directory.
    Sqlite,
}

/// Which live store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveKind {
    Redis(String),
    Memory,
}

/// Where everything is kept, checked.
#[derive(Clone, Debug)]
pub struct Stores {
    pub ledger: LedgerKind,
    pub live: LiveKind,
    pub data_dir: PathBuf,
    pub pg_pool: u32,
    pub redis_pool: usize,
    pub time_zone: TimeZone,
}

/// What is logged, checked.
#[derive(Clone, Debug)]
pub struct Log {
    pub directives: String,
    pub format: LogFormat,
}

/// Settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    pub stores: Stores,
    pub workers: usize,
    pub pin_workers: bool,
    pub ack: Ack,
    pub log: Log,
    pub retention_ms: i64,
    /// Its `connections_max` is 0 for "as many as the system allows".
    pub http: http::Config,
    /// How long a graceful stop waits for what is under way.
    pub shutdown_ms: u64,
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
        let proxies = access.proxies.clone();
        let cores = cores();
        let settings = Settings {
            stores: self.stores.check()?,
            workers: number("WORKERS", &self.workers, cores, 128)?,
            retention_ms: i64::from(self.retention_days.max(1)) * 86_400_000,
            shutdown_ms: self.http.shutdown_ms,
            journal: crate::journal::Settings {
                bytes_max: self.journal_max_bytes,
                free_bytes_min: self.journal_min_free,
                ..Default::default()
            },
            pin_workers: self.pin_workers,
            ack: self.ack,
            log: self.log.check()?,
            allow_tmpfs: self.allow_tmpfs,
            http: http::Config {
                tls: self.tls.check()?.map(Arc::new),
                ..self
                    .http
                    .check(access::listen(&self.listen, &access)?, Arc::new(move |address| proxies.trusts(address)))?
            },
            access,
            cache: self.cache.check()?,
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
            // Two cores keep about four blocking clients busy; more only queue in the store.
            pg_pool: number("PG_POOL", &self.pg_pool, (cores() * 2).clamp(2, 16), 256)? as u32,
            redis_pool: number("REDIS_POOL", &self.redis_pool, cores().clamp(2, 8), 256)?,
            time_zone: time_zone(&self.time_zone)?,
        })
    }
}

impl RawLedger {
    /// As [`Raw::check`]; what is not asked for is as by default.
    pub fn check(self) -> Result<Stores, String> {
        let auto = "auto".to_owned();
        let (pg_pool, redis_pool, time_zone) = (auto.clone(), auto, "UTC".to_owned());
        RawStores { ledger: self, redis_url: None, pg_pool, redis_pool, time_zone }.check()
    }
}

impl RawLog {
    /// As [`Raw::check`].
    pub fn check(self) -> Result<Log, String> {
        self.log.parse::<tracing_subscriber::EnvFilter>().map_err(|e| format!("LOG is not a level: {e}"))?;
        Ok(Log { directives: self.log, format: self.log_format })
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

fn number(name: &str, text: &str, auto: usize, max: usize) -> Result<usize, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(auto);
    }
    text.parse()
        .ok()
        .filter(|n| (1..=max).contains(n))
        .ok_or_else(|| format!("{name} must be auto or 1 to {max}, not `{text}`"))
}

fn time_zone(name: &str) -> Result<TimeZone, String> {
    if name.eq_ignore_ascii_case("UTC") {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| format!("TIME_ZONE `{name}` is not known here (an IANA name such as Asia/Seoul)"))
}

/// A store's URL without what is secret in it.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "…".into() };
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = tail.split('?').next().unwrap_or("");
    format!("{scheme}://{host}{path}")
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
            (["--head-bytes-max", "70000"], "HEAD_BYTES_MAX"),
            (["--idle-ms", "0"], "IDLE_MS"),
            (["--tls-cert", "a.pem"], "TLS_KEY"),
            (["--tls-key", "a.pem"], "TLS_CERT"),
            (["--cache-likes", "ttl=5"], "CACHE_LIKES"),
            (["--request-line-bytes-max", "20000"], "REQUEST_LINE_BYTES_MAX"),
        ] {
            let error = settings(&arguments).unwrap_err();
            assert!(error.contains(name) && !error.contains('\n'), "{error}");
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
        assert_eq!(without_password("postgres://u:p@h:5/db?password=x"), "postgres://h:5/db");
        assert_eq!(without_password("redis://:p%40@h"), "redis://h");
    }
}
