//! A disk that fails: nothing is acknowledged that is not on it, and what was acknowledged stays.
//!
//! The fault is a storage that passes on to a real directory and fails writes and syncs when it is told to.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use event_tracker::clock::Clock;
use event_tracker::events::{Forget, Record, encode_forget};
use event_tracker::journal::{AppendError, Decision, Directory, Journal, SegmentFile, Settings, Storage, Until, Wait};
use event_tracker::ports::Watermark;
use event_tracker::runtime::{self, Ticket};

/// What goes wrong, for all files at once.
#[derive(Default)]
struct Faults {
    writes: AtomicBool,
    syncs: AtomicBool,
    names: AtomicBool,
    /// A sync takes this long.
    sync_ms: AtomicU64,
    failed: AtomicU64,
}

impl Faults {
    fn check(&self, fault: &AtomicBool) -> io::Result<()> {
        if fault.load(Ordering::SeqCst) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }
}

struct Faulty {
    directory: Directory,
    faults: Arc<Faults>,
    /// What the keeper did to names, in order.
    removals: Arc<Mutex<Vec<&'static str>>>,
}

impl Faulty {
    fn keeper_did(&self, what: &'static str) {
        if std::thread::current().name() == Some("journal-keeper") {
            self.removals.lock().unwrap().push(what);
        }
    }
}

struct FaultyFile {
    file: Arc<dyn SegmentFile>,
    faults: Arc<Faults>,
}

impl Faulty {
    fn wrap(&self, file: Arc<dyn SegmentFile>) -> Arc<dyn SegmentFile> {
        Arc::new(FaultyFile { file, faults: self.faults.clone() })
    }
}

impl Storage for Faulty {
    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.list()
    }
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        self.faults.check(&self.faults.writes)?;
        self.directory.create(name, bytes).map(|file| self.wrap(file))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        self.directory.open(name).map(|file| self.wrap(file))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        if name.ends_with(".segment") {
            self.keeper_did("remove");
        }
        self.directory.remove(name)
    }
    fn sync_names(&self) -> io::Result<()> {
        if let Err(error) = self.faults.check(&self.faults.names) {
            self.keeper_did("failed sync");
            return Err(error);
        }
        self.keeper_did("sync");
        self.directory.sync_names()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.directory.free_bytes()
    }
}

impl SegmentFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.faults.check(&self.faults.writes)?;
        self.file.write_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(self.faults.sync_ms.load(Ordering::SeqCst)));
        self.faults.check(&self.faults.syncs)?;
        self.file.sync()
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn is_linked(&self) -> io::Result<bool> {
        self.file.is_linked()
    }
}

fn settings() -> Settings {
    Settings { segment_bytes: 8 * 1024 * 1024, free_bytes_min: 0, ..Settings::default() }
}

fn open(path: &Path) -> (Journal, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let directory = Directory::open(path, true).unwrap();
    let storage = Faulty { directory, faults: faults.clone(), removals: Arc::default() };
    let journal = Journal::open_on(Arc::new(storage), 2, settings(), Clock::System).unwrap();
    (journal, faults)
}

/// Runs in a coroutine, as a request does, and hands its result back.
fn in_coroutine<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| runtime::start(2, false));
    let (done, result) = std::sync::mpsc::channel();
    runtime::spawn_on(0, move || done.send(job()).unwrap());
    result.recv_timeout(Duration::from_secs(20)).expect("a request that ends")
}

/// Appends one record and waits for it as a request does: true once it is durable, false when that failed.
fn append(journal: &Arc<Journal>, number: i64) -> Result<bool, AppendError> {
    let journal = journal.clone();
    in_coroutine(move || {
        let ticket = Arc::new(Ticket::of_current(0));
        let forget = Forget { user_id: "u".into(), keyword: None, at_ms: number };
        journal.append(0, 1, Wait::Durable(ticket.clone()), |out| encode_forget(&forget, out))?;
        assert!(ticket.wait());
        Ok(!ticket.take_failed())
    })
}

/// Appends a record that waits for the ledger.
fn append_for_ledger(journal: &Arc<Journal>) -> Arc<Decision> {
    let journal = journal.clone();
    in_coroutine(move || {
        let decision = Decision::new(Arc::new(Ticket::of_current(0)));
        let forget = Forget { user_id: "u".repeat(100).into(), keyword: None, at_ms: 1 };
        let wait = Wait::Follower(Until::Ledger, decision.clone());
        journal.append(0, 1, wait, |out| encode_forget(&forget, out)).unwrap();
        decision
    })
}

