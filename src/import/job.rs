//! The import of one input, from where its resume file says to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use super::account::{Account, Figures};
use super::progress::Progress;
use super::rejects::Rejects;
use super::row::Source;
use super::state::{self, State, now_ms};
use super::text::Identity;
use super::threads::Threads;
use super::{Ended, Settings, Stop};
use crate::limits::{ID_MEMORY_MS, IMPORT_SAVE_MS, IMPORT_TICK_MS};

pub(super) struct Job {
    /// Its name, for people and in the list of refused rows.
    pub(super) name: String,
    pub(super) identity: Identity,
    pub(super) format: &'static str,
    pub(super) files: Files,
}

/// The files of an import beside its input.
pub(super) struct Files {
    /// `None`: an interrupted import cannot be resumed.
    pub(super) resume_file: Option<PathBuf>,
    pub(super) rejects: PathBuf,
    /// Of an import to another server, perhaps of the same input. Its ids are used again: if this
    /// is that server under another name, each row still counts once, as long as the server
    /// remembers ids.
    pub(super) elsewhere: Option<State>,
}

/// An input that is open at the place that a state names.
pub(super) struct Opened {
    pub(super) source: Box<dyn Source>,
    /// Bytes read so far, as packed.
    pub(super) read: Arc<AtomicU64>,
}

impl Job {
    /// Opens it where its state says and imports it from there, or makes a dry run. The error is
    /// one line.
    pub(super) fn run(
        &self,
        open: impl FnOnce(&State) -> Result<Opened, String>,
        settings: &Settings,
        stop: &Arc<Stop>,
    ) -> Result<Ended, String> {
        let done = match settings.dry_run {
            true => open(&self.begin(settings)).and_then(|opened| self.judge(opened, settings, stop)),
            false => self.import(open, settings, stop),
        };
        done.map_err(|why| format!("{}: {why}", self.name))
    }

    fn import(
        &self,
        open: impl FnOnce(&State) -> Result<Opened, String>,
        settings: &Settings,
        stop: &Arc<Stop>,
    ) -> Result<Ended, String> {
        let found = match &self.files.resume_file {
            Some(path) if !settings.again => state::read(path)?,
            _ => None,
        };
        // A list that was named may hold rows that other imports refused: nothing of it is cut off.
        let own_list = found.as_ref().filter(|state| settings.rejects.is_none() && state.rejects == self.files.rejects);
        let known_bytes = own_list.map(|state| state.rejects_bytes);
        let state = match found {
            None => self.begin(settings),
            Some(state) => {
                self.check(&state, &settings.server.normalised())?;
                if state.is_finished {
                    return Ok(self.done_before(&state));
                }
                self.go_on(state, settings.quiet)
            }
        };
        let Opened { source, read } = open(&state)?;
        let rejects = Rejects::open(&self.files.rejects, &self.name, known_bytes)?;
        let account = Arc::new(Account::new(state, rejects, self.files.resume_file.clone(), stop));
        let before = account.figures().done();
        let mut progress = Progress::new(&self.name, self.identity.size, read, before, settings.quiet, stop);
        // The namespace of the ids is on the disk before anything is sent.
        account.save(false)?;
        stop.set_sending(true);
        let rows = watch(Threads::start(source, settings, &account), &account, &mut progress);
        let (state, failure) = account.end(rows);
        stop.set_sending(false);
        self.report(&state, &progress, &account.figures(), failure)
    }

    fn begin(&self, settings: &Settings) -> State {
        let url = settings.server.normalised();
        let mut state = State::new(self.name.clone(), self.identity.clone(), self.format, url);
        let elsewhere = self.files.elsewhere.as_ref().filter(|_| !settings.again);
        if let Some(other) = elsewhere.filter(|other| other.is_of(&self.identity, self.format)) {
            state.namespace = other.namespace;
        }
        state
    }

    /// Is this state about this input and this server?
    fn check(&self, state: &State, url: &str) -> Result<(), String> {
        let path = self.resume_path();
        if !state.is_of(&self.identity, self.format) {
            return Err(format!(
                "{path} is about another input: {}. Put that one back; --again starts over, and what was imported then \
                 counts twice",
                state.difference(&self.identity, self.format)
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

    fn go_on(&self, mut state: State, quiet: bool) -> State {
        state.was_settled = state.unsettled_since_ms.is_none();
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
        if !quiet {
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
        let how_to_go_on = match &self.files.resume_file {
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
        eprintln!("{}: refused rows and reasons are in {}", self.name, self.files.rejects.display());
        if figures.refused_by.contains_key("too_old") {
            eprintln!(
                "{}: for those that are too old: use an admin key (API_KEY), or start the server with more RETENTION_DAYS",
                self.name
            );
        }
        Ok(Ended::WithRefusals)
    }

    fn resume_path(&self) -> String {
        self.files.resume_file.as_ref().map_or(String::new(), |path| path.display().to_string())
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
