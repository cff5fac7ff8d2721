//! Exactly once, by model: whatever happens to journals, sinks and stores in between, every effect of every record is
//! there once.
//!
//! Random interleavings of appends, steps of the sinks, lost replies, crashes whose earlier lives go on, folds,
//! rebuilds, lost live stores and days that pass, of one to three instances on one pair of stores, are compared with a
//! model that only lists what was stored. `SEED=… ITERATIONS=1` replays one; `ITERATIONS=…` says how many, `STEPS=…` how long.

#![allow(clippy::print_stdout, reason = "what was run is for whoever reads the test's output")]

mod instance;
mod records;
mod stores;
mod storm;
mod tombstones;
mod world;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::bench::{Ledger, Live, MAIN_PAIRS, MIXED_PAIRS};
use crate::support::faulty::{Call, Fault};
use crate::support::ledgers::click;
use crate::support::{eventually_is, setting, wait_until};
use event_tracker::clock::Clock;
use event_tracker::sinks::SinkState;
use instance::Instance;
use stores::Stores;
use world::World;

/// A seed costs some 400 ms on PostgreSQL and 60 ms on SQLite.
const POSTGRES_ITERATIONS: u64 = 8;
const SQLITE_ITERATIONS: u64 = 40;
const STEPS: u64 = 120;
const STORMS: u64 = 1;
const REQUESTS: u64 = 150;
const LONG_ITERATIONS: u64 = 100;
const LONG_STORMS: u64 = 5;

fn all_pairs() -> impl Iterator<Item = (Ledger, Live)> {
    MAIN_PAIRS.into_iter().chain(MIXED_PAIRS)
}

fn first_seed() -> u64 {
    setting("SEED", u64::from(rand::random::<u32>()))
}

/// Runs so many seeds over one pair of stores.
fn explore(ledger: Ledger, live: Live, iterations: u64) {
    let mut stores = Stores::new(ledger, live);
    let first = first_seed();
    let (iterations, steps) = (setting("ITERATIONS", iterations), setting("STEPS", STEPS));
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
    explore(Ledger::Postgres, Live::Redis, POSTGRES_ITERATIONS);
}

#[test]
fn every_effect_is_there_once_in_postgres_and_memory() {
    explore(Ledger::Postgres, Live::Memory, POSTGRES_ITERATIONS);
}

#[test]
fn every_effect_is_there_once_in_sqlite_and_redis() {
    explore(Ledger::Sqlite, Live::Redis, SQLITE_ITERATIONS);
}

#[test]
fn every_effect_is_there_once_in_sqlite_and_memory() {
    explore(Ledger::Sqlite, Live::Memory, SQLITE_ITERATIONS);
}

/// The same with the sinks on their own threads.
fn rage(ledger: Ledger, live: Live, storms: u64) {
    let mut stores = Stores::new(ledger, live);
    let first = first_seed();
    let (storms, requests) = (setting("STORMS", storms), setting("REQUESTS", REQUESTS));
    println!("{ledger:?} + {live:?}: SEED={first} STORMS={storms} REQUESTS={requests}");
    let begun = Instant::now();
    let records: usize = (first..first + storms).map(|seed| storm::storm(&mut stores, seed, requests as usize)).sum();
    println!("{ledger:?} + {live:?}: {storms} storms, {records} records, {:?}", begun.elapsed());
}

#[test]
fn a_storm_over_sinks_on_their_threads_leaves_every_effect_once() {
    all_pairs().for_each(|(ledger, live)| rage(ledger, live, STORMS));
}

#[test]
fn a_deleted_post_stays_out_of_live_lists_whichever_instance_is_late() {
    let first = first_seed();
    for (ledger, live) in all_pairs() {
        let mut stores = Stores::new(ledger, live);
        tombstones::late_views(&mut stores);
        tombstones::late_puts(&mut stores);
        let iterations = setting("ITERATIONS", if ledger == Ledger::Sqlite { 6 } else { 3 });
        (first..first + iterations).for_each(|seed| tombstones::explore(&mut stores, seed, STEPS as usize));
    }
}

