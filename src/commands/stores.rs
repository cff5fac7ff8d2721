//! From settings to stores: which ledger and which live store, opened and ready.

use std::path::Path;
use std::sync::Arc;

use crate::adapters::memory::MemoryLive;
use crate::adapters::memory_cache::MemoryCache;
use crate::adapters::postgres::{PostgresLedger, PrepareError};
use crate::adapters::redis::{RedisCache, RedisLive};
use crate::adapters::sqlite::SqliteLedger;
use crate::clock::monotonic_ms;
use crate::config::{LedgerKind, LiveKind, Stores, without_password};
use crate::ports::{Ledger, LiveStore, SharedCache};

/// The ledger, its schema in place. A PostgreSQL that is away is no error: events wait in the journal.
pub(super) fn open_ledger(settings: &Stores) -> Result<Arc<dyn Ledger>, String> {
    match &settings.ledger {
        LedgerKind::Postgres(url) => {
            tracing::info!(url = without_password(url), "ledger: PostgreSQL");
            let ledger = PostgresLedger::new(url, settings.pg_pool).map_err(|e| format!("ledger: {e}"))?;
            match ledger.prepare() {
                Ok(()) => {}
                Err(PrepareError::Refused(why)) => return Err(format!("ledger: {why}")),
                Err(PrepareError::Retry(why)) => tracing::warn!("ledger: away ({why}); events wait in the journal"),
            }
            Ok(Arc::new(ledger))
        }
        LedgerKind::Sqlite => {
            let path: &Path = &settings.data_dir.join("ledger.sqlite");
            tracing::info!(path = %path.display(), "ledger: SQLite");
            let ledger = SqliteLedger::open(path).map_err(|e| format!("ledger: {e} ({})", path.display()))?;
            Ok(Arc::new(ledger))
        }
    }
}

/// The ledger as it is: nothing is made where there is none.
pub(super) fn existing_ledger(settings: &Stores) -> Result<Arc<dyn Ledger>, String> {
    match &settings.ledger {
        LedgerKind::Postgres(url) => {
            let ledger = PostgresLedger::new(url, settings.pg_pool).map_err(|e| format!("ledger: {e}"))?;
            Ok(Arc::new(ledger))
        }
        LedgerKind::Sqlite => {
            let path = settings.data_dir.join("ledger.sqlite");
            if !path.is_file() {
                return Err(format!("there is no ledger at {} (DATA_DIR, or DATABASE_URL)", path.display()));
            }
            let ledger = SqliteLedger::open(&path).map_err(|e| format!("ledger: {e} ({})", path.display()))?;
            Ok(Arc::new(ledger))
        }
    }
}

type LiveAndCache = (Arc<dyn LiveStore>, Arc<dyn SharedCache>);

/// The live store, whose warnings are logged, and the cache that is shared with whoever shares it.
pub(super) fn open_live(settings: &Stores) -> Result<LiveAndCache, String> {
    let (live, cache): LiveAndCache = match &settings.live {
        LiveKind::Redis(url) => {
            tracing::info!(url = without_password(url), "live store: Redis");
            let live = RedisLive::new(url, settings.redis_pool, settings.time_zone.clone());
            let live = live.map_err(|e| format!("live store: {e}"))?;
            let cache = RedisCache::new(&live, settings.redis_pool);
            (Arc::new(live), Arc::new(cache))
        }
        LiveKind::Memory => {
            tracing::info!("live store: memory, built from the ledger at each start");
            (Arc::new(MemoryLive::new(settings.time_zone.clone())), Arc::new(MemoryCache::new(monotonic_ms)))
        }
    };
    for warning in live.warnings() {
        tracing::warn!("live store: {warning}");
    }
    Ok((live, cache))
}
