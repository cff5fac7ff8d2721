//! The stores: are they there, are they what we need, may we do what we must.

use std::path::Path;
use std::time::Duration;

use super::findings::{Findings, Level};
use crate::adapters::postgres::{Owner, inspect as postgres, refusal, url_warning};
use crate::adapters::redis::inspect as redis;
use crate::adapters::sqlite::inspect as sqlite;
use crate::clock::Clock;
use crate::config::without_password;
use crate::ports::StoreError;

/// The sink's connection, and the one that brings the schema up to date at the start.
const OTHER_CONNECTIONS: i64 = 2;
/// Clocks that differ by more give one event two times.
const CLOCK_DIFFERENCE_MS: i64 = 1_000;
/// How long a SQLite file is looked at.
const QUICK_CHECK_WAIT: Duration = Duration::from_secs(30);

pub(super) fn check_postgres(findings: &mut Findings, url: &str, pool: u32) {
    const ABOUT: &str = "PostgreSQL";
    if let Some(warning) = url_warning(url) {
        findings.warn(ABOUT, warning);
    }
    let found = match postgres::inspect(url) {
        Ok(found) => found,
        Err(StoreError::Fatal(why)) => return findings.fail(ABOUT, why),
        Err(error) => {
            let message = format!("{error}; start it, or mend DATABASE_URL ({})", without_password(url));
            return findings.fail(ABOUT, message);
        }
    };
    let good = format!(
        "{} at {}, answers in {:.1} ms",
        found.version_name,
        without_password(url),
        found.round_trip.as_secs_f64() * 1_000.0
    );
    let bad = format!("{} is too old: upgrade the server to 15 or newer", found.version_name);
    findings.expect(found.version >= postgres::OLDEST_SERVER, Level::Fail, ABOUT, &good, bad);
    let bad = format!(
        "the encoding of {} is {}: CREATE DATABASE events ENCODING 'UTF8' TEMPLATE template0",
        found.database, found.encoding
    );
    findings.expect(found.encoding == "UTF8", Level::Fail, ABOUT, "encoding UTF8", bad);
    about_schema(findings, ABOUT, refusal(&found.owner), found.owner == Owner::Nobody, postgres::KNOWN_SCHEMA.into());
    about_rights(findings, &found);
    let bad = "it is a standby that takes no writes: point DATABASE_URL to the primary";
    findings.expect(!found.is_standby, Level::Fail, ABOUT, "takes writes", bad);
    about_durability(findings, &found);
    let wanted = i64::from(pool) + OTHER_CONNECTIONS;
    let free = found.connections_max - found.connections_now;
    let text = format!(
        "{wanted} connections wanted (PG_POOL {pool} and {OTHER_CONNECTIONS}), {free} of {} free",
        found.connections_max
    );
    let level = if found.connections_max < wanted { Level::Fail } else { Level::Warn };
    findings.expect(free >= wanted, level, ABOUT, &text, format!("{text}: lower PG_POOL or raise max_connections"));
    about_clock(findings, ABOUT, found.clock_ms, found.round_trip);
}

/// Compares a server's clock, which has just been asked for, with ours.
fn about_clock(findings: &mut Findings, about: &'static str, clock_ms: i64, round_trip: Duration) {
    let half_way = i64::try_from(round_trip.as_millis() / 2).unwrap_or(0);
    let difference = clock_ms + half_way - Clock::System.now_ms();
    let text = format!("its clock differs from ours by {difference} ms");
    let bad = format!("{text}: run NTP on both machines");
    findings.expect(difference.abs() <= CLOCK_DIFFERENCE_MS, Level::Warn, about, &text, bad);
}

fn about_schema(findings: &mut Findings, about: &'static str, refused: Option<String>, is_empty: bool, known: i64) {
    match refused {
        Some(why) => findings.fail(about, why),
        None if is_empty => findings.ok(about, format!("no schema yet: version {known} is made at the first start")),
        None => findings.ok(about, format!("schema {known}")),
    }
}

