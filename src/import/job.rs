//! The import of one input, from where its resume file says to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::account::{Account, Figures};
use super::batch::Target;
use super::client::Server;
use super::progress::{Progress, counted};
use super::rejects::Rejects;
use super::row::Source;
use super::state::{self, State};
use super::text::Identity;
use super::threads::Threads;
use super::{Ended, Settings, Stop};
use crate::limits::{ID_MEMORY_MS, IMPORT_SAVE_MS, IMPORT_TICK_MS};

/// The format of inputs whose rows have keys.
pub(super) const TABLE: &str = "table";

/// One input.
pub(super) struct Job {
    /// Its name, for people and in the list of refused rows.
    pub(super) name: String,
    pub(super) identity: Identity,
    pub(super) format: &'static str,
    /// Bytes, as packed.
    pub(super) size: Option<u64>,
    pub(super) target: Target,
    pub(super) files: Files,
}

/// The files of an import beside its input.
pub(super) struct Files {
    /// `None`: an interrupted import cannot be resumed.
    pub(super) resume_file: Option<PathBuf>,
    pub(super) rejects: PathBuf,
    /// Of an import to another server, perhaps of the same input. Its ids are used again: if this is that server under
    /// another name, each row still counts once, as long as the server remembers ids.
    pub(super) elsewhere: Option<State>,
}

/// An input that is open at the place that a state names.
pub(super) struct Opened {
    pub(super) source: Box<dyn Source>,
    /// Bytes read so far, as packed.
    pub(super) read: Arc<AtomicU64>,
}

impl Job {
    /// Opens it where its state says and imports it from there, or makes a dry run. The error is one line.
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
        // A list that was asked for by name may hold what other imports refused: it is only added to.
        let own_list = found.as_ref().filter(|state| settings.rejects.is_none() && state.rejects == self.files.rejects);
        let known_bytes = own_list.map(|state| state.rejects_bytes);
        let mut state = match found {
            None => self.begin(settings),
            Some(state) => {
                self.check(&state, &settings.server)?;
                if state.is_finished {
                    return Ok(self.done_before(&state));
                }
                self.go_on(state, settings.quiet)
            }
        };
        let Opened { source, read } = open(&state)?;
        let rejects = Rejects::open(&self.files.rejects, &self.name, known_bytes)
            .map_err(|e| format!("cannot write the list of refused rows {}: {e}", self.files.rejects.display()))?;
        let done_before = state.accepted + state.refused;
        let account = Arc::new(Account::new(&state, rejects, stop.clone()));
        let mut keeper =
            Keeper { path: self.files.resume_file.clone(), account: account.clone(), saved_at: Instant::now() };
        // The namespace of the ids is on the disk before anything is sent.
        keeper.save(&mut state, false)?;
        let mut progress = Progress::new(&self.name, self.size, read, done_before, settings.quiet, stop);
        stop.set_sending(true);
        let threads = Threads::start(source, &state.confirmed, self.target, settings, &account);
        while !threads.are_done() {
            thread::sleep(Duration::from_millis(IMPORT_TICK_MS));
            progress.show(&account.figures());
            keeper.save_when_due(&mut state);
        }
        let read = threads.join();
        let saved = keeper.save(&mut state, true);
        let failure = account.failure().or(read.clone().err()).or(saved.err());
        state.is_finished = failure.is_none() && read == Ok(Some(state.confirmed.all_before.row));
        let kept = match &keeper.path {
            Some(path) if state.is_blank() => state::remove(path),
            _ if state.is_finished => keeper.save(&mut state, true),
            _ => Ok(()),
        };
        stop.set_sending(false);
        let failure = failure.or(kept.err());
        self.report(&state, &progress, &account.figures(), failure)
    }

    fn begin(&self, settings: &Settings) -> State {
        let url = settings.server.normalised();
        let state = State::new(self.name.clone(), self.identity.clone(), self.format, url, now_ms());
        let elsewhere = self.files.elsewhere.as_ref().filter(|_| !settings.again);
        match elsewhere.filter(|other| other.identity == self.identity && other.format == self.format) {
            Some(other) => State { namespace: other.namespace, ..state },
            None => state,
        }
    }

    /// Is this state about this input and this server?
    fn check(&self, state: &State, server: &Server) -> Result<(), String> {
        let path = self.resume_path();
        let begin_anew = "--again begins anew, and what was imported then counts twice";
        if state.format != self.format {
            return Err(format!("{path} is about an import as {}; {begin_anew}", state.format));
        }
        if state.identity != self.identity {
            let what = differs(&state.identity, &self.identity);
            return Err(format!("{path} is about another input ({what}): put that one back; {begin_anew}"));
        }
        if !state.is_about(server) {
            let (then, now) = (&state.url, server.normalised());
            return Err(format!("{path} is about another server, {then}: give another --resume-file for {now}"));
        }
        Ok(())
    }

    fn done_before(&self, state: &State) -> Ended {
        let State { accepted, refused, .. } = state;
        eprintln!(
            "{}: already imported on {} ({accepted} accepted, {refused} refused), as {} says: nothing is sent. --again \
             sends it once more, and it counts twice",
            self.name,
            day_and_time(state.saved_at_ms),
            self.resume_path(),
        );
        if *refused > 0 { Ended::WithRefusals } else { Ended::Accepted }
    }

    fn go_on(&self, mut state: State, quiet: bool) -> State {
        if self.format == TABLE {
            // Tables are read again behind the last key, and their rows numbered from there: those beyond it, a few
            // batches, are sent again with the ids that they had.
            let beyond = state.confirmed.beyond.drain(..).map(|range| range.to.row - range.from).sum();
            state.accepted = state.accepted.saturating_sub(beyond);
        }
        state.was_settled = state.unsettled_since_ms.is_none();
        let unsettled_ms = state.unsettled_since_ms.map_or(0, |since_ms| now_ms() - since_ms);
        let hours = unsettled_ms / 3_600_000;
        if unsettled_ms > ID_MEMORY_MS {
            eprintln!(
                "{}: warning: this import was cut off, the first time {hours} h ago or less, and the server remembers ids for 24 h: rows that were \
                 under way then may count twice",
                self.name
            );
        }
        // What this run sends is not older than it.
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
        self.files.resume_file.as_deref().map_or(String::new(), |path: &Path| path.display().to_string())
    }
}

