//! A disk in memory, with two images: what a process sees (live) and what the power leaves (durable).
//!
//! What was written and not synced may, at a power loss, be there, be gone, or be torn: sector by sector or anywhere
//! within one, in any order. Names that were not synced may be there in any subset. A failed sync leaves each dirty
//! sector written, dirty, or dropped: still read back, called clean, and gone with the power ("fsyncgate"); a later sync
//! says nothing of it. A kill keeps the live image.
//!
//! Calls that change something are steps, counted; at a given step the machine dies in the middle of the call, and
//! every call after it fails.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use event_tracker::journal::{SegmentFile, Storage};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

const SECTOR: usize = 512;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// The keeper has nothing to do once it made no call for this long.
const KEEPER_IDLE: Duration = Duration::from_millis(1);

/// How a storage can betray its contract: the model must notice each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// `sync` does nothing: as if the journal answered before it synced.
    SyncDoesNothing,
    /// `sync` fails and says that all is well: as if the journal ignored the error.
    FailedSyncIsHidden,
    /// `sync` is tried again after it failed, and succeeds: as if the journal went on in that file.
    FailedSyncIsRetried,
    /// `sync_names` does nothing: as if the journal appended without syncing the directory after a renaming.
    SyncNamesDoesNothing,
    /// Only the keeper's `sync_names` does nothing: several removals at once.
    RemovalsAreNotSynced,
    /// Writing what is read back already does nothing: as if recovery trusted the last frame.
    RewritingDoesNothing,
}

/// How often a call fails, of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) changes: u32,
    pub(crate) reads: u32,
}

/// How a life of the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// What the kernel holds stays.
    Kill,
    PowerLoss,
}

pub(crate) struct Disk {
    state: Mutex<State>,
    changed: Condvar,
    lie: Lie,
}

pub(crate) struct State {
    random: StdRng,
    faults: Faults,
    pub(crate) steps: u64,
    dies_at: Option<u64>,
    pub(crate) is_dead: bool,
    /// The storage lies from here on, if it was made to: the journal was born on a good one.
    pub(crate) lies: bool,
    pub(crate) failed: u64,
    /// Segments.
    pub(crate) removed: u64,
    files: Vec<File>,
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    unsynced: Vec<NameChange>,
    is_keeper_held: bool,
    keeper_called: Instant,
    /// Calls that fail until this is taken back.
    pub(crate) refuses_writes: bool,
    pub(crate) refuses_syncs: bool,
    pub(crate) sync_ms: u64,
}

#[derive(Default)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: Vec<Piece>,
    was_synced: bool,
}

/// Bytes within one sector that are not durable.
#[derive(Clone)]
struct Piece {
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Clone)]
enum NameChange {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
}

fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Link(name, file) => drop(names.insert(name.clone(), *file)),
            NameChange::Unlink(name) => drop(names.remove(name)),
            NameChange::Rename(from, to, file) => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl File {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        put(&mut self.live, offset, bytes);
        let mut at = 0;
        while at < bytes.len() {
            let length = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
            self.dirty.push(Piece { offset: offset + at, bytes: bytes[at..at + length].to_vec() });
            at += length;
        }
    }

    /// Makes the live image durable: what an earlier failed sync called clean is not part of it.
    fn sync(&mut self) {
        for piece in std::mem::take(&mut self.dirty) {
            put(&mut self.durable, piece.offset, &piece.bytes);
        }
        self.was_synced = true;
    }

    /// Some of it is written, some stays dirty; after a failure that was reported some is dropped.
    fn sync_partly(&mut self, random: &mut StdRng, drops: bool) {
        let mut dirty = std::mem::take(&mut self.dirty);
        let fate = random.random_range(0..4);
        dirty.retain(|piece| {
            // All of one fate is likelier than chance would have it.
            match if fate < 3 { fate } else { random.random_range(0..3) } {
                0 => {
                    put(&mut self.durable, piece.offset, &piece.bytes);
                    false
                }
                1 => !drops,
                _ => true,
            }
        });
        self.dirty = dirty;
    }

    fn lose_power(&mut self, random: &mut StdRng) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.shuffle(random);
        let fate = random.random_range(0..5);
        for piece in dirty {
            match if fate < 2 { fate } else { random.random_range(0..3) } {
                0 => {}
                1 => put(&mut self.durable, piece.offset, &piece.bytes),
                _ => {
                    let kept = random.random_range(0..=piece.bytes.len());
                    put(&mut self.durable, piece.offset, &piece.bytes[..kept]);
                }
            }
        }
        if !self.was_synced {
            let length = random.random_range(0..=self.durable.len());
            self.durable.truncate(length);
        }
        self.live = self.durable.clone();
    }
}

