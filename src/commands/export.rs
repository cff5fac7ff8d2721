//! `export`: the rows of the ledger into a file or to standard output, straight from the store; no server is needed.

use std::path::PathBuf;

use clap::Args;
use jiff::tz::TimeZone;

use super::failure::Failure;
use super::output::{Output, Progress};
use super::stores::existing_ledger;
use crate::api::{End, Format, MOMENT_FORMS, TIME_MS_MAX, moment};
use crate::clock::Backoff;
use crate::config::{RawLedger, time_zone};
use crate::events::EventType;
use crate::limits::{EXPORT_TRIES_MAX, RETRY_MS_MAX, RETRY_MS_MIN};
use crate::live::Calendar;
use crate::ports::{ExportCursor, ExportPage, ExportQuery, Ledger, StoreError};

/// What to export, and where to.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    ledger: RawLedger,
    /// Whose days --from and --to mean if they are dates
    #[arg(long, env = "TIME_ZONE", default_value = "UTC", value_parser = time_zone, value_name = "NAME")]
    time_zone: TimeZone,
    /// Events from this time on: RFC 3339, milliseconds since 1970, or a date (the start of that day)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Events before this time; a date is the end of that day
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Events of this type only: CLICK, PAGE_VIEW, SEARCH, LIKE or UNLIKE
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    /// How they are written
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
    /// Begin CSV with a byte-order mark, so that Excel reads it as UTF-8
    #[arg(long)]
    bom: bool,
    /// A file, which has its name once it is whole, or - for standard output. A name that ends with .gz or .zst means
    /// compressed. A device, a pipe or a link is written to as it is
    #[arg(long, short, default_value = "-", value_name = "FILE")]
    output: PathBuf,
}

impl Options {
    fn query(&self, calendar: &Calendar) -> Result<ExportQuery, String> {
        let time = |name: &str, text: &Option<String>, end| match text.as_deref() {
            None => Ok(None),
            Some(text) => {
                let at = moment(text, end, |day| calendar.day_start(day).saturating_mul(60_000));
                let at = at.map(|at_ms| Some(at_ms.clamp(0, TIME_MS_MAX)));
                at.ok_or_else(|| format!("--{name} `{text}` {MOMENT_FORMS}"))
            }
        };
        let event_type = self.event_type.as_deref().map(|name| {
            let known = EventType::from_name(name);
            known.ok_or_else(|| format!("--event-type `{name}` must be CLICK, PAGE_VIEW, SEARCH, LIKE or UNLIKE"))
        });
        let (from_ms, to_ms) = (time("from", &self.from, End::From)?, time("to", &self.to, End::To)?);
        if let (Some(from), Some(to)) = (from_ms, to_ms)
            && from > to
        {
            return Err("--from must not be later than --to".to_owned());
        }
        Ok(ExportQuery { event_type: event_type.transpose()?, from_ms, to_ms })
    }
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let calendar = Calendar::new(options.time_zone.clone());
    let query = options.query(&calendar).map_err(Failure::Usage)?;
    if options.bom && options.format != Format::Csv {
        return Err(Failure::Usage("--bom needs --format csv".to_owned()));
    }
    let stores = options.ledger.clone().check().map_err(Failure::Usage)?;
    let ledger = existing_ledger(&stores)?;
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", options.output.display()));
    let mut output = Output::open(&options.output).map_err(|error| failed(&error))?;
    let progress = Progress::start();
    output.write(&options.format.head(options.bom)).map_err(|error| failed(&error))?;
    let mut after = None;
    loop {
        let page = patiently(&*ledger, &query, after).map_err(|error| Failure::Failed(format!("ledger: {error}")))?;
        output.write(&options.format.lines(&page.events)).map_err(|error| failed(&error))?;
        progress.add(page.events.len());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    output.finish().map_err(|error| failed(&error))?;
    progress.end("exported");
    Ok(())
}

/// Reads a page, with a few tries if the ledger does not answer: the cursor names the exact place.
fn patiently(ledger: &dyn Ledger, query: &ExportQuery, after: Option<ExportCursor>) -> Result<ExportPage, StoreError> {
    let mut backoff = Backoff::new(RETRY_MS_MIN, RETRY_MS_MAX);
    for _ in 1..EXPORT_TRIES_MAX {
        match ledger.export(query, after) {
            Err(StoreError::Retry(_) | StoreError::Cancelled(_)) => std::thread::sleep(backoff.pause()),
            other => return other,
        }
    }
    ledger.export(query, after)
}
