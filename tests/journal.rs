//! The journal through its door: what was acknowledged is there after a restart, in order, once; what does not fit is
//! refused with its reason.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_tracker::clock::Clock;
use event_tracker::events::{Forget, Record, encode_forget};
use event_tracker::journal::{AppendError, Journal, OpenError, ReadError, Salvage, Salvaged, Settings, Wait, salvage};
use event_tracker::ports::Watermark;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

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
            other => panic!("{other:?} was not written"),
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
    write_tiny_segments(directory.path());
    fs::remove_file(&segments(directory.path())[1]).unwrap();
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
fn a_start_with_the_clock_ahead_removes_no_segment() {
    let directory = tempfile::tempdir().unwrap();
    let end = write_tiny_segments(directory.path());
    let before = segments(directory.path());
    let settings = Settings { segment_bytes: TINY, free_bytes_min: 0, ..Settings::default() };
    let ahead = Clock::Manual(Arc::new((Clock::System.now_ms() + 25 * 3_600_000).into()));
    let journal = Journal::open(directory.path(), true, 1, settings, ahead).unwrap();
    journal.follow(end.position, false);
    let spare = |name: &std::path::PathBuf| name.ends_with("spare-2.tmp");
    let deadline = Instant::now() + Duration::from_secs(20);
    // Each new segment wakes the keeper, which removes old segments before it makes the next spare.
    while !std::fs::read_dir(directory.path()).unwrap().any(|entry| spare(&entry.unwrap().path())) {
        assert!(Instant::now() < deadline, "no second spare");
        append(&journal, 1_000_000..1_000_001);
        std::thread::sleep(Duration::from_millis(2));
    }
    let after = segments(directory.path());
    assert_eq!(after[..before.len()], before, "everybody has followed them, but they are new to this process");
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

/// Small segments, so that a few hundred records are several of them.
const TINY: u64 = 16 * 1024;

fn open_tiny(path: &Path) -> Result<Journal, OpenError> {
    let settings = Settings { segment_bytes: TINY, free_bytes_min: 0, ..Settings::default() };
    Journal::open(path, true, 1, settings, Clock::System)
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

/// What stands at each position behind `from`: a number, or that it is lost.
fn read_with_lost(journal: &Journal, from: Watermark) -> Result<Vec<Option<i64>>, ReadError> {
    let mut reader = journal.reader(from)?;
    let mut found = Vec::new();
    while let Some(frames) = reader.next(u64::MAX, 1_000, 1 << 20)? {
        found.extend(frames.records().unwrap().into_iter().map(|record| match record {
            Record::Forget(forget) => Some(forget.at_ms),
            Record::Lost => None,
            other => panic!("{other:?} was not written"),
        }));
    }
    Ok(found)
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
    assert_eq!(sorted(read(&journal, Watermark::default()).unwrap().0), (0..70).collect::<Vec<_>>());
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
    let segment = last_written_segment(directory.path());
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

#[test]
fn a_salvage_of_a_sound_journal_changes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("journal");
    let journal = open_tiny(&path).unwrap();
    append(&journal, 0..400);
    assert!(matches!(salvage_with(&path, None, None), Err(OpenError::Locked)), "the journal is open");
    drop(journal);
    let before: Vec<_> = segments(&path).iter().map(|p| fs::read(p).unwrap()).collect();
    let salvaged = salvage_with(&path, None, None).unwrap();
    assert!(salvaged.copy.is_none() && salvaged.lost.is_empty() && salvaged.written.is_empty());
    assert_eq!(segments(&path).iter().map(|p| fs::read(p).unwrap()).collect::<Vec<_>>(), before);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn a_missing_segment_is_salvaged_as_lost_positions() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("journal");
    let end = write_tiny_segments(&path);
    let all = segments(&path);
    let position = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let lost = position(&all[2])..=position(&all[3]) - 1;
    fs::remove_file(&all[2]).unwrap();
    fs::remove_file(path.join("stream")).unwrap();
    assert!(matches!(open_tiny(&path), Err(OpenError::Corrupt(_))));
    let salvaged = salvage_with(&path, None, None).unwrap();
    assert_eq!(salvaged.lost, vec![lost.clone()]);
    let journal = open_tiny(&path).unwrap();
    assert_eq!(journal.end(), end);
    let expected = (1..=1_000u64).map(|p| (!lost.contains(&p)).then(|| p as i64 - 1)).collect::<Vec<_>>();
    assert_eq!(read_with_lost(&journal, Watermark::default()).unwrap(), expected);
}

#[test]
fn a_store_ahead_of_a_restored_journal_goes_on_once_the_positions_count_as_lost() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("journal");
    let journal = open(&path).unwrap();
    append(&journal, 0..10);
    drop(journal);
    // An older copy came back: the store has followed to 25.
    let store = Watermark { position: 25, crc: 7 };
    assert!(matches!(open(&path).unwrap().reader(store), Err(ReadError::Ahead { store: 25, end: 10 })));
    let salvaged = salvage_with(&path, None, Some(25)).unwrap();
    assert_eq!((salvaged.lost, salvaged.end), (vec![11..=25], 25));
    let journal = open(&path).unwrap();
    append(&journal, 25..30);
    assert_eq!(sorted(read(&journal, store).unwrap().0), (25..30).collect::<Vec<_>>());
    assert!(salvage_with(&path, None, Some(u64::MAX - 1)).is_err());
}

/// Random damage of every kind; `SEED` replays it.
#[test]
fn a_salvage_keeps_every_whole_frame_and_names_everything_that_is_lost() {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let first = given.unwrap_or_else(rand::random::<u64>);
    let (mut lost, mut kept) = (0, 0);
    for seed in (0..if given.is_some() { 1 } else { 40 }).map(|n| first.wrapping_add(n)) {
        eprintln!("SEED={seed}");
        let (l, k) = salvage_damage(&mut StdRng::seed_from_u64(seed));
        lost += l;
        kept += k;
    }
    eprintln!("{lost} records were lost, {kept} kept");
    assert!(kept > 0 && (lost > 0 || given.is_some()));
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
    assert!(salvage_again_changes_nothing(journal, &path));
    let lost = all.iter().filter(|found| found.is_none()).count();
    (lost, all.len() - lost)
}

fn salvage_again_changes_nothing(journal: Journal, path: &Path) -> bool {
    drop(journal);
    salvage_with(path, None, None).unwrap().copy.is_none()
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
    assert_eq!(sorted(read(&journal, Watermark::default()).unwrap().0), (0..10).collect::<Vec<_>>());
}
