//! A disk that fails: nothing is acknowledged that is not on it, and what was acknowledged stays. And records that need
//! not be durable at once. Deaths, torn writes and failures at every step are in `journal_model.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use event_tracker::clock::Clock;
use event_tracker::events::Forget;
use event_tracker::journal::{AppendError, Journal, Settings, Storage, Wait};
use event_tracker::ports::Watermark;
use event_tracker::runtime::Ticket;
use event_tracker::sinks::{Decision, Until, Waiting};

use crate::journal_support::disk::{Disk, Faults, Lie, Mounted};
use crate::journal_support::{WORKERS, append, in_coroutine, read, until};

fn good_disk() -> Arc<Disk> {
    Disk::new(1, Faults::default(), Lie::None)
}

fn open(disk: &Arc<Disk>) -> Arc<Journal> {
    let settings = Settings { segment_bytes: 1 << 20, free_bytes_min: 0, ..Settings::default() };
    Arc::new(Journal::open_on(Arc::new(Mounted(disk.clone())), WORKERS, settings, Clock::System).unwrap())
}

/// Appends one record of so many bytes and waits for it: true once it is durable, false if that failed.
fn append_one(journal: &Arc<Journal>, number: i64, bytes: usize) -> Result<bool, AppendError> {
    let journal = journal.clone();
    in_coroutine(0, move || append(&journal, 0, &[(number, bytes)]))
}

fn append_for_ledger(journal: &Arc<Journal>) -> Arc<Decision> {
    let journal = journal.clone();
    in_coroutine(0, move || {
        let waiting = Arc::<Waiting>::default();
        let decision = waiting.decide(Until::Ledger, Arc::new(Ticket::of_current(0)));
        let forget = Forget { user_id: "u".repeat(100).into(), keyword: None, at_ms: 1 };
        journal.append(0, 1, decision.wait(), |out| forget.encode(out)).unwrap();
        decision
    })
}

/// A journal whose ledger begins its next batch in a minute: what waits for that has time.
fn open_with_time(disk: &Arc<Disk>) -> Arc<Journal> {
    let journal = open(disk);
    journal.next_batch_begins(Some(Instant::now() + Duration::from_secs(60)));
    journal
}

fn numbers(journal: &Journal) -> Vec<i64> {
    read(journal, Watermark::default())
}

#[test]
fn a_disk_that_refuses_acknowledges_nothing_and_is_used_again_once_it_works() {
    let disk = good_disk();
    let journal = open(&disk);
    let mut acknowledged = Vec::new();
    let refuse = |writes: bool, syncs: bool| {
        let state = &mut *disk.state();
        (state.refuses_writes, state.refuses_syncs) = (writes, syncs);
    };
    for (round, (writes, syncs)) in (0..).zip([(true, false), (false, true), (true, false)]) {
        let good = round * 10 + 1;
        assert_eq!(append_one(&journal, good, 1), Ok(true));
        acknowledged.push(good);
        refuse(writes, syncs);
        assert_ne!(append_one(&journal, good + 1, 1), Ok(true));
        until("refusing", || journal.is_writable() == Err(AppendError::Failed));
        assert_eq!(append_one(&journal, good + 2, 1), Err(AppendError::Failed));
        refuse(false, false);
        until("writable again", || journal.is_writable().is_ok());
    }
    assert_eq!(numbers(&journal), acknowledged);
    drop(journal);
    assert_eq!(numbers(&open(&disk)), acknowledged);
    let names = Mounted(disk).list().unwrap();
    let spares = names.iter().filter(|name| name.starts_with("spare-")).count();
    assert!(spares <= 1, "{spares} spares were left behind");
}

#[test]
fn a_wait_for_a_follower_knows_whether_its_record_is_durable() {
    let disk = good_disk();
    let journal = open(&disk);
    let append_and_look = |slow_ms: u64| {
        disk.state().sync_ms = slow_ms;
        let seen = append_for_ledger(&journal);
        std::thread::sleep(Duration::from_millis(100));
        let early = seen.is_durable();
        disk.state().sync_ms = 0;
        until("durable", || seen.is_durable());
        early
    };
    assert!(append_and_look(0));
    assert!(!append_and_look(400));
}

