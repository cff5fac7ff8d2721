//! A dry run: every row is judged as the server would, none is sent.

use std::sync::Arc;

use super::account::Figures;
use super::batch::{Refused, Target};
use super::job::{Job, Opened};
use super::progress::Progress;
use super::rejects::Rejects;
use super::row::Row;
use super::{Ended, Settings, Stop};
use crate::limits::IMPORT_REFUSALS_SHOWN_MAX;

impl Job {
    /// Judges its rows; a resume file is neither read nor written. Refused rows are printed, the first of them, and
    /// listed where a list was asked for.
    pub(super) fn judge(&self, opened: Opened, settings: &Settings, stop: &Arc<Stop>) -> Result<Ended, String> {
        let (name, target) = (&self.name, self.target);
        let Opened { mut source, read } = opened;
        let unwritable = |e| format!("cannot write the list of refused rows {}: {e}", self.files.rejects.display());
        let mut list =
            settings.rejects.as_ref().map(|path| Rejects::open(path, name, None)).transpose().map_err(unwritable)?;
        let mut progress = Progress::new(name, self.size, read, 0, settings.quiet, stop);
        let (mut row, mut figures) = (Row::default(), Figures::default());
        while !stop.is_asked() && source.next(&mut row)? {
            figures.done += 1;
            // What a post may be is the server's to say: no judge was handed in for it.
            let judged = match (row.refusal.take(), target) {
                (None, Target::Events) => (settings.judge)(&String::from_utf8_lossy(&row.event)).err(),
                (refusal, _) => refusal,
            };
            let Some(refusal) = judged else {
                figures.accepted += 1;
                continue;
            };
            figures.refused += 1;
            *figures.refused_by.entry(refusal.error.to_string()).or_default() += 1;
            if figures.refused <= IMPORT_REFUSALS_SHOWN_MAX {
                eprintln!("{name}:{}: {}: {}", row.line, refusal.error, refusal.message);
            }
            let refused = Refused { line: row.line, refusal, input: std::mem::take(&mut row.input) };
            list.as_mut().map_or(Ok(()), |list| list.add(&refused)).map_err(unwritable)?;
            progress.show(&figures);
        }
        list.as_mut().map_or(Ok(None), Rejects::flush).map_err(unwritable)?;
        progress.end(if stop.is_asked() { "interrupted dry run" } else { "dry run, nothing was sent" }, &figures);
        Ok(match (stop.is_asked(), figures.refused) {
            (true, _) => Ended::Interrupted,
            (false, 0) => Ended::Accepted,
            (false, _) => Ended::WithRefusals,
        })
    }
}
