//! The table of issue and README: queries a generation, counted at PostgreSQL, and requests that waited, by what protects
//! a key. `make bench-cache` runs it and keeps what it prints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::slow::{Slow, like_path};
use super::{cached, instances, like};
use crate::support::bench::Bench;

/// One row: its name, how many programs, the setting, requests a second, fill and TTL.
struct Cell {
    name: &'static str,
    expected: &'static str,
    programs: usize,
    setting: &'static str,
    rate: u64,
    fill_ms: u64,
    ttl_ms: u64,
    /// Connections of each program to PostgreSQL; half of them fill.
    pool: &'static str,
    /// Each program has generations of its own.
    is_apart: bool,
}

const HOT: Cell = Cell {
    name: "all, 4 programs, 1,000/s",
    expected: "1.00 and 0",
    programs: 4,
    setting: "",
    rate: 1_000,
    fill_ms: 300,
    ttl_ms: 2_000,
    pool: "16",
    is_apart: false,
};

const CELLS: [Cell; 6] = [
    Cell {
        name: "no protection, 1 program, 100/s",
        expected: "1 + rate × fill = 31, all of them",
        programs: 1,
        setting: "flight=0,lock=0,stale=0,cap=0,beta=0",
        rate: 100,
        pool: "80",
        ..HOT
    },
    Cell {
        name: "flight only, 4 programs, 1,000/s",
        expected: "<= 4, all that miss",
        setting: "lock=0,stale=0,cap=0,beta=0",
        is_apart: true,
        ..HOT
    },
    Cell {
        name: "+ Redis lock, 4 programs, 1,000/s",
        expected: "1.00, rate × fill = 300",
        setting: "stale=0,cap=0,beta=0",
        ..HOT
    },
    Cell {
        name: "early refresh alone, 1 program, 100/s, fill 100 ms, TTL 3 s",
        expected: "2 to 3, about 0",
        programs: 1,
        setting: "flight=0,lock=0,stale=0,cap=0,beta=1",
        rate: 100,
        fill_ms: 100,
        ttl_ms: 3_000,
        pool: "80",
        ..HOT
    },
    HOT,
    Cell {
        name: "all but early refresh, 4 programs, 1,000/s",
        expected: "1.00 and 0, some of them shown what has expired",
        setting: "beta=0",
        ..HOT
    },
];

/// Generations of a cell; the first and the last are not whole and do not count.
const GENERATIONS: usize = 32;
/// Clients for each request a second: enough that the rate holds while those of a fill wait.
const CLIENTS_SHARE: f64 = 0.4;

#[test]
#[ignore = "eight minutes: make bench-cache"]
fn the_table_of_queries_a_generation() {
    let wanted = std::env::var("CELLS").unwrap_or_default();
    let wanted: Vec<usize> = wanted.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    for (at, cell) in CELLS.iter().enumerate().filter(|(at, _)| wanted.is_empty() || wanted.contains(&(at + 1))) {
        println!("cell {}", at + 1);
        measure(cell);
    }
}

/// The programs of a cell: each says in its connections which one it is.
fn programs(cell: &Cell) -> Vec<Bench> {
    let first = cached();
    let url = first.database_url.clone().expect("PostgreSQL");
    let setting = format!("fresh={},{}", cell.ttl_ms, cell.setting);
    let mut all = instances(first, cell.programs, &[]);
    for (number, bench) in all.iter_mut().enumerate() {
        bench.stop();
        let glue = if url.contains('?') { '&' } else { '?' };
        bench.database_url = Some(format!("{url}{glue}options=-c%20tracker.process%3D{number}"));
        bench.set("CACHE_LIKES", &setting);
        bench.set("PG_POOL", cell.pool);
        bench.start();
    }
    all
}

fn measure(cell: &Cell) {
    let all = programs(cell);
    like(&mut all[0].client(), 1).expect(200);
    let slow = Slow::set(&all[0], cell.fill_ms);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..clients(cell)).map(|number| load(&all[number % all.len()], cell, stop.clone())).collect();
    // Warm: each has its first value.
    std::thread::sleep(Duration::from_millis(2 * cell.ttl_ms));
    let (waits_before, began) = (waits(&all), Instant::now());
    let from: f64 = slow.now();
    while generations(&slow, cell, from).len() < GENERATIONS && began.elapsed() < Duration::from_secs(180) {
        std::thread::sleep(Duration::from_millis(cell.ttl_ms));
    }
    let (until, waits_after) = (Instant::now(), waits(&all));
    let mut queries = generations(&slow, cell, from);
    stop.store(true, Ordering::Relaxed);
    let told: Vec<(Instant, Duration)> =
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
    let mut took: Vec<Duration> =
        told.iter().filter(|(at, _)| *at >= began && *at < until).map(|(_, took)| *took).collect();
    took.sort_unstable();
    let (waited, all_generations) = (waits_after - waits_before, queries.len());
    queries.pop();
    queries.remove(0);
    queries.sort_unstable();
    let sum: usize = queries.iter().sum();
    let share = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "| {} | {} | {} | {}, {}, {} | {:.2} | {} | {waited} | {:.1} | {:.1} | {:.1} |",
        cell.name,
        cell.expected,
        queries.len(),
        queries[0],
        queries[queries.len() / 2],
        queries[queries.len() - 1],
        sum as f64 / queries.len() as f64,
        took.len(),
        waited as f64 / all_generations as f64,
        share(99),
        share(100),
    );
}

/// Requests that waited for a fill or for another instance, by the programs' own count.
fn waits(all: &[Bench]) -> u64 {
    all.iter().map(|bench| bench.client().metric("cache_wait_seconds_count") as u64).sum()
}

/// Queries of each generation: those that follow one another without a pause of half a TTL. Where each program has its
/// own ones, the first of all, the second of all and so on.
fn generations(slow: &Slow, cell: &Cell, from: f64) -> Vec<usize> {
    let mut bursts: BTreeMap<String, (f64, Vec<usize>)> = BTreeMap::new();
    for (at, process) in slow.fills(from) {
        let of = if cell.is_apart { process } else { String::new() };
        let (last, queries) = bursts.entry(of).or_insert((f64::MIN, Vec::new()));
        if at - *last > cell.ttl_ms as f64 / 2_000.0 {
            queries.push(0);
        }
        *last = at;
        *queries.last_mut().expect("one was begun") += 1;
    }
    let count = bursts.values().map(|(_, queries)| queries.len()).min().unwrap_or(0);
    (0..count).map(|number| bursts.values().map(|(_, queries)| queries[number]).sum()).collect()
}

/// One client at its share of the rate, at times that do not wait for answers that are late.
fn load(bench: &Bench, cell: &Cell, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<(Instant, Duration)>> {
    let mut client = bench.client();
    let every = Duration::from_secs_f64(clients(cell) as f64 / cell.rate as f64);
    let run = move || {
        let mut told = Vec::new();
        let mut next = Instant::now() + every.mul_f64(rand::random::<f64>());
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let at = Instant::now();
            client.get(&like_path()).expect(200);
            told.push((at, at.elapsed()));
            next = (next + every).max(Instant::now());
        }
        told
    };
    std::thread::Builder::new().stack_size(256 * 1024).spawn(run).expect("a thread")
}

fn clients(cell: &Cell) -> usize {
    (cell.rate as f64 * CLIENTS_SHARE) as usize
}