#[test]
fn waits_that_were_given_up_are_not_collected() {
    let disk = good_disk();
    let journal = open(&disk);
    let waiting = Arc::<Waiting>::default();
    let decisions: Vec<std::sync::Weak<Decision>> = in_coroutine(0, {
        let (journal, waiting) = (journal.clone(), waiting.clone());
        move || {
            let forget = Forget { user_id: "u".into(), keyword: None, at_ms: 1 };
            let given_up = (0..20_000).map(|_| {
                let decision = waiting.decide(Until::Ledger, Arc::new(Ticket::of_current(0)));
                decision.abandon();
                journal.append(0, 1, decision.wait(), |out| forget.encode(out)).unwrap();
                Arc::downgrade(&decision)
            });
            given_up.collect()
        }
    });
    until("durable", || journal.end_position() == 20_000);
    let alive = decisions.iter().filter(|d| d.strong_count() > 0).count();
    assert!(alive <= 1_024, "{alive} are still in line");
    // Until here: with the line itself all of them would be dropped.
    drop(waiting);
}

#[test]
fn what_has_time_goes_with_the_next_frame_or_when_its_time_has_come() {
    let disk = good_disk();
    let journal = open(&disk);
    let in_a_minute = || Some(Instant::now() + Duration::from_secs(60));
    let pause = || std::thread::sleep(Duration::from_millis(100));
    // Nobody has said when the ledger begins.
    let alone = append_for_ledger(&journal);
    until("durable", || alone.is_durable());
    // It begins later: others take it along, whether the writer slept for good or until then.
    journal.next_batch_begins(in_a_minute());
    for _ in 0..3 {
        let syncs = journal.stats().syncs.load(Ordering::SeqCst);
        let together = [append_for_ledger(&journal), append_for_ledger(&journal)];
        pause();
        assert!(!together.iter().any(|decision| decision.is_durable()));
        assert_eq!(append_one(&journal, 2, 1), Ok(true));
        assert!(together.iter().all(|decision| decision.is_durable()));
        assert_eq!(journal.stats().syncs.load(Ordering::SeqCst), syncs + 1);
    }
    // One that has less time wakes a writer that sleeps until later.
    let waits = append_for_ledger(&journal);
    pause();
    let forget = Forget { user_id: "u".into(), keyword: None, at_ms: 3 };
    journal.append(0, 1, Wait::Leisure, |out| forget.encode(out)).unwrap();
    until("durable by itself", || waits.is_durable());
    // What has nobody to take it along goes when its time has come.
    journal.next_batch_begins(Some(Instant::now() + Duration::from_millis(300)));
    let waits = append_for_ledger(&journal);
    until("durable when the ledger begins", || waits.is_durable());
    // The time of a ledger that is away goes by.
    let waits = append_for_ledger(&journal);
    until("durable at once", || waits.is_durable());
    // The end waits for nothing. This returns behind what was published before.
    assert_eq!(append_one(&journal, 4, 1), Ok(true));
    journal.next_batch_begins(in_a_minute());
    let waits = append_for_ledger(&journal);
    let written = journal.end_position();
    journal.close();
    assert!(waits.is_durable());
    assert_eq!(journal.end_position(), written + 1);
}

#[test]
fn what_has_time_does_not_pile_up_in_memory() {
    let disk = good_disk();
    let journal = open_with_time(&disk);
    let waits: Vec<_> = (0..3_000).map(|_| append_for_ledger(&journal)).collect();
    until("a frame's worth is durable", || waits[0].is_durable());
}

#[test]
fn what_has_time_is_refused_while_nothing_can_be_written() {
    let disk = good_disk();
    let journal = open_with_time(&disk);
    disk.state().sync_ms = 300;
    disk.state().refuses_syncs = true;
    // Taken while a frame is failing: the journal does not know yet.
    let failing = std::thread::spawn({
        let journal = journal.clone();
        move || append_one(&journal, 1, 1)
    });
    std::thread::sleep(Duration::from_millis(100));
    let ticket = in_coroutine(0, move || {
        let ticket = Arc::new(Ticket::of_current(0));
        let forget = Forget { user_id: "u".into(), keyword: None, at_ms: 2 };
        let wait = Arc::<Waiting>::default().decide(Until::Ledger, ticket.clone()).wait();
        // The journal is kept to be looked at: it would be closed.
        journal.append(0, 1, wait, |out| forget.encode(out)).map(|()| (ticket, journal))
    });
    assert_eq!(failing.join().unwrap(), Ok(false));
    // On a machine that stood still the journal knew, and took nothing.
    if let Ok((ticket, _journal)) = ticket {
        until("told", || !ticket.is_pending());
        assert!(ticket.take_failed());
    }
}
