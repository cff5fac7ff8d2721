//! The journal through its door: what was acknowledged is there after a restart, in order, once; what does not fit is
//! refused with its reason.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::journal_support::{read, read_with_lost, until};
use crate::seed::seeds;
use event_tracker::clock::Clock;
use event_tracker::events::Forget;
use event_tracker::journal::{AppendError, Journal, OpenError, ReadError, Salvage, Salvaged, Settings, Wait, salvage};
use event_tracker::ports::Watermark;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SMALL: u64 = 8 * 1024 * 1024;

fn settings(segment_bytes: u64) -> Settings {
    Settings { segment_bytes, free_bytes_min: 0, ..Settings::default() }
}

fn open(path: &Path) -> Result<Journal, OpenError> {
    Journal::open(path, true, 2, settings(SMALL), Clock::System)
}

/// Appends a record that carries its number, and waits until `upto` records are durable.
fn append(journal: &Journal, numbers: std::ops::Range<i64>) {
    let target = journal.end_position() + u64::try_from(numbers.end - numbers.start).unwrap();
    for number in numbers {
        let forget = Forget { user_id: "u".repeat(100).into(), keyword: None, at_ms: number };
        while let Err(error) = journal.append(number as usize, 1, Wait::Nothing, |out| forget.encode(out)) {
            assert_eq!(error, AppendError::Busy);
        }
    }
    until("durable", || journal.end_position() >= target);
}

/// The numbers after `from`, sorted: those of two lanes come in any order.
fn read_sorted(journal: &Journal, from: Watermark) -> Vec<i64> {
    let mut numbers = read(journal, from);
    numbers.sort_unstable();
    numbers
}

/// The offset behind the last frame of a segment.
fn end_of_frames(segment: &[u8]) -> usize {
    let mut at = 64;
    loop {
        match u32::from_le_bytes(segment[at..at + 4].try_into().unwrap()) {
            0 => return at,
            payload => at += 20 + payload as usize,
        }
    }
}

const FIRST_PAYLOAD: usize = 64 + 20;

#[test]
fn a_flipped_bit_before_whole_frames_is_corruption_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    append(&journal, 0..10);
    append(&journal, 10..20);
    let segment = segments(directory.path()).pop().unwrap();
    drop(journal);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[FIRST_PAYLOAD + 3] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::Corrupt(_))));
    assert_eq!(fs::read(&segment).unwrap(), bytes);
}

#[test]
fn segments_go_only_behind_the_slowest_follower() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { keep_ms: 0, ..settings(SMALL) };
    let journal = Journal::open(directory.path(), true, 2, settings, Clock::System).unwrap();
    let (fast, slow) = (journal.follow(0, false), journal.follow(0, false));
    append(&journal, 0..150_000);
    let before = journal.size().1;
    fast.store(150_000, std::sync::atomic::Ordering::Release);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(journal.size().1, before, "the slow follower still needs them");
    slow.store(150_000, std::sync::atomic::Ordering::Release);
    until("one segment", || journal.size().1 == 1);
    assert!(matches!(journal.reader(Watermark::default()), Err(ReadError::Gone(0))));
    assert!(read(&journal, journal.end()).is_empty());
}

#[test]
fn a_start_with_the_clock_ahead_removes_no_segment() {
    let directory = tempfile::tempdir().unwrap();
    let end = write_tiny_segments(directory.path());
    let before = segments(directory.path());
    let ahead = Clock::Manual(Arc::new((Clock::System.now_ms() + 25 * 3_600_000).into()));
    let journal = Journal::open(directory.path(), true, 1, settings(TINY), ahead).unwrap();
    journal.follow(end.position, false);
    let spare = |name: &std::path::PathBuf| name.ends_with("spare-2.tmp");
    // Each new segment wakes the keeper, which removes old segments before it makes the next spare.
    until("a second spare", || {
        append(&journal, 1_000_000..1_000_001);
        fs::read_dir(directory.path()).unwrap().any(|entry| spare(&entry.unwrap().path()))
    });
    let after = segments(directory.path());
    assert_eq!(after[..before.len()], before, "everybody has followed them, but they are new to this process");
}

#[test]
fn a_full_journal_refuses_and_takes_again_once_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { bytes_max: 4 * SMALL, keep_ms: 3_600_000, ..settings(SMALL) };
    let journal = Journal::open(directory.path(), true, 2, settings, Clock::System).unwrap();
    let follower = journal.follow(0, false);
    let forget = Forget { user_id: "u".repeat(100).into(), keyword: None, at_ms: 0 };
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Ok(()) | Err(AppendError::Busy) = journal.append(0, 1, Wait::Nothing, |out| forget.encode(out)) {
        assert!(Instant::now() < deadline, "never full");
    }
    assert_eq!(journal.is_writable(), Err(AppendError::Full));
    follower.store(journal.end_position(), std::sync::atomic::Ordering::Release);
    until("writable again", || journal.is_writable().is_ok());
}

