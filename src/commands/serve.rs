//! `serve`: checks the data directory, answers health, opens journal and stores, then serves until a signal.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::data_dir;
use super::failure::Failure;
use super::stores::{check_urls, examine_ledger, open_live};
use crate::api::{Access, Api, not_durable, starting};
use crate::app::{App, Caching};
use crate::clock::Clock;
use crate::config::{AccessSettings, Settings};
use crate::events::set_page_rules;
use crate::http::{Config, Server, Tls};
use crate::journal::{Journal, Lock, OpenError, ReadError};
use crate::limits::{BATCH_RECORDS_MAX, HEARTBEAT_MISSES_MAX, HEARTBEAT_MS, SINK_STOP_MS};
use crate::live::Calendar;
use crate::metrics::Metrics;
use crate::ports::{Ledger, LiveStore, SharedCache};
use crate::runtime::Lane;
use crate::shutdown::Stop;
use crate::sinks::{Handover, Housekeeping, LedgerSink, LiveSink, SinkStatus};
use crate::{process, runtime, shutdown};

/// How long sinks may take for the batch at hand once the server has stopped; the rest waits in the journal.
const SINK_STOP_WAIT: Duration = Duration::from_millis(SINK_STOP_MS);

/// Threads beside workers and readers: of the journal, the sinks, the caches, the acceptor and the runtime's timers.
const OTHER_THREADS: usize = 12;

/// How a start ended early.
enum Ended {
    Stopped,
    Failed(Failure),
}

impl<F: Into<Failure>> From<F> for Ended {
    fn from(why: F) -> Ended {
        Ended::Failed(why.into())
    }
}

/// Ends a start between two of its steps if a stop was asked for.
fn go_on() -> Result<(), Ended> {
    if shutdown::is_under_way() { Err(Ended::Stopped) } else { Ok(()) }
}

/// Serves until a signal. The error is one line for the log.
pub(super) fn run(settings: &Settings, stop: Stop) -> Result<(), Failure> {
    set_page_rules(settings.pages);
    process::report_panics();
    watch_hangups(settings.http.tls.clone())?;
    check_urls(&settings.stores)?;
    let directory = &settings.stores.data_dir;
    data_dir::check(directory)?;
    let journal = directory.join("journal");
    // The journal takes the lock itself. Asked here, too, so that the port of the other server is left alone.
    if Lock::is_held(&journal).map_err(|error| format!("{}: {error}", journal.display()))? {
        return Err(format!("{} ({})", OpenError::Locked, journal.display()).into());
    }
    data_dir::keep_private(directory);
    let connections_max = process::connections_max(settings.http.connections_max);
    let readers = settings.stores.pg_pool as usize + settings.stores.redis_pool;
    process::has_threads(settings.workers + readers + OTHER_THREADS)?;
    runtime::start(settings.workers, settings.pin_workers);
    runtime::watch(Duration::from_millis(HEARTBEAT_MS), HEARTBEAT_MISSES_MAX);
    // Bound first: a second server on this port ends here, before it touches a file or a store.
    let server = bind(settings, connections_max)?;
    let (listening, stats) = (server.local_addr(), server.stats());
    let scheme = if settings.http.tls.is_some() { "https" } else { "http" };
    tracing::info!("starting on {scheme}://{listening}: health is answered, everything else is 503 until it is ready");
    let api: Arc<OnceLock<Api>> = Arc::default();
    let serving = api.clone();
    let running = server.start(move |request, exchange| match serving.get() {
        Some(api) => api.handle(request, exchange),
        None => starting(request, exchange),
    });
    let started = match open(settings) {
        Ok((app, sinks)) => {
            let metrics = Metrics::new(app.clone(), stats);
            let access = access(settings, listening);
            let made = Api { app: app.clone(), metrics, access, exports: Arc::default(), streams: Arc::default() };
            // Set once: this is the only place.
            let _ = api.set(made);
            tracing::info!(workers = settings.workers, connections_max, ack = ?settings.ack, "listening on {scheme}://{listening}");
            stop.wait();
            Some((app, sinks))
        }
        Err(Ended::Stopped) => None,
        Err(Ended::Failed(why)) => return Err(why),
    };
    if !running.stop(Duration::from_millis(settings.http.shutdown_ms)) {
        tracing::warn!("some connections were cut: they did not end in time");
    }
    let Some((app, sinks)) = started else {
        tracing::info!("stopped before it was ready");
        return Ok(());
    };
    app.journal.close();
    stop_sinks(&app, sinks);
    tracing::info!(position = app.journal.end_position(), "stopped");
    Ok(())
}

fn bind(settings: &Settings, connections_max: usize) -> Result<Server, String> {
    let config = Config {
        connections_max,
        on_failed: not_durable,
        private_paths: &["/api/search/recent/", "/api/users/"],
        ..settings.http.clone()
    };
    Server::bind(config).map_err(|error| format!("{error}; choose another LISTEN"))
}

