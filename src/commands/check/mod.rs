//! `check`: what would keep a server with these settings from its work, said before it starts. Touches nothing that
//! lasts, and prints no password.

mod directory;
mod findings;
mod machine;
mod stores;

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::stores::check_urls;
use crate::config::{LedgerKind, LiveKind, Raw, Settings, without_password};
use findings::{Finding, Findings, Level};

/// The settings of `serve`, and how to answer.
#[derive(Clone, Debug, Args)]
// It salvages nothing.
#[command(mut_arg("salvage", |salvage| salvage.hide(true)))]
pub(super) struct Options {
    /// Answer as JSON
    // Before the settings, of which the last ones have a heading of their own.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Raw,
}

pub(super) fn run(options: Options) -> Result<(), Failure> {
    let settings = options.settings.check().map_err(Failure::Usage)?;
    check_urls(&settings.stores)?;
    let mut findings = Findings::default();
    about_settings(&mut findings, &settings);
    let is_running = directory::check(&mut findings, &settings);
    match &settings.stores.ledger {
        LedgerKind::Postgres(url) => stores::check_postgres(&mut findings, url, settings.stores.pg_pool),
        LedgerKind::Sqlite => stores::check_sqlite(&mut findings, &settings.stores.data_dir.join("ledger.sqlite")),
    }
    if let LiveKind::Redis(url) = &settings.stores.live {
        stores::check_redis(&mut findings, url);
    }
    machine::check(&mut findings, &settings, is_running);
    print(&findings, options.json).map_err(|error| Failure::Failed(format!("standard output: {error}")))?;
    match findings.failed() {
        0 => Ok(()),
        failed => Err(Failure::Failed(format!("{failed} of {} checks failed", findings.0.len()))),
    }
}

fn about_settings(findings: &mut Findings, settings: &Settings) {
    let stores = &settings.stores;
    let ledger = match &stores.ledger {
        LedgerKind::Postgres(url) => without_password(url),
        LedgerKind::Sqlite => "SQLite in DATA_DIR".to_owned(),
    };
    let live = match &stores.live {
        LiveKind::Redis(url) => without_password(url),
        LiveKind::Memory => "memory".to_owned(),
    };
    findings.ok(
        "settings",
        format!(
            "ledger {ledger}, live store {live}, DATA_DIR {}, WORKERS {}, PG_POOL {}, REDIS_POOL {}",
            stores.data_dir.display(),
            settings.workers,
            stores.pg_pool,
            stores.redis_pool
        ),
    );
    let keys = &settings.access.rules.keys;
    let is_inside = settings.http.listen.ip().is_loopback();
    let counted = format!(
        "INGEST_KEYS {}, WRITE_KEYS {}, READ_KEYS {}, ADMIN_KEYS {}",
        keys.ingest.len(),
        keys.write.len(),
        keys.read.len(),
        keys.admin.len()
    );
    let good = match keys.cover_everything() {
        true => counted.clone(),
        false => format!("{counted}: what has none is open to everybody on this machine"),
    };
    let bad = format!("{counted}: whoever reaches {} may do what has none", settings.http.listen);
    findings.expect(keys.cover_everything() || is_inside, Level::Warn, "keys", &good, bad);
    settings.access.warnings.iter().for_each(|warning| findings.warn("keys", warning));
    if let Some(warning) = settings.http.tls.as_ref().and_then(|tls| tls.warning()) {
        findings.warn("TLS", warning);
    }
}

fn print(findings: &Findings, as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let report = json!({"failed": findings.failed(), "findings": findings.0});
        serde_json::to_writer_pretty(&mut out, &report)?;
        return writeln!(out);
    }
    for Finding { level, about, message } in &findings.0 {
        let level = match level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        writeln!(out, "{level}  {about}: {message}")?;
    }
    out.flush()
}