fn about_rights(findings: &mut Findings, found: &postgres::Inspection) {
    let bad = format!(
        "no right to create tables, which partitions need: GRANT CREATE ON SCHEMA public TO our role, in {}",
        found.database
    );
    findings.expect(found.may_create, Level::Fail, "PostgreSQL", "may create tables and partitions", bad);
    if matches!(found.owner, Owner::Us(_)) {
        let bad = "the table events belongs to another role, so that no partition can be attached: \
                   ALTER TABLE events OWNER TO our role";
        findings.expect(found.may_alter, Level::Fail, "PostgreSQL", "owns its tables", bad);
    }
}

fn about_durability(findings: &mut Findings, found: &postgres::Inspection) {
    let mut loose = Vec::new();
    if !found.fsync {
        loose.push("fsync is off: a crash of the machine may ruin the database");
    }
    if !found.full_page_writes {
        loose.push("full_page_writes is off: a torn page may ruin it");
    }
    if found.synchronous_commit == "off" {
        loose.push("synchronous_commit is off; our connections set it to on");
    }
    if loose.is_empty() {
        findings.ok("PostgreSQL", "fsync, full_page_writes and synchronous_commit are on");
    }
    for line in loose {
        findings.warn("PostgreSQL", line);
    }
}

pub(super) fn check_sqlite(findings: &mut Findings, path: &Path) {
    const ABOUT: &str = "SQLite";
    if !path.exists() {
        return findings.ok(ABOUT, format!("{} is made at the first start", path.display()));
    }
    let found = match sqlite::inspect(path, QUICK_CHECK_WAIT) {
        Ok(found) => found,
        Err(error) => return findings.fail(ABOUT, format!("{}: {error}; restore a backup", path.display())),
    };
    let is_empty = found.owner == sqlite::Owner::Nobody;
    about_schema(findings, ABOUT, sqlite::refusal(&found.owner), is_empty, sqlite::KNOWN_SCHEMA);
    match found.damage {
        Some(damage) => {
            let bad = format!("{} is damaged ({}): restore a backup", path.display(), damage.join("; "));
            findings.expect(damage.is_empty(), Level::Fail, ABOUT, "quick_check finds no damage", bad);
        }
        None => {
            findings.warn(ABOUT, format!("quick_check did not come to its end in {} s", QUICK_CHECK_WAIT.as_secs()))
        }
    }
}

pub(super) fn check_redis(findings: &mut Findings, url: &str) {
    const ABOUT: &str = "Redis";
    let found = match redis::inspect(url) {
        Ok(found) => found,
        Err(error) => {
            let message = format!("{error}; start it, or mend REDIS_URL ({})", without_password(url));
            return findings.fail(ABOUT, message);
        }
    };
    findings.ok(ABOUT, format!("{} at {}", found.version_name, without_password(url)));
    for warning in found.warnings {
        findings.warn(ABOUT, warning);
    }
    if found.is_info_refused {
        findings.warn(ABOUT, "its user may not run INFO, so eviction, cluster mode and replication are not checked");
    }
    if let Some((clock_ms, round_trip)) = found.clock {
        about_clock(findings, ABOUT, clock_ms, round_trip);
    }
    match found.script_error {
        None => findings.ok(ABOUT, "runs our scripts"),
        Some(error) => findings
            .fail(ABOUT, format!("does not run our scripts ({error}): Redis 7 or Valkey, and the right to EVAL")),
    }
    if found.is_cluster {
        findings.warn(
            ABOUT,
            "cluster mode: REDIS_URL must name the node that has the slot of {t0}, or the live store stands still",
        );
    }
    let bad = "it is a replica that takes no writes: point REDIS_URL to the master";
    findings.expect(!found.is_replica, Level::Fail, ABOUT, "takes writes", bad);
}