/// The stores and the threads that follow, one step after the other.
fn open(settings: &Settings) -> Result<(Arc<App>, Vec<JoinHandle<()>>), Ended> {
    go_on()?;
    // Before the journal: a store that is refused gets no segment.
    let ledger = examine_ledger(&settings.stores)?;
    go_on()?;
    let (live, cache) = open_live(&settings.stores)?;
    go_on()?;
    let journal = open_journal(settings)?;
    // A directory that this process made is private; one that an operator made may be open to others.
    if let Some(warning) = data_dir::warning(&settings.stores.data_dir) {
        tracing::warn!("{warning}");
    }
    go_on()?;
    let ledger = ledger.open()?;
    go_on()?;
    check_history(&journal, &*ledger)?;
    go_on()?;
    Ok(start_sinks(settings, journal, ledger, live, &cache))
}

/// Who may ask; warns about what is open.
fn access(settings: &Settings, listening: SocketAddr) -> Access {
    let AccessSettings { rules, warnings, .. } = settings.access.clone();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let is_local = listening.ip().to_canonical().is_loopback();
    if !rules.keys.cover_everything() && !is_local {
        let keys = &rules.keys;
        tracing::warn!("a right has no keys ({keys:?}): anyone who can reach {listening} has this right");
    }
    Access::new(rules, is_local)
}

/// Reads the certificate again at each SIGHUP, which programs that renew certificates send. Without
/// TLS it is caught, too: a terminal that closes, or a reload of all services, must not end the server.
fn watch_hangups(tls: Option<Arc<Tls>>) -> Result<(), String> {
    if let Some(warning) = tls.as_ref().and_then(|tls| tls.warning()) {
        tracing::warn!("{warning}");
    }
    let reload = move || match tls.as_ref().map(|tls| tls.reload()) {
        None => tracing::info!("SIGHUP: there is no certificate to read again (TLS_CERT is not set)"),
        Some(Ok(())) => tracing::info!("the certificate was read again: new connections get it"),
        Some(Err(error)) => tracing::error!("the certificate stays as it was: {error}"),
    };
    process::on_hangup(reload).map_err(|e| format!("cannot wait for signals: {e}"))?;
    shutdown::release_hangups();
    Ok(())
}

fn open_journal(settings: &Settings) -> Result<Journal, String> {
    let directory = settings.stores.data_dir.join("journal");
    if settings.salvage && directory.exists() {
        super::journal::salvage_at_start(&directory, settings.allow_tmpfs)?;
    }
    let open =
        Journal::open(&directory, settings.allow_tmpfs, settings.workers, settings.journal.clone(), Clock::System);
    open.map_err(|e| format!("{e} ({})", directory.display()))
}

/// Before anybody is answered: the ledger must not know another history of this journal. One that is away is asked by
/// its sink later, which then makes the journal refuse.
fn check_history(journal: &Journal, ledger: &dyn Ledger) -> Result<(), String> {
    let Ok(Some(at)) = ledger.watermark(journal.stream()) else { return Ok(()) };
    match journal.reader(at) {
        Err(why @ (ReadError::Ahead { .. } | ReadError::Foreign(_))) => Err(format!("journal: {why}")),
        _ => Ok(()),
    }
}

fn start_sinks(
    settings: &Settings,
    journal: Journal,
    ledger: Arc<dyn Ledger>,
    live: Arc<dyn LiveStore>,
    cache: &Arc<dyn SharedCache>,
) -> (Arc<App>, Vec<JoinHandle<()>>) {
    let handover = Arc::new(Handover::default());
    let app = Arc::new(App {
        journal: Arc::new(journal),
        waiting: handover.waiting.clone(),
        ledger_lane: Lane::start("ledger", settings.stores.pg_pool as usize),
        live_lane: Lane::start("live", settings.stores.redis_pool),
        // Half of the ledger's pool: reads that are not cached keep the other half.
        caching: Caching::start(
            cache,
            settings.cache,
            settings.stores.redis_pool,
            (settings.stores.pg_pool as usize).div_ceil(2),
        ),
        ledger,
        live,
        ledger_status: Arc::new(SinkStatus::new("ledger")),
        live_status: Arc::new(SinkStatus::new("live")),
        health: Default::default(),
        clock: Clock::System,
        calendar: Calendar::new(settings.stores.time_zone.clone()),
        ack: settings.ack,
        retention_ms: settings.retention_ms,
        event_age_ms: settings.event_age_ms,
        counters: Default::default(),
    });
    let ledger_sink = Arc::new(LedgerSink {
        journal: app.journal.clone(),
        ledger: app.ledger.clone(),
        handover: handover.clone(),
        status: app.ledger_status.clone(),
        clock: app.clock.clone(),
        zone: settings.stores.time_zone.clone(),
        retention_days: settings.retention_ms / 86_400_000,
        live: app.live_status.clone(),
        records_max: AtomicUsize::new(BATCH_RECORDS_MAX),
    });
    let live_sink = Arc::new(LiveSink {
        journal: app.journal.clone(),
        ledger: app.ledger.clone(),
        live: app.live.clone(),
        handover,
        status: app.live_status.clone(),
        clock: app.clock.clone(),
    });
    (app, vec![Housekeeping::spawn(ledger_sink.clone()), ledger_sink.spawn(), live_sink.spawn()])
}

fn stop_sinks(app: &App, sinks: Vec<JoinHandle<()>>) {
    app.ledger_status.stop();
    app.live_status.stop();
    let deadline = Instant::now() + SINK_STOP_WAIT;
    for sink in sinks {
        while !sink.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if sink.is_finished() && sink.join().is_err() {
            tracing::error!("a sink's thread has panicked");
        }
    }
}
