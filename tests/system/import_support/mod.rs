//! What the tests of `import` share: the importer as a process, inputs and how they are packed, a
//! front that misbehaves.

pub(crate) mod front;
pub(crate) mod input;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::bench::Bench;
use crate::support::program::Running;

/// An import ends within this.
const END_WAIT: Duration = Duration::from_secs(60);

/// A directory to import from, and how the importer is called in it.
pub(crate) struct Desk {
    directory: tempfile::TempDir,
    pub(crate) url: String,
}

pub(crate) struct Importer {
    process: Running,
    told: PathBuf,
}

pub(crate) struct Report {
    pub(crate) code: Option<i32>,
    pub(crate) told: String,
}

impl Desk {
    pub(crate) fn new(bench: &Bench) -> Desk {
        Desk::at(format!("http://{}", bench.address()))
    }

    pub(crate) fn at(url: String) -> Desk {
        Desk { directory: tempfile::Builder::new().prefix("import").tempdir().expect("a directory"), url }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).expect("a file of ours");
        self.path(name)
    }

    pub(crate) fn import(&self, arguments: &[&str]) -> Report {
        self.start(arguments).end()
    }

    pub(crate) fn import_from(&self, bytes: &[u8], arguments: &[&str]) -> Report {
        let mut importer = self.spawn(arguments, Stdio::piped());
        // It may end before it has read all.
        let _ = importer.stdin().write_all(bytes);
        importer.end()
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Importer {
        self.spawn(arguments, Stdio::null())
    }

    pub(crate) fn spawn(&self, arguments: &[&str], stdin: Stdio) -> Importer {
        self.spawn_command(self.command(arguments).stdin(stdin))
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_event-tracker"));
        command.arg("import").args(arguments).env_clear().env("TRACKER_URL", &self.url).env("API_KEY", "a key");
        command.current_dir(self.directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts it; its messages go to a file.
    pub(crate) fn spawn_command(&self, command: &mut Command) -> Importer {
        let told = self.path(&format!("told-{}", uuid::Uuid::new_v4().simple()));
        let process = Running::start(command.stderr(File::create(&told).expect("a log")));
        Importer { process, told }
    }

    /// The resume file of an input, if it is there.
    pub(crate) fn state(&self, input: &str) -> Option<Value> {
        let text = std::fs::read(self.path(&format!("{input}.import-state"))).ok()?;
        Some(serde_json::from_slice(&text).expect("a resume file is whole, always"))
    }

    /// The list of refused rows: line, error, input.
    pub(crate) fn rejects(&self, name: &str) -> Vec<(u64, String, String)> {
        let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
        let row = |line: &str| {
            let row: Value = serde_json::from_str(line).expect("a row of JSON");
            assert!(row["message"].as_str().is_some_and(|message| !message.is_empty()), "{row}");
            let text = |field: &str| row[field].as_str().expect("text").to_owned();
            (row["line"].as_u64().expect("a line"), text("error"), text("input"))
        };
        text.lines().map(row).collect()
    }
}

impl Importer {
    pub(crate) fn signal(&self, signal: i32) {
        self.process.signal(signal);
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.process.0.stdin.take().expect("a pipe")
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    pub(crate) fn memory_bytes_max(&self) -> u64 {
        crate::support::memory_kib(self.pid(), "VmHWM") * 1_024
    }

    pub(crate) fn end(self) -> Report {
        self.end_within(END_WAIT)
    }

    pub(crate) fn end_within(mut self, within: Duration) -> Report {
        let status = self.process.end_within(within);
        Report { code: status.code(), told: std::fs::read_to_string(&self.told).expect("a log") }
    }
}

impl Report {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Report {
        assert_eq!(self.code, Some(code), "{}", self.told);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Report {
        assert!(self.told.contains(words), "{words:?} is not in: {}", self.told);
        self
    }
}

/// Every row of a generated input is in the ledger once, and nothing else; all sums agree.
#[track_caller]
pub(crate) fn check_each_once(bench: &Bench, rows: usize) {
    bench.check_sums();
    let sql = "SELECT count(*), count(DISTINCT session_id) FROM events WHERE session_id LIKE 'row-%'";
    let found = bench.rows(sql);
    assert_eq!(found, [[rows.to_string(), rows.to_string()]], "rows, and rows that differ");
    assert_eq!(bench.event_rows(), rows as i64, "nothing else");
}

/// Events that the server took, those sent again included.
pub(crate) fn taken(bench: &Bench) -> u64 {
    bench.client().metric(r#"events_total{outcome="accepted"}"#) as u64
}

pub(crate) fn name(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}
