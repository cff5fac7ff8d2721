//! The cache, cranked by hand: what happens between two of its steps, in an order that each test chooses.

#![allow(clippy::print_stdout, reason = "seeds and figures are for whoever reads the output")]

mod hand;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use event_tracker::cache::flight::Flight;
use event_tracker::cache::{Ask, FillError, How, Lane, Outcome, Policy};
use event_tracker::limits::CACHE_ENTRY_BYTES_MAX;
use event_tracker::ports::{Acquired, NewEntry, SharedCache};
use hand::{Hand, KEY};

/// Fresh for a minute, and no early refresh where a test does not mean it.
fn policy() -> Policy {
    Policy { beta: 0.0, ..Policy::fresh_for(60_000) }
}

fn landed(ask: Ask) -> Outcome {
    match ask {
        Ask::Wait(flight, _) => flight.shown().expect("it has landed"),
        Ask::Have(hit) => Outcome::Hit(hit),
        Ask::Failed(error) => Outcome::Failed(error),
    }
}

fn waits(ask: Ask) -> Arc<Flight<Outcome>> {
    match ask {
        Ask::Wait(flight, _) => flight,
        Ask::Have(hit) => panic!("it has {:?}", hit.how),
        Ask::Failed(error) => panic!("{error:?}"),
    }
}

fn number(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Hit(hit) => u64::from_le_bytes(hit.copy.value[..8].try_into().unwrap()),
        other => panic!("{other:?}"),
    }
}

/// Another instance takes the lock; its fence.
fn lock_elsewhere(hand: &Hand) -> u64 {
    match hand.shared.acquire(KEY, 99, 3_000, hand.fence()).unwrap() {
        Acquired::Owned { fence } => fence,
        other => panic!("not ours: {other:?}"),
    }
}

/// What a request is shown once all steps have run.
fn read(hand: &Hand) -> u64 {
    let asked = hand.ask(&policy());
    hand.run();
    number(&landed(asked))
}

#[test]
fn a_value_that_finds_no_way_to_the_shared_cache_goes_to_who_asked_all_the_same() {
    let hand = Hand::new();
    let flight = waits(hand.ask(&policy()));
    hand.run_next();
    assert_eq!(hand.lanes(), [Lane::Ledger], "looked, and took the lock");
    hand.world.full.lock().unwrap().replace(Lane::Shared);
    hand.run();
    let outcome = flight.shown().expect("it has landed");
    assert_eq!(number(&outcome), 1);
    assert!(matches!(outcome, Outcome::Hit(hit) if hit.how == How::Direct));
    assert_eq!(hand.cache.sizes().0, 0);
}

#[test]
fn a_value_above_one_mebibyte_is_shown_and_not_cached() {
    let hand = Hand::new();
    for (padding, is_cached) in [(CACHE_ENTRY_BYTES_MAX - 7, false), (CACHE_ENTRY_BYTES_MAX - 8, true)] {
        hand.world.padding.store(padding, SeqCst);
        let flight = waits(hand.ask(&policy()));
        hand.run();
        assert_eq!(number(&flight.shown().expect("it has landed")), 1);
        assert_eq!(hand.fence().is_some(), is_cached, "in the shared cache");
        assert_eq!(matches!(hand.ask(&policy()), Ask::Have(_)), is_cached, "here");
        hand.run();
        let (flights, locks, _) = hand.cache.sizes();
        assert_eq!((flights, locks), (0, 0));
    }
}

#[test]
fn however_many_locks_come_and_go_there_is_one_round_of_renewals_a_second() {
    let hand = Hand::new();
    for round in 0..50 {
        hand.ask_for(&format!("key {round}"), &policy());
        hand.run();
    }
    assert_eq!(hand.world.timers.lock().unwrap().len(), 1);
    // A fill that takes for ever is renewed for as long as a lock may be held, and the keeper then rests.
    let _flight = hand.ask(&policy());
    hand.run_next();
    for second in 0..10 {
        hand.pass(1_000, Some(Lane::Shared));
        let busy = hand.shared.acquire(KEY, 99, 1, None).unwrap();
        assert_eq!(busy, Acquired::Busy, "after {second} s");
        assert!(hand.world.timers.lock().unwrap().len() <= 1);
    }
    hand.pass(4_000, Some(Lane::Shared));
    assert!(matches!(hand.shared.acquire(KEY, 99, 1, None).unwrap(), Acquired::Owned { .. }));
    assert_eq!((hand.world.timers.lock().unwrap().len(), hand.cache.sizes().1), (0, 0));
}