/// Writes the resume file.
struct Keeper {
    path: Option<PathBuf>,
    account: Arc<Account>,
    saved_at: Instant,
}

impl Keeper {
    fn save_when_due(&mut self, state: &mut State) {
        if self.saved_at.elapsed() >= Duration::from_millis(IMPORT_SAVE_MS)
            && let Err(why) = self.save(state, false)
        {
            self.account.fail(why);
        }
    }

    /// What is confirmed, durably: first the list of refused rows, then the state that says how much of it is good.
    fn save(&mut self, state: &mut State, is_at_rest: bool) -> Result<(), String> {
        self.saved_at = Instant::now();
        let to_sync = self.account.put_into(state, is_at_rest);
        let synced = to_sync.and_then(|file| file.map_or(Ok(()), |file| file.sync_data()));
        synced.map_err(|e| format!("cannot write the list of refused rows {}: {e}", state.rejects.display()))?;
        state.saved_at_ms = now_ms();
        self.path.as_ref().map_or(Ok(()), |path| state::write(path, state))
    }
}

fn differs(then: &Identity, now: &Identity) -> String {
    if then.size != now.size {
        let bytes = |identity: &Identity| counted(identity.size.unwrap_or(0), "byte", "bytes");
        return format!("of {}, this one has {}", bytes(then), bytes(now));
    }
    if then.head != now.head {
        return "it begins otherwise".to_owned();
    }
    let at = |identity: &Identity| day_and_time(identity.modified_ms.unwrap_or(0).cast_signed());
    format!("changed at {}, this one at {}", at(then), at(now))
}

fn day_and_time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| at.to_string())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
