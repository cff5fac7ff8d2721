//! The journal through its door: what was acknowledged is there after a restart, in order, once; what does not fit is
//! refused with its reason.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use event_tracker::clock::Clock;
use event_tracker::events::{Forget, Record, encode_forget};
use event_tracker::journal::{AppendError, Journal, OpenError, ReadError, Settings, Wait};
use event_tracker::ports::Watermark;

const SMALL: u64 = 8 * 1024 * 1024;

fn settings() -> Settings {
    Settings { segment_bytes: SMALL, free_bytes_min: 0, ..Settings::default() }
}

fn open(path: &Path) -> Result<Journal, OpenError> {
    Journal::open(path, true, 2, settings(), Clock::System)
}

/// Appends a record that carries its number, and waits until `upto` records are durable.
fn append(journal: &Journal, numbers: std::ops::Range<i64>) {
    let target = journal.end_position() + u64::try_from(numbers.end - numbers.start).unwrap();
    for number in numbers {
        let forget = Forget { user_id: "u".repeat(100).into(), keyword: None, at_ms: number };
        while let Err(error) = journal.append(number as usize, 1, Wait::Nothing, |out| encode_forget(&forget, out)) {
            assert_eq!(error, AppendError::Busy);
        }
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while journal.end_position() < target {
        assert!(Instant::now() < deadline, "the journal stands at {}", journal.end_position());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The numbers behind `from`, and where reading ended.
fn read(journal: &Journal, from: Watermark) -> Result<(Vec<i64>, Watermark), ReadError> {
    let mut reader = journal.reader(from)?;
    let mut numbers = Vec::new();
    while let Some(frames) = reader.next(u64::MAX, 1_000, 1 << 20)? {
        assert_eq!(frames.from.position as usize + frames.count(), frames.to.position as usize);
        numbers.extend(frames.records().unwrap().into_iter().map(|record| match record {
            Record::Forget(forget) => forget.at_ms,
            _ => panic!("none was written"),
        }));
    }
    Ok((numbers, reader.at()))
}

fn sorted(mut numbers: Vec<i64>) -> Vec<i64> {
    numbers.sort_unstable();
    numbers
}

/// The segment that holds records: the last but the empty one that each start begins.
fn last_written_segment(path: &Path) -> std::path::PathBuf {
    let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|p| p.extension().is_some_and(|e| e == "segment"));
    names.sort();
    names.pop().unwrap()
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

/// Where the first frame's payload begins in a segment.
const FIRST_PAYLOAD: usize = 64 + 20;

#[test]
fn what_was_appended_is_read_back_once_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    let stream = journal.stream();
    append(&journal, 0..5_000);
    drop(journal);
    let journal = open(directory.path()).unwrap();
    assert_eq!(journal.stream(), stream);
    append(&journal, 5_000..6_000);
    let (numbers, end) = read(&journal, Watermark::default()).unwrap();
    assert_eq!(sorted(numbers), (0..6_000).collect::<Vec<_>>());
    assert_eq!(end, journal.end());
}

#[test]
fn a_lane_keeps_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path(), true, 1, settings(), Clock::System).unwrap();
    append(&journal, 0..3_000);
    assert_eq!(read(&journal, Watermark::default()).unwrap().0, (0..3_000).collect::<Vec<_>>());
}

#[test]
fn a_reader_goes_on_over_segments_from_any_watermark() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    append(&journal, 0..150_000);
    assert!(journal.size().1 > 2, "{:?}", journal.size());
    let mut reader = journal.reader(Watermark::default()).unwrap();
    let mut marks = Vec::new();
    while reader.next(u64::MAX, 10_000, 1 << 20).unwrap().is_some() {
        marks.push(reader.at());
    }
    drop(journal);
    let journal = open(directory.path()).unwrap();
    for mark in marks {
        let (numbers, _) = read(&journal, mark).unwrap();
        assert_eq!(numbers.len() as u64, 150_000 - mark.position);
    }
}

