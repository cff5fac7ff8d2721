//! docs/settings.md is what `--help --all` says, as a table. `UPDATE_DOCS=1` writes it.

use std::fmt::Write;
use std::path::Path;

use crate::support::bench::Bench;

const HEAD: &str = "# Settings

Each setting is a flag and an environment variable of the same name; a flag wins. A variable that is empty or blank is
not set. Keys have no flag: `INGEST_KEYS`, `WRITE_KEYS`, `READ_KEYS` and `ADMIN_KEYS` hold them, separated by commas,
at least 16 characters each, or a file does (`…_KEYS_FILE`). This page is generated from `event-tracker --help --all`.
";

/// A setting: variable, default, description.
type Setting = (String, String, String);

fn settings(help: &str) -> Vec<Setting> {
    let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let entries = help.split("\n      --").skip(1);
    let setting = |entry: &str| {
        let (text, rest) = entry.split_once("[env: ")?;
        let (_, text) = text.split_once('\n')?;
        let name = rest.split(['=', ']']).next()?;
        let default = rest.split_once("[default: ").and_then(|(_, rest)| rest.split(']').next()).unwrap_or_default();
        let default = if default.is_empty() { String::new() } else { format!("`{}`", joined(default)) };
        let text = joined(text).replace(" Possible values: - ", ". ").replace(" - ", "; ").replace('|', "\\|");
        Some((name.to_owned(), default, text))
    };
    entries.filter_map(setting).collect()
}

fn table(page: &mut String, title: &str, settings: &[Setting]) {
    writeln!(page, "\n## {title}\n\n| variable | default | |\n|---|---|---|").expect("a string");
    for (name, default, text) in settings {
        writeln!(page, "| `{name}` | {default} | {text} |").expect("a string");
    }
}

#[test]
fn the_page_of_settings_is_what_help_says() {
    let bench = Bench::on(None, None);
    let [usual, all] = [&["--help"][..], &["--help", "--all"]].map(|help| settings(&bench.run(help).printed()));
    let others: Vec<Setting> = all.into_iter().filter(|setting| !usual.contains(setting)).collect();
    let mut page = HEAD.to_owned();
    table(&mut page, "Settings that operators need", &usual);
    table(&mut page, "Limits of the HTTP server", &others);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("writes the page");
    }
    let found = std::fs::read_to_string(&path).expect("the page");
    assert!(found == page, "docs/settings.md is not what --help says: run this test with UPDATE_DOCS=1");
}
