//! What people see: a bar on a terminal, a line every few seconds elsewhere, and one at the end.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::account::{Figures, Stop};

/// Time between two lines of progress if there is no terminal for a bar.
const REPORT_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Progress {
    name: String,
    /// Keeps the bar, if there is one.
    stop: Arc<Stop>,
    /// Lines where there is no bar.
    with_lines: bool,
    size: Option<u64>,
    read: Arc<AtomicU64>,
    /// Rows that earlier runs have done.
    done_before: u64,
    began: Instant,
    reported_at: Instant,
}

impl Progress {
    /// `size` and `read` are bytes of the input as packed.
    pub(super) fn new(
        name: &str,
        size: Option<u64>,
        read: Arc<AtomicU64>,
        done_before: u64,
        is_quiet: bool,
        stop: &Arc<Stop>,
    ) -> Progress {
        let is_terminal = std::io::stderr().is_terminal();
        if is_terminal && !is_quiet && !stop.is_asked() {
            *stop.bar.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar(name, size));
        }
        let (with_lines, began) = (!is_terminal && !is_quiet, Instant::now());
        let (name, stop) = (name.to_owned(), stop.clone());
        Progress { name, stop, with_lines, size, read, done_before, began, reported_at: began }
    }

    pub(super) fn show(&mut self, figures: &Figures) {
        // Locked while it draws: a stop that has cleared the bar finds it cleared.
        if let Some(bar) = &*self.stop.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            bar.set_position(self.read.load(Ordering::Relaxed));
            bar.set_message(self.line(figures));
            bar.tick();
        } else if self.with_lines && self.reported_at.elapsed() >= REPORT_EVERY {
            self.reported_at = Instant::now();
            eprintln!("{}: {}{}", self.name, self.percent(), self.line(figures));
        }
    }

    /// Clears the bar and prints the result.
    pub(super) fn end(&self, how: &str, figures: &Figures) {
        self.stop.clear_bar();
        let Figures { accepted, refused, sent_again, .. } = figures;
        let done = figures.done();
        let rate = self.rate(done - self.done_before);
        let before = match self.done_before {
            0 => String::new(),
            before => format!(" ({} by an earlier run)", HumanCount(before)),
        };
        eprintln!(
            "{}: {how}: {} read{before}, {} accepted, {} refused{}, {} sent again, {:.1} s, {}/s",
            self.name,
            counted(done, "row", "rows"),
            HumanCount(*accepted),
            HumanCount(*refused),
            by_error(figures),
            counted(*sent_again, "batch", "batches"),
            self.began.elapsed().as_secs_f64(),
            counted(rate, "event", "events"),
        );
    }

    fn line(&self, figures: &Figures) -> String {
        let rate = self.rate(figures.done() - self.done_before);
        let mut line = format!(
            "{} done, {} refused, {} sent again, {}/s",
            counted(figures.done(), "row", "rows"),
            HumanCount(figures.refused),
            counted(figures.sent_again, "batch", "batches"),
            HumanCount(rate)
        );
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
}

/// `1 row`, `2,000 rows`.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", HumanCount(count), if count == 1 { one } else { many })
}

fn bar(name: &str, size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{prefix} {wide_bar} {percent} %, {eta} left\n{msg}"),
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
