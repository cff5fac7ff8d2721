//! The resume file: the confirmed rows of an input, from which the next run goes on, at one server.
//! It exists, with the namespace of the ids, before the first row is sent. A finished import leaves
//! it, so that nobody imports the same input twice by accident.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Format;
use super::client::normalised;
use super::row::Place;
use super::text::Identity;
use crate::limits::IMPORT_STATE_BYTES_MAX;

/// The version that this program writes and reads.
const VERSION: u32 = 1;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    pub(super) version: u32,
    /// The input's name, for people.
    pub(super) input: String,
    pub(super) identity: Identity,
    pub(super) format: Format,
    /// Ids of rows that bring none are UUIDv5 in it.
    pub(super) namespace: Uuid,
    pub(super) url: String,
    pub(super) saved_at_ms: i64,
    pub(super) confirmed: Confirmed,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// The list of refused rows, as far as it is about confirmed rows.
    pub(super) rejects: PathBuf,
    pub(super) rejects_bytes: u64,
    /// Since when there may be rows that were sent and whose answer is not in this file; `None`:
    /// there are none. Later runs keep it, because they cannot know which rows those are.
    pub(super) unsettled_since_ms: Option<i64>,
    pub(super) is_finished: bool,
}

/// The rows that were answered: all before a place, and ranges beyond it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Confirmed {
    pub(super) all_before: Place,
    /// In order, neither touching nor overlapping: at most one gap a connection.
    pub(super) beyond: Vec<Range>,
}

/// Rows from a number to a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    pub(super) from: u64,
    pub(super) to: Place,
}

impl Confirmed {
    /// Adds rows that were not confirmed before.
    pub(super) fn add(&mut self, from: u64, to: Place) {
        let at = self.beyond.partition_point(|range| range.from < from);
        self.beyond.insert(at, Range { from, to });
        self.beyond.dedup_by(|next, range| {
            let touches = range.to.row == next.from;
            if touches {
                std::mem::swap(&mut range.to, &mut next.to);
            }
            touches
        });
        if self.beyond[0].from == self.all_before.row {
            self.all_before = self.beyond.remove(0).to;
        }
    }

    /// Is this row among those beyond the place?
    pub(super) fn has_beyond(&self, row: u64) -> bool {
        let at = self.beyond.partition_point(|range| range.from <= row);
        at > 0 && row < self.beyond[at - 1].to.row
    }
}

pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

pub(super) fn read(path: &Path) -> Result<Option<State>, String> {
    let unreadable = |why: String| format!("cannot read the resume file {}: {why}", path.display());
    let read = || -> io::Result<Vec<u8>> {
        check_kind(path)?;
        let mut text = Vec::new();
        File::open(path)?.take(IMPORT_STATE_BYTES_MAX).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = match read() {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    let state: State = serde_json::from_slice(&text).map_err(|e| unreadable(e.to_string()))?;
    if state.version != VERSION {
        return Err(unreadable(format!("it is of version {}, this program knows {VERSION}", state.version)));
    }
    Ok(Some(state))
}

/// A pipe or a device would be read for ever, or replaced by a file.
fn check_kind(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_file() { Ok(()) } else { Err(io::Error::other("it is no regular file")) }
}

/// Replaces it: a crash leaves the old one or the new one. A link stays, and the file that it names
/// is replaced.
pub(super) fn write(path: &Path, state: &State) -> Result<(), String> {
    let replace = || -> io::Result<()> {
        let mut path = path.to_owned();
        if fs::symlink_metadata(&path).is_ok() {
            check_kind(&path)?;
            path = fs::canonicalize(&path)?;
        }
        let new = with_ending(&path, ".new");
        // Only a file that an earlier run left, never one that a person put there.
        let _ = fs::remove_file(&new);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        serde_json::to_writer_pretty(&mut file, state)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    };
    replace().map_err(|e| format!("cannot write the resume file {}: {e}", path.display()))
}

/// Of an import that has confirmed nothing.
pub(super) fn remove(path: &Path) -> Result<(), String> {
    fs::canonicalize(path)
        .and_then(fs::remove_file)
        .map_err(|e| format!("cannot remove the resume file {}: {e}", path.display()))
}

impl State {
    /// No row was confirmed, and none can have been accepted.
    pub(super) fn is_blank(&self) -> bool {
        self.confirmed == Confirmed::default() && self.unsettled_since_ms.is_none()
    }

    /// Is it about an import to this server, by its normalised URL?
    pub(super) fn is_about(&self, url: &str) -> bool {
        normalised(&self.url) == url
    }

    /// What tells its input from this one, if it is another.
    pub(super) fn difference(&self, identity: &Identity, format: Format) -> Option<String> {
        match &self.identity {
            _ if self.format != format => Some(format!("it was read as {:?}", self.format).to_ascii_lowercase()),
            own if own == identity => None,
            own if own.size != identity.size => Some(format!("it had {} bytes", own.size.unwrap_or(0))),
            own if own.head != identity.head => Some("it begins otherwise".to_owned()),
            _ => Some("it was changed since".to_owned()),
        }
    }

    /// Of an import that begins.
    pub(super) fn new(input: String, identity: Identity, format: Format, url: String) -> State {
        let (namespace, saved_at_ms) = (Uuid::new_v4(), now_ms());
        State { version: VERSION, input, identity, format, namespace, url, saved_at_ms, ..State::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn place(row: u64) -> Place {
        Place { row, line: row, offset: row * 10 }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn confirmed_rows_are_those_that_were_added(cuts in prop::collection::btree_set(1u64..60, 0..12), order in any::<u64>()) {
            let edges: Vec<u64> = [0].into_iter().chain(cuts).chain([60]).collect();
            let mut pieces: Vec<(u64, u64)> = edges.windows(2).map(|edge| (edge[0], edge[1])).collect();
            pieces.sort_by_key(|(from, _)| (from + 1).wrapping_mul(order | 1));
            let mut confirmed = Confirmed::default();
            let mut model = BTreeSet::new();
            for (from, to) in pieces {
                confirmed.add(from, place(to));
                model.extend(from..to);
                let low = (0..).find(|row| !model.contains(row)).unwrap();
                prop_assert_eq!(&confirmed.all_before, &place(low));
                for row in 0..61 {
                    prop_assert_eq!(row < low || confirmed.has_beyond(row), model.contains(&row), "{}", row);
                }
                for pair in confirmed.beyond.windows(2) {
                    prop_assert!(pair[0].to.row < pair[1].from);
                }
            }
            prop_assert!(confirmed.beyond.is_empty());
        }
    }

    #[test]
    fn a_state_survives_being_written_and_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.import-state");
        assert!(read(&path).unwrap().is_none());
        let identity = Identity { size: Some(7), modified_ms: Some(8), head: Uuid::from_u128(9) };
        let mut state = State::new("x".into(), identity, Format::Csv, "http://localhost".into());
        state.confirmed.add(5, place(9));
        write(&path, &state).unwrap();
        let found = read(&path).unwrap().unwrap();
        assert_eq!(format!("{found:?}"), format!("{state:?}"));
        state.version = 2;
        write(&path, &state).unwrap();
        assert!(read(&path).unwrap_err().contains("version 2"));
    }
}
