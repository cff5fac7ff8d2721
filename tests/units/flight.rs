//! The flights of the read path under a model checker: their source with shuttle's primitives in the place of the
//! standard library's, every interleaving of a few threads drawn at random, and the same on real threads.
//!
//! What shuttle sees are the flights' own locks and flags; steps within the lock-free map are one step to it, and are left
//! to the real threads. A failure prints the schedule that replays it.

#![allow(dead_code, unreachable_pub, reason = "the source is written for another parent")]

/// What the flights under the model are made of.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard, Weak};
    pub(crate) use std::sync::PoisonError;
}

#[path = "../../src/cache/flight.rs"]
mod source;

use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};

use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::thread;
use source::{Flight, Flights};

const SCHEDULES: usize = 5_000;

/// What a flight comes to here: the number of the fill, or that its leader died.
type Outcome = Option<usize>;

/// A few requests for one key, and what the ledger holds of it.
#[derive(Default)]
struct World {
    flights: Flights<Outcome>,
    /// Fills that run now: never two of them, but where a write has parted them.
    running: Mutex<usize>,
    fills: Mutex<usize>,
    written: Mutex<usize>,
    /// … and of which its writer was told that nobody will see less.
    acknowledged: Mutex<usize>,
}

impl World {
    /// What a request does: joins, leads where nobody does, and goes on to the next flight where the leader died.
    fn request(self: &Arc<World>, dies: bool) -> usize {
        let at_least = *self.acknowledged.lock().unwrap();
        let mut dies = dies;
        let mut last: Option<Arc<Flight<Outcome>>> = None;
        loop {
            let (flight, is_leader) = self.flights.board("key", true);
            let is_new = last.replace(flight.clone()).is_none_or(|last| !Arc::ptr_eq(&last, &flight));
            assert!(is_new, "who was woken by a flight finds it again");
            if is_leader {
                let (world, flight, dies) = (self.clone(), flight.clone(), std::mem::take(&mut dies));
                thread::spawn(move || world.lead(&flight, dies));
            }
            if let Some(seen) = wait(&flight) {
                assert!(seen >= at_least, "{at_least} was acknowledged before this request came, and {seen} is shown");
                return seen;
            }
        }
    }

    /// What a leader does, elsewhere: nobody who asked need be there any more.
    fn lead(&self, flight: &Arc<Flight<Outcome>>, dies: bool) {
        let is_alone = {
            let mut running = self.running.lock().unwrap();
            *running += 1;
            *running == 1
        };
        assert!(is_alone || *self.written.lock().unwrap() > 0, "two fills at once");
        *self.fills.lock().unwrap() += 1;
        let seen = *self.written.lock().unwrap();
        thread::yield_now();
        *self.running.lock().unwrap() -= 1;
        self.flights.land("key", flight, (!dies).then_some(seen));
    }

    fn write(&self) -> usize {
        let now = {
            let mut written = self.written.lock().unwrap();
            *written += 1;
            *written
        };
        self.flights.spoil("key");
        *self.acknowledged.lock().unwrap() = now;
        now
    }
}

/// Sleeps as a coroutine does: woken once, and then it must have landed.
fn wait(flight: &Arc<Flight<Outcome>>) -> Outcome {
    let woken = Arc::new((Mutex::new(false), Condvar::new()));
    let waker = woken.clone();
    let shown = flight.join(true, || {
        Box::new(move || {
            *waker.0.lock().unwrap() = true;
            waker.1.notify_one();
        })
    });
    if let Some(shown) = shown {
        return shown;
    }
    let mut is_woken = woken.0.lock().unwrap();
    while !*is_woken {
        is_woken = woken.1.wait(is_woken).unwrap();
    }
    drop(is_woken);
    flight.shown().expect("who is woken finds what it came to")
}

#[test]
fn of_one_generation_there_is_one_fill_and_all_have_its_result() {
    shuttle::check_random(
        || {
            let world = Arc::new(World::default());
            let start = Arc::new(shuttle::sync::Barrier::new(3));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let (world, start) = (world.clone(), start.clone());
                    thread::spawn(move || {
                        // All have boarded before anybody lands.
                        let (flight, is_leader) = world.flights.board("key", true);
                        start.wait();
                        if is_leader {
                            world.lead(&flight, false);
                        }
                        (wait(&flight), is_leader)
                    })
                })
                .collect();
            let told: Vec<(Outcome, bool)> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert_eq!(told.iter().filter(|(_, is_leader)| *is_leader).count(), 1, "{told:?}");
            assert!(told.iter().all(|(outcome, _)| *outcome == Some(0)), "{told:?}");
            assert_eq!((*world.fills.lock().unwrap(), world.flights.count()), (1, 0));
        },
        SCHEDULES,
    );
}

fn requests(world: &Arc<World>, dies: bool) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || _ = world.request(dies))
}

/// Runs the threads of a claim under random schedules: all of them end, and no flight is left.
fn explore(threads: impl Fn(&Arc<World>) -> Vec<thread::JoinHandle<()>> + Send + Sync + 'static) {
    shuttle::check_random(
        move || {
            let world = Arc::new(World::default());
            threads(&world).into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(world.flights.count(), 0, "flights that are left");
        },
        SCHEDULES,
    );
}

#[test]
fn nobody_joins_what_has_landed_hangs_or_finds_two_fills_at_once() {
    explore(|world| (0..3).map(|_| requests(world, false)).collect());
}

#[test]
fn a_leader_that_dies_is_followed_by_another_and_nobody_hangs() {
    explore(|world| (0..3).map(|number| requests(world, number == 0)).collect());
}

#[test]
fn who_asks_after_a_write_never_gets_what_was_read_before_it() {
    explore(|world| {
        let mut threads: Vec<_> = (0..2).map(|_| requests(world, false)).collect();
        let world = world.clone();
        threads.push(thread::spawn(move || {
            let now = world.write();
            // A writer reads after its answer: `request` asserts that it sees its own write.
            assert!(world.request(false) >= now);
        }));
        threads
    });
}

#[test]
fn on_real_threads_a_key_has_one_leader_at_a_time_and_the_count_comes_back_to_none() {
    use event_tracker::cache::flight::Flights;
    const THREADS: usize = 8;
    const KEYS: usize = 3;
    let flights: Flights<usize> = Flights::default();
    let leaders: [Count; KEYS] = std::array::from_fn(|_| Count::new(0));
    let landed = Count::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (flights, leaders, landed) = (&flights, &leaders, &landed);
            scope.spawn(move || {
                for round in 0..20_000 {
                    let number = (round + thread) % KEYS;
                    let key = ["a", "b", "c"][number];
                    let (flight, is_leader) = flights.board(key, true);
                    if is_leader {
                        assert_eq!(leaders[number].fetch_add(1, SeqCst), 0, "a second leader");
                        std::hint::spin_loop();
                        assert_eq!(leaders[number].fetch_sub(1, SeqCst), 1);
                        flights.land(key, &flight, round);
                        landed.fetch_add(1, SeqCst);
                        assert!(flight.shown().is_some());
                    }
                    assert!(flights.count() <= THREADS, "{} flights", flights.count());
                }
            });
        }
    });
    assert_eq!(flights.count(), 0, "of {} flights", landed.load(SeqCst));
}