/// `ITERATIONS` and `STORMS` say how long.
#[test]
#[ignore = "explores for some minutes"]
fn a_long_exploration_finds_nothing_either() {
    for (ledger, live) in all_pairs() {
        explore(ledger, live, LONG_ITERATIONS);
        rage(ledger, live, LONG_STORMS);
    }
}

/// Appends to an instance whose sinks run on their threads, and waits until the ledger has decided.
fn append_and_wait(instance: &Instance) {
    let asked = instance.append(&[click(1, crate::support::ledgers::NOW)]);
    eventually_is(Duration::from_secs(5), &true, || asked.is_answered());
}

#[test]
fn housekeeping_that_fails_however_keeps_no_batch_waiting() {
    for fault in [Fault::Before, Fault::Poison, Fault::Fatal, Fault::Panic, Fault::Hang(Duration::from_secs(60))] {
        let stores = Stores::new(Ledger::Sqlite, Live::Memory);
        let instance = Instance::new(&stores.fixture.ledger, &stores.live, &Clock::System);
        instance.to_ledger.always(Call::AddUp, fault);
        let running = instance.spawn();
        // Housekeeping begins once the sink follows.
        wait_until(Duration::from_secs(5), || instance.to_ledger.begun(Call::AddUp), |begun| *begun > 0);
        append_and_wait(&instance);
        assert_eq!(running.statuses[0].state(), SinkState::Following, "{fault:?}");
        // What hangs is let go, or its thread would be waited for.
        instance.to_ledger.heal();
        let failures = &running.statuses[0].housekeeping_failures;
        wait_until(Duration::from_secs(5), || failures.load(Ordering::Relaxed), |failures| *failures > 0);
    }
}

#[test]
fn nothing_is_retired_before_everybody_has_applied_what_was_durable_two_minutes_ago() {
    let stores = Stores::new(Ledger::Sqlite, Live::Memory);
    let mut instance = Instance::new(&stores.fixture.ledger, &stores.live, &Clock::System);
    instance.stand().expect("nothing fails");
    let begun = Instant::now();
    let house_at = |instance: &mut Instance, seconds: u64, is_trusted: bool| {
        let before = instance.to_ledger.done(Call::Retire);
        instance.keep_house_at(begun + Duration::from_secs(seconds), is_trusted);
        instance.to_ledger.done(Call::Retire) > before
    };
    assert!(!house_at(&mut instance, 0, true), "nobody knows yet how it was");
    instance.append(&[click(1, crate::support::ledgers::NOW)]);
    assert!(!house_at(&mut instance, 60, true));
    assert!(house_at(&mut instance, 120, true), "what came since may wait");
    assert!(!house_at(&mut instance, 179, false), "a clock that is not trusted");
    assert!(!house_at(&mut instance, 180, true), "the ledger has to apply it");
    instance.step_ledger().expect("nothing fails");
    assert!(!house_at(&mut instance, 190, true), "so has the live store");
    instance.step_live().expect("nothing fails");
    assert!(house_at(&mut instance, 200, true));
    instance.append(&[click(1, crate::support::ledgers::NOW)]);
    assert!(house_at(&mut instance, 1_000, true), "nobody looked meanwhile");
    assert!(!house_at(&mut instance, 1_120, true));
}

#[test]
fn a_live_store_that_hangs_or_needs_a_person_never_holds_up_the_ledger() {
    for fault in [Fault::Fatal, Fault::Hang(Duration::from_secs(60)), Fault::Before] {
        let stores = Stores::new(Ledger::Sqlite, Live::Memory);
        let instance = Instance::new(&stores.fixture.ledger, &stores.live, &Clock::System);
        [Call::State, Call::Apply, Call::Rebuild].into_iter().for_each(|call| instance.to_live.always(call, fault));
        let running = instance.spawn();
        (0..3).for_each(|_| append_and_wait(&instance));
        assert_eq!(running.statuses[0].position(), 3);
        assert_eq!(running.statuses[1].position(), 0, "{fault:?}");
        // What hangs is let go, or the thread would be waited for.
        instance.to_live.heal();
    }
}