impl State {
    fn sync_names(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            change.apply(&mut self.durable);
        }
    }

    /// Any subset, in order; half the time only a beginning.
    fn sync_names_partly(&mut self) {
        let prefix = self.random.random_bool(0.5).then(|| self.random.random_range(0..=self.unsynced.len()));
        let changes = std::mem::take(&mut self.unsynced);
        for (index, change) in changes.into_iter().enumerate() {
            if prefix.map_or_else(|| self.random.random_bool(0.5), |kept| index < kept) {
                change.apply(&mut self.durable);
            } else {
                self.unsynced.push(change);
            }
        }
    }

    fn change_names(&mut self, change: NameChange) {
        let is_segment = matches!(&change, NameChange::Unlink(name) if name.ends_with(".segment"));
        self.removed += u64::from(is_segment);
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    fn fails(&mut self, of_thousand: u32) -> bool {
        let fails = self.random.random_ratio(of_thousand, 1_000);
        self.failed += u64::from(fails);
        fails
    }
}

enum Call {
    Works,
    Fails,
    /// The machine dies in the middle of it.
    Dies,
}

impl Disk {
    pub(crate) fn new(seed: u64, faults: Faults, lie: Lie) -> Arc<Disk> {
        let state = State {
            random: StdRng::seed_from_u64(seed),
            faults,
            steps: 0,
            dies_at: None,
            is_dead: false,
            lies: false,
            failed: 0,
            removed: 0,
            files: Vec::new(),
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            unsynced: Vec::new(),
            is_keeper_held: false,
            keeper_called: Instant::now(),
            refuses_writes: false,
            refuses_syncs: false,
            sync_ms: 0,
        };
        Arc::new(Disk { state: Mutex::new(state), changed: Condvar::new(), lie })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics inside the disk")
    }

    /// The machine dies in so many steps from now.
    pub(crate) fn die_in(&self, steps: u64) {
        let state = &mut *self.state();
        state.dies_at = Some(state.steps + steps);
    }

    fn lie(&self, state: &State) -> Lie {
        if state.lies { self.lie } else { Lie::None }
    }

    pub(crate) fn die_now(&self) {
        self.state().is_dead = true;
        self.changed.notify_all();
    }

    /// No journal is open on it any more: a new life begins.
    pub(crate) fn revive(&self, end: End) {
        let state = &mut *self.state();
        if end == End::PowerLoss {
            state.sync_names_partly();
            state.unsynced.clear();
            state.live = state.durable.clone();
            for file in &mut state.files {
                file.lose_power(&mut state.random);
            }
        }
        (state.is_dead, state.dies_at) = (false, None);
    }

    /// Flips bits of one segment, in both images: the medium went bad.
    pub(crate) fn damage(&self, random: &mut StdRng) {
        let state = &mut *self.state();
        let segments: Vec<usize> =
            state.live.iter().filter(|(name, _)| name.ends_with(".segment")).map(|(_, n)| *n).collect();
        let file = &mut state.files[segments[random.random_range(0..segments.len())]];
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..file.live.len());
            file.live[at] ^= 4;
            file.durable[at] ^= 4;
        }
    }

    /// Holds the keeper at its next call: the writer's calls alone are made, in an order that a seed repeats.
    pub(crate) fn hold_keeper(&self, held: bool) {
        self.state().is_keeper_held = held;
        self.changed.notify_all();
    }

    pub(crate) fn keepers_turn(&self) {
        self.state().keeper_called = Instant::now();
        self.hold_keeper(false);
        while self.state().keeper_called.elapsed() < KEEPER_IDLE {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.hold_keeper(true);
    }

    /// The state, once it is the caller's turn; an error where the machine is dead.
    fn enter(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if is_keeper() {
            let held = self.changed.wait_while(state, |s| s.is_keeper_held && !s.is_dead);
            state = held.expect("no test panics inside the disk");
            state.keeper_called = Instant::now();
        }
        if state.is_dead { Err(error(EIO)) } else { Ok(state) }
    }

    fn write_step(&self) -> io::Result<(MutexGuard<'_, State>, Call)> {
        if self.state().refuses_writes { Err(error(EIO)) } else { self.step() }
    }

    fn step(&self) -> io::Result<(MutexGuard<'_, State>, Call)> {
        let mut state = self.enter()?;
        state.steps += 1;
        if state.dies_at.is_some_and(|step| state.steps >= step) {
            state.is_dead = true;
            self.changed.notify_all();
            return Ok((state, Call::Dies));
        }
        let changes = state.faults.changes;
        let call = if state.fails(changes) { Call::Fails } else { Call::Works };
        Ok((state, call))
    }

    /// A change of names; one that fails or is cut off may have been made all the same.
    fn rename_or_unlink(&self, change: impl FnOnce(&State) -> io::Result<NameChange>) -> io::Result<()> {
        let (mut state, call) = self.step()?;
        let change = change(&state)?;
        let works = matches!(call, Call::Works);
        if works || state.random.random_bool(0.5) {
            state.change_names(change);
        }
        if works { Ok(()) } else { Err(error(EIO)) }
    }

    fn reads(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.enter()?;
        let fault = state.faults.reads;
        if state.fails(fault) {
            return Err(error(EIO));
        }
        Ok(state)
    }
}