#[test]
fn a_leader_that_is_quicker_than_its_own_request_does_not_give_up_on_it() {
    let hand = Hand::new();
    lock_elsewhere(&hand);
    hand.world.is_quick.store(true, SeqCst);
    let flight = waits(hand.ask(&policy()));
    assert!(flight.shown().is_none(), "it waits for the holder: {:?}", flight.shown());
}

#[test]
fn hints_do_not_multiply_the_looks_of_who_waits_for_another_instance() {
    let looks_with = |hints: usize| {
        let hand = Hand::new();
        lock_elsewhere(&hand);
        let flight = waits(hand.ask(&policy()));
        assert!(flight.join(true, || Box::new(|| ())).is_none());
        hand.run();
        for _ in 0..hints {
            hand.cache.hint(KEY, false);
            hand.run();
        }
        let before = hand.shared.acquires.load(SeqCst);
        (0..60).for_each(|_| hand.pass(10, None));
        hand.shared.acquires.load(SeqCst) - before
    };
    let (without, with) = (looks_with(0), looks_with(5));
    assert!(with <= without, "{with} looks after hints, {without} without");
}

#[test]
fn a_later_value_of_an_instance_whose_clock_is_behind_is_taken_over() {
    let hand = Hand::new();
    hand.world.as_of_ms.store(10_000_000, SeqCst);
    hand.ask(&policy());
    hand.run();
    // Written elsewhere, filled elsewhere; the hint was lost.
    hand.shared.invalidate(&[KEY]).unwrap();
    let fence = lock_elsewhere(&hand);
    let value = 2u64.to_le_bytes();
    let (fill_ms, as_of_ms, fresh_ttl_ms, stale_cap_ms) = (5, 5_000_000, 60_000, 60_000);
    let entry = NewEntry { value: &value, fill_ms, as_of_ms, fence, fresh_ttl_ms, stale_cap_ms };
    assert!(hand.shared.store(KEY, 99, &entry).unwrap());
    hand.pass(1_000, None);
    assert_eq!((read(&hand), read(&hand)), (2, 2));
}

#[test]
fn when_another_instance_has_stored_a_value_nobody_waits_for_it() {
    for copy_is_old_ms in [0, 300, 700, 990] {
        let hand = Hand::new();
        let policy = Policy { fresh_ms: 10_000, stale_ms: 10_000, ..policy() };
        hand.ask(&policy);
        hand.run();
        hand.pass(copy_is_old_ms, None);
        hand.cache.hint(KEY, false);
        assert!(matches!(hand.ask(&policy), Ask::Have(_)), "{copy_is_old_ms} ms old: it waits");
        assert_eq!(hand.lanes(), [Lane::Shared], "and the new one is looked at behind");
    }
}

#[test]
fn a_refresh_that_left_the_work_to_another_instance_looks_again_at_once_when_that_is_done() {
    let hand = Hand::new();
    let policy = Policy { fresh_ms: 1_000, stale_ms: 10_000, ..policy() };
    hand.ask(&policy);
    hand.run();
    hand.pass(900, None);
    hand.ask(&policy);
    hand.run();
    hand.pass(200, None);
    lock_elsewhere(&hand);
    assert!(matches!(hand.ask(&policy), Ask::Have(hit) if hit.how == How::Stale));
    hand.run();
    hand.ask(&policy);
    assert!(hand.lanes().is_empty(), "it ducked, and rests");
    hand.cache.hint(KEY, false);
    hand.run();
    hand.ask(&policy);
    assert_eq!(hand.lanes(), [Lane::Shared], "told, it looks");
}

#[test]
fn who_asks_after_a_deletion_elsewhere_does_not_join_what_was_under_way() {
    let hand = Hand::new();
    let before = waits(hand.ask(&policy()));
    hand.run_next();
    hand.shared.invalidate(&[KEY]).unwrap();
    hand.cache.hint(KEY, true);
    let after = waits(hand.ask(&policy()));
    assert!(!Arc::ptr_eq(&before, &after));
    hand.run();
    assert!(before.shown().is_some() && after.shown().is_some());
}

