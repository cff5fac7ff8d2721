//! kill -9 under load: what was acknowledged is stored, nothing is stored twice, and all sums agree.

use std::time::Duration;

use crate::support::bench::{Bench, Ledger, Live};
use crate::support::load::Load;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const KILLS: u32 = 4;
const CLIENTS: u64 = 4;

#[test]
fn kill_nine_loses_and_repeats_nothing_on_postgres_and_redis() {
    kill_under_load(Bench::new(Ledger::Postgres, Live::Redis));
}

#[test]
fn kill_nine_loses_and_repeats_nothing_on_sqlite_and_memory() {
    kill_under_load(Bench::new(Ledger::Sqlite, Live::Memory));
}

fn kill_under_load(mut bench: Bench) {
    let seed = crate::support::seed();
    let mut random = StdRng::seed_from_u64(seed);
    bench.start();
    let load = Load::start(bench.address(), CLIENTS, seed);
    for _ in 0..KILLS {
        let before = load.acknowledged();
        std::thread::sleep(Duration::from_millis(random.random_range(200..1_500)));
        bench.kill();
        assert!(load.acknowledged() > before, "nothing was under way when it was killed");
        bench.start();
        load.point_at(bench.address());
    }
    load.goes_on(500);
    let history = load.finish();
    assert!(history.failures.len() >= KILLS as usize, "the clients noticed nothing of it");
    history.check(&bench);
}
