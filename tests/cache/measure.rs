//! The table of cache.md: queries a generation, counted at PostgreSQL, and requests that waited, by what protects a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::slow::{Slow, like_path};
use crate::support::bench::Bench;
use crate::{cached, instances, like};

/// One row: its name, how many programs, the setting, requests a second, fill and TTL.
struct Cell {
    name: &'static str,
    programs: usize,
    setting: &'static str,
    rate: u64,
    fill_ms: u64,
    ttl_ms: u64,
}

const CELLS: [Cell; 5] = [
    Cell {
        name: "no protection, 1 process, 100/s",
        programs: 1,
        setting: "flight=0,lock=0,stale=0,cap=0,beta=0",
        rate: 100,
        fill_ms: 300,
        ttl_ms: 2_000,
    },
    Cell {
        name: "flight only, 4 processes",
        programs: 4,
        setting: "lock=0,stale=0,cap=0,beta=0",
        rate: 1_000,
        fill_ms: 300,
        ttl_ms: 2_000,
    },
    Cell {
        name: "+ Redis lock, 4 processes",
        programs: 4,
        setting: "stale=0,cap=0,beta=0",
        rate: 1_000,
        fill_ms: 300,
        ttl_ms: 2_000,
    },
    Cell {
        name: "early refresh alone, 1 process, 100/s, fill 100 ms, TTL 3 s",
        programs: 1,
        setting: "flight=0,lock=0,stale=0,cap=0,beta=1",
        rate: 100,
        fill_ms: 100,
        ttl_ms: 3_000,
    },
    Cell { name: "all, 4 processes", programs: 4, setting: "", rate: 1_000, fill_ms: 300, ttl_ms: 2_000 },
];

/// When each query began, at PostgreSQL's clock, is not needed: a generation is told by the pause before it.
const GENERATIONS: u64 = 32;

struct Told {
    at: Instant,
    took: Duration,
    waited: bool,
}

#[test]
#[ignore = "five minutes: make bench-cache"]
fn the_table_of_queries_a_generation() {
    println!(
        "| set-up | generations | queries a generation: min, median, max | requests | waited | waited, a generation | p99 |"
    );
    println!("|---|---|---|---|---|---|---|");
    for cell in CELLS {
        measure(&cell);
    }
}

fn measure(cell: &Cell) {
    let Some(mut bench) = cached() else { return };
    bench.set("PG_POOL", "100");
    let setting = format!("fresh={},{}", cell.ttl_ms, cell.setting);
    let all = instances(bench, cell.programs, &[("CACHE_LIKES", &setting), ("PG_POOL", "40")]);
    like(&mut all[0].client(), 1).expect(200);
    let slow = Slow::set(&all[0], cell.fill_ms);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS).map(|number| load(&all[number % all.len()], cell, stop.clone())).collect();
    // Warm: each has its first value.
    std::thread::sleep(Duration::from_millis(2 * cell.ttl_ms));
    let (from, began) = (slow.queries(), Instant::now());
    let mut bursts = Bursts::default();
    let pause = Duration::from_millis(cell.ttl_ms / 2);
    let mut client =
        postgres::Client::connect(all[0].database_url.as_ref().unwrap(), postgres::NoTls).expect("connects");
    while bursts.all.len() < GENERATIONS as usize + 1 && began.elapsed() < Duration::from_secs(180) {
        let queries: i64 = client.query_one("SELECT last_value FROM queries", &[]).expect("counts").get(0);
        bursts.see(queries - from, began.elapsed(), pause);
        std::thread::sleep(Duration::from_millis(5));
    }
    let until = Instant::now();
    stop.store(true, Ordering::Relaxed);
    let told: Vec<Told> = clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
    let told: Vec<&Told> = told.iter().filter(|told| told.at >= began && told.at < until).collect();
    // The first may have begun before, the last is not over.
    let mut queries = bursts.all[1..bursts.all.len() - 1].to_vec();
    queries.sort_unstable();
    let waited = told.iter().filter(|told| told.waited).count();
    let mut took: Vec<Duration> = told.iter().map(|told| told.took).collect();
    took.sort_unstable();
    println!(
        "| {} | {} | {}, {}, {} | {} | {waited} | {:.1} | {:.1} ms |",
        cell.name,
        queries.len(),
        queries[0],
        queries[queries.len() / 2],
        queries[queries.len() - 1],
        told.len(),
        waited as f64 / bursts.all.len() as f64,
        took[took.len() * 99 / 100].as_secs_f64() * 1e3,
    );
}

const CLIENTS: usize = 40;

/// One client at its share of the rate, at times that do not wait for answers that are late.
fn load(bench: &Bench, cell: &Cell, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<Told>> {
    let (mut client, fill) = (bench.client(), Duration::from_millis(cell.fill_ms));
    let every = Duration::from_secs_f64(CLIENTS as f64 / cell.rate as f64);
    std::thread::spawn(move || {
        let mut told = Vec::new();
        let mut next = Instant::now() + every.mul_f64(rand::random::<f64>());
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let at = Instant::now();
            let answer = client.get(&like_path()).expect(200);
            let took = at.elapsed();
            let how = answer.header("x-cache").expect("X-Cache");
            // A request that waited for a fill says so; one that joined late in it waited less than all of it.
            told.push(Told { at, took, waited: matches!(how, "miss" | "direct") || took > fill / 2 });
            next = (next + every).max(Instant::now());
        }
        told
    })
}

/// Queries by generation: those that follow one another without a pause of half a TTL.
#[derive(Default)]
struct Bursts {
    all: Vec<i64>,
    seen: i64,
    last: Duration,
}

impl Bursts {
    fn see(&mut self, queries: i64, at: Duration, pause: Duration) {
        let new = queries - self.seen;
        if new == 0 {
            return;
        }
        match self.all.last_mut() {
            Some(burst) if at - self.last < pause => *burst += new,
            _ => self.all.push(new),
        }
        (self.seen, self.last) = (queries, at);
    }
}