#[test]
fn a_deletion_that_is_owed_again_while_it_is_made_up_for_is_still_owed() {
    let hand = Hand::new();
    hand.shared.store_directly(1);
    hand.shared.is_away.store(true, SeqCst);
    hand.write(2);
    hand.run();
    hand.shared.is_away.store(false, SeqCst);
    // While the next reader makes up for it: the old value comes back, it is written again, and that deletion fails.
    let (world, cache, shared) = (hand.world.clone(), hand.cache.clone(), hand.shared.clone());
    hand.shared.after_invalidate(move || {
        shared.is_away.store(true, SeqCst);
        world.number.store(3, SeqCst);
        cache.wrote(vec![KEY.into()], Box::new(|| ()));
        world.take_newest()();
        shared.is_away.store(false, SeqCst);
        shared.store_directly(2);
    });
    let _earlier = hand.ask(&policy());
    hand.run();
    assert_eq!(read(&hand), 3, "what was written and acknowledged");
}

#[test]
fn what_a_reader_fetched_before_a_deletion_was_put_off_is_not_shown_after_it() {
    let hand = Hand::new();
    hand.shared.store_directly(1);
    let _reader = hand.ask(&policy());
    // The lane is full at the very moment of the write, after the reader has had its turn.
    let world = hand.world.clone();
    hand.world.on_full(move || world.run_all());
    hand.write(2);
    hand.run();
    assert_eq!(read(&hand), 2);
}

#[test]
fn a_writer_that_did_not_wait_for_a_slow_deletion_reads_what_it_wrote() {
    let hand = Hand::new();
    hand.shared.store_directly(1);
    hand.write(2);
    // It hangs: the job stays where it is. The writer is answered.
    let hanging = hand.world.take_newest();
    hand.cache.overdue(&[KEY.into()]);
    assert_eq!(read(&hand), 2);
    hanging();
    hand.run();
    assert_eq!(read(&hand), 2);
}

#[test]
fn nothing_is_shown_beyond_the_cap_however_long_its_request_has_waited() {
    let hand = Hand::new();
    let policy = Policy { fresh_ms: 1_000, stale_ms: 1_000, cap_ms: 5_000, ..policy() };
    hand.ask(&policy);
    hand.run();
    // Half of the jitter: it was fresh for 950 ms.
    hand.pass(5_949, None);
    let Ask::Wait(_, Some(copy)) = hand.ask(&policy) else { panic!("it may be shown for another moment") };
    assert!(hand.cache.late(copy.clone(), &policy).is_some());
    hand.pass(1, Some(Lane::Shared));
    assert!(hand.cache.late(copy, &policy).is_none(), "a millisecond too old");
}

#[test]
fn a_fill_that_stood_in_line_until_nobody_waited_is_not_asked_of_the_store() {
    let hand = Hand::new();
    let flight = waits(hand.ask(&policy()));
    hand.run_next();
    assert_eq!(hand.lanes(), [Lane::Ledger]);
    hand.world.now_ms.fetch_add(1_500, SeqCst);
    hand.run();
    assert!(matches!(flight.shown(), Some(Outcome::Failed(FillError::Busy))));
    assert_eq!((hand.world.queries.load(SeqCst), hand.cache.sizes().0), (0, 0));
}

/// Writes keys together, fresh for a minute, and reads each once per second: the most fills within one second.
fn peak_of_fills(chance: Box<dyn FnMut() -> f64 + Send>) -> u64 {
    const KEYS: u64 = 3_000;
    let hand = Hand::new();
    let read_all = || {
        for key in 0..KEYS {
            hand.ask_for(&format!("key {key}"), &policy());
            hand.run();
        }
    };
    hand.world.chance.lock().unwrap().replace(chance);
    read_all();
    assert_eq!(hand.world.queries.load(SeqCst), KEYS);
    let filled_in_a_second = |_| {
        let before = hand.world.queries.load(SeqCst);
        hand.pass(1_000, None);
        read_all();
        hand.world.queries.load(SeqCst) - before
    };
    let seconds: Vec<u64> = (0..62).map(filled_in_a_second).collect();
    assert_eq!(seconds.iter().sum::<u64>(), KEYS, "{seconds:?}");
    *seconds.iter().max().unwrap()
}

#[test]
fn keys_that_were_written_together_are_not_due_together() {
    use rand::{RngExt, SeedableRng};
    let seed = rand::random();
    println!("SEED={seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let (with, without) = (peak_of_fills(Box::new(move || random.random())), peak_of_fills(Box::new(|| 0.0)));
    println!("3,000 keys: at most {with} fills a second with jitter, {without} without");
    assert!(with * 5 <= without, "{with} with jitter, {without} without");
}