/// A journal whose ledger begins its next batch in a minute: what waits for that has time.
fn open_with_time(path: &Path) -> (Arc<Journal>, Arc<Faults>) {
    let (journal, faults) = open(path);
    journal.ledger_begins(Some(Instant::now() + Duration::from_secs(60)));
    (Arc::new(journal), faults)
}

fn numbers(journal: &Journal) -> Vec<i64> {
    let mut reader = journal.reader(Watermark::default()).unwrap();
    let mut numbers = Vec::new();
    while let Some(frames) = reader.next(u64::MAX, 1_000, 1 << 20).unwrap() {
        numbers.extend(frames.records().unwrap().into_iter().map(|record| match record {
            Record::Forget(forget) => forget.at_ms,
            other => panic!("{other:?} was not written"),
        }));
    }
    numbers
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_failed_sync_costs_nothing_but_a_new_segment() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, faults) = open(directory.path());
    let journal = Arc::new(journal);
    assert_eq!(append(&journal, 1), Ok(true));
    // The writer syncs the header of the new segment before it writes the frame again.
    faults.syncs.store(true, Ordering::SeqCst);
    let healed = std::thread::spawn({
        move || {
            until("failed", || faults.failed.load(Ordering::SeqCst) > 0);
            faults.syncs.store(false, Ordering::SeqCst);
        }
    });
    let second = append(&journal, 2);
    healed.join().unwrap();
    until("writable", || journal.is_writable().is_ok());
    assert_eq!(append(&journal, 3), Ok(true));
    let expected = if second == Ok(true) { vec![1, 2, 3] } else { vec![1, 3] };
    assert_eq!(numbers(&journal), expected);
    drop(journal);
    assert_eq!(numbers(&open(directory.path()).0), expected);
}

#[test]
fn a_disk_that_refuses_acknowledges_nothing_and_is_used_again_once_it_works() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, faults) = open(directory.path());
    let journal = Arc::new(journal);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let good = round * 10 + 1;
        assert_eq!(append(&journal, good), Ok(true));
        acknowledged.push(good);
        faults.writes.store(true, Ordering::SeqCst);
        assert_ne!(append(&journal, good + 1), Ok(true));
        until("refusing", || journal.is_writable() == Err(AppendError::Failed));
        assert_eq!(append(&journal, good + 2), Err(AppendError::Failed));
        faults.writes.store(false, Ordering::SeqCst);
        until("writable again", || journal.is_writable().is_ok());
    }
    assert_eq!(numbers(&journal), acknowledged);
    drop(journal);
    let (journal, _) = open(directory.path());
    assert_eq!(numbers(&journal), acknowledged);
    let spares = std::fs::read_dir(directory.path()).unwrap();
    let spares = spares.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("spare-")).count();
    assert!(spares <= 1, "{spares} spares were left behind");
}

#[test]
fn a_journal_that_failed_with_more_in_line_recovers_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, faults) = open(directory.path());
    let journal = Arc::new(journal);
    // While the first sync is slow, others line up; then the disk fails for the first and works for those.
    faults.sync_ms.store(150, Ordering::SeqCst);
    let first = std::thread::spawn({
        let journal = journal.clone();
        move || append(&journal, 1)
    });
    std::thread::sleep(Duration::from_millis(50));
    let others: Vec<_> = (2..6)
        .map(|number| {
            let journal = journal.clone();
            std::thread::spawn(move || append(&journal, number))
        })
        .collect();
    faults.syncs.store(true, Ordering::SeqCst);
    until("failed twice", || faults.failed.load(Ordering::SeqCst) >= 2);
    faults.syncs.store(false, Ordering::SeqCst);
    faults.sync_ms.store(0, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for (number, thread) in (1..).zip(std::iter::once(first).chain(others)) {
        if thread.join().unwrap() == Ok(true) {
            acknowledged.push(number);
        }
    }
    until("writable", || journal.is_writable().is_ok());
    assert_eq!(append(&journal, 9), Ok(true));
    acknowledged.push(9);
    let mut stored = numbers(&journal);
    stored.sort_unstable();
    assert_eq!(stored, acknowledged);
}

#[test]
fn a_wait_for_a_follower_knows_whether_its_record_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, faults) = open(directory.path());
    let journal = Arc::new(journal);
    let append_and_look = |slow_ms: u64| {
        faults.sync_ms.store(slow_ms, Ordering::SeqCst);
        let seen = append_for_ledger(&journal);
        std::thread::sleep(Duration::from_millis(100));
        let early = seen.is_durable();
        faults.sync_ms.store(0, Ordering::SeqCst);
        until("durable", || seen.is_durable());
        early
    };
    assert!(append_and_look(0));
    assert!(!append_and_look(400));
}

