//! A dry run: every row is judged as the server would, none is sent.

use std::sync::Arc;

use super::account::Figures;
use super::batch::Refused;
use super::job::{Job, Opened};
use super::progress::Progress;
use super::rejects::Rejects;
use super::row::Row;
use super::{Ended, Settings, Stop};

/// Refused rows that are printed.
const REFUSALS_SHOWN_MAX: u64 = 20;

impl Job {
    /// Judges its rows. A resume file is neither read nor written. The first refused rows are
    /// printed, and all are listed if a list was asked for.
    pub(super) fn judge(&self, opened: Opened, settings: &Settings, stop: &Arc<Stop>) -> Result<Ended, String> {
        let name = &self.name;
        let Opened { mut source, read } = opened;
        let list = settings.rejects.as_ref().map(|path| Rejects::open(path, name, None));
        let mut list = list.transpose()?;
        let mut progress = Progress::new(name, self.identity.size, read, 0, settings.quiet, stop);
        let (mut row, mut figures) = (Row::default(), Figures::default());
        while !stop.is_asked() && source.next(&mut row)? {
            let judge = || (settings.judge)(&String::from_utf8_lossy(&row.event)).err();
            let Some(refusal) = row.refusal.take().or_else(judge) else {
                figures.accepted += 1;
                continue;
            };
            figures.refuse(&refusal);
            if figures.refused <= REFUSALS_SHOWN_MAX {
                eprintln!("{name}:{}: {}: {}", row.line, refusal.error, refusal.message);
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
}
