//! The import of one input, from where its resume file says to its end; or a dry run of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::account::{Account, Figures};
use super::batch::Refused;
use super::lines::Lines;
use super::progress::Progress;
use super::rejects::Rejects;
use super::row::{Row, Rows, Source};
use super::state::{self, State, now_ms};
use super::table::Table;
use super::text::{Identity, Text};
use super::threads::Threads;
use super::{Ended, Format, Settings, Stop};
use crate::limits::{ID_MEMORY_MS, IMPORT_SAVE_MS, IMPORT_TICK_MS};

/// Refused rows that a dry run prints.
const REFUSALS_SHOWN_MAX: u64 = 20;

pub(super) struct Job<'a> {
    /// The input's name, for people and in the list of refused rows.
    pub(super) name: &'a str,
    pub(super) identity: Identity,
    pub(super) format: Format,
    /// `None`: an interrupted import cannot be resumed.
    pub(super) resume_file: Option<PathBuf>,
    pub(super) rejects: PathBuf,
    /// The state of an import to another server, perhaps of the same input. Its ids are used again:
    /// if this is that server under another name, each row still counts once, as long as the server
    /// remembers ids.
    pub(super) elsewhere: Option<State>,
    /// The server's normalised URL.
    pub(super) url: String,
    pub(super) settings: &'a Settings,
    pub(super) stop: &'a Arc<Stop>,
}