/// Small segments, so that a few hundred records are several of them.
const TINY: u64 = 16 * 1024;

fn open_tiny(path: &Path) -> Result<Journal, OpenError> {
    Journal::open(path, true, 1, settings(TINY), Clock::System)
}

/// A thousand records, at least five segments; the journal's end.
fn write_tiny_segments(path: &Path) -> Watermark {
    let journal = open_tiny(path).unwrap();
    for part in 0..40 {
        append(&journal, part * 25..part * 25 + 25);
    }
    assert!(journal.size().1 >= 5, "{:?}", journal.size());
    journal.end()
}

fn segments(path: &Path) -> Vec<std::path::PathBuf> {
    let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|p| p.extension().is_some_and(|e| e == "segment"));
    names.sort();
    names
}

fn salvage_with(path: &Path, first: Option<u64>, last: Option<u64>) -> Result<Salvaged, OpenError> {
    salvage(path, Salvage { first, last, allow_tmpfs: true }, &Clock::System)
}

#[test]
fn of_a_copied_directory_only_the_one_that_a_store_has_followed_goes_on() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = open(ours.path()).unwrap();
    append(&journal, 0..10);
    drop(journal);
    for entry in fs::read_dir(ours.path()).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), theirs.path().join(entry.file_name())).unwrap();
    }
    let (ours, theirs) = (open(ours.path()).unwrap(), open(theirs.path()).unwrap());
    assert_eq!(ours.stream(), theirs.stream(), "a copy says that it is the same journal");
    append(&ours, 10..20);
    append(&theirs, 30..45);
    let store = ours.end();
    assert!(ours.reader(store).is_ok());
    assert!(matches!(theirs.reader(store), Err(ReadError::Foreign(20))));
    assert!(matches!(ours.reader(theirs.end()), Err(ReadError::Ahead { store: 25, end: 20 })));
}

#[test]
fn bytes_behind_where_the_next_segment_begins_are_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    append(&journal, 0..50);
    append(&journal, 50..60);
    drop(journal);
    // The second life begins a segment of its own, as the first one is also part of a copy by links. Then the first one gets
    // what a failed sync leaves: a whole frame of a position that was given out again, and half a frame.
    let first = &segments(directory.path())[0];
    let copy = tempfile::tempdir_in(directory.path().parent().unwrap()).unwrap();
    let mut bytes = fs::read(first).unwrap();
    fs::hard_link(first, copy.path().join("copy")).unwrap();
    drop(open(directory.path()).unwrap());
    assert_eq!(segments(directory.path()).len(), 2);
    assert!(fs::read(first).unwrap() == bytes, "the copy is as it was");
    drop(copy);
    let used = end_of_frames(&bytes);
    let mut frame = bytes[64..used].to_vec();
    frame.truncate(20 + u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize);
    frame[8..16].copy_from_slice(&61u64.to_le_bytes());
    let crc = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes[used..used + frame.len()].copy_from_slice(&frame);
    bytes[used + frame.len()..used + frame.len() + 40].copy_from_slice(&frame[..40]);
    fs::write(first, &bytes).unwrap();
    let journal = open(directory.path()).unwrap();
    assert_eq!(journal.end_position(), 60);
    append(&journal, 60..70);
    assert_eq!(read_sorted(&journal, Watermark::default()), (0..70).collect::<Vec<_>>());
}

#[test]
fn restarts_without_records_leave_no_segments_behind() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    append(&journal, 0..10);
    let end = journal.end();
    drop(journal);
    for _ in 0..5 {
        assert_eq!(open(directory.path()).unwrap().end(), end);
    }
    assert_eq!(segments(directory.path()).len(), 1);
}

#[test]
fn a_segment_of_a_newer_version_is_refused_with_what_to_do_and_not_salvaged() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    append(&journal, 0..10);
    drop(journal);
    let segment = segments(directory.path()).pop().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(&segment, &bytes).unwrap();
    let error = open(directory.path()).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Newer { version: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("Start the newer program"), "{error}");
    assert!(matches!(salvage_with(directory.path(), None, None), Err(OpenError::Corrupt(_))));
    assert_eq!(fs::read(&segment).unwrap(), bytes);
}