#[test]
fn waits_that_were_given_up_are_not_collected() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let journal = Arc::new(journal);
    let decisions: Vec<std::sync::Weak<Decision>> = in_coroutine({
        let journal = journal.clone();
        move || {
            let forget = Forget { user_id: "u".into(), keyword: None, at_ms: 1 };
            let given_up = (0..20_000).map(|_| {
                let decision = Decision::new(Arc::new(Ticket::of_current(0)));
                decision.abandon();
                let wait = Wait::Follower(Until::Ledger, decision.clone());
                journal.append(0, 1, wait, |out| encode_forget(&forget, out)).unwrap();
                Arc::downgrade(&decision)
            });
            given_up.collect()
        }
    });
    until("durable", || journal.end_position() == 20_000);
    let alive = decisions.iter().filter(|d| d.strong_count() > 0).count();
    assert!(alive <= 1_024, "{alive} are still in line");
}

#[test]
fn no_segment_is_removed_while_an_earlier_removal_is_not_durable() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let removals = Arc::new(Mutex::default());
    let storage = Faulty {
        directory: Directory::open(directory.path(), true).unwrap(),
        faults: faults.clone(),
        removals: Arc::clone(&removals),
    };
    let now = Arc::new(AtomicI64::new(1_000));
    let settings = Settings { segment_bytes: 2_048, keep_ms: 0, ..settings() };
    let journal = Journal::open_on(Arc::new(storage), 2, settings, Clock::Manual(now.clone())).unwrap();
    let journal = Arc::new(journal);
    let follower = journal.follow(0, false);
    while journal.size().1 < 4 {
        assert_eq!(append(&journal, now.fetch_add(1, Ordering::SeqCst)), Ok(true));
    }
    now.fetch_add(1, Ordering::SeqCst);
    faults.names.store(true, Ordering::SeqCst);
    follower.store(journal.end_position(), Ordering::SeqCst);
    let done = || removals.lock().unwrap().clone();
    until("failed twice", || done().iter().filter(|what| **what == "failed sync").count() >= 2);
    assert_eq!(done()[..3], ["remove", "failed sync", "failed sync"]);
    faults.names.store(false, Ordering::SeqCst);
    until("all removed", || journal.size().1 == 1);
    assert_eq!(done().iter().filter(|what| **what == "remove").count(), 3);
    assert!(done().windows(2).all(|pair| pair != ["remove", "remove"]), "{:?}", done());
}

