//! The data directory: may we write there, is it a disk, how fast does it sync, and what is there already.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::data_dir;
use super::super::journal::records;
use super::findings::{Findings, Level};
use crate::commands::output::counted;
use crate::config::Settings;
use crate::journal::{Directory, Lock, Survey, survey};
use crate::process::{TMPFS, file_system};

const ABOUT: &str = "data directory";
const SYNCS: usize = 50;
const SYNC_BYTES: usize = 4096;
/// A sync that takes longer makes every answer slow.
const SYNC_GOOD: Duration = Duration::from_millis(20);
/// By their numbers in statfs(2).
const FILE_SYSTEMS: [(i64, &str); 12] = [
    (TMPFS, "tmpfs"),
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0x794c_7630, "overlay"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
];
const REMOTE: [&str; 5] = ["nfs", "cifs", "smb2", "fuse", "9p"];

/// True where a running server has the directory.
pub(super) fn check(findings: &mut Findings, settings: &Settings) -> bool {
    let directory = &settings.stores.data_dir;
    let existing = match data_dir::check(directory) {
        Ok(existing) => existing,
        Err(why) => {
            findings.fail(ABOUT, why);
            return false;
        }
    };
    match data_dir::warning(directory) {
        Some(warning) => findings.warn(ABOUT, warning),
        None if existing == *directory => {
            findings.ok(ABOUT, format!("{} can be written ({})", directory.display(), data_dir::owner(directory)));
        }
        None => findings.ok(ABOUT, format!("{} is made at the first start", directory.display())),
    }
    about_disk(findings, &existing, settings);
    about_syncs(findings, &existing);
    about_journal(findings, &directory.join("journal"))
}

fn about_disk(findings: &mut Findings, directory: &Path, settings: &Settings) {
    let (kind, free) = match File::open(directory).and_then(|open| file_system(&open)) {
        Ok(about) => about,
        Err(error) => return findings.fail("disk", error.to_string()),
    };
    let name = FILE_SYSTEMS.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name);
    match name {
        Some("tmpfs") if settings.allow_tmpfs => findings.warn("disk", "tmpfs (ALLOW_TMPFS): lost with the power"),
        Some("tmpfs") => findings.fail("disk", "tmpfs loses events with the power: choose another DATA_DIR"),
        Some("overlay") => {
            findings.warn("disk", "overlay, a container's own layer: it goes with the container; mount a volume")
        }
        Some(name) if REMOTE.contains(&name) => {
            findings.warn(
                "disk",
                format!("{name}: whether a sync reaches a disk, and whether locks hold, is the server's word"),
            );
        }
        Some(name) => findings.ok("disk", name),
        None => findings.ok("disk", format!("a file system of type {kind:#x}")),
    }
    about_space(findings, free, settings);
}

fn about_space(findings: &mut Findings, free: u64, settings: &Settings) {
    let (least, most) = (settings.journal.free_bytes_min, settings.journal.bytes_max);
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let now = format!("{} MiB free", mib(free));
    // The segment that is written and the spare one.
    if free < least.saturating_add(2 * settings.journal.segment_bytes) {
        let message =
            format!("{now}: less than JOURNAL_MIN_FREE ({} MiB) and two segments; events would be refused", mib(least));
        findings.fail("space", message);
    } else {
        let bad =
            format!("{now}: the journal may take {} MiB (JOURNAL_MAX_BYTES) and leaves {} MiB", mib(most), mib(least));
        findings.expect(free >= least.saturating_add(most), Level::Warn, "space", &now, bad);
    }
}

fn about_syncs(findings: &mut Findings, directory: &Path) {
    match measure_syncs(directory) {
        Ok(times) => {
            let ms = |at: usize| times[at].as_secs_f64() * 1_000.0;
            let text = format!(
                "fdatasync p50 {:.2} ms, p99 {:.2} ms ({SYNCS} of {SYNC_BYTES} bytes)",
                ms(SYNCS / 2),
                ms(SYNCS - 1)
            );
            let bad = format!("{text}: every answer waits for one; a local SSD takes below 2 ms");
            findings.expect(times[SYNCS - 1] <= SYNC_GOOD, Level::Warn, "syncs", &text, bad);
        }
        Err(error) => findings.fail("syncs", format!("{}: {error}", directory.display())),
    }
}

/// In a file without a name, which goes with us.
fn measure_syncs(directory: &Path) -> io::Result<Vec<Duration>> {
    let mut file = tempfile::tempfile_in(directory)?;
    let block = [7; SYNC_BYTES];
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&block)?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn about_journal(findings: &mut Findings, directory: &Path) -> bool {
    let look = || -> io::Result<Option<Survey>> {
        if !directory.is_dir() {
            return Ok(None);
        }
        if Lock::is_held(directory)? {
            return Ok(None);
        }
        survey(&Directory::look(directory)?, &mut records::check).map(Some)
    };
    match look() {
        Ok(Some(found)) if !found.is_empty() => tell_survey(findings, &found),
        Ok(None) if directory.is_dir() => {
            findings.ok("journal", "a running server has it open (LOCK): /healthz/deps tells how it is");
            return true;
        }
        Ok(_) => findings.ok("journal", "none yet"),
        Err(error) => findings.fail("journal", format!("{error} ({})", directory.display())),
    }
    false
}

fn tell_survey(findings: &mut Findings, found: &Survey) {
    if let Some(first) = found.findings.first() {
        let more = found.findings.len() - 1;
        return findings.fail("journal", format!("{first}; {more} more: `event-tracker journal verify` lists them"));
    }
    let stream = found.stream.map_or_else(|| "unknown".to_owned(), |stream| stream.to_string());
    let torn = match found.torn_bytes {
        0 => String::new(),
        bytes => format!(", {} of a torn tail, never acknowledged", counted(bytes, "byte")),
    };
    findings.ok(
        "journal",
        format!(
            "stream {stream}, end {}, {}{torn}",
            found.end.position,
            counted(found.segments.len() as u64, "segment")
        ),
    );
}
