//! What people see: a bar on a terminal, a line every few seconds elsewhere, and one at the end.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::account::Figures;
use crate::limits::IMPORT_REPORT_MS;

/// How far an input is.
pub(super) struct Progress {
    name: String,
    bar: Option<ProgressBar>,
    /// Lines where there is no bar.
    with_lines: bool,
    size: Option<u64>,
    read: Arc<AtomicU64>,
    read_before: u64,
    /// Rows that earlier runs have done.
    done_before: u64,
    began: Instant,
    reported_at: Instant,
}

impl Progress {
    /// `size` and `read` are bytes of the input as packed.
    pub(super) fn new(name: &str, size: Option<u64>, read: Arc<AtomicU64>, done_before: u64, quiet: bool) -> Progress {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = (is_terminal && !quiet).then(|| bar(name, size));
        let read_before = read.load(Ordering::Relaxed);
        let (with_lines, began) = (!is_terminal && !quiet, Instant::now());
        let name = name.to_owned();
        Progress { name, bar, with_lines, size, read, read_before, done_before, began, reported_at: began }
    }

    /// Shows how far it is.
    pub(super) fn show(&mut self, figures: &Figures) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.read.load(Ordering::Relaxed));
            bar.set_message(self.line(figures));
            bar.tick();
        } else if self.with_lines && self.reported_at.elapsed() >= Duration::from_millis(IMPORT_REPORT_MS) {
            self.reported_at = Instant::now();
            eprintln!("{}: {}{}", self.name, self.percent(), self.line(figures));
        }
    }

    /// Ends the bar and tells what came of it.
    pub(super) fn end(&self, how: &str, figures: &Figures) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let Figures { done, accepted, refused, sent_again, .. } = figures;
        let now = done - self.done_before;
        let before = match self.done_before {
            0 => String::new(),
            before => format!(" ({} by an earlier run)", HumanCount(before)),
        };
        eprintln!(
            "{}: {how}: {} rows read{before}, {} accepted, {} refused{}, {} batches sent again, {:.1} s, {} events/s",
            self.name,
            HumanCount(*done),
            HumanCount(*accepted),
            HumanCount(*refused),
            by_error(figures),
            HumanCount(*sent_again),
            self.began.elapsed().as_secs_f64(),
            HumanCount(self.rate(now)),
        );
    }

    fn line(&self, figures: &Figures) -> String {
        let rate = self.rate(figures.done - self.done_before);
        let mut line = format!(
            "{} rows done, {} refused, {} batches sent again, {}/s",
            HumanCount(figures.done),
            HumanCount(figures.refused),
            HumanCount(figures.sent_again),
            HumanCount(rate)
        );
        if let Some(left) = self.time_left() {
            line.push_str(&format!(", {}:{:02} min left", left / 60, left % 60));
        }
        if let Some(trouble) = &figures.trouble {
            line.push_str(&format!("; trying again: {trouble}"));
        }
        line
    }

    fn rate(&self, rows: u64) -> u64 {
        (rows as f64 / self.began.elapsed().as_secs_f64().max(0.001)) as u64
    }

    fn percent(&self) -> String {
        let share = |size: u64| self.read.load(Ordering::Relaxed) * 100 / size.max(1);
        self.size.map_or(String::new(), |size| format!("{} %, ", share(size)))
    }

    /// Seconds, by the bytes that this run has read.
    fn time_left(&self) -> Option<u64> {
        let read = self.read.load(Ordering::Relaxed);
        let (now, left) = (read.checked_sub(self.read_before)?, self.size?.saturating_sub(read));
        (now > 0).then(|| (self.began.elapsed().as_secs_f64() * left as f64 / now as f64) as u64)
    }
}

fn bar(name: &str, size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{prefix} {wide_bar} {percent} %\n{msg}"),
        None => (ProgressBar::no_length(), "{prefix} {spinner} {bytes}\n{msg}"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_prefix(name.to_owned())
}

/// ` (missing_field 2, too_old 1)`
fn by_error(figures: &Figures) -> String {
    if figures.refused_by.is_empty() {
        return String::new();
    }
    let each: Vec<String> = figures.refused_by.iter().map(|(error, count)| format!("{error} {count}")).collect();
    format!(" ({})", each.join(", "))
}