fn is_keeper() -> bool {
    std::thread::current().name() == Some("journal-keeper")
}

pub(crate) struct Mounted(pub(crate) Arc<Disk>);

struct Handle {
    disk: Arc<Disk>,
    file: usize,
}

impl Mounted {
    fn handle(&self, file: usize) -> Arc<dyn SegmentFile> {
        Arc::new(Handle { disk: self.0.clone(), file })
    }
}

impl Storage for Mounted {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.reads()?.live.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let (mut state, call) = self.0.write_step()?;
        let works = matches!(call, Call::Works);
        let bytes = usize::try_from(bytes).expect("small");
        let length = if works { bytes } else { state.random.random_range(0..=bytes) };
        let mut file = File::default();
        file.write(&vec![0; length], 0);
        state.files.push(file);
        let number = state.files.len() - 1;
        state.change_names(NameChange::Link(name.to_owned(), number));
        drop(state);
        if works { Ok(self.handle(number)) } else { Err(error(ENOSPC)) }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        let found = self.0.reads()?.live.get(name).copied();
        found.map(|file| self.handle(file)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename_or_unlink(|state| {
            let file = *state.live.get(from).ok_or(io::ErrorKind::NotFound)?;
            Ok(NameChange::Rename(from.to_owned(), to.to_owned(), file))
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.rename_or_unlink(|state| {
            state.live.get(name).ok_or(io::ErrorKind::NotFound)?;
            Ok(NameChange::Unlink(name.to_owned()))
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        let (mut state, call) = self.0.step()?;
        match (call, self.0.lie(&state)) {
            (Call::Works, Lie::SyncNamesDoesNothing) => Ok(()),
            (Call::Works, Lie::RemovalsAreNotSynced) if is_keeper() => Ok(()),
            (Call::Works, _) => {
                state.sync_names();
                Ok(())
            }
            (Call::Fails | Call::Dies, _) => {
                state.sync_names_partly();
                Err(error(EIO))
            }
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.enter().map(|_| 1 << 40)
    }
}

impl SegmentFile for Handle {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut state, call) = self.disk.write_step()?;
        let works = matches!(call, Call::Works);
        let length = if works { bytes.len() } else { state.random.random_range(0..=bytes.len()) };
        let offset = usize::try_from(offset).expect("small");
        let lie = self.disk.lie(&state);
        let file = &mut state.files[self.file];
        let is_there = file.live.get(offset..offset + length) == Some(&bytes[..length]);
        if lie != Lie::RewritingDoesNothing || !is_there {
            file.write(&bytes[..length], offset);
        }
        if works { Ok(()) } else { Err(error(if length > 0 { ENOSPC } else { EIO })) }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.reads()?;
        let rest = state.files[self.file].live.get(usize::try_from(offset).expect("small")..).unwrap_or_default();
        let n = rest.len().min(bytes.len());
        bytes[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn sync(&self) -> io::Result<()> {
        let ms = self.disk.state().sync_ms;
        std::thread::sleep(Duration::from_millis(ms));
        if self.disk.state().refuses_syncs {
            return Err(error(EIO));
        }
        let (mut state, call) = self.disk.step()?;
        let lie = self.disk.lie(&state);
        let state = &mut *state;
        let file = &mut state.files[self.file];
        match (call, lie) {
            (Call::Works, Lie::SyncDoesNothing) => Ok(()),
            (Call::Works, _) => {
                file.sync();
                Ok(())
            }
            (Call::Fails, lie) => {
                file.sync_partly(&mut state.random, true);
                match lie {
                    Lie::FailedSyncIsHidden => Ok(()),
                    Lie::FailedSyncIsRetried => {
                        file.sync();
                        Ok(())
                    }
                    _ => Err(error(EIO)),
                }
            }
            (Call::Dies, _) => {
                file.sync_partly(&mut state.random, false);
                Err(error(EIO))
            }
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.reads()?.files[self.file].live.len() as u64)
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(false)
    }
}