#[test]
fn a_watermark_of_another_journal_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    append(&journal, 0..10);
    let end = journal.end();
    let foreign = Watermark { crc: end.crc ^ 1, ..end };
    assert!(matches!(journal.reader(foreign), Err(ReadError::Foreign(10))));
    let ahead = Watermark { position: 11, ..end };
    assert!(matches!(journal.reader(ahead), Err(ReadError::Ahead { store: 11, end: 10 })));
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _journal = open(directory.path()).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::Locked)));
}

#[test]
fn a_torn_tail_is_cut_and_nothing_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    append(&journal, 0..100);
    let segment = last_written_segment(directory.path());
    let whole = fs::read(&segment).unwrap();
    let end = journal.end();
    drop(journal);
    // The beginning of a frame that never became whole, behind the last one.
    let used = end_of_frames(&whole);
    let mut torn = whole.clone();
    torn[used..used + 80].copy_from_slice(&whole[64..64 + 80]);
    torn[used + 8..used + 16].copy_from_slice(&101u64.to_le_bytes());
    fs::write(&segment, &torn).unwrap();
    let journal = open(directory.path()).unwrap();
    assert_eq!(journal.end(), end);
    append(&journal, 100..110);
    assert_eq!(sorted(read(&journal, Watermark::default()).unwrap().0), (0..110).collect::<Vec<_>>());
}

#[test]
fn a_flipped_bit_before_whole_frames_is_corruption_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    append(&journal, 0..10);
    append(&journal, 10..20);
    let segment = last_written_segment(directory.path());
    drop(journal);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[FIRST_PAYLOAD + 3] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::Corrupt(_))));
    assert_eq!(fs::read(&segment).unwrap(), bytes);
}

#[test]
fn a_missing_segment_is_corruption() {
    let directory = tempfile::tempdir().unwrap();
    for part in 0..3 {
        let journal = open(directory.path()).unwrap();
        append(&journal, part * 10..part * 10 + 10);
    }
    let mut names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|p| p.extension().is_some_and(|e| e == "segment"));
    names.sort();
    fs::remove_file(&names[1]).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::Corrupt(_))));
}

#[test]
fn segments_go_only_behind_the_slowest_follower() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { keep_ms: 0, ..settings() };
    let journal = Journal::open(directory.path(), true, 2, settings, Clock::System).unwrap();
    let (fast, slow) = (journal.follow(0, false), journal.follow(0, false));
    append(&journal, 0..150_000);
    let before = journal.size().1;
    fast.store(150_000, std::sync::atomic::Ordering::Release);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(journal.size().1, before, "the slow follower still needs them");
    slow.store(150_000, std::sync::atomic::Ordering::Release);
    let deadline = Instant::now() + Duration::from_secs(5);
    while journal.size().1 > 1 {
        assert!(Instant::now() < deadline, "{:?}", journal.size());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(matches!(journal.reader(Watermark::default()), Err(ReadError::Gone(0))));
    assert!(read(&journal, journal.end()).unwrap().0.is_empty());
}

#[test]
fn a_full_journal_refuses_and_takes_again_once_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { bytes_max: 4 * SMALL, keep_ms: 3_600_000, ..settings() };
    let journal = Journal::open(directory.path(), true, 2, settings, Clock::System).unwrap();
    let follower = journal.follow(0, false);
    let forget = Forget { user_id: "u".repeat(100).into(), keyword: None, at_ms: 0 };
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match journal.append(0, 1, Wait::Nothing, |out| encode_forget(&forget, out)) {
            Ok(()) | Err(AppendError::Busy) => {}
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                break;
            }
        }
        assert!(Instant::now() < deadline, "never full");
    }
    assert_eq!(journal.is_writable(), Err(AppendError::Full));
    std::thread::sleep(Duration::from_millis(300));
    follower.store(journal.end_position(), std::sync::atomic::Ordering::Release);
    while journal.is_writable().is_err() {
        assert!(Instant::now() < deadline, "never writable again");
        std::thread::sleep(Duration::from_millis(20));
    }
}
