//! The program: settings, stores, journal, sinks, server; then waits for the signal and puts everything down in order.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use clap::error::ErrorKind;
use event_tracker::adapters::memory::MemoryLive;
use event_tracker::adapters::postgres::{PostgresLedger, PrepareError};
use event_tracker::adapters::redis::RedisLive;
use event_tracker::adapters::sqlite::SqliteLedger;
use event_tracker::api::{Api, not_durable};
use event_tracker::app::App;
use event_tracker::clock::Clock;
use event_tracker::config::{CommandLine, LedgerKind, LiveKind, LogFormat, Settings, without_password};
use event_tracker::http::{Config, Server};
use event_tracker::journal::Journal;
use event_tracker::limits::{BATCH_RECORDS_MAX, SHUTDOWN_MS, SINK_STOP_MS};
use event_tracker::metrics::Metrics;
use event_tracker::ports::{Ledger, LiveStore};
use event_tracker::runtime::Lane;
use event_tracker::sinks::{Handover, LedgerSink, LiveSink, SinkStatus};
use event_tracker::{process, runtime, shutdown};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long sinks may take for the batch at hand once the server has stopped; the rest waits in the journal.
const SINK_STOP_WAIT: Duration = Duration::from_millis(SINK_STOP_MS);

fn main() -> ExitCode {
    let settings = match CommandLine::try_parse().map_err(|e| one_line(&e)).and_then(CommandLine::settings) {
        Ok(settings) => settings,
        Err(line) => {
            eprintln!("event-tracker: {line}");
            return ExitCode::from(2);
        }
    };
    start_log(&settings);
    match serve(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            tracing::error!("{line}");
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: &Settings) -> Result<(), String> {
    process::report_panics();
    let connections_max = process::connections_max(settings.connections_max);
    runtime::start(settings.workers, settings.pin_workers);
    // Bound first: a second server on this port ends here, before it touches a file or a store.
    let config = Config { listen: settings.listen, connections_max, on_failed: not_durable, ..Config::default() };
    let server = Server::bind(config).map_err(|e| e.to_string())?;
    let journal = open_journal(settings)?;
    let ledger = open_ledger(settings)?;
    let live = open_live(settings)?;
    let (app, sinks) = start_sinks(settings, journal, ledger, live);
    let listening = server.local_addr();
    let api = Api { app: app.clone(), metrics: Metrics::new(app.clone(), server.stats()) };
    let running = server.start(move |request, exchange| api.handle(request, exchange));
    tracing::info!(workers = settings.workers, connections_max, ack = ?settings.ack, "listening on http://{listening}");
    shutdown::wait().map_err(|e| format!("cannot wait for signals: {e}"))?;
    if !running.stop(Duration::from_millis(SHUTDOWN_MS)) {
        tracing::warn!("some connections were cut: they did not end in time");
    }
    app.journal.close();
    stop_sinks(&app, sinks);
    tracing::info!(position = app.journal.end_position(), "stopped");
    Ok(())
}

fn open_journal(settings: &Settings) -> Result<Journal, String> {
    let directory = settings.data_dir.join("journal");
    let open =
        Journal::open(&directory, settings.allow_tmpfs, settings.workers, settings.journal.clone(), Clock::System);
    open.map_err(|e| format!("{e} ({})", directory.display()))
}

fn open_ledger(settings: &Settings) -> Result<Arc<dyn Ledger>, String> {
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

fn open_live(settings: &Settings) -> Result<Arc<dyn LiveStore>, String> {
    let live: Arc<dyn LiveStore> = match &settings.live {
        LiveKind::Redis(url) => {
            tracing::info!(url = without_password(url), "live store: Redis");
            let live = RedisLive::new(url, settings.redis_pool, settings.time_zone.clone());
            Arc::new(live.map_err(|e| format!("live store: {e}"))?)
        }
        LiveKind::Memory => {
            tracing::info!("live store: memory, built from the ledger at each start");
            Arc::new(MemoryLive::new(settings.time_zone.clone()))
        }
    };
    for warning in live.warnings() {
        tracing::warn!("live store: {warning}");
    }
    Ok(live)
}

fn start_sinks(
    settings: &Settings,
    journal: Journal,
    ledger: Arc<dyn Ledger>,
    live: Arc<dyn LiveStore>,
) -> (Arc<App>, Vec<JoinHandle<()>>) {
    let app = Arc::new(App {
        journal: Arc::new(journal),
        ledger_lane: Lane::start("ledger", settings.pg_pool as usize),
        live_lane: Lane::start("live", settings.redis_pool),
        ledger,
        live,
        ledger_status: Arc::new(SinkStatus::new("ledger")),
        live_status: Arc::new(SinkStatus::new("live")),
        clock: Clock::System,
        ack: settings.ack,
        retention_ms: settings.retention_ms,
        counters: Default::default(),
    });
    let handover = Arc::new(Handover::default());
    let follower = Arc::new(AtomicU64::new(0));
    let ledger_sink = LedgerSink {
        journal: app.journal.clone(),
        ledger: app.ledger.clone(),
        handover: handover.clone(),
        status: app.ledger_status.clone(),
        clock: app.clock.clone(),
        follower: follower.clone(),
        records_max: AtomicUsize::new(BATCH_RECORDS_MAX),
    };
    let live_sink = LiveSink {
        journal: app.journal.clone(),
        ledger: app.ledger.clone(),
        live: app.live.clone(),
        handover,
        status: app.live_status.clone(),
        clock: app.clock.clone(),
        follower,
    };
    (app, vec![ledger_sink.spawn(), live_sink.spawn()])
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

fn start_log(settings: &Settings) {
    // The runtime reports each socket at `info`: that is `debug` to us.
    let filter: tracing_subscriber::EnvFilter = format!("may=warn,{}", settings.log).parse().unwrap_or_default();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match settings.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// A wrong flag in one line; help and version are printed as they are, and end the program.
fn one_line(error: &clap::Error) -> String {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        error.exit();
    }
    let text = error.to_string();
    let sentences = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_usage(line));
    let line = sentences.filter(|line| !line.starts_with("For more")).collect::<Vec<_>>().join(" ");
    format!("{} (--help tells more)", line.trim_start_matches("error: "))
}

fn is_usage(line: &str) -> bool {
    line.starts_with("Usage:") || line.starts_with("event-tracker ")
}
