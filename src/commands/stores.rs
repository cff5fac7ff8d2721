//! From settings to stores: which ledger and which live store, opened and ready.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::Failure;
use crate::adapters::memory::MemoryLive;
use crate::adapters::memory_cache::MemoryCache;
use crate::adapters::postgres::{self, Owner, PostgresLedger, PrepareError};
use crate::adapters::redis::{self, RedisCache, RedisLive};
use crate::adapters::sqlite::SqliteLedger;
use crate::clock::monotonic_ms;
use crate::config::{LedgerKind, LiveKind, Stores, without_password};
use crate::ports::{Ledger, LiveStore, SharedCache};

/// Reads the URLs of the stores and connects to nothing. The error names the setting.
pub(super) fn check_urls(settings: &Stores) -> Result<(), Failure> {
    if let LedgerKind::Postgres(url) = &settings.ledger {
        postgres::check_url(url).map_err(|why| Failure::Usage(format!("DATABASE_URL: {why}")))?;
    }
    if let LiveKind::Redis(url) = &settings.live {
        redis::check_url(url).map_err(|why| Failure::Usage(format!("REDIS_URL: {why}")))?;
    }
    Ok(())
}

/// A ledger that was examined and may be opened.
pub(super) enum Examined {
    Postgres(PostgresLedger),
    Sqlite(PathBuf),
}

/// Refuses a ledger that is not ours, before anything is written. An unreachable PostgreSQL is no error: events wait in
/// the journal.
pub(super) fn examine_ledger(settings: &Stores) -> Result<Examined, Failure> {
    check_urls(settings)?;
    match &settings.ledger {
        LedgerKind::Postgres(url) => {
            tracing::info!(url = without_password(url), "ledger: PostgreSQL");
            if let Some(warning) = postgres::url_warning(url) {
                tracing::warn!("{warning}");
            }
            let ledger = PostgresLedger::new(url, settings.pg_pool).map_err(|e| format!("ledger: {e}"))?;
            match ledger.prepare() {
                Ok(()) => {}
                Err(PrepareError::Refused(why)) => return Err(Failure::Failed(format!("ledger: {why}"))),
                Err(PrepareError::Credentials(why)) => return Err(Failure::Usage(format!("DATABASE_URL: {why}"))),
                // The ledger's follower says so, for as long as it lasts.
                Err(PrepareError::Retry(_)) => {}
            }
            Ok(Examined::Postgres(ledger))
        }
        LedgerKind::Sqlite => {
            let path = settings.data_dir.join("ledger.sqlite");
            tracing::info!(path = %path.display(), "ledger: SQLite");
            SqliteLedger::examine(&path).map_err(|e| format!("ledger: {e} ({})", path.display()))?;
            Ok(Examined::Sqlite(path))
        }
    }
}

impl Examined {
    /// The ledger, its schema in place if its server answers.
    pub(super) fn open(self) -> Result<Arc<dyn Ledger>, Failure> {
        Ok(match self {
            Examined::Postgres(ledger) => Arc::new(ledger),
            Examined::Sqlite(path) => open_sqlite(&path)?,
        })
    }
}

/// The ledger as it is: nothing is made where there is none.
pub(super) fn existing_ledger(settings: &Stores) -> Result<Arc<dyn Ledger>, Failure> {
    check_urls(settings)?;
    match &settings.ledger {
        LedgerKind::Postgres(url) => {
            let ledger = PostgresLedger::new(url, settings.pg_pool).map_err(|e| format!("ledger: {e}"))?;
            match ledger.owner() {
                Ok(Owner::Nobody) => return Err("ledger: the database is empty".to_owned().into()),
                Ok(owner) => postgres::refusal(&owner).map_or(Ok(()), |why| Err(format!("ledger: {why}")))?,
                // The first page says it, after some tries.
                Err(_) => {}
            }
            Ok(Arc::new(ledger))
        }
        LedgerKind::Sqlite => {
            let path = settings.data_dir.join("ledger.sqlite");
            if !path.is_file() {
                let why = format!("there is no ledger at {} (DATA_DIR, or DATABASE_URL)", path.display());
                return Err(why.into());
            }
            open_sqlite(&path)
        }
    }
}

fn open_sqlite(path: &Path) -> Result<Arc<dyn Ledger>, Failure> {
    let ledger = SqliteLedger::open(path).map_err(|e| format!("ledger: {e} ({})", path.display()))?;
    Ok(Arc::new(ledger))
}

type LiveAndCache = (Arc<dyn LiveStore>, Arc<dyn SharedCache>);

pub(super) fn open_live(settings: &Stores) -> Result<LiveAndCache, Failure> {
    Ok(match &settings.live {
        LiveKind::Redis(url) => {
            tracing::info!(url = without_password(url), "live store: Redis");
            let live = RedisLive::new(url, settings.redis_pool, settings.time_zone.clone());
            let live = live.map_err(|e| format!("live store: {e}"))?;
            // If it does not answer, its follower says so, for as long as that lasts.
            let warnings = live.examine().map_err(|why| Failure::Usage(format!("REDIS_URL: {why}")))?;
            warnings.iter().for_each(|warning| tracing::warn!("live store: {warning}"));
            let cache = RedisCache::new(&live, settings.redis_pool);
            (Arc::new(live), Arc::new(cache))
        }
        LiveKind::Memory => {
            tracing::info!("live store: memory, built from the ledger at each start");
            (Arc::new(MemoryLive::new(settings.time_zone.clone())), Arc::new(MemoryCache::new(monotonic_ms)))
        }
    })
}
