//! The keeper: has a spare segment ready ahead, removes old segments, and says when the journal is full. Everything slow
//! about files happens here, not on the writer's path.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::recovery::Segment;
use super::shared::{FULL, Follower, OPEN, Shared, lock};
use super::storage::{Storage, if_there};

const TICK: Duration = Duration::from_secs(1);

/// Removes what an earlier process left under temporary names. Before the first spare is made.
pub(super) fn clean_up(storage: &dyn Storage) {
    for name in storage.list().unwrap_or_default() {
        if name.ends_with(".tmp") {
            let _ = storage.remove(&name);
        }
    }
}

pub(super) fn spawn(shared: Arc<Shared>) -> JoinHandle<()> {
    let run = move || {
        let mut removal_unsynced = false;
        while !shared.is_closing() {
            tend(&shared, &mut removal_unsynced);
            std::thread::park_timeout(TICK);
        }
        if let Some(spare) = lock(&shared.spare).take() {
            let _ = shared.storage.remove(&spare.name);
        }
    };
    crate::process::spawn("journal-keeper", run)
}

/// `removal_unsynced`: a segment was removed and its removal is not known to be durable.
fn tend(shared: &Shared, removal_unsynced: &mut bool) {
    if let Err(error) = remove_old(shared, removal_unsynced) {
        tracing::warn!(%error, "journal: an old segment cannot be removed");
    }
    let no_room = no_room(shared);
    if no_room.is_none() && lock(&shared.spare).is_none() {
        match shared.make_spare() {
            Ok(spare) => *lock(&shared.spare) = Some(spare),
            Err(error) => tracing::warn!(%error, "journal: no spare segment"),
        }
    }
    match no_room {
        Some(why) if shared.state.load(Ordering::Acquire) == OPEN && shared.set_state(FULL) => {
            tracing::error!(why, "journal: full; events are refused (503) until there is room");
        }
        None if shared.state.load(Ordering::Acquire) == FULL && shared.set_state(OPEN) => {
            tracing::info!("journal: there is room again");
        }
        _ => {}
    }
}

/// Why no further segment may be allocated, if so.
fn no_room(shared: &Shared) -> Option<&'static str> {
    let segments = shared.segment_count() as u64;
    let spares = u64::from(lock(&shared.spare).is_some());
    let settings = &shared.settings;
    if (segments + 1) * settings.segment_bytes > settings.bytes_max {
        return Some("JOURNAL_MAX_BYTES is reached");
    }
    let free = shared.storage.free_bytes().unwrap_or(0);
    let wanted = settings.free_bytes_min.saturating_add((1 - spares) * settings.segment_bytes);
    (free < wanted).then_some("less than JOURNAL_MIN_FREE is left on the disk")
}

/// Removes segments that every follower is past: once they are old, or at once if the bound asks for room.
fn remove_old(shared: &Shared, removal_unsynced: &mut bool) -> io::Result<()> {
    loop {
        // Each removal is made durable before the next, or a crash could undo any subset of them and leave a gap.
        if *removal_unsynced {
            shared.storage.sync_names()?;
            *removal_unsynced = false;
        }
        let Some(first) = removable(shared) else { return Ok(()) };
        // Unlinking 64 MiB takes its time: not under the lock that the writer and readers need. After an error it stays
        // the first one: to remove those behind it would leave a gap.
        if_there(shared.storage.remove(&first.name))?;
        *removal_unsynced = true;
        lock(&shared.segments).remove(0);
    }
}

/// The first segment, if nobody needs it. If the bound asks for room, followers that can be rebuilt are passed over. Age
/// is monotonic time of this process: no wrong clock removes a segment, and a restart keeps all of them for `keep_ms`
/// again.
fn removable(shared: &Shared) -> Option<Arc<Segment>> {
    let is_crowded = is_crowded(shared);
    let concerned = |follower: &&Follower| !(is_crowded && follower.can_be_rebuilt);
    let position = |follower: &Follower| follower.position.load(Ordering::Acquire);
    let passed = lock(&shared.followers).iter().filter(concerned).map(position).min().unwrap_or(0);
    let segments = lock(&shared.segments);
    let [first, second, ..] = &segments[..] else { return None };
    assert!(first.first < second.first, "segments ascend");
    // The first one's records end, and its age counts, where the second begins.
    let is_old = second.known_since.elapsed() >= Duration::from_millis(shared.settings.keep_ms);
    (second.first <= passed + 1 && (is_crowded || is_old)).then(|| first.clone())
}

fn is_crowded(shared: &Shared) -> bool {
    let settings = &shared.settings;
    let segments = shared.segment_count() as u64;
    (segments + 2) * settings.segment_bytes > settings.bytes_max
        || shared.storage.free_bytes().unwrap_or(u64::MAX)
            < settings.free_bytes_min.saturating_add(settings.segment_bytes)
}