impl Job<'_> {
    pub(super) fn import(&self, text: Text) -> Result<Ended, String> {
        let found = match &self.resume_file {
            Some(path) if !self.settings.again => state::read(path)?,
            _ => None,
        };
        // A list that was named may hold rows that other imports refused: nothing of it is cut off.
        let has_own_list = |state: &&State| self.settings.rejects.is_none() && state.rejects == self.rejects;
        let known_bytes = found.as_ref().filter(has_own_list).map(|state| state.rejects_bytes);
        let state = match found {
            None => self.begin(),
            Some(state) => {
                self.check(&state)?;
                if state.is_finished {
                    return Ok(self.done_before(&state));
                }
                self.go_on(state)
            }
        };
        let read = text.bytes_read();
        let rows = self.open(text, &state)?;
        let rejects = Rejects::open(&self.rejects, self.name, known_bytes)?;
        let account = Arc::new(Account::new(state, rejects, self.resume_file.clone(), self.stop));
        let before = account.figures().done();
        let mut progress = Progress::new(self.name, self.identity.size, read, before, self.settings.quiet, self.stop);
        // The namespace of the ids is on the disk before anything is sent.
        account.save(false)?;
        self.stop.is_sending.store(true, Ordering::SeqCst);
        let rows = watch(Threads::start(rows, self.settings, &account), &account, &mut progress);
        let (state, failure) = account.end(rows);
        self.stop.is_sending.store(false, Ordering::SeqCst);
        self.report(&state, &progress, &account.figures(), failure)
    }

    /// Judges each row as the server would, and sends none. The resume file is neither read nor
    /// written. Prints the first refused rows, and lists all if a list was asked for.
    pub(super) fn judge(&self, text: Text) -> Result<Ended, String> {
        let (settings, stop) = (self.settings, self.stop);
        let read = text.bytes_read();
        let mut rows = self.open(text, &self.begin())?;
        let list = settings.rejects.as_ref().map(|path| Rejects::open(path, self.name, None));
        let mut list = list.transpose()?;
        let mut progress = Progress::new(self.name, self.identity.size, read, 0, settings.quiet, stop);
        let (mut row, mut figures) = (Row::default(), Figures::default());
        while !stop.is_asked() && rows.next(&mut row)? {
            let judge = || (settings.judge)(&String::from_utf8_lossy(&row.event)).err();
            let Some(refusal) = row.refusal.take().or_else(judge) else {
                figures.accepted += 1;
                continue;
            };
            figures.refuse(&refusal);
            if figures.refused <= REFUSALS_SHOWN_MAX {
                eprintln!("{}:{}: {}: {}", self.name, row.line, refusal.error, refusal.message);
            }
            let refused = Refused { line: row.line, refusal, input: std::mem::take(&mut row.input) };
            list.as_mut().map_or(Ok(()), |list| list.add(&refused))?;
            progress.show(&figures);
        }
        list.as_mut().map_or(Ok(None), Rejects::flush)?;
        progress.end(if stop.is_asked() { "interrupted dry run" } else { "dry run, nothing was sent" }, &figures);
        Ok(match (stop.is_asked(), figures.refused) {
            (true, _) => Ended::Interrupted,
            (false, 0) => Ended::Accepted,
            (false, _) => Ended::WithRefusals,
        })
    }

    fn begin(&self) -> State {
        let mut state = State::new(self.name.to_owned(), self.identity.clone(), self.format, self.url.clone());
        if let Some(other) = self.elsewhere.as_ref().filter(|_| !self.settings.again)
            && other.difference(&self.identity, self.format).is_none()
        {
            state.namespace = other.namespace;
        }
        state
    }

    /// The rows from where the state says.
    fn open(&self, mut text: Text, state: &State) -> Result<Rows, String> {
        let place = &state.confirmed.all_before;
        let skipped = |e| format!("cannot go on after line {}: {e}", place.line);
        let source: Box<dyn Source> = match self.format {
            Format::Ndjson => {
                if place.row > 0 {
                    text.skip_to(place.offset).map_err(skipped)?;
                }
                Box::new(Lines { text, count: place.line })
            }
            Format::Csv => {
                let (mut table, unknown) = Table::new(text)?;
                if !unknown.is_empty() {
                    let (name, unknown) = (self.name, unknown.join(", "));
                    eprintln!("{name}: warning: columns that the API does not know are left out: {unknown}");
                }
                if place.row > 0 {
                    table.records.skip_to(place).map_err(skipped)?;
                }
                Box::new(table)
            }
        };
        let zone = self.settings.time_zone.clone();
        Ok(Rows { source, count: place.row, namespace: state.namespace, zone })
    }

    /// Is this state about this input and this server?
    fn check(&self, state: &State) -> Result<(), String> {
        let (path, url) = (self.resume_path(), &self.url);
        if let Some(difference) = state.difference(&self.identity, self.format) {
            return Err(format!(
                "{path} is about another input: {difference}. Put that one back; --again starts over, and what was \
                 imported then counts twice"
            ));
        }
        if !state.is_about(url) {
            return Err(format!("{path} is about another server, {}: give another --resume-file for {url}", state.url));
        }
        Ok(())
    }

    fn done_before(&self, state: &State) -> Ended {
        let State { accepted, refused, .. } = state;
        let at = jiff::Timestamp::from_millisecond(state.saved_at_ms).unwrap_or_default();
        eprintln!(
            "{}: already imported on {at} ({accepted} accepted, {refused} refused), as {} says: nothing is sent. --again \
             sends it once more, and it counts twice",
            self.name,
            self.resume_path(),
        );
        if *refused > 0 { Ended::WithRefusals } else { Ended::Accepted }
    }

    fn go_on(&self, mut state: State) -> State {
        let unsettled_ms = state.unsettled_since_ms.map_or(0, |since_ms| now_ms() - since_ms);
        if unsettled_ms > ID_MEMORY_MS {
            eprintln!(
                "{}: warning: this import was cut off, the first time {} h ago or less, and the server remembers ids for \
                 24 h: rows that were under way then may count twice",
                self.name,
                unsettled_ms / 3_600_000,
            );
        }
        // Rows that this run sends are not older than the run.
        state.saved_at_ms = now_ms();
        if !self.settings.quiet {
            eprintln!("{}: going on after row {}", self.name, state.confirmed.all_before.row);
        }
        state
    }

    fn report(
        &self,
        state: &State,
        progress: &Progress,
        figures: &Figures,
        failure: Option<String>,
    ) -> Result<Ended, String> {
        let how_to_go_on = match &self.resume_file {
            Some(_) if state.is_blank() => "nothing was imported yet".to_owned(),
            Some(path) => format!("the same command goes on from there (state in {})", path.display()),
            None => "without --resume-file it cannot go on from there".to_owned(),
        };
        if let Some(why) = failure {
            progress.end("failed", figures);
            return Err(format!("{why}; {how_to_go_on}"));
        }
        if !state.is_finished {
            progress.end("interrupted", figures);
            eprintln!("{}: {how_to_go_on}", self.name);
            return Ok(Ended::Interrupted);
        }
        progress.end("done", figures);
        if figures.refused == 0 {
            return Ok(Ended::Accepted);
        }
        eprintln!("{}: refused rows and reasons are in {}", self.name, self.rejects.display());
        if figures.refused_by.contains_key("too_old") {
            eprintln!(
                "{}: for those that are too old: use an admin key (API_KEY), or start the server with more RETENTION_DAYS",
                self.name
            );
        }
        Ok(Ended::WithRefusals)
    }

    fn resume_path(&self) -> String {
        self.resume_file.as_ref().map_or(String::new(), |path| path.display().to_string())
    }
}

/// Shows and saves how far the threads are until they end: with the rows of the input, if all were
/// read.
fn watch(threads: Threads, account: &Account, progress: &mut Progress) -> Result<Option<u64>, String> {
    let mut saved_at = Instant::now();
    while !threads.are_done() {
        thread::sleep(Duration::from_millis(IMPORT_TICK_MS));
        progress.show(&account.figures());
        if saved_at.elapsed() >= Duration::from_millis(IMPORT_SAVE_MS) {
            saved_at = Instant::now();
            account.save(false).unwrap_or_else(|why| account.fail(why));
        }
    }
    threads.join()
}
