//! What a check has found, a line each.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warn,
    Fail,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) about: &'static str,
    pub(super) message: String,
}

#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, level: Level, about: &'static str, message: impl Into<String>) {
        self.0.push(Finding { level, about, message: message.into() });
    }

    pub(super) fn ok(&mut self, about: &'static str, message: impl Into<String>) {
        self.add(Level::Ok, about, message);
    }

    pub(super) fn warn(&mut self, about: &'static str, message: impl Into<String>) {
        self.add(Level::Warn, about, message);
    }

    pub(super) fn fail(&mut self, about: &'static str, message: impl Into<String>) {
        self.add(Level::Fail, about, message);
    }

    /// Good where it holds, else `level` with what to do.
    pub(super) fn expect(
        &mut self,
        holds: bool,
        level: Level,
        about: &'static str,
        good: &str,
        bad: impl Into<String>,
    ) {
        if holds {
            self.ok(about, good);
        } else {
            self.add(level, about, bad);
        }
    }

    pub(super) fn failed(&self) -> usize {
        self.0.iter().filter(|finding| finding.level == Level::Fail).count()
    }
}
