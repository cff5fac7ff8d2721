//! Exactly once, by model: whatever happens to journals, sinks and stores in between, every effect of every record is
//! there once.
//!
//! Random interleavings of appends, steps of the sinks, lost replies, crashes whose earlier lives go on, folds, rebuilds,
//! lost live stores and days that pass, of one to three instances on one pair of stores, are compared with a model that
//! only lists what was stored. `SEED=… ITERATIONS=1` replays one; `ITERATIONS=…` says how many, `STEPS=…` how long.

#![allow(clippy::print_stdout, reason = "what was run is for whoever reads the test's output")]

#[path = "support/faulty.rs"]
mod faulty;
#[path = "exactly_once/instance.rs"]
mod instance;
#[path = "support/ledgers.rs"]
mod ledgers;
#[path = "exactly_once/model.rs"]
mod model;
#[path = "exactly_once/records.rs"]
mod records;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/postgres.rs"]
mod server;
#[path = "exactly_once/stores.rs"]
mod stores;
#[path = "exactly_once/storm.rs"]
mod storm;
#[path = "support/tables.rs"]
mod tables;
#[path = "exactly_once/world.rs"]
mod world;

use std::time::Instant;

use stores::{LedgerKind, LiveKind, Stores};
use world::World;

const ITERATIONS: u64 = 8;
const STEPS: u64 = 120;
const STORMS: u64 = 1;
const REQUESTS: u64 = 150;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Runs so many seeds over one pair of stores.
fn explore(ledger: LedgerKind, live: LiveKind, iterations: u64) {
    let Some(mut stores) = Stores::new(ledger, live) else { return };
    let first = setting("SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let (iterations, steps) = (setting("ITERATIONS").unwrap_or(iterations), setting("STEPS").unwrap_or(STEPS));
    let begun = Instant::now();
    let mut records = 0;
    println!("{ledger:?} + {live:?}: SEED={first} ITERATIONS={iterations} STEPS={steps}");
    for seed in first..first + iterations {
        let mut world = World::new(&mut stores, seed);
        (0..steps).for_each(|_| world.step());
        world.settle_and_check();
        records += world.applied();
    }
    println!("{ledger:?} + {live:?}: {iterations} seeds, {records} records, {:?}", begun.elapsed());
}

#[test]
fn every_effect_is_there_once_in_postgres_and_redis() {
    explore(LedgerKind::Postgres, LiveKind::Redis, ITERATIONS);
}

#[test]
fn every_effect_is_there_once_in_postgres_and_memory() {
    explore(LedgerKind::Postgres, LiveKind::Memory, ITERATIONS);
}

#[test]
fn every_effect_is_there_once_in_sqlite_and_redis() {
    explore(LedgerKind::Sqlite, LiveKind::Redis, ITERATIONS);
}

#[test]
fn every_effect_is_there_once_in_sqlite_and_memory() {
    explore(LedgerKind::Sqlite, LiveKind::Memory, ITERATIONS);
}

/// The same with the sinks on their own threads.
fn rage(ledger: LedgerKind, live: LiveKind) {
    let Some(mut stores) = Stores::new(ledger, live) else { return };
    let first = setting("SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let (storms, requests) = (setting("STORMS").unwrap_or(STORMS), setting("REQUESTS").unwrap_or(REQUESTS));
    println!("{ledger:?} + {live:?}: SEED={first} STORMS={storms} REQUESTS={requests}");
    let begun = Instant::now();
    let records: usize = (first..first + storms).map(|seed| storm::storm(&mut stores, seed, requests as usize)).sum();
    println!("{ledger:?} + {live:?}: {storms} storms, {records} records, {:?}", begun.elapsed());
}

#[test]
fn a_storm_over_sinks_on_their_threads_leaves_every_effect_once() {
    for ledger in [LedgerKind::Postgres, LedgerKind::Sqlite] {
        for live in [LiveKind::Redis, LiveKind::Memory] {
            rage(ledger, live);
        }
    }
}