/// Random damage of every kind; `SEED` replays it.
#[test]
fn a_salvage_keeps_every_whole_frame_and_names_everything_that_is_lost() {
    let (mut lost, mut kept, mut runs) = (0, 0, 0);
    for seed in seeds(40) {
        eprintln!("SEED={seed}");
        runs += 1;
        let (l, k) = salvage_damage(&mut StdRng::seed_from_u64(seed));
        lost += l;
        kept += k;
    }
    eprintln!("{lost} records were lost, {kept} kept");
    assert!(kept > 0 && (lost > 0 || runs == 1));
}

fn salvage_damage(random: &mut StdRng) -> (usize, usize) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("journal");
    let journal = open_tiny(&path).unwrap();
    let mut marks = vec![Watermark::default()];
    let mut count = 0;
    for _ in 0..random.random_range(1..25) {
        let records = random.random_range(1..40);
        append(&journal, count..count + records);
        count += records;
        marks.push(journal.end());
    }
    drop(journal);
    let end = u64::try_from(count).unwrap();
    for _ in 0..random.random_range(1..4) {
        damage(&path, random);
    }
    let before: Vec<_> = segments(&path).iter().map(|p| (p.clone(), fs::read(p).unwrap())).collect();
    let salvaged = match salvage_with(&path, Some(1), Some(end)) {
        Ok(salvaged) => salvaged,
        // The only segment was hit where it says what it is.
        Err(error) => {
            assert!(error.to_string().contains("there is no segment of this journal"), "{error}");
            let after: Vec<_> = segments(&path).iter().map(|p| (p.clone(), fs::read(p).unwrap())).collect();
            assert!(before.len() <= 1 && after == before, "it must change nothing");
            return (0, 0);
        }
    };
    if let Some(copy) = &salvaged.copy {
        for (path, bytes) in before {
            assert_eq!(fs::read(copy.join(path.file_name().unwrap())).unwrap(), bytes, "the copy is as it was");
        }
    }
    let named = |position: u64| salvaged.lost.iter().any(|range| range.contains(&position));
    let journal = open_tiny(&path).unwrap();
    assert_eq!(journal.end_position(), end);
    let all = read_with_lost(&journal, Watermark::default()).unwrap();
    for (position, found) in (1..).zip(&all) {
        let expected = (!named(position)).then(|| i64::try_from(position).unwrap() - 1);
        assert_eq!(*found, expected, "position {position}; lost are {:?}", salvaged.lost);
    }
    // A store at any frame's end goes on exactly behind it, with the rest.
    for mark in marks {
        let rest = read_with_lost(&journal, mark).unwrap_or_else(|error| panic!("{mark:?}: {error}"));
        assert_eq!(rest, all[usize::try_from(mark.position).unwrap()..], "{mark:?}");
    }
    append(&journal, count..count + 3);
    drop(journal);
    assert!(salvage_with(&path, None, None).unwrap().copy.is_none(), "a second salvage changes nothing");
    let lost = all.iter().filter(|found| found.is_none()).count();
    (lost, all.len() - lost)
}

fn damage(path: &Path, random: &mut StdRng) {
    let all = segments(path);
    let victim = &all[random.random_range(0..all.len())];
    let mut bytes = fs::read(victim).unwrap();
    let used = if bytes.len() > 68 { end_of_frames_or_length(&bytes) } else { bytes.len() };
    match random.random_range(0..7) {
        0 if all.len() > 1 => fs::remove_file(victim).unwrap(),
        1 => fs::write(victim, &bytes[..random.random_range(0..=bytes.len())]).unwrap(),
        2 if !bytes.is_empty() => {
            let at = random.random_range(0..bytes.len().min(64));
            bytes[at] ^= 1 << random.random_range(0..8);
            fs::write(victim, &bytes).unwrap();
        }
        3 if used > 64 => {
            let from = random.random_range(0..used);
            let to = random.random_range(from..=used);
            bytes[from..to].fill(0);
            fs::write(victim, &bytes).unwrap();
        }
        4 if all.iter().all(|p| !p.ends_with("junk.segment")) => fs::rename(victim, path.join("junk.segment")).unwrap(),
        _ if used > 64 => {
            for _ in 0..random.random_range(1..5) {
                let at = random.random_range(64..used);
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            fs::write(victim, &bytes).unwrap();
        }
        _ => {}
    }
}

fn end_of_frames_or_length(segment: &[u8]) -> usize {
    segment.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1)
}

#[test]
fn a_journal_whose_history_the_ledger_does_not_share_takes_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    append(&journal, 0..10);
    journal.refuse_as_forked();
    let refused = journal.append(0, 1, Wait::Nothing, |_| panic!("nothing is encoded"));
    assert_eq!(refused, Err(AppendError::Forked));
    // Nor once the keeper has looked.
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(journal.is_writable(), Err(AppendError::Forked));
    assert_eq!(read_sorted(&journal, Watermark::default()), (0..10).collect::<Vec<_>>());
}