/// A file system of a few megabytes, for as long as it lives.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: std::path::PathBuf, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        match mount {
            Ok(done) if done.status.success() => Some(SmallDisk(path)),
            other => {
                eprintln!("SKIPPED: no file system can be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_fills_up_refuses_keeps_what_it_acknowledged_and_goes_on_with_room() {
    let parent = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(parent.path().join("disk"), "2m") else { return };
    let path = disk.0.join("journal");
    let settings = Settings { segment_bytes: 256 * 1024, free_bytes_min: 0, ..Settings::default() };
    let refused = Journal::open(&path, false, 2, settings.clone(), Clock::System).map(drop).unwrap_err();
    assert!(refused.to_string().contains("ALLOW_TMPFS"), "{refused}");
    let journal = Arc::new(Journal::open(&path, true, 2, settings.clone(), Clock::System).unwrap());
    let mut acknowledged = Vec::new();
    // Somebody else takes what is left, then the journal runs out.
    std::fs::write(disk.0.join("ballast"), vec![1; 1024 * 1024]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut number = 0;
    let refused = loop {
        number += 1;
        match append_large(&journal, number) {
            Ok(true) => acknowledged.push(number),
            Ok(false) => {}
            Err(error) => break error,
        }
        assert!(Instant::now() < deadline, "it never fills");
    };
    assert!(matches!(refused, AppendError::Full | AppendError::Failed), "{refused:?}");
    assert!(acknowledged.len() > 5, "{acknowledged:?}");
    assert!(journal.is_writable().is_err());
    // It is refused for as long as the disk is full, and what was acknowledged is there.
    std::thread::sleep(Duration::from_millis(1_200));
    assert!(append_large(&journal, -1).is_err());
    assert_eq!(numbers(&journal), acknowledged);
    std::fs::remove_file(disk.0.join("ballast")).unwrap();
    until("writable", || journal.is_writable().is_ok());
    assert_eq!(append_large(&journal, 1_000), Ok(true));
    acknowledged.push(1_000);
    drop(journal);
    let journal = Journal::open(&path, true, 2, settings, Clock::System).unwrap();
    assert_eq!(numbers(&journal), acknowledged);
}

/// As [`append`], 16 KiB.
fn append_large(journal: &Arc<Journal>, number: i64) -> Result<bool, AppendError> {
    let journal = journal.clone();
    in_coroutine(move || {
        let ticket = Arc::new(Ticket::of_current(0));
        let forget = Forget { user_id: "u".repeat(16 * 1024).into(), keyword: None, at_ms: number };
        journal.append(0, 1, Wait::Durable(ticket.clone()), |out| encode_forget(&forget, out))?;
        assert!(ticket.wait());
        Ok(!ticket.take_failed())
    })
}

#[test]
fn what_has_time_goes_with_the_next_frame_or_when_its_time_has_come() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let journal = Arc::new(journal);
    let in_a_minute = || Some(Instant::now() + Duration::from_secs(60));
    let pause = || std::thread::sleep(Duration::from_millis(100));
    // Nobody has said when the ledger begins.
    let alone = append_for_ledger(&journal);
    until("durable", || alone.is_durable());
    // It begins later: others take it along, whether the writer slept for good or until then.
    journal.ledger_begins(in_a_minute());
    for _ in 0..3 {
        let syncs = journal.stats().syncs.load(Ordering::SeqCst);
        let together = [append_for_ledger(&journal), append_for_ledger(&journal)];
        pause();
        assert!(!together.iter().any(|decision| decision.is_durable()));
        assert_eq!(append(&journal, 2), Ok(true));
        assert!(together.iter().all(|decision| decision.is_durable()));
        assert_eq!(journal.stats().syncs.load(Ordering::SeqCst), syncs + 1);
    }
    // One that has less time wakes a writer that sleeps until later.
    let waits = append_for_ledger(&journal);
    pause();
    let forget = Forget { user_id: "u".into(), keyword: None, at_ms: 3 };
    journal.append(0, 1, Wait::Leisure, |out| encode_forget(&forget, out)).unwrap();
    until("durable by itself", || waits.is_durable());
    // What has nobody to take it along goes when its time has come.
    journal.ledger_begins(Some(Instant::now() + Duration::from_millis(300)));
    let waits = append_for_ledger(&journal);
    until("durable when the ledger begins", || waits.is_durable());
    // The time of a ledger that is away goes by.
    let waits = append_for_ledger(&journal);
    until("durable at once", || waits.is_durable());
    // The end waits for nothing. This returns behind what was published before.
    assert_eq!(append(&journal, 4), Ok(true));
    journal.ledger_begins(in_a_minute());
    let waits = append_for_ledger(&journal);
    let written = journal.end_position();
    journal.close();
    assert!(waits.is_durable());
    assert_eq!(journal.end_position(), written + 1);
}

#[test]
fn what_has_time_does_not_pile_up_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_with_time(directory.path());
    let waits: Vec<_> = (0..3_000).map(|_| append_for_ledger(&journal)).collect();
    until("a frame's worth is durable", || waits[0].is_durable());
}

#[test]
fn what_has_time_is_refused_while_nothing_can_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, faults) = open_with_time(directory.path());
    faults.sync_ms.store(300, Ordering::SeqCst);
    faults.syncs.store(true, Ordering::SeqCst);
    // Taken while a frame is failing: the journal does not know yet.
    let failing = std::thread::spawn({
        let journal = journal.clone();
        move || append(&journal, 1)
    });
    std::thread::sleep(Duration::from_millis(100));
    let ticket = in_coroutine(move || {
        let ticket = Arc::new(Ticket::of_current(0));
        let forget = Forget { user_id: "u".into(), keyword: None, at_ms: 2 };
        let wait = Wait::Follower(Until::Ledger, Decision::new(ticket.clone()));
        // The journal is kept to be looked at: it would be closed.
        journal.append(0, 1, wait, |out| encode_forget(&forget, out)).map(|()| (ticket, journal))
    });
    assert_eq!(failing.join().unwrap(), Ok(false));
    // On a machine that stood still the journal knew, and took nothing.
    if let Ok((ticket, _journal)) = ticket {
        until("told", || !ticket.is_pending());
        assert!(ticket.take_failed());
    }
}
