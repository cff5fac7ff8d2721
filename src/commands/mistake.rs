//! A wrong setting in one line, which names the environment variable, and the flag if it was given as a flag.
//!
//! A setting comes from either. The parser knows flags only and the checks know variables only: both are named here.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::config::without_password;
use crate::logging::{Directives, LogFormat, last_words, start};

struct Setting {
    flag: String,
    variable: String,
    is_url: bool,
}

pub(super) struct Settings(Vec<Setting>);

impl Settings {
    pub(super) fn of(command: &clap::Command) -> Settings {
        let mut found = Vec::new();
        collect(command, &mut found);
        // Several commands take the same setting.
        found.sort_by(|one: &Setting, other| one.flag.cmp(&other.flag));
        found.dedup_by(|one, other| one.flag == other.flag);
        Settings(found)
    }

    /// Makes variables that hold only white space unset, and trims the others. Must run before any other thread.
    pub(super) fn tidy_environment(&self) {
        for Setting { variable, .. } in &self.0 {
            let Ok(value) = std::env::var(variable) else { continue };
            let trimmed = value.trim();
            if trimmed.is_empty() {
                // SAFETY: the process has one thread, so no other thread reads the environment.
                unsafe { std::env::remove_var(variable) };
            } else if trimmed != value {
                // SAFETY: as above.
                unsafe { std::env::set_var(variable, trimmed) };
            }
        }
    }

    /// An error of the parser in one line. Help and version are printed as they are, and end the program.
    pub(super) fn of_parser(&self, error: &clap::Error) -> String {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            error.exit();
        }
        if error.kind() == ErrorKind::InvalidUtf8 {
            let not_text =
                |setting: &&Setting| std::env::var_os(&setting.variable).is_some_and(|v| v.to_str().is_none());
            let named = self.0.iter().find(not_text).map_or("a flag", |setting| &setting.variable);
            return format!("{named} is not UTF-8 (--help tells more)");
        }
        let text = error.to_string();
        let sentences = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_usage(line));
        let line = sentences.filter(|line| !line.starts_with("For more")).collect::<Vec<_>>().join(" ");
        let mut line = line.trim_start_matches("error: ").to_owned();
        if error.kind() != ErrorKind::UnknownArgument
            && let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg)
        {
            let flag = argument.split([' ', '=', '[']).next().unwrap_or_default();
            if let Some(setting) = self.0.iter().find(|setting| setting.flag == flag) {
                line = line.replace(&format!("'{argument}'"), &setting.name());
            }
        }
        self.without_passwords(format!("{line} (--help tells more)"))
    }

    /// An error of a check in one line: it names variables, and a user who gave flags knows those.
    pub(super) fn of_check(&self, mut line: String) -> String {
        for setting in self.0.iter().filter(|setting| setting.is_given_as_flag()) {
            if let Some(end) = end_of_word(&line, &setting.variable) {
                line.insert_str(end, &format!(" ({})", setting.flag));
            }
        }
        self.without_passwords(line)
    }

    fn without_passwords(&self, mut line: String) -> String {
        let variables = self.0.iter().filter(|setting| setting.is_url).filter_map(|s| std::env::var(&s.variable).ok());
        let arguments = arguments().into_iter().map(|argument| match argument.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => value.to_owned(),
            _ => argument,
        });
        for value in variables.chain(arguments).filter(|value| value.contains("://")) {
            line = line.replace(&value, &without_password(&value));
        }
        line.replace(['\n', '\r'], " ")
    }
}

fn collect(command: &clap::Command, found: &mut Vec<Setting>) {
    for argument in command.get_arguments() {
        if let (Some(flag), Some(variable)) = (argument.get_long(), argument.get_env().and_then(|name| name.to_str())) {
            let is_url = variable.ends_with("_URL") || argument.is_hide_env_values_set();
            found.push(Setting { flag: format!("--{flag}"), variable: variable.to_owned(), is_url });
        }
    }
    command.get_subcommands().for_each(|command| collect(command, found));
}

impl Setting {
    fn is_given_as_flag(&self) -> bool {
        arguments().iter().any(|argument| argument.split('=').next() == Some(&self.flag))
    }

    fn name(&self) -> String {
        match self.is_given_as_flag() {
            true => format!("{} ({})", self.variable, self.flag),
            false => self.variable.clone(),
        }
    }
}

fn arguments() -> Vec<String> {
    std::env::args_os().skip(1).map(|argument: OsString| argument.to_string_lossy().into_owned()).collect()
}

/// Where the first occurrence of a whole word ends.
fn end_of_word(line: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).map(|(at, _)| (at, at + word.len())).find_map(|(start, end)| {
        let is_whole = !line[..start].ends_with(is_part) && !line[end..].starts_with(is_part);
        is_whole.then_some(end)
    })
}

fn is_usage(line: &str) -> bool {
    line.starts_with("Usage:") || line.starts_with("event-tracker ")
}

/// Says what is wrong, as JSON if that is how the log was asked for.
pub(super) fn report(line: &str) {
    let variable = std::env::var("LOG_FORMAT").unwrap_or_default();
    let arguments = arguments();
    let flag = arguments.iter().enumerate().find_map(|(at, argument)| match argument.as_str() {
        "--log-format" => arguments.get(at + 1).map(String::as_str),
        other => other.strip_prefix("--log-format="),
    });
    if flag.unwrap_or(&variable) == "json"
        && let Ok(errors) = "error".parse::<Directives>()
    {
        // Without a thread for the log, the line is plain text.
        let _ = start(errors, LogFormat::Json);
    }
    last_words(line);
}
